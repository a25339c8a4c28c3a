"""Virtual time."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim.heap
from sim.heap import EventHeap, SimulationError


@given(st.lists(st.integers(0, 5)))
def test_events_run_by_time_and_ties_in_the_order_of_planning(times: list[int]) -> None:
    heap = EventHeap()
    ran: list[tuple[int, int]] = []
    for index, at in enumerate(times):
        heap.plan(at, partial(ran.append, (at, index)))
    heap.run(10)
    assert ran == sorted((at, index) for index, at in enumerate(times))
    assert heap.events == len(times)


def test_time_is_that_of_the_event_and_then_the_limit() -> None:
    heap = EventHeap()
    seen: list[float] = []
    heap.plan(1.5, lambda: seen.append(heap.now))
    heap.run(4.0)
    assert seen == [1.5]
    assert heap.now == 4.0


def test_an_event_beyond_the_limit_waits_for_the_next_run() -> None:
    heap = EventHeap()
    seen: list[float] = []
    heap.plan(2.0, lambda: seen.append(heap.now))
    heap.run(1.0)
    assert not seen
    assert not heap.idle
    heap.run(2.0)
    assert seen == [2.0]
    assert heap.idle


def test_an_event_may_plan_another_for_the_same_instant() -> None:
    heap = EventHeap()
    seen: list[str] = []
    heap.plan(1.0, lambda: heap.plan(heap.now, lambda: seen.append("second")))
    heap.run(1.0)
    assert seen == ["second"]


@pytest.mark.parametrize("at", [0.5, float("nan")])
def test_the_past_cannot_be_planned(at: float) -> None:
    heap = EventHeap()
    heap.run(1.0)
    with pytest.raises(SimulationError, match="was planned at"):
        heap.plan(at, lambda: None)


def test_a_livelock_is_named_instead_of_running_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.heap, "MAX_AT_ONE_INSTANT", 100)
    heap = EventHeap()

    def again() -> None:
        heap.plan(heap.now, again)

    again()
    with pytest.raises(SimulationError, match="livelock"):
        heap.run(1.0)


def test_the_number_of_pending_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.heap, "MAX_PENDING", 2)
    heap = EventHeap()
    heap.plan(1.0, lambda: None)
    heap.plan(1.0, lambda: None)
    with pytest.raises(SimulationError, match="pending"):
        heap.plan(1.0, lambda: None)
