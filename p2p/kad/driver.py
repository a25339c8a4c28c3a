"""Kademlia on a host: serves requests, looks up peers and values, keeps table and values fresh.

The tasks of `open_kad`: one follows the host's events into the table, one probes old members of full
buckets, one refreshes the table, one puts our values again, one corrects those of others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import trio
from multiaddr import Multiaddr

from p2p.errors import LocalProtocolError, P2PError
from p2p.events import PeerIdentified
from p2p.framing import DelimitedReader, encode_delimited
from p2p.host import Host
from p2p.kad.client import REQUEST_ERRORS, Client
from p2p.kad.distance import common_prefix_length, position, random_key
from p2p.kad.lookup import REQUEST_DEADLINE, Finished, Lookup, Placement
from p2p.kad.namespaces import DEFAULT_VALIDATORS, Namespaces, Validator
from p2p.kad.records import Gathered, RecordRefused, RecordStore
from p2p.kad.responder import Known, NoReply, Refuse, Reply, Respond, Shelf, answer
from p2p.kad.table import RoutingTable
from p2p.kad.wire import MAX_MESSAGE, FindNode, K, Record, decode, encode
from p2p.limits import StreamLimit
from p2p.peer_id import PeerId
from p2p.scope import open_scope
from p2p.stream import Stream

logger = logging.getLogger(__name__)

PROTOCOL = "/atcp/kad/1.0.0"  # a private network uses its own prefix; kad-dht spec, "DHT Operations"
IDLE_TIMEOUT = 60.0  # seconds an inbound stream may take for its next request, as go-libp2p-kad-dht
MAX_STREAMS = 64  # inbound, of one peer at once: a request of each of several look-ups
REFRESH_INTERVAL = 600.0  # seconds; kad-dht spec, "Bootstrap process"
SETTLE = 1.0  # seconds between the first peer of a table and the refresh; more peers come with it
PARALLEL_LOOKUPS = 3  # of one refresh
PROBE_QUEUE = 16  # members waiting for a probe; others are probed when they come up again
REPUBLISH = (
    22 * 3600.0
)  # seconds until a value of ours is put again; kad-dht spec, "Content provider advertisement"
VALUES_INTERVAL = 3600.0  # seconds between two looks at the age of values, as js-libp2p
MAX_OWN = 1024  # values that we put and keep alive; each takes a look-up when it is put again
CORRECTIONS = 16  # values waiting to be told to peers that lack them; they are told at the next get


class RecordNotFound(P2PError):
    """Nobody who answered has a valid value under the key."""


class Kad:
    """The distributed hash table as one host sees it. Made by `open_kad`.

    `table` holds the peers that serve the protocol, as identify and their answers prove; `store` the
    values that others put here, and our own.
    """

    def __init__(
        self,
        host: Host,
        protocol: str,
        namespaces: Namespaces,
        wall_clock: Callable[[], float],
        answer: Respond,
    ) -> None:
        self.protocol = protocol
        self.table = RoutingTable(host.peer_id)
        self.store = RecordStore(namespaces)
        self._host = host
        self._wall_clock = wall_clock
        self._answer = answer
        self._client = Client(host, protocol, on_answer=self._note, on_failure=self._drop)
        self._known = Known(addresses=self._addresses, is_connected=host.is_connected)
        self._limit = StreamLimit(MAX_STREAMS)
        self._first_peer = trio.Event()  # a peer entered the empty table
        self._refreshing: trio.Event | None = None  # set at the end of the refresh that runs
        self._heard: dict[PeerId, None] = {}  # in the latest refresh
        self._probing: dict[PeerId, None] = {}  # members that wait for a probe, or have one
        self._probes, self._to_probe = trio.open_memory_channel[PeerId](PROBE_QUEUE)
        self._own: dict[bytes, float] = {}  # the keys that we put, and when
        self._corrections, self._to_correct = trio.open_memory_channel[Placement](CORRECTIONS)

    async def find_closest(self, key: bytes) -> list[PeerId]:
        """The live peers closest to `key`, nearest first, at most 20.

        The addresses of all peers that were met on the way are in the peerstore then.
        """
        return list((await self.look_up(key)).closest)

    async def look_up(self, key: bytes, heard: dict[PeerId, None] | None = None) -> Finished:
        """`find_closest` with what it took; who was heard of on the way is added to `heard`."""
        lookup = Lookup(key, local=self._host.peer_id, seeds=self.table.closest(key))
        return await self._client.run(lookup, heard)

    async def find_peer(self, peer: PeerId) -> list[Multiaddr]:
        """Where `peer` is, by a look-up unless we are connected; empty when nobody knows."""
        if not self._host.is_connected(peer):
            await self.find_closest(peer.raw)
        return list(self._addresses(peer))

    async def refresh(self) -> list[PeerId]:
        """Looks up ourselves, then a random key in each near bucket. Returns everybody heard of.

        Called while another refresh runs, it waits for that one.
        """
        if self._refreshing is not None:
            heard = self._heard
            await self._refreshing.wait()
            return list(heard)
        self._refreshing, self._heard = trio.Event(), {}
        try:
            await self._refresh(self._heard)
            return list(self._heard)
        finally:
            self._refreshing.set()
            self._refreshing = None

    async def _refresh(self, heard: dict[PeerId, None]) -> None:
        """The self look-up met everybody nearer than its last result; buckets up to there remain."""
        nearest = (await self.look_up(self._host.peer_id.raw, heard)).closest
        if len(nearest) < K:
            return  # that was the whole network
        origin = position(self._host.peer_id.raw)
        edge = common_prefix_length(origin, position(nearest[-1].raw))
        limit = trio.CapacityLimiter(PARALLEL_LOOKUPS)

        async def refresh_bucket(prefix: int) -> None:
            async with limit:
                await self.look_up(random_key(origin, prefix, self._host.rng), heard)

        async with trio.open_nursery() as nursery:
            for prefix in self.table.prefixes_to_refresh():
                if prefix <= edge:
                    nursery.start_soon(refresh_bucket, prefix)

    # Values

    async def put_value(self, key: bytes, value: bytes) -> int:
        """Stores `value` at the peers closest to `key`, and again every 22 hours; how many took it.

        Raises `InvalidRecord` when `key` does not allow `value`, `OutdatedRecord` when we hold a better
        one, and `LocalProtocolError` with too many values of ours. 0 when there is no other peer.
        """
        return len((await self.place_value(key, value)).closest)

    async def place_value(self, key: bytes, value: bytes) -> Finished:
        """`put_value` with what it took: `closest` are the peers that keep the value."""
        if key not in self._own and len(self._own) >= MAX_OWN:
            raise LocalProtocolError(f"more than {MAX_OWN} values to keep alive")
        record = Record(key=key, value=value)
        self.store.put(record, None, trio.current_time(), self._wall_clock())
        self._own[key] = trio.current_time()
        return await self._place(record)

    async def _place(self, record: Record) -> Finished:
        found = await self.look_up(record.key)
        placed = await self._client.run(Placement(record, found.closest))
        return replace(placed, queries=found.queries + placed.queries, hops=found.hops)

    async def get_value(self, key: bytes, *, quorum: int = 0) -> bytes:
        """The best value under `key` among `quorum` valid ones; with 0, of all peers close to the key.

        One is enough for a value that never changes. Peers that have none, or an older one, are told
        the best afterwards. Raises `RecordNotFound`, and `InvalidRecord` for a key in no namespace.
        """
        value = (await self.find_value(key, quorum=quorum)).value
        if value is None:
            raise RecordNotFound(f"nobody has a value under {key[:80]!r}")
        return value

    async def find_value(self, key: bytes, *, quorum: int = 0) -> Finished:
        """`get_value` with what it took; `value` is None when there is none."""
        values = Gathered(key, self.store.namespaces, quorum)
        held = self.store.get(key, trio.current_time())
        values.take(self._host.peer_id, held)
        seeds = self.table.closest(key)
        lookup = Lookup(key, local=self._host.peer_id, seeds=seeds, values=values)
        found = await self._client.run(lookup)
        if found.value is not None:
            best = Record(key=key, value=found.value)
            if held is not None and held.value != best.value:
                self._hold(best)
            if found.outdated:
                with suppress(trio.WouldBlock):
                    self._corrections.send_nowait(Placement(best, found.outdated))
        return found

    def _hold(self, record: Record) -> None:
        """Replaces a value that we hold, unless a better one came meanwhile."""
        with suppress(RecordRefused):
            self.store.put(record, self._host.peer_id, trio.current_time(), self._wall_clock())

    # What we know of others

    def _note(self, peer: PeerId) -> None:
        """Puts `peer`, which is alive, into the table when identify says that it serves the protocol."""
        if self.protocol not in self._host.peerstore.protocols(peer):
            return
        was_empty = len(self.table) == 0
        oldest = self.table.handle_seen(peer)
        if was_empty and len(self.table):
            self._first_peer.set()
        if oldest is None:
            return
        if self._host.is_connected(oldest):
            self.table.handle_seen(oldest)
            return
        if oldest not in self._probing and len(self._probing) < PROBE_QUEUE:
            self._probing[oldest] = None
            self._probes.send_nowait(oldest)

    def _drop(self, peer: PeerId) -> None:
        """Takes `peer` out of the table: it failed, or serves the protocol no more."""
        self.table.remove(peer)

    def _addresses(self, peer: PeerId) -> list[Multiaddr]:
        return self._host.addresses() if peer == self._host.peer_id else self._host.peerstore.addresses(peer)

    # Tasks

    async def _serve(self, stream: Stream) -> None:
        """Answers one request after the other until the peer closes the stream or says nothing for long."""
        with self._limit.admitted(stream) as admitted:
            if not admitted:
                return
            reader = DelimitedReader(stream, MAX_MESSAGE)
            while True:
                with trio.move_on_after(IDLE_TIMEOUT) as idle:
                    if not await self._serve_request(stream, reader):
                        return
                if idle.cancelled_caught:
                    stream.reset()
                    return

    async def _serve_request(self, stream: Stream, reader: DelimitedReader) -> bool:
        """Answers the next request; whether another one may follow."""
        request = await reader.receive()
        if request is None:
            return False
        self._note(stream.peer)
        shelf = Shelf(store=self.store, now=trio.current_time(), wall=self._wall_clock())
        match self._answer(decode(request), stream.peer, self.table, self._known, shelf):
            case Reply(message=message):
                await stream.send_all(encode_delimited(encode(message)))
            case Refuse():
                stream.reset()
                return False
            case NoReply():
                pass
        return True

    async def _follow_events(self) -> None:
        """Keeps the table to peers whose identify lists the protocol.

        A subscription ends when it lags too far; the next one begins with all that is there.
        """
        while True:
            with self._host.events() as events:
                async for event in events:
                    match event:
                        case PeerIdentified(peer=peer, protocols=protocols) if self.protocol in protocols:
                            self._note(peer)
                        case PeerIdentified(peer=peer):
                            self._drop(peer)
                        case _:
                            pass

    async def _probe_members(self) -> None:
        """Asks old members of full buckets for a sign of life, one after the other."""
        async for peer in self._to_probe:
            alive = False
            with trio.move_on_after(REQUEST_DEADLINE):
                try:
                    await self._client.ask(peer, FindNode(key=self._host.peer_id.raw))
                    alive = True
                except REQUEST_ERRORS as exc:
                    logger.info("probe: %s fails: %s", peer, exc)
            del self._probing[peer]
            if not alive:
                self._drop(peer)

    async def _keep_fresh(self) -> None:
        """Refreshes every ten minutes, and soon after the first peer enters the empty table."""
        while True:
            with trio.move_on_after(REFRESH_INTERVAL):
                await self._first_peer.wait()
                self._first_peer = trio.Event()
                await trio.sleep(SETTLE)
            await self.refresh()

    async def _keep_values(self) -> None:
        """Forgets values that are too old, and puts our own again before others forget them."""
        while True:
            await trio.sleep(VALUES_INTERVAL)
            now = trio.current_time()
            for key in [key for key, put in self._own.items() if put + REPUBLISH <= now]:
                record = self.store.get(key, now)
                assert record is not None, "our own stay"
                await self.place_value(key, record.value)
            self.store.expire(trio.current_time())

    async def _correct_values(self) -> None:
        """Tells peers the best value of a key, one key after the other."""
        async for placement in self._to_correct:
            await self._client.run(placement)


@asynccontextmanager
async def open_kad(
    host: Host,
    *,
    protocol: str = PROTOCOL,
    server: bool = True,
    validators: Mapping[str, Validator] = DEFAULT_VALIDATORS,
    wall_clock: Callable[[], float] = time.time,
    answer: Respond = answer,
) -> AsyncIterator[Kad]:
    """Kademlia on `host` under the name `protocol`; a client (`server=False`) asks and answers nothing.

    `validators`, by the name of the namespace, say which values may be stored; `wall_clock` returns
    seconds since 1970; `answer` replies to requests (a simulated adversary's does not keep the rules).
    Raises `LocalProtocolError` when the protocol has a handler already.
    """
    kad = Kad(host, protocol, Namespaces(validators), wall_clock, answer)
    async with open_scope() as nursery:
        nursery.start_soon(kad._follow_events)
        nursery.start_soon(kad._probe_members)
        nursery.start_soon(kad._keep_fresh)
        nursery.start_soon(kad._keep_values)
        nursery.start_soon(kad._correct_values)
        if server:
            host.handle(protocol, kad._serve)
        try:
            yield kad
        finally:
            if server:
                host.unhandle(protocol)
