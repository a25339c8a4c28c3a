"""Identify services on streams in memory, with addresses of the test's choice at their ends."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from multiaddr import Multiaddr

from p2p.address import parse_address
from p2p.config import HostConfig
from p2p.errors import ConnectionLost, P2PError, StreamReset
from p2p.events import HostEvent, PeerConnected, PeerDisconnected
from p2p.identify import PROTOCOL, PUSH_PROTOCOL, IdentifyService
from p2p.peer_id import PeerId
from p2p.peerstore import PeerStore
from p2p.stream import Data
from tests.support import key_number

AGENT = HostConfig().agent


class MemoryStream:
    """One end of a stream; `reset` ends both."""

    def __init__(self, peer: PeerId, protocol: str) -> None:
        self.peer = peer
        self.protocol = protocol
        self.was_reset = False
        self._other: MemoryStream = self
        self._send, self._receive = trio.open_memory_channel[bytes](1000)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            data = await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            if self.was_reset:
                raise StreamReset from None
            return b""
        return data

    async def send_all(self, data: Data) -> None:
        await trio.lowlevel.checkpoint()
        if self.was_reset:
            raise StreamReset
        try:
            await self._other._send.send(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost("closed") from exc

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._other._send.close()

    async def aclose(self) -> None:
        await self.send_eof()

    def reset(self, code: int = 0) -> None:
        for end in (self, self._other):
            end.was_reset = True
            end._send.close()
            end._receive.close()


def stream_pair(one: PeerId, other: PeerId, protocol: str) -> tuple[MemoryStream, MemoryStream]:
    """(the end that `one` holds, the end that `other` holds)."""
    here, there = MemoryStream(other, protocol), MemoryStream(one, protocol)
    here._other, there._other = there, here
    return here, there


@dataclass(eq=False)
class Link:
    """A connection as one side sees it."""

    peer: PeerId
    outbound: bool
    remote_address: Multiaddr
    node: Node  # at the other end


@dataclass(eq=False)
class Node:
    """A service with what a host would give it."""

    number: int
    nursery: trio.Nursery
    listen: list[Multiaddr]
    protocols: list[str] = field(default_factory=lambda: [PROTOCOL, PUSH_PROTOCOL])
    connections: dict[PeerId, Link] = field(default_factory=dict)
    events: list[HostEvent] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)  # protocols of the streams that it opened
    clock: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    def __post_init__(self) -> None:
        self.key = key_number(self.number)
        self.id = PeerId.from_public_key(self.key.public)
        self.peerstore = PeerStore(trio.current_time)
        self.service: IdentifyService[Link] = IdentifyService(
            key=self.key,
            peerstore=self.peerstore,
            config=HostConfig(),
            listen_addresses=lambda: self.listen,
            protocols=lambda: self.protocols,
            connection=self.connections.get,
            open_stream=self.open_stream,
            notify=self.events.append,
            wall_clock=lambda: next(self.clock),
        )

    async def open_stream(self, connection: Link, protocols: Sequence[str]) -> MemoryStream:
        await trio.lowlevel.checkpoint()
        here, there = stream_pair(self.id, connection.peer, protocols[0])
        self.opened.append(protocols[0])
        self.nursery.start_soon(connection.node.serve, there)
        return here

    async def serve(self, stream: MemoryStream) -> None:
        """What a host does with an inbound stream."""
        handler = self.service.answer if stream.protocol == PROTOCOL else self.service.receive_push
        try:
            await handler(stream)
            await stream.aclose()
        except (P2PError, trio.TooSlowError) as exc:
            self.errors.append(exc)
            stream.reset()

    def opens_to(self, other: Node, protocol: str) -> MemoryStream:
        """Our end of a stream that `other` serves; what we write is for the test to say."""
        here, there = stream_pair(self.id, other.id, protocol)
        self.nursery.start_soon(other.serve, there)
        return here


def connect(one: Node, other: Node, *, from_: str, to: str) -> None:
    """A connection that `one` dialed; nobody has identified anybody yet."""
    one.connections[other.id] = Link(other.id, True, parse_address(to), other)
    other.connections[one.id] = Link(one.id, False, parse_address(from_), one)
    for node, peer, outbound in ((one, other.id, True), (other, one.id, False)):
        node.service.handle_event(PeerConnected(peer=peer, outbound=outbound))


def disconnect(one: Node, other: Node) -> None:
    for node, peer in ((one, other.id), (other, one.id)):
        del node.connections[peer]
        node.service.handle_event(PeerDisconnected(peer=peer))


async def identify(one: Node, other: Node) -> None:
    """Each asks the other."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.service.identify, one.connections[other.id])
        nursery.start_soon(other.service.identify, other.connections[one.id])


@asynccontextmanager
async def open_nodes(*listen: str) -> AsyncIterator[list[Node]]:
    """One running service for each of `listen`, an address or several with spaces between."""
    async with trio.open_nursery() as nursery:
        nodes = [
            Node(number, nursery, [parse_address(text) for text in texts.split()])
            for number, texts in enumerate(listen, 1)
        ]
        for node in nodes:
            nursery.start_soon(node.service.run)
        yield nodes
        nursery.cancel_scope.cancel()
