"""A node of the rungs `full` and `light` through all its lives: what stays over a crash, and what it is told.

start ──→ Life: host, gossipsub, DHT, discovery, tasks ──crash──→ only `Node` and its disk stay
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2p.errors import InvalidInput
from sim.disk import SimDisk
from sim.heap import SimulationError
from sim.identity import rng_of
from sim.live.gossip import Gossip
from sim.live.life import Life
from sim.redial import Redial

RESTART = 5.0  # seconds until a process that could not start is started again

if TYPE_CHECKING:
    from sim.live.rung import LiveRung


class Node:
    """What a crash does not take: the disk, what the node was told to do, and whom to dial."""

    def __init__(self, number: int, rung: LiveRung) -> None:
        self.number = number
        self.rung = rung
        self.rng = rng_of(rung.setup.seed, "node", number)
        self.disk = SimDisk(self.rng)
        self.life: Life | None = None
        self.lives = 0
        self.topics: dict[str, float] = {}  # with their rates, 0 where it is not known
        self.tasks: dict[str, None] = {}
        self.wanted: dict[int, Redial] = {}
        self.connected: dict[int, None] = {}

    # Lives

    def start(self) -> None:
        """The process starts."""
        if self.life is None:
            self.lives += 1
            self.rung.fabric.start(self.number)
            self.life = Life(self)
            self.rung.setup.observer.started(self.number)
            self.rung.nursery.start_soon(self._run, self.life, name=f"node {self.number}")

    def crash(self, *, silently: bool) -> None:
        """The process is gone, and the observer is told what it had."""
        self.stop(silently=silently)
        for other in list(self.connected):
            self._lost(other)

    def stop(self, *, silently: bool) -> None:
        """Ends the process; its tasks see their cancellation, and nothing they still do gets out."""
        life, self.life = self.life, None
        if life is not None:
            self.rung.fabric.crash(self.number, silently=silently)
            life.scope.cancel()

    async def _run(self, life: Life) -> None:
        try:
            await life.run()
        except InvalidInput as error:  # its disk fails while it starts: whoever runs it tries again
            heap = self.rung.setup.heap
            if self.life is life:
                self.rung.setup.observer.waiting(self.number, str(error))
                self.rung.crash(self.number)
                heap.plan(heap.now + RESTART, self.start)
        except Exception as error:  # whatever it is, it is a bug, and the process's end
            self.rung.setup.observer.failed(self.number, error)
            if self.life is life:
                self.rung.crash(self.number)

    # Connections

    def connect(self, other: int) -> None:
        """Dials `other` now, and again whenever the connection is lost, unless discovery sees to that."""
        if self.rung.setup.scenario.topology.kind != "join":
            self.wanted.setdefault(other, Redial())
        self.dial(other)

    def dial(self, other: int) -> None:
        """Dials `other`, unless there is a connection, or no process."""
        if self.life is not None and other not in self.connected:
            self.life.start(self._try, self.life, other)

    async def _try(self, life: Life, other: int) -> None:
        connected = await life.dial(other)
        if not connected and life is self.life:
            self._redial(other)

    def _redial(self, other: int) -> None:
        wanted, heap = self.wanted.get(other), self.rung.setup.heap
        if wanted is not None:
            heap.plan(heap.now + wanted.wait(), self.dial, other)

    def handle_connected(self, other: int) -> None:
        """The host has a connection to `other`."""
        if other not in self.connected:
            self.connected[other] = None
            if other in self.wanted:
                self.wanted[other].connected()
            self.rung.setup.observer.connected(self.number, other)

    def handle_disconnected(self, other: int) -> None:
        """The host has no connection to `other` any more."""
        if other in self.connected:
            self._lost(other)
            self._redial(other)

    def _lost(self, other: int) -> None:
        del self.connected[other]
        self.rung.setup.observer.disconnected(self.number, other)

    # What the node is told

    def subscribe(self, topic: str, rate: float = 0.0) -> None:
        """Joins the topic, in this life and those to come."""
        self.topics[topic] = rate
        if (gossip := self.gossip) is not None:
            gossip.subscribe(topic, rate)

    def unsubscribe(self, topic: str) -> None:
        """Leaves the topic."""
        self.topics.pop(topic, None)
        if (gossip := self.gossip) is not None:
            gossip.unsubscribe(topic)

    @property
    def gossip(self) -> Gossip | None:
        """The pubsub of the process, once it stands."""
        return None if self.life is None else self.life.gossip

    def join_task(self, name: str) -> None:
        """Takes part in a task, in this life and those to come."""
        if name not in self.tasks:
            self.tasks[name] = None
            if self.gossip is not None and self.life is not None:
                self.life.start(self.life.train, name)

    def operate(self, kind: str, operation: int, *arguments: bytes) -> None:
        """Lets the process do a DHT operation: "find", "put" or "get"."""
        if self.life is not None:
            self.life.start(self._operate, self.life, kind, operation, arguments)

    async def _operate(self, life: Life, kind: str, operation: int, arguments: tuple[bytes, ...]) -> None:
        if life.dht is None:
            raise SimulationError("this scenario has no DHT: give it a [[dht]] load")
        await getattr(life.dht, kind)(operation, *arguments)
