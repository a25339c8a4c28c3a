"""One run, from the seed to the outcome."""

from __future__ import annotations

from typing import Any

import pytest

import sim.run
from p2p.errors import InvalidInput
from sim.heap import SimulationError
from sim.run import MAX_SEED, Outcome, Progress, simulate
from sim.rung import Setup
from sim.scenario.model import Scenario
from tests.sim.doubles import FakeRung


def scenario(**parts: Any) -> Scenario:
    return Scenario.model_validate({"name": "test", "peers": 10, "rung": "cores", **parts})


class TellingRung(FakeRung):
    """A fake that tells the observer of what it was asked: puts and gets end at once, tasks after 30 s."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.heap, len(setup.keys))
        self.setup, self.values = setup, dict[bytes, bytes]()

    def start(self, node: int) -> None:
        super().start(node)
        self.setup.observer.started(node)

    def put(self, node: int, key: bytes, value: bytes, operation: int) -> None:
        self.values[key] = value
        self._end(node, operation, "put", b"")

    def get(self, node: int, key: bytes, operation: int) -> None:
        self._end(node, operation, "get", self.values[key])

    def find(self, node: int, target: int, operation: int) -> None:
        self._end(node, operation, "find", b"")

    def join_task(self, node: int, name: str) -> None:
        self.heap.plan(self.heap.now + 30, self.setup.observer.finished_task, node, name)

    def run(self) -> None:
        super().run()
        self.running = [False] * len(self.running)  # as a rung that tears everything down

    def _end(self, node: int, operation: int, kind: str, result: bytes) -> None:
        self.setup.observer.looked_up(node, operation, kind=kind, ok=True, seconds=0.1, hops=1, result=result)


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.run, "make_rung", TellingRung)


def failed(outcome: Outcome) -> list[str]:
    return [f"{check.name}: {check.seen}" for check in outcome.checks if not check.holds]


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    load = scenario(gossip=[{"seconds": 3}], settle=4)
    one, again, other = simulate(load, 1), simulate(load, 1), simulate(load, 2)
    assert one.trace_hash == again.trace_hash != other.trace_hash
    assert one.results_hash == again.results_hash
    assert one.figures == again.figures
    assert (one.holds, failed(one)) == (True, [])
    assert (one.peers, one.rung, one.seed, one.virtual_seconds) == (10, "cores", 1, 12.0)
    assert one.events > 1000
    assert one.figures["running_at_end"] == 10


def test_progress_is_told_every_virtual_second_up_to_the_end() -> None:
    told: list[Progress] = []
    simulate(scenario(topology={"over": 1}, settle=3.5), 1, progress=told.append)
    assert [one.virtual_seconds for one in told] == [1, 2, 3, 4, 4.5]
    assert {one.planned_seconds for one in told} == {4.5}


@pytest.mark.usefixtures("telling")
def test_values_that_were_put_are_asked_for_and_judged() -> None:
    outcome = simulate(scenario(dht=[{"puts": 3, "gets": 3, "seconds": 20}]), 1)
    assert failed(outcome) == []
    assert any("gets in calm" in check.name for check in outcome.checks)


@pytest.mark.usefixtures("telling")
def test_a_run_goes_on_until_its_task_is_done() -> None:
    outcome = simulate(scenario(task=[{"members": 4, "start": 5}], settle=10, checks={"rounds": True}), 1)
    assert 45 <= outcome.virtual_seconds <= 47
    assert failed(outcome) == []
    assert outcome.figures["running_at_end"] == 10  # seen before everything was torn down


@pytest.mark.usefixtures("telling")
def test_what_was_wrong_is_in_the_outcome() -> None:
    outcome = simulate(scenario(faults=[{"kind": "hold", "at": 3, "seconds": 2, "who": {"count": 1}}]), 1)
    assert [(one.begin, one.what) for one in outcome.trouble] == [(0.0, "coming"), (3.0, "hold")]


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_beyond_its_bounds_is_refused(seed: int) -> None:
    with pytest.raises(InvalidInput, match="the seed"):
        simulate(scenario(), seed)


def test_a_task_that_cannot_be_is_refused_before_anything_runs() -> None:
    with pytest.raises(InvalidInput, match="task digits: name"):
        simulate(scenario(task=[{"trainer": "?"}]), 1)


def test_a_run_that_is_stuck_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.heap.MAX_AT_ONE_INSTANT", 1000)

    class Stuck(TellingRung):
        def start(self, node: int) -> None:
            self.heap.plan(self.heap.now, self.start, node)

    monkeypatch.setattr(sim.run, "make_rung", Stuck)
    with pytest.raises(SimulationError, match="livelock"):
        simulate(scenario(), 1)
