"""What all nodes of a run share: the network, who they are, and what is computed once for everybody.

A signature is verified by the first node that gets the message; the others are told what came out.
That is where most of the time of thousands of peers would go.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from p2p.blobs.merkle import blob_root
from p2p.gossipsub.params import GossipsubParams
from p2p.kad.namespaces import Namespaces
from p2p.peer_id import PeerId
from sim.adversaries import HONEST, Role, role
from sim.adversaries.addresses import shared_addresses
from sim.adversaries.league import league_of
from sim.cores.shared import Shared
from sim.identity import rng_of
from sim.rung import Setup
from sim.verification import VerificationCache

if TYPE_CHECKING:
    from sim.cores.node import Node


MAX_BLOBS = 4096  # whose roots are kept; a few rounds of a thousand members


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
        self.addresses = shared_addresses(setup.adversaries)
        self.league = league_of(setup.adversaries, self.peers)
        self._shared: dict[str, Shared] = {}
        self.verify = VerificationCache(self.peers)

    def role(self, node: int) -> Role:
        """What the node does differently; nothing when it is honest."""
        adversary = self.setup.adversaries.get(node)
        return HONEST if adversary is None else role(adversary.role, adversary.settings, self.peers)

    def shared(self, task: str) -> Shared:
        """What the members of a task compute alike."""
        if task not in self._shared:
            self._shared[task] = Shared(self.setup.tasks[task])
        return self._shared[task]
