"""The documentation is true, and each check of it finds a planted fault."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from federated.plugin import TrainContext
from tests.documentation import (
    PROGRAMS,
    ROOT,
    broken_links,
    documents,
    faults,
    missing_code,
    missing_paths,
    options_of,
    unknown_options,
    unknown_targets,
)

REFERENCE = ROOT / "docs" / "reference"
SOURCES = [path for room in ("p2p", "federated") for path in sorted((ROOT / room).rglob("*.py"))]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_document_names_exists(document: Path) -> None:
    assert faults(document) == []


def test_every_option_of_a_program_is_in_the_reference_and_no_other() -> None:
    text = read("docs/reference/cli.md")
    for heading, section in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL):
        documented = set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE))
        assert documented | {"--help"} == options_of(heading), heading
    for program in PROGRAMS:
        own_options = options_of(program) - {"--help"}
        assert (
            f"## {program}\n" in text or not own_options or program in ("atcp", "atcp task", "python -m sim")
        )


def test_every_event_is_in_the_reference() -> None:
    text = read("docs/reference/events.md")
    peer_side = [path for path in SOURCES if "demo" not in path.parts and "cli" not in path.parts]
    named = {
        name
        for path in peer_side
        for name in re.findall(r'(?:"event": |_head\(manifest, )"(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert named > {"listening", "closed", "task", "round"}
    assert not [name for name in sorted(named) if f"| `{name}` |" not in text]


def test_every_protocol_id_in_the_reference_is_spoken() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    ids = re.findall(r"`(/[a-z][\w/.-]*/\d+\.\d+\.\d+|/noise)`", read("docs/reference/protocols.md"))
    assert len(set(ids)) > 8
    assert not [protocol for protocol in ids if f'"{protocol}"' not in source]


def test_every_dependency_has_its_reason() -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"].split("\n")
    for extra in config["options.extras_require"].values():
        lines += extra.split("\n")
    names = {re.split(r"[<>=;\[ ]", line, maxsplit=1)[0] for line in lines} - {"", "atcp"}
    text = read("docs/reference/dependencies.md")
    assert not [name for name in sorted(names) if not re.search(rf"(?<![\w-]){name}(?![\w-])", text)]


def test_the_fields_of_a_manifest_are_in_the_reference() -> None:
    from federated.manifest import RoundPolicy, TaskManifest

    text = read("docs/reference/manifest.md")
    fields = [*TaskManifest.model_fields, *RoundPolicy.model_fields]
    assert not [name for name in fields if f"| `{name}` |" not in text]


def test_every_built_in_plugin_is_in_the_reference() -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    text = read("docs/reference/manifest.md")
    plugins = config["options.entry_points"]["federated.plugins"].strip().splitlines()
    for name, _, target in (line.partition("=") for line in plugins):
        assert re.search(rf"^\| `{name.strip()}` \|.*`{re.escape(target.strip())}`", text, re.MULTILINE), name


def test_the_manifest_in_the_reference_is_valid() -> None:
    from federated.manifest import parse_manifest

    [example] = re.findall(r"```json\n(.*?)```", read("docs/reference/manifest.md"), re.DOTALL)
    assert parse_manifest(example.encode()).rounds == 15


def test_the_trainer_in_the_how_to_has_fifteen_lines_and_learns() -> None:
    from federated.plugin import PeerContext
    from p2p.keys import KeyPair
    from p2p.peer_id import PeerId
    from plugins.preprocessing.digits import Digits

    example, remembering = re.findall(
        r"```python\n(.*?)```", read("docs/how-to/write-a-plugin.md"), re.DOTALL
    )
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    names: dict[str, object] = {}
    exec(compile(example, "write-a-plugin.md", "exec"), names)
    trainer = names["Softmax"](steps=100)  # type: ignore[operator]
    peer = PeerId.from_public_key(KeyPair.from_seed(bytes(32)).public)
    data = Digits().load(PeerContext(peer=peer, members=(peer,), index=0))
    context = TrainContext(round=1, seed=1, should_stop=lambda: False)
    weight = trainer.train(trainer.init(1), data.train, context).parameters["weight"]
    assert data.holdout is not None
    x, y = data.holdout
    assert np.mean((x @ weight).argmax(1) == y) > 0.9
    exec(compile(example + remembering, "write-a-plugin.md", "exec"), names)
    trainer = names["Softmax"](steps=1)  # type: ignore[operator]
    first = trainer.train(trainer.init(1), data.train, context)
    later = trainer.train(trainer.init(1), data.train, replace(context, round=2, state=first.state))
    assert later.state["speed"] == pytest.approx(1.9 * first.state["speed"])


def test_the_example_of_the_simulator_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(.*?)```", read("docs/how-to/simulate.md"), re.DOTALL)
    exec(compile(example, "simulate.md", "exec"), {})
    assert "delivered" in capsys.readouterr().out


# The checks find what is wrong


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    document = tmp_path / "x.md"
    document.write_text("[a](https://example.org) [b](y.md#part) [c](x.md)")
    assert list(broken_links(document)) == ["no file behind the link y.md#part"]


def test_a_path_to_nothing_is_found() -> None:
    assert list(missing_paths("`p2p/host.py` `p2p/hosts.py` `setup.cfg` `tox.cfg` `GET /p2p/x`")) == [
        "no file p2p/hosts.py",
        "no file tox.cfg",
    ]


def test_a_function_that_does_not_exist_is_found() -> None:
    text = "`p2p.host:open_host` `p2p.host:Host.connect` `p2p.host:Host.nothing` `p2p.hosts:open_host` `a:b`"
    assert list(missing_code(text)) == ["no p2p.host:Host.nothing", "no p2p.hosts:open_host"]


def test_a_class_that_needs_an_optional_package_exists_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "plugins.training.torch_mlp", raising=False)
    text = "`plugins.training.torch_mlp:TorchMLP` `plugins.training.torch_mlp:Nothing`"
    assert list(missing_code(text)) == ["no plugins.training.torch_mlp:Nothing"]


@pytest.mark.parametrize(
    "text",
    [
        "`python -m p2p.peer --nothing`",
        "```sh\npython -m p2p.peer --json \\\n  --nothing\n```",
        "so:\n\n    python -m p2p.peer --json --nothing | sort --reverse\n",
    ],
)
def test_an_option_that_does_not_exist_is_found(text: str) -> None:
    assert list(unknown_options(text)) == ["python -m p2p.peer has no --nothing"]


def test_a_target_that_does_not_exist_is_found() -> None:
    text = "`make test` `make nothing` `tox -e lint` `tox -e lint,nobody` and we make progress"
    assert list(unknown_targets(text)) == ["no target nothing of make", "no environment nobody of tox"]


def test_the_program_in_the_guide_to_the_overlay_runs() -> None:
    program = read("docs/how-to/use-the-overlay.md").partition("```python\n")[2].partition("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=150, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("b'hello, world'\n", "")
