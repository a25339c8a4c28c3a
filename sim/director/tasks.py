"""The training tasks of a run: who takes part, and whether there is somebody to wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from sim.scenario.timing import task_limit

if TYPE_CHECKING:
    from sim.director.presence import Presence
    from sim.heap import EventHeap
    from sim.rung import Rung
    from sim.scenario.model import TaskLoad


class Enrolment(Protocol):
    """Writes down who takes part in what."""

    def entered(self, node: int, task: str) -> None:
        """The node is a member of the training task."""


class TaskPlan:
    """One task: its members join when it starts, or when they run for the first time after that."""

    def __init__(
        self,
        load: TaskLoad,
        heap: EventHeap,
        rung: Rung,
        presence: Presence,
        members: Sequence[int],
        honest: Sequence[int],
        enrolment: Enrolment,
    ) -> None:
        self.name, self.limit = load.name, task_limit(load)
        self._start, self._heap, self._rung, self._presence = load.start, heap, rung, presence
        self._members, self._enrolment = members, enrolment
        self._outside = dict.fromkeys(members)  # who has not joined
        trusted = frozenset(honest)
        self._working = dict.fromkeys(node for node in members if node in trusted)  # who is not through

    def plan(self) -> None:
        """Members join at the start."""
        self._presence.on_start.append(self._join)
        self._heap.plan(self._start, self._begin)

    def finished(self, node: int) -> None:
        """The node is through with the task."""
        self._working.pop(node, None)

    @property
    def open(self) -> bool:
        """Whether an honest member that runs is at work, and its deadlines allow more."""
        return self._heap.now < self.limit and any(self._presence.up(node) for node in self._working)

    def _begin(self) -> None:
        for node in self._members:
            if self._presence.up(node):
                self._join(node)

    def _join(self, node: int) -> None:
        if self._heap.now >= self._start and node in self._outside:
            del self._outside[node]
            self._enrolment.entered(node, self.name)
            self._rung.join_task(node, self.name)
