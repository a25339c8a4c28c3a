"""`python -m sim`: what it prints, its exit status, and that a run repeats in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from sim import __main__ as cli
from sim.report import Check, Result

TASK = ["run", "rounds", "--peers", "5", "--rounds", "3", "--seed", "3"]
SMALL = ["run", "gossip", "--peers", "10", "--seed", "3", "--rate", "2", "--seconds", "2"]


def run_in_process(words: list[str], hash_seed: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "sim", *words],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


@pytest.mark.parametrize(
    "words",
    [
        [*SMALL, "--latency-ms", "0"],
        [*SMALL, "--loss", "0.2", "--partition", "6:1"],
        [*TASK, "--latency-ms", "0", "--crash", "2"],
    ],
)
def test_a_seed_gives_the_same_trace_in_every_process(words: list[str]) -> None:
    one, other = (run_in_process([*words, "--json"], hash_seed) for hash_seed in ("1", "2"))
    assert one["trace_hash"] == other["trace_hash"]
    del one["wall_seconds"], other["wall_seconds"]
    assert one == other


def test_json_ends_with_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SMALL, "--json"]) == 0
    *steps, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {step["event"] for step in steps} == {"step"}
    assert last["event"] == "result"
    assert (last["scenario"], last["peers"], last["seed"], last["passed"]) == ("gossip", 10, 3, True)
    assert len(last["trace_hash"]) == 64
    assert last["virtual_seconds"] > 0
    assert last["wall_seconds"] > 0
    assert all(check["holds"] for check in last["assertions"])


def test_the_table_tells_people_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(SMALL) == 0
    out = capsys.readouterr().out
    assert out.startswith("gossip: 10 peers, seed 3\n")
    assert "ok     every message reaches every peer: 36 of 36 deliveries" in out


def test_a_failed_check_is_exit_status_1_and_says_how_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Result(
        scenario="gossip",
        seed=3,
        peers=10,
        virtual_seconds=1.0,
        events=0,
        trace_hash="",
        figures={"messages": 3, "latency_ms": 1.5, "note": "x"},
        checks=[Check(name="all is well", holds=False, seen="it is not")],
    )
    monkeypatch.setattr(cli, "_run", lambda arguments, step: failed)
    assert cli.main(SMALL) == 1
    captured = capsys.readouterr()
    assert "FAILED all is well: it is not" in captured.out
    assert captured.err.endswith(f"python -m sim {' '.join(SMALL)}\n")


def test_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(cli.SCENARIOS)


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["run", "gossip", "--help"], ["run", "rounds", "--help"]]
)
def test_help_is_exit_status_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--help"])
    assert caught.value.code == 0
    assert "usage: python -m sim" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["run"],
        ["run", "nothing"],
        ["run", "gossip", "--peers", "1"],
        ["run", "gossip", "--peers", "many"],
        ["run", "gossip", "--rate", "nan"],
        ["run", "gossip", "--loss", "1"],
        ["run", "gossip", "--seed", "-1"],
        ["run", "gossip", "--partition", "6"],
        ["run", "gossip", "--partition", "6:0"],
        ["run", "gossip", "--peer", "5"],
        ["run", "rounds", "--peers", "65"],
        ["run", "rounds", "--rounds", "0"],
        ["run", "rounds", "--crash", "-1"],
    ],
)
def test_unusable_arguments_are_one_line_and_exit_status_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sim: ")
    assert captured.err.count("\n") == 1
