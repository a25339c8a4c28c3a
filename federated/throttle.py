"""Leaves the machine some of its processor: how long a trainer rests between two of its steps.

A bucket of processor time that leaks: what our process takes goes in, the allowed share of all cores runs
out. What is in it is the debt, and a rest of `debt / (share * cores)` pays it back. Processor time
that was not used earlier is no credit.
"""

from __future__ import annotations

SHARE = 0.7  # of all cores
MAX_REST = 5.0  # seconds; the rest of the debt is paid after the next step


class Throttle:
    """The rests of one trainer. Times are seconds, of a monotonic clock and of our process's processor."""

    def __init__(self, cores: int, share: float = SHARE) -> None:
        self._allowed = share * cores
        self._debt = 0.0
        self._last: tuple[float, float] | None = None

    def rest(self, now: float, processor: float) -> float:
        """Seconds to do nothing now; `processor` is the processor time that the process has used so far."""
        if self._last is not None:
            passed, taken = now - self._last[0], processor - self._last[1]
            self._debt = max(0.0, self._debt + taken - self._allowed * passed)
        self._last = (now, processor)
        return min(self._debt / self._allowed, MAX_REST)
