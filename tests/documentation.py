"""What the documentation says about files, functions and options, held against what there is.

Checked are: links, paths in backquotes (`p2p/host.py`), code in backquotes (`p2p.host:open_host`), the
options of our programs, `make` targets and `tox -e` environments. Each check returns one line a fault.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP_FOLDERS = ("p2p", "federated", "plugins", "sim", "tests", "docs", ".ci")

PROGRAMS = {  # as the documentation writes them → the module with their `main`, and its first arguments
    "python -m p2p.peer": ["p2p.peer"],
    **{
        f"python -m sim {command}": ["sim.cli.main", command]
        for command in ("run", "scale", "fuzz", "replay", "report", "list")
    },
    "python -m sim": ["sim.cli.main"],
    "atcp demo": ["federated.cli", "demo"],
    "atcp identity": ["federated.cli", "identity"],
    **{
        f"atcp task {command}": ["federated.cli", "task", command]
        for command in ("create", "invite", "list", "join", "status", "leave", "export", "verify")
    },
    "atcp run": ["federated.cli", "run"],
    "atcp plugin new": ["federated.cli", "plugin", "new"],
    "atcp plugin list": ["federated.cli", "plugin", "list"],
    "atcp task metrics": ["federated.cli", "task", "metrics"],
    "atcp task audit": ["federated.cli", "task", "audit"],
    "atcp task": ["federated.cli", "task"],
    "atcp": ["federated.cli"],
}

_SPAN = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^|\n\n)((?: {4,}[^\n]+\n?)+)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^([a-z_][\w]*(?:\.[a-z_]\w*)*):([A-Za-z_]\w*(?:\.\w+)*)$")
_PATH = re.compile(rf"^(?:{'|'.join(re.escape(folder) for folder in TOP_FOLDERS)})/[\w./-]*$")
_ROOT_FILE = re.compile(r"^(?:[\w.-]+\.(?:md|cfg|toml|ini|txt)|Makefile|LICENSE)$")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_MAKE = re.compile(r"\bmake ((?:[a-z]+ ?)+)")
_TOX = re.compile(r"\btox (?:run )?-e ([\w,]+)")


def documents(root: Path = ROOT) -> list[Path]:
    """Every Markdown file of the project."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md")])


def code_of(text: str) -> list[str]:
    """The pieces of code in a document: blocks, fenced or indented, and what stands in backquotes."""
    fences = _FENCE.findall(text)
    prose = _FENCE.sub("", text)
    return [*fences, *_INDENTED.findall(prose), *_SPAN.findall(prose)]


def broken_links(document: Path) -> Iterator[str]:
    """Links to files that do not exist."""
    for target in _LINK.findall(document.read_text(encoding="utf-8")):
        if "://" not in target and not (document.parent / target.partition("#")[0]).exists():
            yield f"no file behind the link {target}"


def missing_paths(text: str, root: Path = ROOT) -> Iterator[str]:
    """Paths in backquotes that do not exist."""
    for span in _SPAN.findall(_FENCE.sub("", text)):
        if (_PATH.match(span) or _ROOT_FILE.match(span)) and not (root / span).exists():
            yield f"no file {span}"


def missing_code(text: str) -> Iterator[str]:
    """`module:name` in backquotes that cannot be imported."""
    for span in _SPAN.findall(_FENCE.sub("", text)):
        if (match := _CODE.match(span)) and match[1].partition(".")[0] in TOP_FOLDERS:
            try:
                found = importlib.import_module(match[1])
                for name in match[2].split("."):
                    found = getattr(found, name)
            except (ImportError, AttributeError) as exc:
                if not _needs_another_package(exc, match[1], match[2]):
                    yield f"no {span}"


def _needs_another_package(error: Exception, module: str, name: str) -> bool:
    """Whether a module that has `name` is only missing an optional package, as torch is on some machines."""
    if not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] in TOP_FOLDERS:
        return False
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    return re.search(rf"^(?:class|def) {name}\b", source, re.MULTILINE) is not None


@cache
def options_of(program: str) -> frozenset[str]:
    """The options that a program's --help names."""
    module, *words = PROGRAMS[program]
    help_text = io.StringIO()
    with redirect_stdout(help_text), suppress(SystemExit):
        importlib.import_module(module).main([*words, "--help"])
    assert help_text.getvalue(), f"{program} does not explain itself"
    return frozenset(_OPTION.findall(help_text.getvalue()))


def unknown_options(text: str) -> Iterator[str]:
    """Options of our programs that they do not have."""
    for piece in code_of(text):
        for line in piece.replace("\\\n", " ").splitlines():
            program = next(
                (name for name in PROGRAMS if re.search(rf"(?<!\w){re.escape(name)}\b", line)), None
            )
            if program is not None:
                command = line[line.index(program) :].partition("|")[0]
                for option in sorted(set(_OPTION.findall(command)) - options_of(program)):
                    yield f"{program} has no {option}"


def unknown_targets(text: str, root: Path = ROOT) -> Iterator[str]:
    """Targets of make and environments of tox that do not exist."""
    targets = re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    tox = (root / "tox.ini").read_text(encoding="utf-8")
    environments = {*re.findall(r"^\[testenv:(\w+)\]", tox, re.MULTILINE), "py311", "py312", "py313"}
    for piece in code_of(text):
        for words in _MAKE.findall(piece):
            yield from (f"no target {word} of make" for word in words.split() if word not in targets)
        for names in _TOX.findall(piece):
            yield from (
                f"no environment {name} of tox" for name in names.split(",") if name not in environments
            )


def faults(document: Path) -> list[str]:
    """Everything in `document` that is not true."""
    text = document.read_text(encoding="utf-8")
    found = [
        *broken_links(document),
        *missing_paths(text),
        *missing_code(text),
        *unknown_options(text),
        *unknown_targets(text),
    ]
    return [f"{document.name}: {fault}" for fault in found]
