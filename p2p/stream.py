"""What the layers ask of one another: the interfaces between transport, security, muxer and handlers.

An inbound connection passes them in this order: `ByteStream` (transport) → `SecureStream`
(noise) → `MuxedConnection` (yamux) → `Stream` (one protocol's handler).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from multiaddr import Multiaddr

from p2p.peer_id import PeerId

Data = bytes | bytearray | memoryview


class ByteStream(Protocol):
    """An ordered two-way byte stream, as trio's: one task reads, one task writes."""

    async def receive_some(self, max_bytes: int | None = None) -> Data:
        """At least one byte, or b"" at the end. Raises `ConnectionLost`."""

    async def send_all(self, data: Data) -> None:
        """Sends all of `data`. Raises `ConnectionLost`; after a cancellation the stream is unusable."""

    async def aclose(self) -> None:
        """Closes both directions. Never raises `ConnectionLost`; safe to repeat."""


class Listener(Protocol):
    """A place where a transport takes inbound connections."""

    @property
    def addresses(self) -> list[Multiaddr]:
        """What others can dial: the real port, and every interface for a wildcard address."""

    async def accept(self) -> tuple[ByteStream, Multiaddr]:
        """The next inbound stream and the address it comes from. Raises `ConnectionLost` once closed."""

    async def aclose(self) -> None:
        """Stops listening; accepted streams live on."""


class Transport(Protocol):
    """A way to reach addresses of one kind."""

    def can_dial(self, address: Multiaddr) -> bool:
        """Whether this transport understands `address`."""

    async def dial(self, address: Multiaddr) -> ByteStream:
        """A stream to `address`. The caller sets the deadline. Raises `ConnectionLost`."""

    async def listen(self, address: Multiaddr) -> Listener:
        """Listens on `address`. Raises `AddressInUse`, `InvalidAddress`."""


class SecureStream(ByteStream, Protocol):
    """A `ByteStream` that is encrypted and whose other end is proven to be `remote_peer`."""

    @property
    def remote_peer(self) -> PeerId:
        """Who is at the other end."""


class Stream(Protocol):
    """One stream of a muxed connection, after its protocol was negotiated."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""

    @property
    def protocol(self) -> str:
        """The protocol id that was agreed on."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or b"" once the peer closed its side. Raises `StreamReset`, `ConnectionLost`."""

    async def send_all(self, data: Data) -> None:
        """Returns when all is handed to the connection within the peer's window.

        Raises `StreamReset`, `ConnectionLost`, and `LocalProtocolError` after `send_eof`.
        """

    async def send_eof(self) -> None:
        """Closes our side for writing; reading goes on."""

    async def aclose(self) -> None:
        """Closes both sides: ours as `send_eof`; what the peer still sends is dropped. Safe to repeat."""

    def reset(self, code: int = 0) -> None:
        """Ends both directions at once; the peer sees `StreamReset`. Never blocks, safe to repeat."""


class Connection(Protocol):
    """One secured and muxed connection to a peer, as the swarm lists it."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""

    @property
    def outbound(self) -> bool:
        """Whether we dialed it."""

    @property
    def remote_address(self) -> Multiaddr:
        """The transport address of the other end, without /p2p/."""


StreamHandler = Callable[[Stream], Awaitable[None]]
