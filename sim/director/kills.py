"""kill -9 in every round of a task: a random member dies without a word, and starts again from its disk.

    a member is through with round r ──→ round r+1 is under way ──→ somewhere in it a kill ──→ a start

Never are more members down than may be faulty: a quorum of voters is there, so that every round can end with
a certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from sim.director.presence import Presence
    from sim.director.trouble import Trouble
    from sim.heap import EventHeap
    from sim.scenario.model import TaskLoad


class KillPlan:
    """The kills of one task; none when its load has no `kill_seconds`."""

    def __init__(
        self,
        load: TaskLoad,
        heap: EventHeap,
        rng: Random,
        presence: Presence,
        members: Sequence[int],
        trouble: Trouble,
    ) -> None:
        self.task = load.name
        self._load, self._heap, self._rng, self._presence = load, heap, rng, presence
        self._members, self._trouble = members, trouble
        self._spare = (min(len(members), load.committee) - 1) // 3  # may be down, all voters perhaps
        self._round, self._begun = 0, 0.0  # the round under way, and since when

    def plan(self) -> None:
        """The first kill, in the first round."""
        if self._load.kill_seconds > 0:
            self._heap.plan(self._load.start, self.finished_round, 0)

    def finished_round(self, number: int) -> None:
        """A member is through with this round; the next one will take about as long."""
        if self._load.kill_seconds <= 0 or not self._round <= number < self._load.rounds:
            return
        now = self._heap.now
        length = now - self._begun if self._round else self._load.train_seconds
        self._round, self._begun = number + 1, now
        self._heap.plan(now + self._rng.uniform(0, length), self._kill)

    def _kill(self) -> None:
        up = [node for node in self._members if self._presence.up(node)]
        if len(self._members) - len(up) >= self._spare:
            return
        victim, away = self._rng.choice(up), self._rng.uniform(0, 2 * self._load.kill_seconds)
        self._trouble.note(self._heap.now, self._heap.now + away, "kill")
        self._presence.take_down(victim, keep_disk=True, silently=True)
        self._heap.plan(self._heap.now + away, self._presence.bring_back, victim)
