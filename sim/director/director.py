"""The director of a run: plans on the heap what a scenario asks of the network, and does to it.

    Scenario ─→ Director ─┬→ Connections                          who comes, who dials whom
                          ├→ GossipPlan, DhtPlan, TaskPlan        the work
                          ├→ ChurnPlan, Faults, KillPlan          what goes wrong; `Trouble` knows when
                          └→ the heap's end                        later, while a task is under way

It talks to the network of nodes through `sim.rung.Rung` alone, and to the links through `Network`. Each
part draws from randomness of its own, so that another load in a scenario does not shift the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from sim.director.churn import ChurnPlan
from sim.director.connections import Connections
from sim.director.faults import Faults
from sim.director.kills import KillPlan
from sim.director.loads import DhtPlan, GossipPlan, Journal, numbers
from sim.director.presence import Presence
from sim.director.selection import attacks
from sim.director.tasks import Enrolment, TaskPlan
from sim.director.trouble import Trouble
from sim.identity import rng_of
from sim.scenario.timing import planned_end

if TYPE_CHECKING:
    from random import Random

    from sim.rung import Rung, Setup

EVERY = 1.0  # seconds between two looks at the tasks that are under way


class Books(Journal, Enrolment, Protocol):
    """Where the director writes down what it asked for and did; `sim.record.Recorder` is one."""

    def lost_disk(self, node: int) -> None:
        """The node crashed, and its disk is gone."""


class Director:
    """Everything that a scenario says, for one run."""

    def __init__(
        self,
        setup: Setup,
        rung: Rung,
        books: Books,
        trouble: Trouble,
        members: Mapping[str, Sequence[int]],
    ) -> None:
        """`members` are those of each task, by its name; `trouble` learns when something is wrong."""
        scenario, heap, network, peers = setup.scenario, setup.heap, setup.network, setup.scenario.peers
        self._scenario, self._seed, self._heap, self._trouble = scenario, setup.seed, heap, trouble
        self._presence = presence = Presence(rung, peers)
        presence.on_loss.append(books.lost_disk)
        honest = [node for node in range(peers) if node not in setup.adversaries]
        operations = numbers()
        self._gossip = [
            GossipPlan(load, heap, self._rng("gossip", number), rung, presence, honest, peers)
            for number, load in enumerate(scenario.gossip)
        ]
        publishers = [node for plan in self._gossip for node in plan.publishers]
        self._connections = Connections(
            scenario,
            heap,
            self._rng("topology", 0),
            rung,
            members.values(),
            network.dialable,
            attacks(setup.adversaries, publishers, honest, self._rng("attacks", 0)),
        )
        self._dht = [
            DhtPlan(load, heap, self._rng("dht", number), rung, presence, honest, operations, books)
            for number, load in enumerate(scenario.dht)
        ]
        self._tasks = [
            TaskPlan(load, heap, rung, presence, members[load.name], honest, books) for load in scenario.task
        ]
        self._churn = [
            ChurnPlan(churn, heap, self._rng("churn", number), presence, peers)
            for number, churn in enumerate(scenario.churn)
        ]
        self._kills = [
            KillPlan(load, heap, self._rng("kills", number), presence, members[load.name], trouble)
            for number, load in enumerate(scenario.task)
        ]
        self._faults = Faults(heap, rung, network, presence, peers)

    def plan(self) -> None:
        """Plans the run, and sets the heap's end."""
        self._heap.end = planned_end(self._scenario)
        for gossip in self._gossip:
            gossip.plan()
        for dht in self._dht:
            dht.plan()
        for task in self._tasks:
            task.plan()
        self._connections.plan(self._presence, self._trouble)
        for churn in self._churn:
            churn.plan(self._trouble)
        for kills in self._kills:
            kills.plan()
        for number, fault in enumerate(self._scenario.faults):
            self._faults.plan(fault, self._rng("fault", number), self._trouble)
        if self._tasks:
            self._heap.plan(EVERY, self._prolong)

    def looked_up(self, operation: int, ok: bool) -> None:
        """A DHT operation ended."""
        for plan in self._dht:
            plan.looked_up(operation, ok)

    def finished_round(self, task: str, number: int) -> None:
        """Somebody is through with a round."""
        for plan in self._kills:
            if plan.task == task:
                plan.finished_round(number)

    def finished_task(self, node: int, task: str) -> None:
        """The node is through with the task."""
        for plan in self._tasks:
            if plan.name == task:
                plan.finished(node)

    def _prolong(self) -> None:
        """The run goes on while a task does, and has its quiet time after it."""
        now = self._heap.now
        if any(plan.open for plan in self._tasks):
            self._heap.end = max(self._heap.end, now + EVERY + self._scenario.settle)
        self._heap.plan(now + EVERY, self._prolong)

    def _rng(self, part: str, number: int) -> Random:
        return rng_of(self._seed, "director", part, number)
