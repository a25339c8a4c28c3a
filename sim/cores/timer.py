"""The timer of one machine: planned on the heap when the machine's deadline is, or comes, nearer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.cores.node import Life


class Timer:
    """Calls `due(now)` when `deadline()` is reached, as long as `life` goes on."""

    __slots__ = ("_at", "_deadline", "_due", "_life")

    def __init__(
        self, life: Life, deadline: Callable[[], float | None], due: Callable[[float], None]
    ) -> None:
        self._life = life
        self._deadline = deadline
        self._due = due
        self._at: float | None = None  # the earliest that is planned

    def arm(self) -> None:
        """To be called after each event: the deadline may be another one."""
        deadline = self._deadline()
        if deadline is not None and (self._at is None or deadline < self._at):
            heap = self._life.world.heap
            self._at = max(deadline, heap.now)
            heap.plan(self._at, self._ring, self._at)

    def _ring(self, at: float) -> None:
        """A planned moment has come; the machine may have moved its deadline since."""
        if at != self._at or not self._life.running:
            return
        self._at = None
        deadline = self._deadline()
        if deadline is not None and deadline <= at:
            self._life.receive(self._due, at)
        self.arm()
