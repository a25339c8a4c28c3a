"""When something was wrong: what a delivery or a look-up is excused by, and what plots shade."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

RECOVERY = 10.0  # seconds until the network is itself again: a few dials and as many heartbeats
KEEPALIVE = 30.0  # seconds; a shorter interruption costs no connection
UNNOTICED = (
    KEEPALIVE + 10.0
)  # seconds for which a silent loss of power may go unnoticed: one more for the pong


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From `begin` to `end`, in virtual seconds, `what` was wrong or not yet healed."""

    begin: float
    end: float
    what: str


class Trouble:
    """Everything that was wrong during a run, with the time in which the network heals from it."""

    def __init__(self) -> None:
        self._intervals: list[Interval] = []
        self._begins: list[float] = []  # of the merged intervals, ascending and apart from each other
        self._ends: list[float] = []
        self._merged = True

    def note(self, begin: float, end: float, what: str, recovery: float = RECOVERY) -> None:
        """Something is wrong from `begin` to `end`, and felt for `recovery` seconds more."""
        self._intervals.append(Interval(begin=begin, end=end + recovery, what=what))
        self._merged = False

    @property
    def intervals(self) -> list[Interval]:
        """What was wrong when, by its begin."""
        return sorted(self._intervals, key=lambda interval: interval.begin)

    def calm(self, at: float, until: float) -> bool:
        """Whether nothing was wrong at any moment from `at` to `until`."""
        if not self._merged:
            self._merge()
        before = bisect_right(self._begins, until)
        return before == 0 or self._ends[before - 1] < at

    def _merge(self) -> None:
        begins: list[float] = []
        ends: list[float] = []
        for interval in self.intervals:
            if ends and interval.begin <= ends[-1]:
                ends[-1] = max(ends[-1], interval.end)
            else:
                begins.append(interval.begin)
                ends.append(interval.end)
        self._begins, self._ends, self._merged = begins, ends, True
