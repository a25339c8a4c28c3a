"""`replay` and `report`: a folder, once more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.engine.jobs import encode_job
from sim.scenario.library import load
from tests.sim.cli.support import HOPELESS, call, lines, write


@pytest.fixture
def folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """What a run has left."""
    words = ("run", write(tmp_path), "--out", str(tmp_path / "runs"), "--json")
    return Path(lines(call(capfd, *words)[1])[-1]["report"])


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def test_the_same_run_is_status_0(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trace = json.loads((folder / "result.json").read_text())["trace_hash"]
    assert call(capfd, "replay", str(folder)) == (0, f"trace {trace}: the same as before\n", "")
    status, out, err = call(capfd, "replay", str(folder), "--json")
    *steps, result = lines(out)
    assert (status, err, steps[0]["event"], result["event"]) == (0, "", "step", "result")
    assert (result["trace_hash"], result["trace_hash_before"], result["same"]) == (trace, trace, True)


def test_a_run_that_was_changed_is_status_1(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(folder / "run.json", lambda run: run["scenario"]["gossip"][0].update(rate=6.0))
    status, out, err = call(capfd, "replay", str(folder))
    assert status == 1
    assert ": it was " in out
    assert err == "sim: another trace than before\n"


def test_a_trace_of_other_versions_is_told_with_them(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(folder / "run.json", lambda run: run["versions"].update(trio="0.1"))
    change(folder / "result.json", lambda result: result.update(trace_hash="00"))
    status, _, err = call(capfd, "replay", str(folder))
    assert status == 1
    assert err.startswith("sim: another trace than before, with trio 0.")
    assert err.endswith(" instead of 0.1\n")


def test_a_trace_of_who_knows_what_is_only_another(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(folder / "run.json", lambda run: run.pop("versions"))
    change(folder / "result.json", lambda result: result.pop("trace_hash"))
    assert call(capfd, "replay", str(folder))[::2] == (1, "sim: another trace than before\n")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: path.write_text(path.read_text()[:99]), "is no JSON file"),
    "not text": (lambda path: path.write_bytes(b"\xff\xfe"), "is no JSON file"),
    "a list": (lambda path: path.write_text("[]"), "describes no run"),
    "no seed": (lambda path: change(path, lambda run: run.pop("seed")), "of this version: it has no 'seed'"),
    "no number": (lambda path: change(path, lambda run: run.update(seed="x")), "invalid literal"),
    "another version": (
        lambda path: change(path, lambda run: run["scenario"].update(weather=1)),
        "describes no run of this version: scenario.weather: Extra inputs are not permitted",
    ),
    "gone": (lambda path: path.unlink(), "cannot read"),
    "too large": (lambda path: path.write_text(" " * (17 << 20)), "is over 16777216 bytes"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_one_line_and_status_2(
    folder: Path, capfd: pytest.CaptureFixture[str], damage: Callable[[Path], object], message: str
) -> None:
    damage(folder / "run.json")
    status, out, err = call(capfd, "replay", str(folder))
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("text", "status"), [("", 0), (HOPELESS, 1)])
def test_a_plan_holds_or_does_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, status: int
) -> None:
    plan = tmp_path / "seed-3.json"
    plan.write_text(encode_job(load(write(tmp_path, text) if text else write(tmp_path)), 3))
    ended, out, err = call(capfd, "replay", str(plan), "--json")
    result = lines(out)[-1]
    assert (ended, result["seed"], result["passed"]) == (status, 3, status == 0)
    assert (f"repeat with: python -m sim replay {plan}" in err) == (status == 1)


def test_a_report_is_drawn_anew(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (folder / "index.html").read_text()
    (folder / "index.html").unlink()
    status, out, err = call(capfd, "report", str(folder))
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "small: 6 peers, seed 1, rung cores: passed"
    assert (folder / "index.html").read_text() == before
    status, out, _ = call(capfd, "report", str(folder), "--json")
    assert (status, lines(out)) == (0, [json.loads((folder / "result.json").read_text())])


def test_a_report_without_plots_says_how_to_get_them(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.report.folder.available", lambda: False)
    assert "atcp[plots]" in call(capfd, "report", str(folder))[2]
    words = ("run", str(folder.parent.parent / "small.toml"), "--out", str(folder.parent))
    assert "atcp[plots]" in call(capfd, *words)[2]


def test_a_folder_that_is_none_is_one_line_and_status_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, "report", str(tmp_path))
    assert (status, out) == (2, "")
    assert "is not the folder of a run" in err
