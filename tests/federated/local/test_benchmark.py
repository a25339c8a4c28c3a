"""What `tests.benchmarks.rounds` takes for a round, and what it says where it cannot run."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import pytest

from federated.registry import Registry
from tests.benchmarks import rounds
from tests.benchmarks.rounds import SETTLING, TASK, Clock, Times, installed, main, row


def test_a_round_is_over_when_all_members_have_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, now = Clock(2), [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.process_time", lambda: now[0] / 2)
    for number in range(1, SETTLING + 3):
        for peer in ("one", "other"):
            now[0] += number
            clock.tell(peer, {"event": "phase", "round": number})
            clock.tell(peer, {"event": "round", "round": number, "accuracy": number / 10})
    assert clock.rounds() == [Times(2.0 * number, number) for number in (SETTLING + 1, SETTLING + 2)]
    assert clock.accuracy == (SETTLING + 2) / 10


def test_what_is_beyond_the_loop_is_the_difference_of_the_medians() -> None:
    mine = [Times(0.5, 0.25), Times(9.0, 9.0), Times(0.25, 0.125)]
    found = row("few", "all", mine, [Times(0.125, 0.0625)])
    assert (found["beyond_ms"], found["beyond_processor_ms"], found["rounds"]) == (375.0, 187.5, 3)


def test_the_task_is_installed_for_as_long_as_it_is_measured() -> None:
    before = [*sys.path], os.environ.get("PYTHONPATH")
    with installed():
        assert TASK in Registry().names()
    assert TASK not in Registry().names()
    assert ([*sys.path], os.environ.get("PYTHONPATH")) == before


def test_without_torch_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "torch" else find_spec(name)

    monkeypatch.setattr(rounds.importlib.util, "find_spec", find)
    assert main([]) == 2
    assert capsys.readouterr().err == "rounds: needs the package 'torch', which is not installed\n"
