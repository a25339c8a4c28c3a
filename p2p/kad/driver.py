"""Kademlia on a host: serves requests, runs look-ups, keeps the routing table fresh.

The tasks of `open_kad`: one follows the host's events into the table, one probes old members of full
buckets, one refreshes. A look-up runs in its caller's task, with one more task for each request.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from multiaddr import Multiaddr

from p2p.errors import ConnectionLost, DialFailed, NegotiationFailed, RemoteProtocolError
from p2p.events import PeerIdentified
from p2p.framing import DelimitedReader, encode_delimited
from p2p.host import Host
from p2p.kad.distance import common_prefix_length, position, random_key
from p2p.kad.lookup import (
    ALPHA,
    REQUEST_DEADLINE,
    Action,
    Answered,
    Event,
    Failed,
    Finished,
    GiveUp,
    Learned,
    Lookup,
    Query,
)
from p2p.kad.responder import Known, NoReply, Refuse, Reply, answer
from p2p.kad.table import RoutingTable
from p2p.kad.wire import MAX_MESSAGE, FindNode, K, PeerEntry, decode, encode
from p2p.peer_id import PeerId
from p2p.peerstore import TTL_HEARD
from p2p.request_response import request
from p2p.scope import open_scope
from p2p.stream import Stream

logger = logging.getLogger(__name__)

PROTOCOL = "/atcp/kad/1.0.0"  # a private network uses its own prefix; kad-dht spec, "DHT Operations"
IDLE_TIMEOUT = 60.0  # seconds an inbound stream may take for its next request, as go-libp2p-kad-dht
REFRESH_INTERVAL = 600.0  # seconds; kad-dht spec, "Bootstrap process"
SETTLE = 1.0  # seconds between the first peer of a table and the refresh; more peers come with it
PARALLEL_LOOKUPS = 3  # of one refresh
PROBE_QUEUE = 16  # members waiting for a probe; others are probed when they come up again

REQUEST_ERRORS = (DialFailed, NegotiationFailed, ConnectionLost, RemoteProtocolError)


class Kad:
    """The distributed hash table as one host sees it. Made by `open_kad`.

    `table` holds the peers that serve the protocol, as identify and their answers prove.
    """

    def __init__(self, host: Host, protocol: str) -> None:
        self.table = RoutingTable(host.peer_id)
        self._host = host
        self.protocol = protocol
        self._known = Known(addresses=self._addresses, is_connected=host.is_connected)
        self._first_peer = trio.Event()  # a peer entered the empty table
        self._refreshing: trio.Event | None = None  # set at the end of the refresh that runs
        self._heard: dict[PeerId, None] = {}  # in the latest refresh
        self._probing: dict[PeerId, None] = {}  # members that wait for a probe, or have one
        self._probes, self._to_probe = trio.open_memory_channel[PeerId](PROBE_QUEUE)

    async def find_closest(self, key: bytes) -> list[PeerId]:
        """The live peers closest to `key`, nearest first, at most 20.

        The addresses of all peers that were met on the way are in the peerstore then.
        """
        return await self._look_up(key, {})

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
        nearest = await self._look_up(self._host.peer_id.raw, heard)
        if len(nearest) < K:
            return  # that was the whole network
        origin = position(self._host.peer_id.raw)
        edge = common_prefix_length(origin, position(nearest[-1].raw))
        limit = trio.CapacityLimiter(PARALLEL_LOOKUPS)

        async def refresh_bucket(prefix: int) -> None:
            async with limit:
                await self._look_up(random_key(origin, prefix, self._host.rng), heard)

        async with trio.open_nursery() as nursery:
            for prefix in self.table.prefixes_to_refresh():
                if prefix <= edge:
                    nursery.start_soon(refresh_bucket, prefix)

    # Look-ups and requests

    async def _look_up(self, key: bytes, heard: dict[PeerId, None]) -> list[PeerId]:
        """Runs one `Lookup`; requests that it needs no longer are cancelled at its end."""
        lookup = Lookup(key, local=self._host.peer_id, seeds=self.table.closest(key))
        requests: dict[PeerId, trio.CancelScope] = {}
        results, events = trio.open_memory_channel[Event](ALPHA)
        async with open_scope() as nursery:
            actions = lookup.start(trio.current_time())
            while True:
                for action in actions:
                    match action:
                        case Learned(peer=peer, addresses=addresses):
                            heard[peer] = None
                            self._learn(peer, addresses)
                        case Query(peer=peer):
                            requests[peer] = trio.CancelScope()
                            nursery.start_soon(self._ask, peer, key, requests[peer], results)
                        case GiveUp(peer=peer):
                            requests[peer].cancel()
                            self._drop(peer)
                        case Finished(closest=closest):
                            return list(closest)
                actions = await _next_actions(lookup, events)

    async def _ask(
        self, peer: PeerId, key: bytes, scope: trio.CancelScope, results: trio.MemorySendChannel[Event]
    ) -> None:
        """One request of a look-up, which gives up by cancelling `scope`."""
        with scope:
            event: Event = Failed(peer=peer)
            try:
                event = Answered(peer=peer, closer=await self._find_node(peer, key))
            except REQUEST_ERRORS as exc:
                logger.info("look-up: %s fails: %s", peer, exc)
                self._drop(peer)
            await results.send(event)

    async def _find_node(self, peer: PeerId, key: bytes) -> tuple[PeerEntry, ...]:
        """Whom `peer` names as closest to `key`. The caller sets the deadline.

        Two dials that cross close one connection and its streams, so a lost stream is tried once more.
        Raises `DialFailed`, `NegotiationFailed`, `ConnectionLost`, `RemoteProtocolError`.
        """
        try:
            closer = await self._exchange(peer, key)
        except ConnectionLost:
            closer = await self._exchange(peer, key)
        self._note(peer)
        return closer

    async def _exchange(self, peer: PeerId, key: bytes) -> tuple[PeerEntry, ...]:
        message = encode(FindNode(key=key))
        reply = decode(await request(self._host, peer, [self.protocol], message, max_answer=MAX_MESSAGE))
        if not isinstance(reply, FindNode):
            raise RemoteProtocolError(f"{peer} answers FIND_NODE with {type(reply).__name__}")
        return reply.closer

    # What we know of others

    def _learn(self, peer: PeerId, addresses: tuple[Multiaddr, ...]) -> None:
        """Keeps what a stranger claims about `peer`, unless we are connected and know better."""
        if not self._host.is_connected(peer):
            self._host.peerstore.add_addresses(peer, addresses, TTL_HEARD)

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
        reader = DelimitedReader(stream, MAX_MESSAGE)
        while True:
            with trio.move_on_after(IDLE_TIMEOUT) as idle:
                request = await reader.receive()
                if request is None:
                    return
                self._note(stream.peer)
                match answer(decode(request), stream.peer, self.table, self._known):
                    case Reply(message=message):
                        await stream.send_all(encode_delimited(encode(message)))
                    case Refuse():
                        stream.reset()
                        return
                    case NoReply():
                        pass
            if idle.cancelled_caught:
                stream.reset()
                return

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
                    await self._find_node(peer, self._host.peer_id.raw)
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


async def _next_actions(lookup: Lookup, events: trio.MemoryReceiveChannel[Event]) -> list[Action]:
    deadline = lookup.next_deadline()
    with trio.move_on_at(deadline if deadline is not None else float("inf")):
        event = await events.receive()
        return lookup.handle(event, trio.current_time())
    return lookup.handle_timer(trio.current_time())


@asynccontextmanager
async def open_kad(host: Host, *, protocol: str = PROTOCOL, server: bool = True) -> AsyncIterator[Kad]:
    """Kademlia on `host` under the name `protocol`; a client (`server=False`) asks and answers nothing.

    Raises `LocalProtocolError` when the protocol has a handler already.
    """
    kad = Kad(host, protocol)
    async with open_scope() as nursery:
        nursery.start_soon(kad._follow_events)
        nursery.start_soon(kad._probe_members)
        nursery.start_soon(kad._keep_fresh)
        if server:
            host.handle(protocol, kad._serve)
        try:
            yield kad
        finally:
            if server:
                host.unhandle(protocol)
