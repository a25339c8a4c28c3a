"""A host: an identity, its connections, and the handlers of the protocols that it speaks.

`open_host` owns every task of the host. An inbound stream comes from yamux to `_serve_stream`, which
agrees on the protocol and starts the handler in the connection's nursery.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from p2p import identify, multistream, ping
from p2p.config import HostConfig
from p2p.errors import ConnectionLost, LocalProtocolError
from p2p.events import HostEvent, PeerConnected, PeerDisconnected, PeerIdentified
from p2p.keys import KeyPair
from p2p.limits import ConnectionManager
from p2p.peer_id import PeerId
from p2p.peerstore import PeerStore
from p2p.scope import open_scope, reset_on_error
from p2p.stream import Connection, MuxedStream, Stream, StreamHandler, Transport
from p2p.swarm import Swarm, SwarmConnection
from p2p.transport import TcpTransport, WebSocketTransport
from p2p.upgrade import ConnectionUpgrader, Upgrader

if TYPE_CHECKING:
    from p2p.pnet import PreSharedKey

logger = logging.getLogger(__name__)

EVENT_BUFFER = 4096  # events a subscriber may lag behind; a peer causes two or three
CLOSE_GRACE = 1.0  # seconds to say goodbye


class Host:
    """One peer of the overlay. Made by `open_host`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        key: KeyPair,
        transports: Sequence[Transport],
        rng: random.Random,
        config: HostConfig,
        upgrader: ConnectionUpgrader,
        wall_clock: Callable[[], float],
    ) -> None:
        self.key = key
        self.peer_id = PeerId.from_public_key(key.public)
        self.rng = rng
        self.peerstore = PeerStore(trio.current_time)
        self._nursery = nursery
        self._config = config
        self._handlers: dict[str, StreamHandler] = {}
        self._identified: dict[PeerId, PeerIdentified] = {}
        self._subscribers: list[trio.MemorySendChannel[HostEvent]] = []
        self._swarm = Swarm(
            nursery=nursery,
            own_id=self.peer_id,
            transports=transports,
            upgrade_inbound=upgrader.upgrade_inbound,
            upgrade_outbound=upgrader.upgrade_outbound,
            config=config,
            serve=self._serve_connection,
            notify=self._notify,
        )
        self._identify = identify.IdentifyService(
            key=key,
            peerstore=self.peerstore,
            config=config,
            listen_addresses=lambda: self._swarm.listen_addresses,
            protocols=lambda: self._handlers,
            connection=lambda peer: self._swarm.connections.get(peer),
            open_stream=self._open_stream_on,
            notify=self._notify,
            wall_clock=lambda: int(wall_clock() * 1e9),
        )
        self.handle(ping.PROTOCOL, ping.PingService().serve)
        self.handle(identify.PROTOCOL, self._identify.answer)
        self.handle(identify.PUSH_PROTOCOL, self._identify.receive_push)

    # Handlers and streams

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        """Lets `handler(stream)` serve inbound streams of `protocol`.

        It runs as a task of the connection: an exception resets its stream, and when it returns the
        stream is closed. Raises `LocalProtocolError` when the protocol is taken.
        """
        if protocol in self._handlers:
            raise LocalProtocolError(f"{protocol} already has a handler")
        self._handlers[protocol] = handler
        self._identify.handle_changed()

    def unhandle(self, protocol: str) -> None:
        """Stops serving `protocol`; streams that are open live on."""
        self._handlers.pop(protocol, None)
        self._identify.handle_changed()

    async def open_stream(self, peer: PeerId, protocols: Sequence[str]) -> Stream:
        """A stream to `peer` that speaks the first of `protocols` that it knows; dials when needed.

        A single protocol that a peer of our kind announced is not negotiated first: should it have dropped
        it since, the first `receive_some` raises `NegotiationFailed`.
        Raises `DialFailed`, `NegotiationFailed`, `ConnectionLost`.
        """
        connection = self._swarm.connections.get(peer)
        if connection is None:
            connection = await self._swarm.connect(peer, self.peerstore.addresses(peer))
        return await self._open_stream_on(connection, protocols)

    async def ping(self, peer: PeerId) -> float:
        """Seconds of one round trip to `peer`, after connecting where necessary.

        Raises `DialFailed`, `NegotiationFailed`, `RemoteProtocolError` for a wrong answer, and
        `ConnectionLost`, also when none came within 10 s.
        """
        with trio.move_on_after(ping.TIMEOUT):
            stream = await self.open_stream(peer, [ping.PROTOCOL])
            with reset_on_error(stream):
                elapsed = await ping.measure(stream, self.rng.randbytes(ping.SIZE))
                await stream.aclose()
            self.peerstore.record_latency(peer, elapsed)
            return elapsed
        raise ConnectionLost(f"{peer} did not answer a ping within {ping.TIMEOUT:g} s")

    # Connections

    def addresses(self) -> list[Multiaddr]:
        """Where others can dial us, without /p2p/: where we listen, and what enough observers confirm."""
        return self._identify.addresses()

    def observed_addresses(self) -> list[Multiaddr]:
        """Our addresses as at least four others, who are not one, see them."""
        return self._identify.observed_addresses()

    async def listen(self, address: Multiaddr) -> None:
        """Accepts connections on `address` from now on. Raises `AddressInUse`, `InvalidAddress`."""
        await self._swarm.listen(address)
        self._identify.handle_changed()

    async def connect(self, peer: PeerId, addresses: Sequence[Multiaddr] = ()) -> None:
        """Makes sure that there is a connection to `peer`. Raises `DialFailed`.

        `addresses` are tried first, then those of the peerstore.
        """
        known = self.peerstore.addresses(peer)
        await self._swarm.connect(peer, list(dict.fromkeys([*addresses, *known])))

    async def disconnect(self, peer: PeerId) -> None:
        """Ends the connection to `peer`, if there is one; it is gone when this returns."""
        await self._swarm.disconnect(peer)

    @property
    def connection_manager(self) -> ConnectionManager:
        """Which connections are worth keeping when there are too many: tags and protection."""
        return self._swarm.manager

    def is_connected(self, peer: PeerId) -> bool:
        """Whether there is a connection to `peer`."""
        return peer in self._swarm.connections

    def peers(self) -> list[PeerId]:
        """Everybody that we are connected to, in the order of their coming."""
        return list(self._swarm.connections)

    def connection(self, peer: PeerId) -> Connection | None:
        """The connection to `peer`, or None."""
        return self._swarm.connections.get(peer)

    @property
    def bytes_sent(self) -> int:
        """Bytes sent to all peers so far: everything above the encryption."""
        return self._swarm.bytes_sent

    # Events

    @contextmanager
    def events(self) -> Iterator[trio.MemoryReceiveChannel[HostEvent]]:
        """A channel of what is (as if it happened now) and then of what changes.

        A subscriber that falls 4096 events behind is cut off: its channel ends.
        """
        send, receive = trio.open_memory_channel[HostEvent](EVENT_BUFFER)
        for peer, connection in self._swarm.connections.items():
            send.send_nowait(PeerConnected(peer=peer, outbound=connection.outbound))
            if peer in self._identified:
                send.send_nowait(self._identified[peer])
        self._subscribers.append(send)
        try:
            yield receive
        finally:
            if send in self._subscribers:
                self._subscribers.remove(send)
            send.close()
            receive.close()

    async def wait_for_peer(self, peer: PeerId) -> PeerIdentified:
        """Returns once `peer` is connected and has said what it speaks."""
        with self.events() as events:
            async for event in events:
                if isinstance(event, PeerIdentified) and event.peer == peer:
                    return event
        raise LocalProtocolError("the host is closed")

    def _notify(self, event: HostEvent) -> None:
        self._identify.handle_event(event)
        match event:
            case PeerIdentified():
                self._identified[event.peer] = event
            case PeerDisconnected():
                self._identified.pop(event.peer, None)
            case PeerConnected():
                pass
        for subscriber in list(self._subscribers):
            try:
                subscriber.send_nowait(event)
            except trio.WouldBlock:
                logger.error("an event subscriber is %d events behind and is cut off", EVENT_BUFFER)
                self._subscribers.remove(subscriber)
                subscriber.close()

    # One connection, one stream

    async def _serve_connection(self, connection: SwarmConnection) -> None:
        self._nursery.start_soon(self._identify.identify, connection)  # it ends with the connection
        await connection.muxed.run(self._serve_stream)

    async def _serve_stream(self, stream: MuxedStream) -> None:
        with trio.fail_after(self._config.negotiation_timeout):
            stream.protocol = await multistream.handle_lazily(stream, self._handlers)
        await self._handlers[stream.protocol](stream)
        await stream.aclose()

    async def _open_stream_on(self, connection: SwarmConnection, protocols: Sequence[str]) -> Stream:
        """A stream on `connection`; one protocol that a peer of our kind announced needs no asking.

        Others are asked: js-libp2p 3.3 gives no answer on a stream that we half-close before it.
        """
        ours = self.peerstore.agent(connection.peer).startswith("atcp/")
        announced = ours and len(protocols) == 1 and protocols[0] in self.peerstore.protocols(connection.peer)
        with trio.move_on_after(self._config.negotiation_timeout):
            stream = await connection.muxed.open_stream()
            with reset_on_error(stream):
                if announced:
                    multistream.select_lazily(stream, protocols[0])
                else:
                    stream.protocol = await multistream.select(stream, protocols)
            return stream
        raise ConnectionLost(
            f"{connection.peer} did not answer within {self._config.negotiation_timeout:g} s"
        )


@asynccontextmanager
async def open_host(
    *,
    key: KeyPair | None = None,
    listen: Sequence[Multiaddr] = (),
    transports: Sequence[Transport] | None = None,
    rng: random.Random | None = None,
    config: HostConfig | None = None,
    psk: PreSharedKey | None = None,
    upgrader: ConnectionUpgrader | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> AsyncIterator[Host]:
    """A running host, listening on `listen`; at the end it says goodbye to its peers.

    Without `key` it has a fresh identity; without `transports` it speaks TCP and WebSocket. With `psk`
    it takes part in the private network of that key, and in no other. `upgrader` secures and muxes
    connections in place of Noise, TLS and Yamux: a simulation brings its own, with `wall_clock` (unix
    seconds). Services that register handlers may be opened first and `host.listen` called then. Raises
    `AddressInUse`, `InvalidAddress`.
    """
    key, rng, config = key or KeyPair.generate(), rng or random.Random(), config or HostConfig()
    async with open_scope() as nursery:
        host = Host(
            nursery,
            key,
            [TcpTransport(), WebSocketTransport()] if transports is None else transports,
            rng,
            config,
            upgrader or Upgrader(key, config, rng, psk),
            wall_clock,
        )
        nursery.start_soon(host._identify.run)
        try:
            for address in listen:
                await host.listen(address)
            yield host
        finally:
            with trio.move_on_after(CLOSE_GRACE, shield=True):
                await host._swarm.aclose()
