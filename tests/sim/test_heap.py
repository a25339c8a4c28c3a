from __future__ import annotations

from functools import partial
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import heap as heap_module
from sim.heap import EventHeap, SimulationError


@given(st.lists(st.integers(min_value=0, max_value=20)))
def test_events_run_by_their_time_and_ties_by_the_order_of_planning(times):
    heap, ran = EventHeap(), []
    for number, at in enumerate(times):
        heap.plan(at, lambda at, number: ran.append((heap.now, at, number)), at, number)
    heap.run()
    assert [(at, number) for _, at, number in ran] == sorted((at, number) for number, at in enumerate(times))
    assert all(now == at for now, at, _ in ran)
    assert heap.events == len(times)


def test_a_run_goes_up_to_its_end_and_that_is_the_time_then():
    heap, ran = EventHeap(end=2.0), []
    for at in (1.0, 2.0, 2.5):
        heap.plan(at, ran.append, at)
    heap.run()
    assert ran == [1.0, 2.0]
    assert heap.now == 2.0
    heap.end = 3.0
    heap.run()
    assert ran == [1.0, 2.0, 2.5]
    assert heap.now == 3.0


def test_an_event_may_move_the_end():
    heap, ran = EventHeap(end=1.0), []
    heap.plan(0.5, partial(setattr, heap, "end", 4.0))
    heap.plan(3.0, ran.append, "later")
    heap.run()
    assert ran == ["later"]


def test_without_an_end_it_runs_until_nothing_is_planned():
    heap = EventHeap()
    heap.plan(5.0, lambda: None)
    assert heap.next_at == 5.0
    heap.run()
    assert heap.now == 5.0
    assert heap.next_at == inf


@pytest.mark.parametrize("at", [-1.0, 0.5, nan])
def test_time_does_not_run_backwards(at):
    heap = EventHeap()
    heap.advance(1.0)
    heap.advance(0.25)
    assert heap.now == 1.0
    with pytest.raises(SimulationError, match="planned at 1"):
        heap.plan(at, lambda: None)


def test_a_livelock_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(heap_module, "MAX_AT_ONE_INSTANT", 100)
    heap = EventHeap()

    def again() -> None:
        heap.plan(heap.now, again)

    heap.plan(1.0, again)
    with pytest.raises(SimulationError, match="livelock: 101 events at 1"):
        heap.run()


def test_the_number_of_pending_events_is_bounded(monkeypatch):
    monkeypatch.setattr(heap_module, "MAX_PENDING", 3)
    heap = EventHeap()
    for _ in range(3):
        heap.plan(1.0, lambda: None)
    with pytest.raises(SimulationError, match="more than 3"):
        heap.plan(1.0, lambda: None)


def test_an_interrupt_comes_before_the_next_event():
    heap, ran = EventHeap(), []
    heap.plan(1.0, ran.append, "first")
    heap.plan(1.0, lambda: heap.interrupt(KeyboardInterrupt()))
    heap.plan(1.0, ran.append, "never")
    with pytest.raises(KeyboardInterrupt):
        heap.run()
    assert ran == ["first"]
