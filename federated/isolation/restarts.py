"""When a plugin process that has failed is started again: at once the first time, then later and later.

Whoever trains for an hour and crashes once has lost nothing that matters by starting again. What crashes
while it loads would otherwise do nothing but start.
"""

from __future__ import annotations

FIRST_DELAY = 0.5  # seconds after the second failure in a row
MAX_DELAY = 60.0  # seconds


class Restarts:
    """Counts the failures in a row of one process after the other; times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._due = 0.0

    def failed(self, now: float) -> None:
        """A process had to be given up."""
        self._failures += 1
        if self._failures > 1:
            self._due = now + min(FIRST_DELAY * 2.0 ** min(self._failures - 2, 32), MAX_DELAY)

    def succeeded(self) -> None:
        """A process has done what it was asked for: what fails next fails for the first time."""
        self._failures, self._due = 0, 0.0

    def wait(self, now: float) -> float:
        """Seconds until another one may be started."""
        return max(0.0, self._due - now)
