"""The connections of a host: dials, listens, keeps one connection a peer, and not too many of them.

    accept → limits of its address → upgrade ─┐            ┌─ refused: the peer has a better connection
                                              ├→ _admit ──→┤
    dialing: names → race → upgrade ──────────┘            └─ serve, until either side ends it → _remove

Each connection has one task, which owns everything about it; closing that task's nursery closes all.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio
from multiaddr import Multiaddr

from p2p.address import ip_of
from p2p.config import HostConfig
from p2p.dialing import Dialer, Lookup, SystemLookup
from p2p.errors import ConnectionLost, DialFailed, InvalidAddress, P2PError
from p2p.events import HostEvent, PeerConnected, PeerDisconnected
from p2p.limits import AddressLimits, ConnectionManager
from p2p.peer_id import PeerId
from p2p.scope import close_forcefully
from p2p.stream import ByteStream, Listener, MuxedConnection, Transport

logger = logging.getLogger(__name__)

SIMULTANEOUS = 15.0  # seconds; a second connection within this time is a crossing dial, later it is a return

UpgradeInbound = Callable[[ByteStream], Awaitable[MuxedConnection]]
UpgradeOutbound = Callable[[ByteStream, PeerId], Awaitable[MuxedConnection]]


@dataclass(eq=False, slots=True)
class SwarmConnection:
    """One upgraded connection: a `p2p.stream.Connection` and its muxer."""

    muxed: MuxedConnection
    outbound: bool
    remote_address: Multiaddr
    opened_at: float  # trio's clock
    ended: trio.Event = field(default_factory=trio.Event)  # once it is out of the table

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self.muxed.peer


class Swarm:
    """All connections of one identity. `serve(connection)` runs for the life of each."""

    def __init__(
        self,
        *,
        nursery: trio.Nursery,
        own_id: PeerId,
        transports: Sequence[Transport],
        upgrade_inbound: UpgradeInbound,
        upgrade_outbound: UpgradeOutbound,
        config: HostConfig,
        serve: Callable[[SwarmConnection], Awaitable[None]],
        notify: Callable[[HostEvent], None],
        lookup: Lookup | None = None,
    ) -> None:
        self._nursery = nursery
        self._own_id = own_id
        self._upgrade_inbound = upgrade_inbound
        self._config = config
        self._serve = serve
        self._notify = notify
        self._listeners: list[Listener] = []
        self._half_open: dict[trio.CancelScope, None] = {}  # inbound upgrades, oldest first
        self._dials: dict[PeerId, trio.Lock] = {}
        self._dialer = Dialer(transports, upgrade_outbound, lookup or SystemLookup(), config)
        self._address_limits = AddressLimits(
            per_address=config.max_per_ip,
            per_net=config.max_per_net,
            rate=config.accept_rate,
            burst=config.accept_burst,
            limit_loopback=config.limit_loopback,
        )
        self._trimming = False
        self._bytes_before = 0  # sent on connections that are gone
        self.connections: dict[PeerId, SwarmConnection] = {}
        self.manager = ConnectionManager(
            low_water=config.low_water, high_water=config.high_water, grace=config.grace
        )

    @property
    def listen_addresses(self) -> list[Multiaddr]:
        """Where others can dial us, without /p2p/."""
        return [address for listener in self._listeners for address in listener.addresses]

    @property
    def bytes_sent(self) -> int:
        """Bytes sent over all connections so far, before encryption."""
        return self._bytes_before + sum(each.muxed.bytes_sent for each in self.connections.values())

    async def listen(self, address: Multiaddr) -> None:
        """Listens on `address`; connections are accepted when this returns.

        A name stands for all of its addresses. Raises `AddressInUse`, `InvalidAddress`.
        """
        for place in await self._dialer.resolve(address):
            transport = self._dialer.transport(place)
            if transport is None:
                raise InvalidAddress(f"cannot listen on {place}: use an address like /ip4/127.0.0.1/tcp/4001")
            listener = await transport.listen(place)
            self._listeners.append(listener)
            self._nursery.start_soon(self._accept, listener)

    async def connect(self, peer: PeerId, addresses: Sequence[Multiaddr]) -> SwarmConnection:
        """The connection to `peer`, dialed when there is none. Raises `DialFailed`.

        Callers that want the same peer at once share one dial.
        """
        lock = self._dials.setdefault(peer, trio.Lock())
        try:
            async with lock:
                return self.connections.get(peer) or await self._dial(peer, addresses)
        finally:
            if not lock.locked():
                self._dials.pop(peer, None)

    async def disconnect(self, peer: PeerId) -> None:
        """Ends the connection to `peer`, if there is one; it is out of the table when this returns."""
        connection = self.connections.get(peer)
        if connection is not None:
            await connection.muxed.aclose()
            await connection.ended.wait()

    async def aclose(self) -> None:
        """Stops listening and says goodbye on every connection. The owner bounds the time."""
        async with trio.open_nursery() as nursery:
            for listener in self._listeners:
                nursery.start_soon(listener.aclose)
            for connection in self.connections.values():
                nursery.start_soon(connection.muxed.aclose)

    async def _dial(self, peer: PeerId, addresses: Sequence[Multiaddr]) -> SwarmConnection:
        if peer == self._own_id:
            raise DialFailed(peer, ["that is ourselves"])
        address, muxed = await self._dialer.dial(peer, addresses)
        connection = SwarmConnection(muxed, True, address, trio.current_time())
        if self._admit(connection):
            self._nursery.start_soon(self._run, connection)
            return connection
        better = self.connections[peer]  # the peer's dial crossed ours
        await close_forcefully(muxed)
        return better

    async def _accept(self, listener: Listener) -> None:
        while True:
            try:
                raw, remote = await listener.accept()
            except ConnectionLost:
                return
            refusal = self._address_limits.admit(ip_of(remote), trio.current_time())
            if refusal is not None:
                logger.info("refusing %s: %s", remote, refusal)
                self._nursery.start_soon(close_forcefully, raw)
                continue
            if len(self._half_open) >= self._config.max_half_open:
                oldest = next(iter(self._half_open))  # honest upgrades take milliseconds, silent ones pile up
                del self._half_open[oldest]
                oldest.cancel()
            scope = trio.CancelScope(deadline=trio.current_time() + self._config.upgrade_timeout)
            self._half_open[scope] = None
            self._nursery.start_soon(self._run_inbound, raw, remote, scope)

    async def _run_inbound(self, raw: ByteStream, remote: Multiaddr, scope: trio.CancelScope) -> None:
        try:
            muxed = await self._upgrade(raw, remote, scope)
            del scope  # or it would live as long as the connection
            if muxed is None:
                return
            connection = SwarmConnection(muxed, False, remote, trio.current_time())
            if self._admit(connection):
                await self._run(connection)
            else:
                await close_forcefully(muxed)
        finally:
            self._address_limits.release(ip_of(remote))

    async def _upgrade(
        self, raw: ByteStream, remote: Multiaddr, scope: trio.CancelScope
    ) -> MuxedConnection | None:
        """The muxed connection over a stream that we accepted; None when it is refused or fails."""
        try:
            if len(self.connections) >= self._config.max_connections:
                logger.warning("refusing %s: %d connections are open", remote, len(self.connections))
                await close_forcefully(raw)
                return None
            with scope:
                return await self._upgrade_inbound(raw)
            logger.info("inbound connection from %s is too slow", remote)
        except P2PError as exc:
            logger.info("inbound connection from %s failed: %s", remote, exc)
        except Exception:  # a stranger's bytes found a bug: it may cost this connection, not the listener
            logger.exception("inbound connection from %s met a bug", remote)
        finally:
            self._half_open.pop(scope, None)
        return None

    async def _run(self, connection: SwarmConnection) -> None:
        """Serves a connection that is in the table, until its end."""
        try:
            await self._serve(connection)
        except P2PError as exc:
            logger.info("connection to %s ended: %s", connection.peer, exc)
        finally:
            self._remove(connection)

    def _admit(self, new: SwarmConnection) -> bool:
        """Puts `new` into the table unless the peer has a connection that both sides prefer.

        Two dials that cross leave two connections: both sides keep the one that the smaller id
        dialed. Otherwise the newer one wins, since its dialer has lost the older one.
        """
        peer = new.peer
        if peer == self._own_id:
            return False
        old = self.connections.get(peer)
        if old is not None:
            crossing = old.outbound != new.outbound and new.opened_at - old.opened_at < SIMULTANEOUS
            if crossing and new.outbound != (self._own_id < peer):
                return False
            self._nursery.start_soon(old.muxed.aclose)
        self.connections[peer] = new
        self.manager.handle_opened(peer, new.opened_at)
        if not self._trimming and self.manager.next_deadline() is not None:
            self._trimming = True
            self._nursery.start_soon(self._trim)
        if old is None:
            self._notify(PeerConnected(peer=peer, outbound=new.outbound))
        return True

    async def _trim(self) -> None:
        """Closes what the connection manager names, until there are few enough or all are protected."""
        try:
            while (deadline := self.manager.next_deadline()) is not None:
                await trio.sleep_until(deadline)
                for peer in self.manager.trim(
                    trio.current_time(), lambda peer: self.connections[peer].muxed.num_streams
                ):
                    logger.info("closing the connection to %s: too many are open", peer)
                    self._nursery.start_soon(self.connections[peer].muxed.aclose)
        finally:
            self._trimming = False

    def _remove(self, connection: SwarmConnection) -> None:
        self._bytes_before += connection.muxed.bytes_sent
        if self.connections.get(connection.peer) is connection:
            del self.connections[connection.peer]
            self.manager.handle_closed(connection.peer)
            self._notify(PeerDisconnected(peer=connection.peer))
        connection.ended.set()
