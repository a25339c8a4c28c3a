"""The way of who writes a task: `atcp plugin new`, `atcp plugin list`, `atcp run`."""

from __future__ import annotations

import configparser
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from federated.cli import main
from federated.cli.program import build_parser
from federated.cli.run import manifest_for
from federated.directory.signed import load_task_file
from federated.local import local_keys
from federated.registry import GROUP, Registry
from federated.trial import try_out
from p2p.peer_id import PeerId
from sim.cli.main import main as simulate

TASK = "unheard-of"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The last line on stdout."""
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install -e` does with a package of one module."""
    config = configparser.ConfigParser()
    config.read(folder / "setup.cfg", encoding="utf-8")
    [line] = config["options.entry_points"]["federated.plugins"].split("\n")[1:]
    name, _, value = line.partition(" = ")
    metadata = folder / f"{name}-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_new_package_trains_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugin", "new", TASK, "--json"]) == 0
    made = said(capsys)
    assert (made["name"], Path(made["folder"])) == (TASK, Path(f"atcp-{TASK}"))
    assert sorted(path.name for path in Path(made["folder"]).iterdir()) == sorted(made["files"])
    install(folder / made["folder"], monkeypatch)
    source = (folder / made["folder"] / "unheard_of.py").read_text()
    body = source[source.index("class ") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 16  # fifteen, and the class
    assert try_out(TASK, members=3, rounds=3)[-1]["accuracy"] > 0.8  # type: ignore[operator]
    assert main(["run", TASK, "--peers", "3", "--rounds", "2", "--json"]) == 0
    result = said(capsys)
    assert (result["event"], result["rounds"], result["digests_agree"]) == ("result", 2, True)
    assert result["accuracy"] > 0.8
    test = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", made["folder"]],
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert test.returncode == 0, test.stdout.decode()


def test_the_test_of_the_package_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["plugin", "new", "deaf-task"]) == 0
    module = folder / "atcp-deaf-task" / "deaf_task.py"
    module.write_text(module.read_text().replace("weight - 0.5 *", "weight - 0.0 *"))
    install(folder / "atcp-deaf-task", monkeypatch)
    test = importlib.import_module("test_deaf_task")
    with pytest.raises(AssertionError):
        test.test_four_members_learn_together()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Wine", "cannot be a plugin's name"),
        ("../wine", "cannot be a plugin's name"),
        ("wine_2", "cannot be a plugin's name"),
        ("a" * 65, "cannot be a plugin's name"),
        ("class", "there is a Python module class already"),
        ("numpy", "there is a Python module numpy already"),
        ("digits", "a plugin digits is installed already"),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    folder: Path, name: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugin", "new", name]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_a_folder_that_exists_stays_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "atcp-wines").mkdir()
    assert main(["plugin", "new", "wines"]) == 2
    assert "atcp-wines exists; choose another name" in capsys.readouterr().err
    (folder / "file").touch()
    assert main(["plugin", "new", "wines", "--into", "file"]) == 2
    assert "cannot write file/atcp-wines" in capsys.readouterr().err
    assert main(["plugin", "new", "wines", "--into", "deep/er"]) == 0
    assert "deep/er/atcp-wines" in capsys.readouterr().out


def test_the_plugins_are_listed_by_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugin", "list", "--json"]) == 0
    assert "numpy-mlp" in said(capsys)["trainer"]
    points = [
        EntryPoint("gone", "no_such_module:X", GROUP),
        EntryPoint("digits", "plugins.preprocessing.digits:Digits", GROUP),
    ]
    monkeypatch.setattr("federated.cli.plugin.Registry", lambda: Registry(installed=points))
    assert main(["plugin", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["preprocessor", "digits"]
    assert lines[1].startswith("broken ")


def test_the_digits_run_with_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--peers", "2", "--rounds", "2", "--set", "trainer.epochs=1", "--set", "trainer.hidden=[8]"]
    assert main(["run", *options]) == 0
    told = capsys.readouterr()
    assert "2 of 2 rounds trained and certified" in told.out
    assert "round 2: accuracy" in told.err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["nowhere"], "no preprocessor 'nowhere' is installed"),
        (["--trainer", "gone"], "no trainer 'gone' is installed"),
        (["--set", "trainer.epochs=0"], "setting epochs"),
        (["--set", "policy.quorum=2"], "policy.quorum"),
        (["--set", "epochs"], "write it like trainer.epochs=5"),
        (["--peers", "0"], "--peers"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(
    options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["run", *options])
    except SystemExit as exc:
        status = int(exc.code or 0)
    assert status == 2
    assert line in capsys.readouterr().err


def test_a_round_that_is_skipped_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    check = ["--set", "validator.max_norm=0.000001"]
    assert main(["run", "--peers", "2", "--rounds", "1", *check]) == 1
    assert "0 of 1 rounds" in capsys.readouterr().out


SMALL = ["--set", "trainer.epochs=1", "--set", "trainer.hidden=[8]"]


def test_a_budget_that_is_spent_ends_a_run_well(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"clip": "4.0", "noise": "4.0", "delta": "0.00001", "epsilon": "4.5"}  # three updates
    private = [text for name, value in settings.items() for text in ("--set", f"privacy.{name}={value}")]
    assert main(["run", "--peers", "2", "--rounds", "5", *SMALL, *private]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("3 of 5 rounds trained and certified")
    assert told.endswith("; the privacy budget is spent")
    assert main(["run", "--peers", "2", "--rounds", "3", *SMALL, *private, "--json"]) == 0
    assert said(capsys)["rounds"] == 3


def test_for_many_members_a_committee_certifies(capsys: pytest.CaptureFixture[str]) -> None:
    for peers, votes in ((16, range(11, 17)), (17, range(3, 5))):
        assert main(["run", "--peers", str(peers), "--rounds", "1", *SMALL, "--json"]) == 0
        reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        certificates = [report for report in reports if report["event"] == "certificate"]
        assert len(certificates) == peers
        assert all(report["votes"] in votes for report in certificates)


@pytest.mark.parametrize(
    ("options", "committee"),
    [
        (["--peers", "17"], 4),
        (["--peers", "17", "--rounds", "3", "--set", "sums.range=8", "--set", "sums.holders=5"], 64),
    ],
)
def test_who_votes_stands_in_the_manifest(options: list[str], committee: int) -> None:
    arguments = build_parser().parse_args(["run", *options])
    keys = local_keys(arguments.peers, arguments.seed)
    members = [PeerId.from_public_key(key.public) for key in keys]
    assert manifest_for(arguments, members).committee == committee


def test_ctrl_c_ends_a_run_without_a_traceback() -> None:
    command = [sys.executable, "-m", "federated.cli", "run", "--peers", "2", "--rounds", "10000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("round 1:"):
                break
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        assert "Traceback" not in process.stderr.read()


def test_the_task_of_the_tutorial_runs_in_all_ways(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "tutorial-task.md").read_text("utf-8")
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    body = example[example.index("class ") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 15
    for command in ("plugin new tumours", "run tumours", "demo --task tumours", "task create"):
        assert f"atcp {command}" in text
    assert main(["plugin", "new", "tumours"]) == 0
    (folder / "atcp-tumours" / "tumours.py").write_text(example)
    install(folder / "atcp-tumours", monkeypatch)
    importlib.import_module("test_tumours").test_four_members_learn_together()
    assert main(["run", "tumours", "--peers", "3", "--rounds", "2"]) == 0
    assert main(["demo", "--task", "tumours", "--peers", "2", "--rounds", "2", "--json"]) == 0
    assert said(capsys)["accuracy"] > 0.8
    options = ["--peers", "5", "--no-report", "--json"]
    assert simulate(["run", "digits", "--task", "tumours", *options]) == 0
    assert said(capsys)["figures"]["tumours_rounds"] == 10
    assert main(["task", "create", "--data-dir", "me", "--task", "tumours"]) == 0
    manifest, _ = load_task_file(Path("tumours.json"))
    assert (manifest.preprocessor.name, manifest.trainer.name) == ("tumours", "tumours")
    assert simulate(["run", "digits", "--task", "no-such-task", *options]) == 2
    assert main(["demo", "--task", "no-such-task"]) == 2
    assert main(["demo", "--task", "Tumours"]) == 2


def test_a_demo_of_a_task_with_a_mistake_ends_with_its_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugin", "new", "grapes"]) == 0
    file = folder / "atcp-grapes" / "grapes.py"
    file.write_text(file.read_text().replace("np.exp(x @ weight)", "np.exp(x @ wieght)"))
    install(folder / "atcp-grapes", monkeypatch)
    assert main(["demo", "--task", "grapes", "--peers", "2", "--rounds", "2", "--json"]) == 1
    told = capsys.readouterr().err
    assert "task 'grapes' failed: NameError: name 'wieght' is not defined" in told
    assert "(grapes.py, line " in told
    assert "Traceback" not in told
