"""The rungs `full` and `light` as the director sees them: whole peers on trio, over virtual time.

    run: trio ──→ VirtualClock ──→ EventHeap ──→ director, network ──→ endpoints ──→ the peers' machines
                                                                  └─→ tasks of the peers, woken

The director's calls come from events, outside of any task; what takes time becomes a task of the node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import trio

from federated.registry import Registry
from p2p.peer_id import PeerId
from sim.adversaries import HONEST, Role, role
from sim.adversaries.addresses import shared_addresses
from sim.adversaries.league import league_of, registry_of
from sim.heap import SimulationError
from sim.live.bugs import reported_bugs
from sim.live.clock import LivelockGuard, VirtualClock
from sim.live.determinism import deterministic, only_virtual
from sim.live.fabric import Fabric
from sim.live.node import Node
from sim.verification import VerificationCache

if TYPE_CHECKING:
    from sim.disk import SimDisk
    from sim.rung import Setup


class LiveRung:
    """Implements `sim.rung.Rung`."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.peers = [PeerId.from_public_key(key.public) for key in setup.keys]
        self.numbers = {peer: number for number, peer in enumerate(self.peers)}
        self.fabric = Fabric(setup.heap, setup.network, len(self.peers), setup.frame or _ignore)
        self.fabric.shared = shared_addresses(setup.adversaries)
        self.verification = VerificationCache(self.peers)
        self._registry = Registry()  # one for all: it reads what is installed
        self._league = league_of(setup.adversaries, self.peers)
        self.nodes = [Node(number, self) for number in range(len(self.peers))]
        self._nursery: trio.Nursery | None = None
        self._clock: VirtualClock | None = None

    def run(self) -> None:
        """Lets everything happen that is planned, until the heap's `end`.

        Raises `SimulationError` for a deadlock and a livelock, with a list of who waits for what.
        """
        heap = self.setup.heap
        clock = self._clock = VirtualClock(heap)
        with deterministic(self.setup.seed), reported_bugs(self.setup.observer):
            trio.run(self._main, clock=clock, instruments=[LivelockGuard(clock, heap)])
        if clock.error is not None:
            raise clock.error

    async def _main(self) -> None:
        assert self._clock is not None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            with only_virtual():
                try:
                    await self._clock.finished.wait()
                finally:  # nobody says goodbye: it would only cost time
                    for node in self.nodes:
                        node.stop(silently=True)
                    nursery.cancel_scope.cancel()

    @property
    def nursery(self) -> trio.Nursery:
        """Where the nodes' tasks live. Raises `SimulationError` before `run`."""
        if self._nursery is None:
            raise SimulationError("nodes start while the simulation runs: plan it on the heap")
        return self._nursery

    def registry(self, node: int) -> Registry:
        """The plugins of the node; an adversary's trainers may hand in something else."""
        role = self.role(node)
        return self._registry if role is HONEST else registry_of(role, self._league)

    def role(self, node: int) -> Role:
        """What the node does differently; nothing when it is honest."""
        adversary = self.setup.adversaries.get(node)
        return HONEST if adversary is None else role(adversary.role, adversary.settings, self.peers)

    # Lives

    def start(self, node: int) -> None:
        """The node's process starts, from its disk. Nothing happens while it runs already."""
        self.nodes[node].start()

    def crash(self, node: int, *, keep_disk: bool = True, silently: bool = False) -> None:
        """kill -9; `silently` as when the power fails: nobody is told that its connections are gone."""
        if self.alive(node):
            self.nodes[node].crash(silently=silently)
            self.disk(node).crash(keep_disk)
            self.setup.observer.crashed(node)

    def alive(self, node: int) -> bool:
        """Whether the node's process runs."""
        return self.nodes[node].life is not None

    def disk(self, node: int) -> SimDisk:
        """The node's disk, which its crashes survive."""
        return self.nodes[node].disk

    # Connections

    def connect(self, node: int, other: int) -> None:
        """`node` dials `other`, unless they are connected; it dials again whenever it loses it."""
        self.nodes[node].connect(other)

    def reset(self, node: int, other: int) -> None:
        """The connection between the two breaks, if there is one."""
        self.fabric.reset(node, other)

    def connected(self, node: int) -> Sequence[int]:
        """Whom the node is connected to, ascending."""
        return sorted(self.nodes[node].connected)

    # Gossip

    def subscribe(self, node: int, topic: str, rate: float = 0.0) -> None:
        """`node` joins the topic, now and after every restart; it is told the rate if that is not 0."""
        self.nodes[node].subscribe(topic, rate)

    def unsubscribe(self, node: int, topic: str) -> None:
        """`node` leaves the topic."""
        self.nodes[node].unsubscribe(topic)

    def publish(self, node: int, topic: str, data: bytes) -> None:
        """`node` publishes, if it runs; `Observer.published` has the message's id."""
        if (gossip := self.nodes[node].gossip) is not None:
            gossip.publish(topic, data)

    def mesh(self, node: int, topic: str) -> Sequence[int]:
        """The node's mesh of the topic, ascending."""
        gossip = self.nodes[node].gossip
        return [] if gossip is None else sorted(self.numbers[peer] for peer in gossip.pubsub.mesh(topic))

    def scores(self, node: int) -> Mapping[int, float]:
        """What the node's gossipsub thinks of its peers."""
        gossip = self.nodes[node].gossip
        scores = {} if gossip is None else gossip.pubsub.scores()
        return {self.numbers[peer]: score for peer, score in scores.items()}

    # The DHT

    def find(self, node: int, target: int, operation: int) -> None:
        """`node` looks up the peers closest to `target`'s id; ends in `Observer.looked_up`."""
        self.nodes[node].operate("find", operation, self.peers[target].raw)

    def put(self, node: int, key: bytes, value: bytes, operation: int) -> None:
        """`node` stores a value in the DHT; ends in `Observer.looked_up`."""
        self.nodes[node].operate("put", operation, key, value)

    def get(self, node: int, key: bytes, operation: int) -> None:
        """`node` asks the DHT for a value; ends in `Observer.looked_up`, with the value as its result."""
        self.nodes[node].operate("get", operation, key)

    # Training

    def join_task(self, node: int, name: str) -> None:
        """`node` takes part in the training task of that name, now and after every restart."""
        self.nodes[node].join_task(name)


def _ignore(now: float, source: int, target: int, size: int, checksum: int) -> None:
    """No trace is wanted."""
