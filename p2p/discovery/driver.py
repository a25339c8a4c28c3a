"""Discovery on a host: carries out what the `Planner` decides."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf

import trio
from multiaddr import Multiaddr

from p2p.address import split_peer
from p2p.discovery.planner import Action, Dial, DialEnded, Event, Known, Planner, Search, Searched
from p2p.errors import DialFailed, InvalidAddress
from p2p.events import PeerDisconnected
from p2p.host import Host
from p2p.kad.driver import Kad
from p2p.peer_id import PeerId
from p2p.scope import open_scope

logger = logging.getLogger(__name__)

TARGET_PEERS = 64  # connections to reach; within go-libp2p's connection manager (low water 160)


class _Discovery:
    """The planner with its clock, its dials and its searches."""

    def __init__(
        self,
        nursery: trio.Nursery,
        host: Host,
        kad: Kad,
        bootstrap: dict[PeerId, list[Multiaddr]],
        target: int,
    ) -> None:
        self._nursery = nursery
        self._host = host
        self._kad = kad
        self._bootstrap = bootstrap
        for peer in bootstrap:
            host.connection_manager.protect(peer, "bootstrap")
        self._unmet = dict.fromkeys(bootstrap, True)  # bootstrap peers that were never a reason to warn
        self._changed = trio.Event()
        self._planner = Planner(
            local=host.peer_id,
            bootstrap=bootstrap,
            protocol=kad.protocol,
            target_peers=target,
            rng=host.rng,
        )

    def handle(self, event: Event) -> None:
        """Tells the planner and starts what it wants."""
        self._start(self._planner.handle(event, trio.current_time()))
        self._changed.set()

    def _start(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Dial(peer=peer):
                    self._nursery.start_soon(self._dial, peer)
                case Search():
                    self._nursery.start_soon(self._search)

    async def follow_events(self) -> None:
        """Feeds the host's events. A subscription that lags too far ends, and a new one tells all."""
        while True:
            with self._host.events() as events:
                for peer in self._planner.connected():
                    if not self._host.is_connected(peer):
                        self.handle(PeerDisconnected(peer=peer))
                async for event in events:
                    self.handle(event)

    async def run_timers(self) -> None:
        """Wakes the planner when its time has come, and sleeps anew when that time changed."""
        while True:
            self._changed = trio.Event()
            deadline = self._planner.next_deadline()
            with trio.move_on_at(inf if deadline is None else deadline):
                await self._changed.wait()
            self._start(self._planner.handle_timer(trio.current_time()))

    async def _dial(self, peer: PeerId) -> None:
        try:
            await self._host.connect(peer, self._bootstrap.get(peer, ()))
        except DialFailed as exc:
            self._complain(peer, exc)
        self.handle(DialEnded(peer=peer, connected=self._host.is_connected(peer)))

    def _complain(self, peer: PeerId, error: DialFailed) -> None:
        """A person typed the bootstrap addresses: the first failure of each is worth a warning."""
        level = logging.WARNING if self._unmet.pop(peer, False) else logging.INFO
        logger.log(level, "%s; trying again later", error)

    async def _search(self) -> None:
        heard = await self._kad.refresh()
        self.handle(Known(peers=self._host.peerstore.peers()))
        self.handle(Searched(heard=heard))


@asynccontextmanager
async def open_discovery(
    host: Host, kad: Kad, bootstrap: Sequence[Multiaddr], target_peers: int = TARGET_PEERS
) -> AsyncIterator[None]:
    """Connects `host` to up to `target_peers` others, beginning at `bootstrap` and the peerstore.

    Raises `InvalidAddress` for a bootstrap address without /p2p/<peer id>.
    """
    async with open_scope() as nursery:
        discovery = _Discovery(nursery, host, kad, _by_peer(bootstrap), target_peers)
        discovery.handle(Known(peers=host.peerstore.peers()))
        nursery.start_soon(discovery.follow_events)
        nursery.start_soon(discovery.run_timers)
        yield


def _by_peer(addresses: Sequence[Multiaddr]) -> dict[PeerId, list[Multiaddr]]:
    """The transport addresses of each bootstrap peer."""
    found: dict[PeerId, list[Multiaddr]] = {}
    for address in addresses:
        transport, peer = split_peer(address)
        if transport is None or peer is None:
            raise InvalidAddress(f"{address} needs an address and a peer id: /ip4/…/tcp/…/p2p/12D3KooW…")
        found.setdefault(peer, []).append(transport)
    return found
