"""When a member says again where it is, so that others know that it is there, and answer if it is behind.

In a small task every period. Where a committee is drawn nobody repeats himself while a round is in progress,
but for what the round itself decides (`federated.rounds.phases`); others that are ahead are asked soon.
"""

from __future__ import annotations

from math import inf

REPEATS = 4  # repetitions of own messages in the deadline of a phase ...
MIN_PERIOD, MAX_PERIOD = 0.25, 5.0  # ... and their limits, in seconds


def period_of(phase_deadline: float) -> float:
    """Seconds after which own messages are repeated."""
    return min(max(phase_deadline / REPEATS, MIN_PERIOD), MAX_PERIOD)


class Repeats:
    """The time `at` of the next repetition, `period` seconds after the last one unless `is_drawn`."""

    def __init__(self, period: float, *, is_drawn: bool) -> None:
        self.at = 0.0
        self._period = period
        self._is_drawn = is_drawn
        self._said_at = -inf

    def start(self, now: float) -> None:
        """The first one is a period away."""
        self.at = now + self._period

    def said(self, now: float) -> None:
        """We have said where we are."""
        self._said_at = now

    def may_greet(self, now: float) -> bool:
        """Whether it is time to greet somebody who has just come."""
        return now >= self._said_at + (self._period if self._is_drawn else MIN_PERIOD)

    def hasten(self, at: float) -> None:
        """Others are ahead of us: the next one is soon after `at`, though not all the time."""
        self.at = min(self.at, max(at, self._said_at) + MIN_PERIOD)

    def begin_round(self) -> None:
        """A round begins."""
        if self._is_drawn:
            self.at = inf

    def end_round(self, at: float) -> None:
        """The round's model is fetched; if that takes longer than until `at`, we say where we are."""
        if self.at == inf:
            self.at = at
