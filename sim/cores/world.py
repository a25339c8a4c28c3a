"""What all nodes of a run share: the network, who they are, and what is computed once for everybody.

A signature is verified by the first node that gets the message, and a message's id is made by it;
the others are told what came out. That is where most of the time of thousands of peers would go.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from p2p.blobs.merkle import blob_root
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.signing import message_id_from_seqno, verify_message
from p2p.gossipsub.wire import Message
from p2p.kad.namespaces import Namespaces
from p2p.peer_id import PeerId
from sim.adversaries import HONEST, Role, role
from sim.cores.shared import Shared
from sim.identity import rng_of
from sim.rung import Setup

if TYPE_CHECKING:
    from sim.cores.node import Node

MAX_KEPT = 1 << 15  # messages whose id and origin are kept: five minutes of 100 a second

MAX_BLOBS = 4096  # whose roots are kept; a few rounds of a thousand members

T = TypeVar("T")


class World:
    """One run. `nodes` is filled by the rung."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.heap = setup.heap
        self.network = setup.network
        self.observer = setup.observer
        self.params = GossipsubParams()
        self.peers = [PeerId.from_public_key(key.public) for key in setup.keys]
        self.numbers = {peer: number for number, peer in enumerate(self.peers)}
        self.gossip_rng = rng_of(setup.seed, "cores", "gossip")
        self.kad_rng = rng_of(setup.seed, "cores", "kad")
        self.join_rng = rng_of(setup.seed, "cores", "join")
        self.namespaces = Namespaces()
        self.task_rng = rng_of(setup.seed, "cores", "task")
        self.disk_rng = rng_of(setup.seed, "cores", "disk")
        self.root_of = lru_cache(MAX_BLOBS)(blob_root)
        self.joins = setup.scenario.topology.kind == "join"
        self.has_kad = bool(setup.scenario.dht) or self.joins
        self.nodes: list[Node] = []
        self._shared: dict[str, Shared] = {}
        self._ids: dict[bytes, bytes] = {}  # serialized message → its id
        self._origins: dict[bytes, PeerId | None] = {}  # serialized message → who signed it

    def role(self, node: int) -> Role:
        """What the node does differently; nothing when it is honest."""
        adversary = self.setup.adversaries.get(node)
        return HONEST if adversary is None else role(adversary.role, adversary.settings, self.peers)

    def shared(self, task: str) -> Shared:
        """What the members of a task compute alike."""
        if task not in self._shared:
            self._shared[task] = Shared(self.setup.tasks[task])
        return self._shared[task]

    def message_id(self, message: Message) -> bytes:
        """origin ‖ seqno, one object for all nodes."""
        found = self._ids.get(message.raw)
        if found is None:
            found = message_id_from_seqno(message)
            _remember(self._ids, message.raw, found)
        return found

    def verify(self, message: Message) -> PeerId | None:
        """The origin that signed `message`, or None; found out once for all nodes."""
        origin = self._origins.get(message.raw)
        if origin is not None or message.raw in self._origins:
            return origin
        origin = verify_message(message)
        if origin is not None and origin in self.numbers:
            origin = self.peers[self.numbers[origin]]  # one object for all nodes
        _remember(self._origins, message.raw, origin)
        return origin


def _remember(kept: dict[bytes, T], key: bytes, value: T) -> None:
    kept[key] = value
    if len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]
