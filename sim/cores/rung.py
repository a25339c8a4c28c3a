"""The rung `cores` as the director sees it: nodes that are made of the shipped machines and nothing else."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence

from sim.cores.kad import Operations
from sim.cores.links import Links
from sim.cores.node import Life, Node
from sim.cores.world import World
from sim.disk import SimDisk
from sim.heap import SimulationError
from sim.redial import Redial
from sim.rung import Setup


class CoresRung:
    """Implements `sim.rung.Rung`."""

    def __init__(self, setup: Setup) -> None:
        self._world = World(setup)
        self._links = Links(self._world)
        self._world.nodes = self._nodes = [
            Node(number, self._world.disk_rng) for number in range(len(setup.keys))
        ]

    # Lives

    def start(self, node: int) -> None:
        """The node's process starts, from its disk. Nothing happens while it runs already."""
        found = self._nodes[node]
        if found.life is None:
            found.powerless = False
            found.life = Life(found, self._world, self._links)
            self._world.observer.started(node)
            found.life.start()

    def crash(self, node: int, *, keep_disk: bool = True, silently: bool = False) -> None:
        """kill -9; `silently` as when the power fails: nobody is told that its connections are gone."""
        self._nodes[node].crash(keep_disk=keep_disk, silently=silently)

    def alive(self, node: int) -> bool:
        """Whether the node's process runs."""
        return self._nodes[node].life is not None

    def disk(self, node: int) -> SimDisk:
        """The node's disk, which its crashes survive."""
        return self._nodes[node].disk

    def run(self) -> None:
        """Lets everything happen that is planned, until the heap's `end`."""
        collecting = gc.isenabled()
        gc.disable()  # a run makes few cycles, and walking thousands of peers costs a tenth of the time
        try:
            self._world.heap.run()
        finally:
            if collecting:
                gc.enable()

    # Connections

    def connect(self, node: int, other: int) -> None:
        """`node` dials `other`, unless they are connected; it dials again whenever it loses it."""
        found = self._nodes[node]
        if not self._world.joins:  # else discovery decides whom to dial again
            found.wanted.setdefault(other, Redial())
        if found.life is not None:
            self._links.dial(found.life, other)

    def reset(self, node: int, other: int) -> None:
        """The connection between the two breaks, if there is one."""
        life = self._nodes[node].life
        end = None if life is None else life.ends.get(other)
        if end is not None:
            self._links.reset(end)

    def connected(self, node: int) -> Sequence[int]:
        """Whom the node is connected to, ascending."""
        life = self._nodes[node].life
        return [] if life is None else life.connected()

    # Gossip

    def subscribe(self, node: int, topic: str, rate: float = 0.0) -> None:
        """`node` joins the topic, now and after every restart; it is told the rate if that is not 0."""
        found = self._nodes[node]
        if topic not in found.topics:
            found.topics[topic] = rate
            if found.life is not None:
                found.life.gossip.join(topic, rate)

    def unsubscribe(self, node: int, topic: str) -> None:
        """`node` leaves the topic."""
        found = self._nodes[node]
        if topic in found.topics:
            del found.topics[topic]
            if found.life is not None:
                found.life.gossip.leave(topic)

    def publish(self, node: int, topic: str, data: bytes) -> None:
        """`node` publishes, if it runs; `Observer.published` has the message's id."""
        life = self._nodes[node].life
        if life is not None:
            life.receive(life.gossip.publish, topic, data)

    def mesh(self, node: int, topic: str) -> Sequence[int]:
        """The node's mesh of the topic, ascending."""
        life = self._nodes[node].life
        members = [] if life is None else life.gossip.router.mesh(topic)
        return sorted(self._world.numbers[peer] for peer in members)

    def scores(self, node: int) -> Mapping[int, float]:
        """What the node's gossipsub thinks of its peers."""
        life = self._nodes[node].life
        scores = {} if life is None else life.gossip.router.scores.scores()
        return {self._world.numbers[peer]: score for peer, score in scores.items()}

    # The DHT

    def find(self, node: int, target: int, operation: int) -> None:
        """`node` looks up the peers closest to `target`'s id; ends in `Observer.looked_up`."""
        life = self._nodes[node].life
        if life is not None:
            life.receive(self._operations(life).find, operation, self._world.peers[target].raw)

    def put(self, node: int, key: bytes, value: bytes, operation: int) -> None:
        """`node` stores a value in the DHT; ends in `Observer.looked_up`."""
        life = self._nodes[node].life
        if life is not None:
            life.receive(self._operations(life).put, operation, key, value)

    def get(self, node: int, key: bytes, operation: int) -> None:
        """`node` asks the DHT for a value; ends in `Observer.looked_up`, with the value as its result."""
        life = self._nodes[node].life
        if life is not None:
            life.receive(self._operations(life).get, operation, key)

    def _operations(self, life: Life) -> Operations:
        if life.kad is None:
            raise SimulationError("this scenario has no DHT: give it a [[dht]] load")
        return Operations(life.kad)

    # Training

    def join_task(self, node: int, name: str) -> None:
        """`node` takes part in the training task of that name, now and after every restart."""
        found = self._nodes[node]
        if name not in found.tasks:
            found.tasks[name] = None
            if found.life is not None:
                found.life.receive(found.life.join_task, name)
