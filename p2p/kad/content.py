"""Our side of the providers in the DHT: announces what we have, and finds who has what we want."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import islice

import trio

from p2p.errors import LocalProtocolError
from p2p.host import Host
from p2p.kad.client import Client
from p2p.kad.placement import Placement
from p2p.kad.providers import ProviderStore, Sought
from p2p.kad.wire import MAX_PROVIDER_KEY, AddProvider, PeerEntry
from p2p.peer_id import PeerId
from p2p.scope import open_scope

REPROVIDE = 22 * 3600.0  # seconds until we announce content again; kad-dht spec
MAX_PROVIDED = 1024  # keys that we announce; each takes a look-up; what one peer may have others hold
MAX_DUE = 64  # keys announced between two refreshes, so that these are not held up
SEARCH_DEADLINE = 60.0  # seconds; rust-libp2p's query timeout
MAX_SOUGHT = 100  # providers that one search finds
PARALLEL_LOOKUPS = 3  # of providers whose addresses nobody told


class Content:
    """Provides and finds content for `host`, beside what others announced to `store`."""

    def __init__(self, host: Host, client: Client, store: ProviderStore) -> None:
        self._host = host
        self._client = client
        self._store = store
        self._due: dict[bytes, float] = {}  # the keys that we provide: when to announce them

    async def provide(self, key: bytes) -> int:
        """As `Kad.provide`."""
        _check_key(key)
        if key not in self._due and len(self._due) >= MAX_PROVIDED:
            raise LocalProtocolError(f"more than {MAX_PROVIDED} keys to provide")
        self._store.provide(key)
        self._due[key] = trio.current_time()
        return await self._announce(key)

    def stop(self, key: bytes) -> None:
        """As `Kad.stop_providing`."""
        self._store.withdraw(key)
        self._due.pop(key, None)

    async def announce_due(self) -> None:
        """Announces what nobody was told yet, and what others will forget soon; the rest the next time."""
        now = trio.current_time()
        for key in list(islice((key for key, due in self._due.items() if due <= now), MAX_DUE)):
            if key in self._due:
                await self._announce(key)

    async def _announce(self, key: bytes) -> int:
        """Tells the peers closest to `key`; how many were reached."""
        addresses = tuple(self._host.addresses())
        if not addresses:
            return 0  # an announcement without addresses is dropped
        found = await self._client.look_up(key)
        entry = PeerEntry(peer=self._host.peer_id, addresses=addresses)
        told = await self._client.run(Placement(AddProvider(key=key, providers=(entry,)), found.closest))
        if told.closest and key in self._due:
            self._due[key] = trio.current_time() + REPROVIDE
        return len(told.closest)

    @asynccontextmanager
    async def find(self, key: bytes, limit: int) -> AsyncIterator[trio.MemoryReceiveChannel[PeerId]]:
        """As `Kad.find_providers`."""
        _check_key(key)
        if not 1 <= limit <= MAX_SOUGHT:
            raise LocalProtocolError(f"a search finds 1 to {MAX_SOUGHT} providers, not {limit}")
        send, receive = trio.open_memory_channel[PeerId](limit)
        async with open_scope() as nursery:
            nursery.start_soon(self._search, key, limit, send)
            yield receive

    async def _search(self, key: bytes, limit: int, results: trio.MemorySendChannel[PeerId]) -> None:
        """Sends the providers of `key`, of which `results` has room for all."""
        sought = Sought(self._host.peer_id, limit)
        limiter = trio.CapacityLimiter(PARALLEL_LOOKUPS)
        with results, trio.move_on_after(SEARCH_DEADLINE):
            async with trio.open_nursery() as nursery:

                def report(peer: PeerId) -> None:
                    if not self._report(peer, results):
                        nursery.start_soon(self._locate, peer, limiter, results)

                now = trio.current_time()
                for peer in sought.take_held(self._store.providers(key, now)):
                    self._client.learn(peer, self._store.addresses(peer, now))
                    report(peer)
                await self._client.look_up(key, sought=sought, on_found=report)

    async def _locate(
        self, peer: PeerId, limiter: trio.CapacityLimiter, results: trio.MemorySendChannel[PeerId]
    ) -> None:
        """Sends `peer` once a look-up tells where it is: announced addresses are forgotten sooner than it."""
        async with limiter:
            await self._client.look_up(peer.raw)
        self._report(peer, results)

    def _report(self, peer: PeerId, results: trio.MemorySendChannel[PeerId]) -> bool:
        """Sends `peer` if we know where it is; whether we do."""
        located = self._host.is_connected(peer) or bool(self._host.peerstore.addresses(peer))
        if located:
            with suppress(trio.BrokenResourceError):  # who searches wants no more
                results.send_nowait(peer)
        return located


def _check_key(key: bytes) -> None:
    if not 1 <= len(key) <= MAX_PROVIDER_KEY:
        raise LocalProtocolError(f"a multihash has 1 to {MAX_PROVIDER_KEY} bytes, not {len(key)}")
