"""A machine driven by the heap."""

from __future__ import annotations

from collections.abc import Sequence

from sim.actor import Actor
from sim.heap import EventHeap


class Alarm:
    """A machine that asks for time `event` from now, and reports each alarm."""

    def __init__(self) -> None:
        self.deadline: float | None = None

    def handle(self, event: float, now: float) -> list[str]:
        self.deadline = now + event
        return [f"set at {now:g}"]

    def next_deadline(self) -> float | None:
        return self.deadline

    def handle_timer(self, now: float) -> list[str]:
        self.deadline = None
        return [f"rang at {now:g}"]


class Log(list[str]):
    """An alarm in a simulation, and what it did."""

    def __init__(self) -> None:
        self.heap = EventHeap()
        self.actor: Actor[float, str] = Actor(Alarm(), self.heap, self._perform)

    def _perform(self, actions: Sequence[str]) -> None:
        self.extend(actions)


def test_the_timer_of_a_machine_goes_off_at_its_deadline() -> None:
    log = Log()
    log.actor.handle(2.0)
    log.heap.run(5.0)
    assert log == ["set at 0", "rang at 2"]


def test_a_deadline_that_moved_away_counts_and_the_old_one_does_not() -> None:
    log = Log()
    log.actor.handle(2.0)
    log.heap.plan(1.0, lambda: log.actor.handle(3.0))
    log.heap.run(5.0)
    assert log == ["set at 0", "set at 1", "rang at 4"]


def test_a_deadline_that_came_nearer_counts_once() -> None:
    log = Log()
    log.actor.handle(3.0)
    log.heap.plan(1.0, lambda: log.actor.handle(0.5))
    log.heap.run(5.0)
    assert log == ["set at 0", "set at 1", "rang at 1.5"]


def test_a_stopped_actor_hears_and_does_nothing() -> None:
    log = Log()
    log.actor.handle(2.0)
    log.actor.stop()
    log.actor.handle(1.0)
    log.heap.run(5.0)
    assert log == ["set at 0"]
