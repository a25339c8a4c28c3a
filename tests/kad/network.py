"""A network of machines alone: responders, look-ups and placements in simulated time, without trio."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import Any

from p2p.errors import RemoteProtocolError
from p2p.kad.lookup import Lookup
from p2p.kad.namespaces import DEFAULT_VALIDATORS, Namespaces
from p2p.kad.placement import Placement
from p2p.kad.providers import ProviderStore, Sought
from p2p.kad.query import (
    ALPHA,
    Answered,
    Failed,
    Finished,
    Found,
    GiveUp,
    Learned,
    Machine,
    Query,
    read_reply,
)
from p2p.kad.records import Gathered, RecordStore
from p2p.kad.responder import Known, Reply, Shelf, answer
from p2p.kad.table import RoutingTable
from p2p.kad.wire import AddProvider, PeerEntry, PutValue, Record, decode, encode
from p2p.peer_id import PeerId
from tests.kad.peers import address
from tests.support import key_number

EPOCH = 1_700_000_000.0  # seconds since 1970 at the network's time 0


@dataclass
class Node:
    """One peer: what it knows, and what it holds."""

    id: PeerId
    table: RoutingTable
    store: RecordStore
    providers: ProviderStore


@dataclass
class ValueNetwork:
    """`count` peers that know one another, and those of them that are dead, silent or liars."""

    count: int = 50
    seed: int = 1
    validators: Any = None
    now: float = 0.0
    dead: set = field(default_factory=set)
    silent: set = field(default_factory=set)
    liars: dict = field(default_factory=dict)  # what each says to a request

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.identities = [key_number(1000 + number) for number in range(self.count)]
        self.peers = [PeerId.from_public_key(identity.public) for identity in self.identities]
        namespaces = Namespaces(self.validators or DEFAULT_VALIDATORS)
        self.nodes = {
            one: Node(one, RoutingTable(one), RecordStore(namespaces), ProviderStore(one))
            for one in self.peers
        }
        for one, node in self.nodes.items():
            for other in self.rng.sample(self.peers, self.count):
                if other != one:
                    node.table.handle_seen(other)
        self.known = Known(addresses=lambda one: [address(1)], is_connected=lambda one: False)

    def run(self, machine: Machine, requester: PeerId, found: list | None = None) -> Finished:
        """The result of `machine`; every message passes the wire. Providers are added to `found`."""
        pending: list = []
        running: set = set()
        actions = machine.start(self.now)
        while True:
            for action in actions:
                match action:
                    case Query(peer=one, request=request):
                        running.add(one)
                        if one not in self.silent:
                            at = self.now + self.rng.uniform(0.01, 0.2)
                            heapq.heappush(pending, (at, one, request))
                    case GiveUp(peer=one):
                        running.discard(one)
                    case Found(peer=one):
                        assert found is not None
                        found.append(one)
                    case Finished():
                        return action
                    case Learned():
                        pass
                assert len(running) <= ALPHA
            deadline = machine.next_deadline()
            assert deadline is not None
            if pending and pending[0][0] <= deadline:
                self.now, one, request = heapq.heappop(pending)
                running.discard(one)
                actions = machine.handle(self.serve(one, request, requester), self.now)
            else:
                self.now = deadline
                actions = machine.handle_timer(self.now)

    def serve(self, one: PeerId, request: Any, requester: PeerId) -> Answered | Failed:
        """What comes of a request to one peer."""
        if one in self.dead or one not in self.nodes:
            return Failed(peer=one)
        node, request = self.nodes[one], decode(encode(request))
        if one in self.liars:
            said = Reply(message=self.liars[one](request))
        else:
            shelf = Shelf(store=node.store, providers=node.providers, now=self.now, wall=EPOCH + self.now)
            said = answer(request, requester, node.table, self.known, shelf)
        if isinstance(request, AddProvider):
            return Answered(peer=one)
        if not isinstance(said, Reply):
            return Failed(peer=one)
        try:
            return read_reply(one, request, decode(encode(said.message)))
        except RemoteProtocolError:
            return Failed(peer=one)

    def find(self, key: bytes, by: PeerId, values: Gathered | None = None) -> Finished:
        seeds = self.nodes[by].table.closest(key)
        return self.run(Lookup(key, local=by, seeds=seeds, values=values), by)

    def provide(self, key: bytes, by: PeerId) -> tuple:
        """The peers that were told."""
        closest = self.find(key, by).closest
        entry = PeerEntry(peer=by, addresses=(address(1),))
        return self.run(Placement(AddProvider(key=key, providers=(entry,)), closest), by).closest

    def providers(self, key: bytes, by: PeerId, limit: int = 20) -> tuple:
        """(those that were found, in their order; what it took)."""
        found: list = []
        seeds = self.nodes[by].table.closest(key)
        lookup = Lookup(key, local=by, seeds=seeds, sought=Sought(by, limit))
        return found, self.run(lookup, by, found)

    def put(self, key: bytes, value: bytes, by: PeerId) -> tuple:
        """The peers that took the value."""
        closest = self.find(key, by).closest
        return self.run(put_at(key, value, closest), by).closest

    def get(self, key: bytes, by: PeerId, quorum: int = 0) -> Finished:
        """The value; those who should have it are told."""
        values = Gathered(key, self.nodes[by].store.namespaces, quorum)
        values.take(by, self.nodes[by].store.get(key, self.now))
        found = self.find(key, by, values)
        if found.value is not None:
            self.run(put_at(key, found.value, found.outdated), by)
        return found

    def holders(self, key: bytes) -> dict:
        """Who holds which value."""
        held = {one: node.store.get(key, self.now) for one, node in self.nodes.items()}
        return {one: record.value for one, record in held.items() if record is not None}


def put_at(key: bytes, value: bytes, peers: tuple) -> Placement:
    """The placement of a value."""
    return Placement(PutValue(key=key, record=Record(key=key, value=value)), peers)
