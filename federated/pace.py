"""How fast this peer trains, and how much it can therefore train before a deadline.

A trainer asks between two steps (batches) whether to stop: so its steps are counted, whatever it is.
"""

from __future__ import annotations

WEIGHT = 0.3  # of the newest training in the average
MARGIN = 0.8  # of the time until the deadline is planned for; encoding, storing and telling take the rest
MIN_STEPS = 1


class Pace:
    """Steps per second, averaged over the trainings so far; 0 before the first."""

    def __init__(self) -> None:
        self.steps_per_second = 0.0

    def observe(self, steps: int, seconds: float) -> None:
        """One training took so many steps in so many seconds, finished or not."""
        if steps > 0 and seconds > 0:
            rate = steps / seconds
            old = self.steps_per_second
            self.steps_per_second = rate if not old else old + WEIGHT * (rate - old)

    def steps_within(self, seconds: float) -> int | None:
        """How many steps are done in time; None as long as nobody knows."""
        if not self.steps_per_second:
            return None
        return max(MIN_STEPS, int(self.steps_per_second * seconds * MARGIN))
