# Needs Python 3.11 or newer and make; everything else is installed into .venv, once.
# Paths are relative, so the folder's name may contain spaces.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.NOTPARALLEL:
.PHONY: help demo test coverage bench lint proto clean
.DEFAULT_GOAL := help

help: ## show these lines
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1	\2/p' Makefile

demo: $(VENV)/.installed-demo ## six peers on this machine train a model together, with no server
	$(VENV)/bin/atcp demo

test: $(VENV)/.installed-demo,test ## the tests, on all cores
	$(RUN) -m pytest --numprocesses auto

coverage: $(VENV)/.installed-demo,test ## the tests, and which lines and branches they reach; takes three times as long
	$(RUN) -m coverage erase
	$(RUN) -m pytest --numprocesses auto --cov --cov-report=term

bench: $(VENV)/.installed-test ## how fast the wire is, beside this machine's limits and other libp2p nodes
	$(RUN) -m tests.benchmarks $(BENCH)

lint: $(VENV)/.installed-dev ## style, types and the direction of the imports
	$(VENV)/bin/tox run -e lint,types,layers

proto: $(VENV)/.installed-proto ## the generated protobuf modules, again
	find p2p federated sim -name '*.proto' -exec $(RUN) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. {} +

clean: ## remove the environment and everything that was built or measured
	rm -rf $(VENV) .tox build dist *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find p2p federated plugins sim tests docs -name __pycache__ -exec rm -rf {} +

# One stamp for each set of extras; a new setup.cfg or constraints.txt installs again.
$(VENV)/.installed-%: setup.cfg pyproject.toml constraints.txt | $(RUN)
	@echo "installing atcp[$*] into $(VENV): once, a few minutes"
	$(INSTALL) --editable ".[$*]"
	@touch $@

$(RUN):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("atcp needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
