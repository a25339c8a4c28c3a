"""Drives one machine from the event heap: events in, actions out, and its one timer kept planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from sim.heap import EventHeap

EventT = TypeVar("EventT", contravariant=True)
ActionT = TypeVar("ActionT", covariant=True)
Event = TypeVar("Event")
Action = TypeVar("Action")


class Machine(Protocol[EventT, ActionT]):
    """What every message machine of `p2p` and `federated` looks like."""

    def handle(self, event: EventT, now: float) -> Sequence[ActionT]:
        """What follows from `event`."""

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due, None while it is not."""

    def handle_timer(self, now: float) -> Sequence[ActionT]:
        """What follows from the time."""


class Actor(Generic[Event, Action]):
    """One machine in the simulation; `perform` carries out the actions of one step."""

    def __init__(
        self,
        machine: Machine[Event, Action],
        heap: EventHeap,
        perform: Callable[[Sequence[Action]], None],
    ) -> None:
        self._machine = machine
        self._heap = heap
        self._perform = perform
        self._timer: float | None = None  # the earliest that is planned
        self._stopped = False

    def handle(self, event: Event) -> None:
        """Hands `event` to the machine now, unless the actor is stopped."""
        if not self._stopped:
            self._perform(self._machine.handle(event, self._heap.now))
            self._plan_timer()

    def stop(self) -> None:
        """The machine's process died: nothing reaches it any more."""
        self._stopped = True

    def _plan_timer(self) -> None:
        deadline = self._machine.next_deadline()
        if deadline is not None and (self._timer is None or deadline < self._timer):
            self._timer = max(deadline, self._heap.now)
            self._heap.plan(self._timer, self._handle_timer)

    def _handle_timer(self) -> None:
        """A planned timer went off; the machine may have moved its deadline since."""
        if self._stopped or self._timer != self._heap.now:
            return
        self._timer = None
        deadline = self._machine.next_deadline()
        if deadline is not None and deadline <= self._heap.now:
            self._perform(self._machine.handle_timer(self._heap.now))
        self._plan_timer()
