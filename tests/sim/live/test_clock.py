"""Virtual time: what happens when, and how a run that cannot go on ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

import pytest
import trio

from p2p.waiter import Waiter
from sim.heap import EventHeap, SimulationError
from sim.live import clock as clock_module
from sim.live.clock import LivelockGuard, VirtualClock
from sim.live.determinism import deterministic


def play(
    body: Callable[[EventHeap, list[str]], Awaitable[None]], end: float = inf
) -> tuple[VirtualClock, EventHeap, list[str]]:
    """Runs `body` until the clock says that it is over; (clock, heap, what was noted)."""
    heap, notes = EventHeap(end), list[str]()
    clock = VirtualClock(heap)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body, heap, notes)
            await clock.finished.wait()
            nursery.cancel_scope.cancel()

    with deterministic(1):
        trio.run(main, clock=clock, instruments=[LivelockGuard(clock, heap)])
    return clock, heap, notes


def test_an_event_passes_only_when_no_task_can_run() -> None:
    async def body(heap: EventHeap, notes: list[str]) -> None:
        heap.plan(0.0, notes.append, "event")
        for _ in range(3):
            notes.append("task")
            await trio.lowlevel.checkpoint()
        await trio.sleep_forever()

    assert play(body, end=1)[2] == ["task", "task", "task", "event"]


def test_a_task_that_an_event_woke_runs_before_the_next_event() -> None:
    async def body(heap: EventHeap, notes: list[str]) -> None:
        woken = Waiter()
        for number in range(3):
            heap.plan(1.0, notes.append, f"event {number}")
            heap.plan(1.0, woken.wake)
        while True:
            await woken.wait()
            notes.append(f"task at {trio.current_time():g}")

    expected = [f"event {number}" if each == 0 else "task at 1" for number in range(3) for each in range(2)]
    assert play(body, end=2)[2] == expected


def test_deadlines_and_events_interleave_in_order_and_the_event_comes_first_where_they_tie() -> None:
    async def body(heap: EventHeap, notes: list[str]) -> None:
        for at in (0.5, 1.0, 2.0, 2.5):
            heap.plan(at, lambda: notes.append(f"event {heap.now:g}"))
        for _ in range(3):
            await trio.sleep(1)
            notes.append(f"task {trio.current_time():g}")

    expected = ["event 0.5", "event 1", "task 1", "event 2", "task 2", "event 2.5", "task 3"]
    assert play(body, end=10)[2] == expected


def test_a_deadline_in_the_past_moves_no_time() -> None:
    async def body(heap: EventHeap, notes: list[str]) -> None:
        heap.plan(1.0, lambda: None)
        await trio.sleep(1)
        with trio.move_on_after(0):
            await trio.sleep_forever()
        notes.append(f"{heap.now:g}")

    assert play(body, end=5)[2] == ["1"]


def test_the_run_ends_at_its_end_and_not_at_what_comes_behind() -> None:
    async def body(heap: EventHeap, notes: list[str]) -> None:
        heap.plan(3.0, notes.append, "at the end")
        heap.plan(3.1, notes.append, "too late")
        await trio.sleep(4)
        notes.append("too late as well")

    clock, heap, notes = play(body, end=3.0)
    assert (clock.error, heap.now, notes) == (None, 3.0, ["at the end"])


def test_the_end_moves_while_the_run_is_on() -> None:
    async def body(heap: EventHeap, notes: list[str]) -> None:
        await trio.sleep(2)
        heap.end = 10.0
        await trio.sleep(3)
        notes.append(f"task {heap.now:g}")
        heap.plan(7.0, setattr, heap, "end", 7.5)
        await trio.sleep_forever()

    clock, heap, notes = play(body, end=3.0)
    assert (clock.error, heap.now, notes) == (None, 7.5, ["task 5"])


def test_an_error_in_an_event_ends_the_run_and_is_kept() -> None:
    async def body(heap: EventHeap, notes: list[str]) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        heap.plan(1.0, fail)
        heap.plan(2.0, notes.append, "never")
        await trio.sleep(3)

    clock, heap, notes = play(body, end=10)
    assert isinstance(clock.error, ZeroDivisionError)
    assert (heap.now, notes) == (1.0, [])


async def wait_here_for_nothing() -> None:
    await trio.sleep_forever()


async def wait_for_a_waiter() -> None:
    await Waiter().wait()


@pytest.mark.parametrize("place", [wait_here_for_nothing, wait_for_a_waiter])
def test_a_deadlock_ends_and_names_our_own_place_where_tasks_wait(
    place: Callable[[], Awaitable[None]],
) -> None:
    async def body(heap: EventHeap, notes: list[str]) -> None:
        heap.plan(2.0, lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place)
            nursery.start_soon(place)

    clock, _, _ = play(body)
    assert isinstance(clock.error, SimulationError)
    assert "deadlock at 2.000 s" in str(clock.error)
    assert "2 x " in str(clock.error)
    assert f"live/test_clock.py:{place.__code__.co_firstlineno + 1} in {place.__name__}" in str(clock.error)


def test_tasks_that_wake_one_another_without_end_are_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "MAX_PASSES", 500)

    async def body(heap: EventHeap, notes: list[str]) -> None:
        await trio.sleep(1.5)
        while True:
            await trio.lowlevel.checkpoint()

    clock, heap, _ = play(body, end=10)
    assert isinstance(clock.error, SimulationError)
    assert "livelock at 1.500 s: 500 passes" in str(clock.error)
    assert "in body" in str(clock.error)
    assert heap.now == 1.5


def test_passes_count_as_long_as_no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "MAX_PASSES", 500)

    async def body(heap: EventHeap, notes: list[str]) -> None:
        for _ in range(10):
            for _ in range(400):
                await trio.lowlevel.checkpoint()
            await trio.sleep(0.001)

    assert play(body, end=10)[0].error is None


def test_events_that_plan_one_another_without_end_are_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.heap.MAX_AT_ONE_INSTANT", 500)

    async def body(heap: EventHeap, notes: list[str]) -> None:
        def again() -> None:
            heap.plan(heap.now, again)

        heap.plan(1.0, again)
        await trio.sleep_forever()

    clock, _, _ = play(body, end=10)
    assert isinstance(clock.error, SimulationError)
    assert "livelock" in str(clock.error)
