"""Virtual time: events run in the order of their time, and in the order they were planned where times tie.

Nothing else orders them, so that a seed decides the whole run. Between two events no time passes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

MAX_PENDING = 20_000_000  # events planned at once; at about 200 bytes each this is 4 GB
MAX_AT_ONE_INSTANT = 5_000_000  # events without time passing: more is a livelock, not work


class SimulationError(Exception):
    """The simulation itself cannot go on: time would run backwards, or stands still."""


class EventHeap:
    """Planned calls by virtual time. `now` is in seconds and starts at zero."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0  # that ran so far
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0  # of plans made so far: what orders equal times

    def plan(self, at: float, call: Callable[[], None]) -> None:
        """Plans `call` for the time `at`. Raises `SimulationError` when that is in the past."""
        if not at >= self.now:
            raise SimulationError(f"an event for {at:.6f} s was planned at {self.now:.6f} s")
        if len(self._planned) >= MAX_PENDING:
            raise SimulationError(f"more than {MAX_PENDING} events are pending")
        self._number += 1
        heapq.heappush(self._planned, (at, self._number, call))

    def run(self, until: float) -> None:
        """Runs every event up to and including the time `until`, which is `now` afterwards.

        Raises `SimulationError` on a livelock.
        """
        at_this_instant = 0
        while self._planned and self._planned[0][0] <= until:
            at, _, call = heapq.heappop(self._planned)
            at_this_instant = at_this_instant + 1 if at == self.now else 0
            if at_this_instant > MAX_AT_ONE_INSTANT:
                raise SimulationError(f"livelock: {at_this_instant} events at {at:.6f} s")
            self.now = at
            self.events += 1
            call()
        self.now = max(self.now, until)

    @property
    def idle(self) -> bool:
        """Whether nothing is planned any more."""
        return not self._planned
