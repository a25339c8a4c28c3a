"""`run`: what it prints, what it leaves, and how it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import sim.run
from sim.heap import SimulationError
from tests.sim.cli.support import ENDLESS, HOPELESS, SMALL, call, lines, spawn, write

RESULT = {
    *("trace_hash", "peers", "virtual_seconds", "wall_seconds", "rss_bytes", "assertions", "report"),
    *("event", "scenario", "rung", "seed", "events", "results_hash", "figures", "passed"),
}


def test_a_run_leaves_one_folder_and_ends_with_its_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, "run", write(tmp_path), "--out", str(tmp_path / "runs"))
    [folder] = (tmp_path / "runs").iterdir()
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "small: 6 peers, seed 1, rung cores: passed"
    assert out.splitlines()[-1] == f"  report   {folder}"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"run.json", "result.json", "metrics.json", "trace", "index.html"}
    run = json.loads((folder / "run.json").read_text())
    assert run["command"] == f"python -m sim run {tmp_path}/small.toml --seed 1 --peers 6 --rung cores"
    assert (folder / "trace").stat().st_size > 1000


def test_with_json_every_line_is_an_object_and_the_last_is_the_result(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("run", write(tmp_path), "--json", "--out", str(tmp_path / "runs"), "--peers", "5", "--seed", "9")
    status, out, err = call(capfd, *words)
    *steps, result = lines(out)
    assert (status, err) == (0, "")
    assert [step["event"] for step in steps] == ["step"] * 11
    assert steps[-1]["virtual_seconds"] == steps[-1]["planned_seconds"] == 11.0
    assert set(result) > RESULT
    assert (result["event"], result["peers"], result["seed"], result["passed"]) == ("result", 5, 9, True)
    assert len(result["trace_hash"]) == 64
    assert Path(result["report"]).is_dir()
    assert result == json.loads((Path(result["report"]) / "result.json").read_text())


def test_no_report_writes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    status, out, _ = call(capfd, "run", path, "--no-report", "--json")
    assert (status, lines(out)[-1]["report"]) == (0, None)
    assert [one.name for one in tmp_path.iterdir()] == ["small.toml"]


def test_a_check_that_fails_is_status_1_and_the_command_that_repeats_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, HOPELESS, "hope less.toml")
    status, out, err = call(capfd, "run", path, "--no-report")
    assert status == 1
    assert "rung cores: FAILED" in out
    command = f"python -m sim run '{path}' --seed 1 --peers 6 --rung cores"
    assert err == f"sim: it did not hold; repeat with: {command}\n"


def test_the_trace_is_the_same_in_processes_with_other_hashes_and_another_with_another_seed(
    tmp_path: Path,
) -> None:
    path = write(tmp_path)
    words = ("run", path, "--json", "--no-report", "--seed")
    results = []
    for seed, hash_seed in (("1", "1"), ("1", "2"), ("2", "1")):
        with spawn(tmp_path, *words, seed, PYTHONHASHSEED=hash_seed) as run:
            results.append(lines(run.communicate(timeout=150)[0])[-1])
        assert run.returncode == 0
    one, again, other = (result["trace_hash"] for result in results)
    assert one == again != other


@pytest.mark.parametrize("as_json", [True, False])
def test_a_run_that_is_stuck_says_so_and_is_repeatable(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    def stuck(*_: Any) -> None:
        raise SimulationError("deadlock: 3 x node: waits")

    monkeypatch.setattr(sim.run, "make_rung", stuck)
    words = ["run", write(tmp_path), "--out", str(tmp_path / "runs"), *(["--json"] if as_json else [])]
    status, out, err = call(capfd, *words)
    assert status == 1
    assert err.splitlines()[0] == "sim: deadlock: 3 x node: waits"
    assert "repeat with: python -m sim run" in err
    assert list((tmp_path / "runs").iterdir()) == []
    if as_json:
        [result] = lines(out)
        assert set(result) >= RESULT
        assert (result["passed"], result["report"], result["peers"]) == (False, None, 6)
        assert result["error"] == result["assertions"][0]["seen"] == "deadlock: 3 x node: waits"
    else:
        assert out == ""


BAD = {
    "no scenario": (["run", "gosip"], "did you mean 'gossip'?"),
    "no TOML": (["run", "bad.toml"], "scenario bad.toml: not TOML"),
    "no such field": (["run", "field.toml"], "field.toml: topology.degre: there is no such setting"),
    "no such role": (["run", "role.toml"], "there is no role 'nobody'"),
    "no such file": (["run", "nowhere.toml"], "cannot read scenario nowhere.toml: No such file"),
    "a folder": (["run", "./"], "cannot read scenario ."),
    "no peers": (["run", "small.toml", "--peers", "0"], "--peers: '0' is not a number from 1 to 20000"),
    "no seed": (["run", "small.toml", "--seed", "x"], "--seed: 'x' is not a number from 0 to"),
    "no rung": (["run", "small.toml", "--rung", "none"], "--rung: invalid choice"),
    "a file in the way": (
        ["run", "small.toml", "--out", "bad.toml"],
        "make the folder bad.toml/small",
    ),
    "no sizes": (["scale", "small.toml", "--peers", "3,,5"], "--peers: '' is not a number"),
    "no size": (["scale", "small.toml", "--peers", "0"], "--peers: '0' is not a number"),
    "no such command": (["rum"], "invalid choice: 'rum'"),
    "nothing": ([], "the following arguments are required: COMMAND"),
    "no path": (["replay"], "the following arguments are required: PATH"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_unusable_input_is_one_line_and_status_2(
    words: list[str],
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path)
    write(tmp_path, "name = ", "bad.toml")
    write(tmp_path, SMALL.replace("degree", "degre"), "field.toml")
    write(tmp_path, SMALL + '[[adversaries]]\nrole = "nobody"\nwho = { count = 1 }\n', "role.toml")
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capfd, *words)
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("sim: ")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("sim-runs/*"))


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("rung", ["cores", "light"])
def test_a_signal_ends_a_run_at_once_and_leaves_nothing_unfinished(
    tmp_path: Path, number: signal.Signals, status: int, word: str, rung: str
) -> None:
    path = write(tmp_path, ENDLESS)
    with spawn(tmp_path, "run", path, "--json", "--rung", rung, "--out", "runs") as run:
        assert run.stdout is not None
        for _ in range(3):
            assert json.loads(run.stdout.readline())["event"] == "step"
        run.send_signal(number)
        _, err = run.communicate(timeout=150)
    assert (run.returncode, err) == (status, f"sim: {word}\n")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("as_json", [True, False])
def test_whoever_stops_reading_ends_the_run_without_a_word(tmp_path: Path, as_json: bool) -> None:
    path = write(tmp_path, ENDLESS if as_json else SMALL)
    with spawn(tmp_path, "run", path, "--no-report", *(["--json"] if as_json else [])) as run:
        assert run.stdout is not None
        if as_json:
            run.stdout.readline()
        run.stdout.close()
        assert run.stderr is not None
        assert run.stderr.read() == ""
        assert run.wait(30) == 0
