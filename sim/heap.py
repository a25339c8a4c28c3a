"""Virtual time: events run in the order of their time, and in the order they were planned where times tie.

Nothing else orders them, so that a seed decides the whole run. Between two events no time passes.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

MAX_PENDING = 20_000_000  # events planned at once; at about 200 bytes each this is 4 GB
MAX_AT_ONE_INSTANT = 5_000_000  # events without time passing: more is a livelock, not work


class SimulationError(Exception):
    """The simulation itself cannot go on: time would run backwards, or stands still."""


class EventHeap:
    """Planned calls by virtual time. `now` is in seconds and starts at zero; `end` is when a run is over."""

    def __init__(self, end: float = inf) -> None:
        self.now = 0.0
        self.end = end  # may be moved while the run is on
        self.events = 0  # that ran so far
        self._planned: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0  # of plans made so far: what orders equal times
        self._at_this_instant = 0

    def plan(self, at: float, call: Callable[..., None], *arguments: Any) -> None:
        """Plans `call(*arguments)` for the time `at`. Raises `SimulationError` when that is in the past."""
        if not at >= self.now:
            raise SimulationError(f"an event for {at:.6f} s was planned at {self.now:.6f} s")
        if len(self._planned) >= MAX_PENDING:
            raise SimulationError(f"more than {MAX_PENDING} events are pending")
        self._number += 1
        heappush(self._planned, (at, self._number, call, arguments))

    def interrupt(self, error: BaseException) -> None:
        """Raises `error` from the run before its next event. For signal handlers: it may come at any time."""
        heappush(self._planned, (self.now, -1, _raise, (error,)))

    @property
    def next_at(self) -> float:
        """The time of the next event, infinity when nothing is planned."""
        return self._planned[0][0] if self._planned else inf

    def step(self) -> None:
        """Runs the next event; its time is `now` then. Raises `SimulationError` on a livelock."""
        at, _, call, arguments = heappop(self._planned)
        if at == self.now:
            self._at_this_instant += 1
            if self._at_this_instant > MAX_AT_ONE_INSTANT:
                raise SimulationError(f"livelock: {self._at_this_instant} events at {at:.6f} s")
        else:
            self._at_this_instant = 0
            self.now = at
        self.events += 1
        call(*arguments)

    def advance(self, at: float) -> None:
        """Lets time pass until `at`, before which nothing is planned."""
        if at > self.now:
            self.now, self._at_this_instant = at, 0

    def run(self) -> None:
        """Runs every event up to and including the time `end`, which is `now` afterwards.

        Raises `SimulationError` on a livelock. With an infinite `end`: until nothing is planned.
        """
        while self._planned and self._planned[0][0] <= self.end:
            self.step()
        if self.end < inf:
            self.advance(self.end)


def _raise(error: BaseException) -> None:
    raise error
