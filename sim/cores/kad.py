"""One node's Kademlia on this rung: the shipped look-ups, table, responder and records, without streams.

    find, put, get, refresh ──→ Run: Lookup │ Placement ──Query──→ Client.ask ──connection──→ serve ──→ answer
                                         ↑──Answered │ Failed────────┘←──connection──────────────────┘

What the driver does in tasks is done in calls that end in a `done`. Messages are handed over as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from multiaddr import Multiaddr

from p2p.errors import P2PError
from p2p.kad.distance import common_prefix_length, position, random_key
from p2p.kad.lookup import Lookup
from p2p.kad.placement import Placement
from p2p.kad.providers import ProviderStore
from p2p.kad.query import REQUEST_DEADLINE, Answered, Finished, Machine
from p2p.kad.records import Gathered, RecordRefused, RecordStore
from p2p.kad.responder import Known, Refuse, Reply, Respond, Shelf, answer
from p2p.kad.table import RoutingTable
from p2p.kad.wire import FindNode, K, KadMessage, PutValue, Record
from sim.cores.queries import Client, Query, Run, message_size
from sim.cores.settings import PARALLEL_LOOKUPS, PROBE_QUEUE, REFRESH_INTERVAL, SETTLE

if TYPE_CHECKING:
    from p2p.peer_id import PeerId
    from sim.cores.links import End
    from sim.cores.node import Life

ADDRESS = (Multiaddr("/ip4/10.0.0.1/tcp/4001"),)  # whom it belongs to is known by the peer's id
RESET = 40  # bytes


class Kad:
    """The distributed hash table as one life sees it."""

    def __init__(self, life: Life, respond: Respond = answer) -> None:
        world = life.world
        self.life = life
        self._respond = respond
        self.peer = world.peers[life.number]
        self.table = RoutingTable(self.peer)
        self.store = RecordStore(world.namespaces)
        self.providers = ProviderStore(self.peer)
        self.met: dict[PeerId, None] = {}  # whose address is known; the driver's peerstore
        self._client = Client(self)
        self._known = Known(addresses=self._addresses, is_connected=self.is_connected)
        self._probing: dict[PeerId, None] = {}
        self._fresh = False  # a refresh is planned, or was made
        self._refreshing: list[Callable[[list[PeerId]], None]] = []  # who waits for the one that runs

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.life.world.heap.now

    # What is asked of it

    def look_up(
        self, key: bytes, done: Callable[[Finished], None], heard: dict[PeerId, None] | None = None
    ) -> None:
        """The live peers closest to `key`; who was heard of on the way is added to `heard`."""
        lookup = Lookup(key, local=self.peer, seeds=self.table.closest(key))
        self._run(lookup, done, heard)

    def put(self, key: bytes, value: bytes, done: Callable[[Finished], None]) -> None:
        """Stores a value. Raises `P2PError` when the key does not allow it."""
        record = Record(key=key, value=value)
        self.store.put(record, None, self.now, self._wall())

        def place(found: Finished) -> None:
            def placed(end: Finished) -> None:
                done(replace(end, queries=found.queries + end.queries, hops=found.hops))

            self._run(Placement(PutValue(key=key, record=record), found.closest), placed)

        self.look_up(key, place)

    def get(self, key: bytes, done: Callable[[Finished], None]) -> None:
        """Asks for a value, and tells those that lack it. Raises `P2PError` for a key of no namespace."""
        values = Gathered(key, self.store.namespaces)
        held = self.store.get(key, self.now)
        values.take(self.peer, held)

        def found(end: Finished) -> None:
            if end.value is not None:
                best = Record(key=key, value=end.value)
                if held is not None and held.value != best.value:
                    with suppress(RecordRefused):
                        self.store.put(best, self.peer, self.now, self._wall())
                if end.outdated:
                    self._run(Placement(PutValue(key=key, record=best), end.outdated), lambda _: None)
            done(end)

        self._run(Lookup(key, local=self.peer, seeds=self.table.closest(key), values=values), found)

    def refresh(self, done: Callable[[list[PeerId]], None]) -> None:
        """Looks up ourselves, then a random key in each near bucket; `done` gets everybody heard of."""
        self._refreshing.append(done)
        if len(self._refreshing) == 1:
            heard: dict[PeerId, None] = {}
            self.look_up(self.peer.raw, partial(self._refresh_buckets, heard), heard)

    def _refresh_buckets(self, heard: dict[PeerId, None], found: Finished) -> None:
        """The look-up of ourselves met everybody nearer than its last result; buckets up to there remain."""
        keys: deque[bytes] = deque()
        if len(found.closest) >= K:
            origin = position(self.peer.raw)
            edge = common_prefix_length(origin, position(found.closest[-1].raw))
            rng = self.life.world.kad_rng
            near = [prefix for prefix in self.table.prefixes_to_refresh() if prefix <= edge]
            keys.extend(random_key(origin, prefix, rng) for prefix in near)
        running = [min(PARALLEL_LOOKUPS, len(keys))]

        def next_one(_: Finished | None) -> None:
            if keys:
                self.look_up(keys.popleft(), next_one, heard)
                return
            running[0] -= 1
            if running[0] <= 0:
                self._refreshed(heard)

        for _ in range(running[0]):
            next_one(None)
        if not running[0] and self._refreshing:
            self._refreshed(heard)

    def _refreshed(self, heard: dict[PeerId, None]) -> None:
        waiting, self._refreshing = self._refreshing, []
        for done in waiting:
            done(list(heard))

    def _run(
        self, machine: Machine, done: Callable[[Finished], None], heard: dict[PeerId, None] | None = None
    ) -> None:
        Run(self._client, machine, done, heard).start()

    # What happens

    def open(self, end: End) -> None:
        """There is a connection, to a peer that serves the protocol as all do."""
        self.note(self.life.world.peers[end.other])

    def lose(self, end: End) -> None:
        """The connection is gone, and what was asked on it."""
        self._client.lose(end)

    def serve(self, end: End, request: KadMessage, query: Query) -> None:
        """A request arrived at this end."""
        peer = self.life.world.peers[end.other]
        self.note(peer)
        shelf = Shelf(store=self.store, providers=self.providers, now=self.now, wall=self._wall())
        match self._respond(request, peer, self.table, self._known, shelf):
            case Reply(message=message):
                end.send(message_size(message), query.replied, message)
            case Refuse():
                end.send(RESET, query.refused)
            case _:
                pass

    def learn(self, peer: PeerId) -> None:
        """Somebody says where `peer` is."""
        world = self.life.world
        if peer in world.numbers:
            self.met[world.peers[world.numbers[peer]]] = None

    def note(self, peer: PeerId) -> None:
        """`peer` is alive and serves the protocol."""
        self.met[peer] = None
        oldest = self.table.handle_seen(peer)
        if not self._fresh and len(self.table):
            self._fresh = True
            self._plan_refresh(SETTLE)
        if oldest is None:
            return
        if self.is_connected(oldest):
            self.table.handle_seen(oldest)
        elif oldest not in self._probing and len(self._probing) < PROBE_QUEUE:
            self._probing[oldest] = None
            probe = Query(self._client, oldest, FindNode(key=self.peer.raw), self._probed)
            self.life.world.heap.plan(self.now + REQUEST_DEADLINE, probe.expire)
            probe.start()

    def _probed(self, probe: Query, answered: Answered | None) -> None:
        del self._probing[probe.peer]
        if answered is None:
            self.drop(probe.peer)
        else:
            self.note(probe.peer)

    def drop(self, peer: PeerId) -> None:
        """`peer` failed."""
        self.table.remove(peer)

    def is_connected(self, peer: PeerId) -> bool:
        """Whether there is a connection to `peer`."""
        end = self.life.ends.get(self.life.world.numbers.get(peer, -1))
        return end is not None and end.up

    def _plan_refresh(self, seconds: float) -> None:
        self.life.world.heap.plan(self.now + seconds, self._refresh_now)

    def _refresh_now(self) -> None:
        if self.life.running:
            self.life.receive(self.refresh, lambda _: None)
            self._plan_refresh(REFRESH_INTERVAL)

    def _addresses(self, peer: PeerId) -> tuple[Multiaddr, ...]:
        return ADDRESS if peer in self.met or peer == self.peer else ()

    def _wall(self) -> float:
        return self.life.world.network.wall_clock(self.life.number)


class Operations:
    """What a node is told to do with its DHT: each operation ends in a word to the observer."""

    def __init__(self, kad: Kad) -> None:
        self._kad = kad

    def find(self, operation: int, key: bytes) -> None:
        """Looks up the peers closest to `key`; well, when it found any."""
        self._kad.look_up(key, self._end("find", operation, _closest))

    def put(self, operation: int, key: bytes, value: bytes) -> None:
        """Stores a value; well, when somebody took it."""
        end = self._end("put", operation, _closest)
        try:
            self._kad.put(key, value, end)
        except P2PError:
            end(Finished(closest=(), queries=0))

    def get(self, operation: int, key: bytes) -> None:
        """Asks for a value; well, when there is one."""
        end = self._end("get", operation, lambda found: found.value or b"")
        try:
            self._kad.get(key, end)
        except P2PError:
            end(Finished(closest=(), queries=0))

    def _end(
        self, kind: str, operation: int, result_of: Callable[[Finished], bytes]
    ) -> Callable[[Finished], None]:
        kad, began = self._kad, self._kad.now

        def end(found: Finished) -> None:
            result = result_of(found)
            kad.life.world.observer.looked_up(
                kad.life.number,
                operation,
                kind=kind,
                ok=bool(result),
                seconds=kad.now - began,
                hops=found.hops,
                result=result,
            )

        return end


def _closest(found: Finished) -> bytes:
    return b"".join(sorted(peer.raw for peer in found.closest))
