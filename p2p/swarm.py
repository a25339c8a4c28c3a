"""The connections of a host: dials, listens, keeps one connection a peer, backs off.

    accept ─┐                      ┌─ refused: the peer has a better connection → closed
            ├→ upgrade → _admit ──→┤
    dial ───┘                      └─ serve, until either side ends it → _remove

Each connection has one task, which owns everything about it; closing that task's nursery closes all.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio
from multiaddr import Multiaddr

from p2p.config import HostConfig
from p2p.errors import ConnectionLost, DialFailed, InvalidAddress, P2PError
from p2p.events import HostEvent, PeerConnected, PeerDisconnected
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.scope import close_forcefully
from p2p.stream import ByteStream, Listener, Transport
from p2p.upgrade import upgrade_inbound, upgrade_outbound
from p2p.yamux import YamuxConnection

logger = logging.getLogger(__name__)

MAX_DIALED_ADDRESSES = 25  # of one peer in one dial, as js-libp2p
SIMULTANEOUS = 15.0  # seconds; a second connection within this time is a crossing dial, later it is a return
BACKOFF_FIRST = 0.5  # seconds an address is left alone after its first failure, doubling
BACKOFF_MAX = 60.0  # seconds
BACKOFF_ENTRIES = 4096  # addresses remembered as failing


@dataclass(eq=False, slots=True)
class SwarmConnection:
    """One upgraded connection: a `p2p.stream.Connection` and its muxer."""

    muxed: YamuxConnection
    outbound: bool
    remote_address: Multiaddr
    opened_at: float  # trio's clock

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self.muxed.peer


class Backoff:
    """How long a failing address is left alone."""

    def __init__(self) -> None:
        self._failures: dict[Multiaddr, tuple[int, float]] = {}

    def remaining(self, address: Multiaddr, now: float) -> float:
        """Seconds until `address` may be dialed again; 0 when it may."""
        _, until = self._failures.get(address, (0, now))
        return max(0.0, until - now)

    def failed(self, address: Multiaddr, now: float) -> None:
        """Doubles the wait for `address`."""
        count, _ = self._failures.pop(address, (0, 0.0))
        delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(count, 10))
        self._failures[address] = (count + 1, now + delay)
        while len(self._failures) > BACKOFF_ENTRIES:
            self._failures.pop(next(iter(self._failures)))

    def succeeded(self, address: Multiaddr) -> None:
        """Forgets earlier failures of `address`."""
        self._failures.pop(address, None)


class Swarm:
    """All connections of one identity. `serve(connection)` runs for the life of each."""

    def __init__(
        self,
        *,
        nursery: trio.Nursery,
        key: KeyPair,
        transports: Sequence[Transport],
        config: HostConfig,
        serve: Callable[[SwarmConnection], Awaitable[None]],
        notify: Callable[[HostEvent], None],
    ) -> None:
        self._nursery = nursery
        self._key = key
        self._own_id = PeerId.from_public_key(key.public)
        self._transports = tuple(transports)
        self._config = config
        self._serve = serve
        self._notify = notify
        self._listeners: list[Listener] = []
        self._half_open: dict[trio.CancelScope, None] = {}  # inbound upgrades, oldest first
        self._dials: dict[PeerId, trio.Lock] = {}
        self._backoff = Backoff()
        self._bytes_before = 0  # sent on connections that are gone
        self.connections: dict[PeerId, SwarmConnection] = {}

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

        Raises `AddressInUse`, `InvalidAddress`.
        """
        transport = self._transport(address)
        if transport is None:
            raise InvalidAddress(f"cannot listen on {address}: use an address like /ip4/127.0.0.1/tcp/4001")
        listener = await transport.listen(address)
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

    async def aclose(self) -> None:
        """Stops listening and says goodbye on every connection. The owner bounds the time."""
        async with trio.open_nursery() as nursery:
            for listener in self._listeners:
                nursery.start_soon(listener.aclose)
            for connection in self.connections.values():
                nursery.start_soon(connection.muxed.aclose)

    def _transport(self, address: Multiaddr) -> Transport | None:
        return next((transport for transport in self._transports if transport.can_dial(address)), None)

    async def _dial(self, peer: PeerId, addresses: Sequence[Multiaddr]) -> SwarmConnection:
        if peer == self._own_id:
            raise DialFailed(peer, ["that is ourselves"])
        reasons: list[str] = []
        with trio.move_on_after(self._config.dial_timeout) as whole:
            for address in addresses[:MAX_DIALED_ADDRESSES]:
                if (wait := self._backoff.remaining(address, trio.current_time())) > 0:
                    reasons.append(f"{address}: failed before, next try in {wait:.1f} s")
                    continue
                try:
                    await self._nursery.start(self._run_outbound, peer, address)
                except P2PError as exc:
                    self._backoff.failed(address, trio.current_time())
                    reasons.append(str(exc))
                    continue
                self._backoff.succeeded(address)
                if (connection := self.connections.get(peer)) is not None:
                    return connection
                reasons.append(f"{address}: the connection ended at once")
        if whole.cancelled_caught:
            reasons.append(f"gave up after {self._config.dial_timeout:g} s")
        raise DialFailed(peer, reasons)

    async def _run_outbound(
        self, peer: PeerId, address: Multiaddr, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Connects to `address`, reports that the connection is in the table, then serves it."""
        transport = self._transport(address)
        if transport is None:
            raise ConnectionLost(f"{address}: no transport for this kind of address")
        raw: ByteStream | None = None
        with trio.move_on_after(self._config.connect_timeout):
            raw = await transport.dial(address)
        if raw is None:
            raise ConnectionLost(f"{address}: no connection within {self._config.connect_timeout:g} s")
        try:
            muxed = await upgrade_outbound(raw, self._key, peer)
        except P2PError as exc:
            raise ConnectionLost(f"{address}: {exc}") from exc
        await self._run(muxed, True, address, task_status)

    async def _accept(self, listener: Listener) -> None:
        while True:
            try:
                raw, remote = await listener.accept()
            except ConnectionLost:
                return
            if len(self._half_open) >= self._config.max_half_open:
                oldest = next(iter(self._half_open))  # honest upgrades take milliseconds, silent ones pile up
                del self._half_open[oldest]
                oldest.cancel()
            scope = trio.CancelScope(deadline=trio.current_time() + self._config.upgrade_timeout)
            self._half_open[scope] = None
            self._nursery.start_soon(self._run_inbound, raw, remote, scope)

    async def _run_inbound(self, raw: ByteStream, remote: Multiaddr, scope: trio.CancelScope) -> None:
        muxed: YamuxConnection | None = None
        try:
            if len(self.connections) >= self._config.max_connections:
                logger.warning("refusing %s: %d connections are open", remote, len(self.connections))
                await close_forcefully(raw)
                return
            with scope:
                muxed = await upgrade_inbound(raw, self._key)
        except P2PError as exc:
            logger.info("inbound connection from %s failed: %s", remote, exc)
            return
        except Exception:  # a stranger's bytes found a bug: it may cost this connection, not the listener
            logger.exception("inbound connection from %s met a bug", remote)
            return
        finally:
            self._half_open.pop(scope, None)
        if muxed is None:
            logger.info("inbound connection from %s is too slow", remote)
            return
        await self._run(muxed, False, remote)

    async def _run(
        self,
        muxed: YamuxConnection,
        outbound: bool,
        remote: Multiaddr,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        connection = SwarmConnection(muxed, outbound, remote, trio.current_time())
        admitted = self._admit(connection)
        task_status.started()
        if not admitted:
            await close_forcefully(muxed)
            return
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
        if old is None:
            self._notify(PeerConnected(peer=peer, outbound=new.outbound))
        return True

    def _remove(self, connection: SwarmConnection) -> None:
        self._bytes_before += connection.muxed.bytes_sent
        if self.connections.get(connection.peer) is connection:
            del self.connections[connection.peer]
            self._notify(PeerDisconnected(peer=connection.peer))
