"""Kademlia on a host: serves requests, looks up peers, values and providers, keeps all of it fresh.

The tasks of `open_kad`: one follows the host's events into the table, one probes old members of full
buckets, one refreshes the table and announces what we provide, one puts our values again, one corrects
those of others. What there is to do for a refresh is in `refresh.py`, for values in `values.py`, for
providers in `content.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio
from multiaddr import Multiaddr

from p2p.errors import P2PError
from p2p.events import PeerIdentified
from p2p.framing import DelimitedReader, encode_delimited
from p2p.host import Host
from p2p.kad.client import REQUEST_ERRORS, Client
from p2p.kad.content import Content
from p2p.kad.namespaces import DEFAULT_VALIDATORS, Namespaces, Validator
from p2p.kad.providers import ProviderStore
from p2p.kad.query import REQUEST_DEADLINE, Finished
from p2p.kad.records import RecordStore
from p2p.kad.refresh import Refresher
from p2p.kad.responder import Known, NoReply, Refuse, Reply, Respond, Shelf, answer
from p2p.kad.table import RoutingTable
from p2p.kad.values import Values
from p2p.kad.wire import MAX_MESSAGE, MAX_PROVIDERS, FindNode, decode, encode
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
PROBE_QUEUE = 16  # members waiting for a probe; others are probed when they come up again
RECORDS_INTERVAL = 3600.0  # seconds between two looks at the age of what we hold, as js-libp2p


class RecordNotFound(P2PError):
    """Nobody who answered has a valid value under the key."""


class Kad:
    """The distributed hash table as one host sees it. Made by `open_kad`.

    `table` holds the peers that serve the protocol, as identify and their answers prove; `store` the
    values that others put here, and our own; `providers` who announced to us that it has some content.
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
        self.providers = ProviderStore(host.peer_id)
        self._host = host
        self._wall_clock = wall_clock
        self._answer = answer
        self._client = Client(host, protocol, self.table, on_answer=self._note, on_failure=self._drop)
        self._refresher = Refresher(host.peer_id, self._client, self.table, host.rng)
        self._values = Values(host.peer_id, self._client, self.store, wall_clock)
        self._content = Content(host, self._client, self.providers)
        self._known = Known(addresses=self._addresses, is_connected=host.is_connected)
        self._limit = StreamLimit(MAX_STREAMS)
        self._first_peer = trio.Event()  # a peer entered the empty table
        self._probing: dict[PeerId, None] = {}  # members that wait for a probe, or have one
        self._probes, self._to_probe = trio.open_memory_channel[PeerId](PROBE_QUEUE)

    async def find_closest(self, key: bytes) -> list[PeerId]:
        """The live peers closest to `key`, nearest first, at most 20.

        The addresses of all peers that were met on the way are in the peerstore then.
        """
        return list((await self.look_up(key)).closest)

    async def look_up(self, key: bytes, heard: dict[PeerId, None] | None = None) -> Finished:
        """`find_closest` with what it took; who was heard of on the way is added to `heard`."""
        return await self._client.look_up(key, heard=heard)

    async def find_peer(self, peer: PeerId) -> list[Multiaddr]:
        """Where `peer` is, by a look-up unless we are connected; empty when nobody knows."""
        if not self._host.is_connected(peer):
            await self.find_closest(peer.raw)
        return list(self._addresses(peer))

    async def refresh(self) -> list[PeerId]:
        """Looks up ourselves, then a random key in each near bucket. Returns everybody heard of.

        Called while another refresh runs, it waits for that one.
        """
        return await self._refresher.refresh()

    # Values

    async def put_value(self, key: bytes, value: bytes) -> int:
        """Stores `value` at the peers closest to `key`, and again every 22 hours; how many took it.

        Raises `InvalidRecord` when `key` does not allow `value`, `OutdatedRecord` when we hold a better
        one, and `LocalProtocolError` with too many values of ours. 0 when there is no other peer.
        """
        return len((await self.place_value(key, value)).closest)

    async def place_value(self, key: bytes, value: bytes) -> Finished:
        """`put_value` with what it took: `closest` are the peers that keep the value."""
        return await self._values.place(key, value)

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
        return await self._values.find(key, quorum)

    # Content

    async def provide(self, key: bytes) -> int:
        """Announces that we have the content `key`, a multihash (see `provider_key`), until `stop_providing`.

        The peers closest to the key are told now and every 22 hours; how many were reached. When nobody
        was, or we listen nowhere yet, it is tried again after each refresh. Raises `LocalProtocolError`
        for a key that is no multihash by its length, and with too many keys of ours.
        """
        return await self._content.provide(key)

    def stop_providing(self, key: bytes) -> None:
        """Announces `key` no more; what others were told lasts for up to 48 hours."""
        self._content.stop(key)

    def find_providers(
        self, key: bytes, limit: int = MAX_PROVIDERS
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[PeerId]]:
        """A channel of other peers that claim to have the content `key`, at most `limit`, as they are found.

            async with kad.find_providers(provider_key(root)) as providers:
                async for peer in providers:
                    ...

        Where each is, the peerstore knows. The channel ends with the search, after a minute at the
        latest; the search ends with the body. Raises `LocalProtocolError` for a key that is no multihash by
        its length, and for a limit that is not 1 to 100.
        """
        return self._content.find(key, limit)

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
        now = trio.current_time()
        shelf = Shelf(store=self.store, providers=self.providers, now=now, wall=self._wall_clock())
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
        """Refreshes every ten minutes, and soon after the first peer enters the empty table.

        What we provide is announced afterwards, when it is time.
        """
        while True:
            with trio.move_on_after(REFRESH_INTERVAL):
                await self._first_peer.wait()
                self._first_peer = trio.Event()
                await trio.sleep(SETTLE)
            await self.refresh()
            await self._content.announce_due()

    async def _keep_records(self) -> None:
        """Forgets what is too old, and puts our own values again before others forget them."""
        while True:
            await trio.sleep(RECORDS_INTERVAL)
            await self._values.renew()
            self.store.expire(trio.current_time())
            self.providers.expire(trio.current_time())


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
        nursery.start_soon(kad._keep_records)
        nursery.start_soon(kad._values.correct)
        if server:
            host.handle(protocol, kad._serve)
        try:
            yield kad
        finally:
            if server:
                host.unhandle(protocol)
