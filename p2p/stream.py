"""What the layers ask of one another: the interfaces between transport, security, muxer and handlers.

An inbound connection passes them in this order: `ByteStream` (transport) → `SecureStream`
(noise, TLS) → `MuxedConnection` (yamux) → `Stream` (one protocol's handler).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from multiaddr import Multiaddr

from p2p.keys import PublicKey
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from p2p.multistream.negotiation import Initiator

Data = bytes | bytearray | memoryview
MAX_BLOCK = 65519  # bytes of plaintext that one noise message holds: what muxers cut their output to


class Readable(Protocol):
    """Where bytes come from, in order."""

    async def receive_some(self, max_bytes: int | None = None) -> Data:
        """At least one byte, or b"" at the end. Raises `ConnectionLost`."""


class ReadWritable(Readable, Protocol):
    """Where bytes come from and go to: all that a negotiation needs."""

    async def send_all(self, data: Data) -> None:
        """Sends all of `data`. Raises `ConnectionLost`; after a cancellation an unknown part was sent."""


class ByteStream(ReadWritable, Protocol):
    """An ordered two-way byte stream: one task reads, one task writes.

    The pair `send_nowait` and `wait_writable` lets a writer send without a task switch, and be
    cancelled at any time without losing count of what left; `send_all` is the two in a loop.
    """

    async def receive_into(self, buffer: memoryview) -> int:
        """Fills the beginning of `buffer`; how many bytes came, 0 at the end. Raises `ConnectionLost`.

        `buffer` is written to only just before this returns, so one buffer may serve the readers of
        all streams of a thread, as long as each has used its bytes up before its next await.
        """

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        """Calls `handle` with every piece that comes, until the end of the bytes.

        A piece is good during the call only. Raises `ConnectionLost`, and whatever `handle` raises, at
        once. Cancelled, it has lost nothing: what was not handled comes with the next call.
        """

    def send_nowait(self, data: Data) -> int:
        """Sends the beginning of `data`, as far as that goes without waiting; how many bytes, maybe 0.

        Not while a `send_all` is running. Raises `ConnectionLost`.
        """

    async def wait_writable(self) -> None:
        """Returns when `send_nowait` is likely to take something. Raises `ConnectionLost`."""

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


class SecureChannel(Protocol):
    """The encryption of one connection once its handshake is done, without I/O."""

    def seal(self, blocks: Sequence[Data]) -> Data:
        """`blocks`, of at most `MAX_BLOCK` bytes each, encrypted in order and ready to send.

        What is returned may be a view of a buffer that all channels share: it is good until the
        caller's next await. Raises `LocalProtocolError` when the channel can encrypt no more.
        """

    def open(self, data: memoryview) -> Data:
        """The plaintext that `data` completes, maybe none; good until the caller's next await.

        Raises `RemoteProtocolError` (`AuthenticationFailed` when somebody changed the bytes).
        """

    def data_to_send(self) -> Data:
        """What the channel itself has to say after `open` (TLS: alerts, key updates); mostly empty."""

    @property
    def ended(self) -> bool:
        """Whether the peer said that nothing more comes (TLS: close_notify)."""

    @property
    def mid_frame(self) -> bool:
        """Whether an unfinished frame is buffered: an end of the bytes here cuts something off."""


class SecureStream(Protocol):
    """An encrypted stream whose other end is proven to be `remote_peer`: one task reads, one writes."""

    @property
    def remote_peer(self) -> PeerId:
        """Who is at the other end."""

    @property
    def remote_key(self) -> PublicKey:
        """The identity key that the other end proved to hold."""

    @property
    def early_muxer(self) -> str | None:
        """The muxer that the security handshake settled already, or None: negotiate it."""

    async def receive_some(self, max_bytes: int | None = None) -> Data:
        """At least one byte, or b"" at the end; good until the caller's next await.

        Raises `ConnectionLost`, also when the stream ends within a frame, and `RemoteProtocolError`.
        """

    async def receive_each(self, handle: Callable[[Data], None]) -> None:
        """Calls `handle` with every piece that comes, until the end; raises as `receive_some` does.

        A piece is good during the call only. What `handle` raises leaves at once. Cancelled, it has
        lost nothing: what was not handled comes with the next call.
        """

    def send_nowait(self, blocks: Sequence[Data]) -> bool:
        """Encrypts `blocks`, of at most `MAX_BLOCK` bytes each, and sends what leaves without waiting.

        Whether all left; otherwise the stream holds the rest (the caller bounds it by what it gives
        at a time), and `flush` must return before the next `send_nowait`. Raises `ConnectionLost`.
        """

    async def flush(self) -> None:
        """Returns when everything given to `send_nowait` has left. A cancelled flush can be repeated."""

    async def send_all(self, data: Data) -> None:
        """Sends all of `data`. Raises `ConnectionLost`."""

    async def aclose(self) -> None:
        """Closes both directions. Never raises `ConnectionLost`; safe to repeat."""


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

    async def receive_each(self, handle: Callable[[bytes], None]) -> None:
        """Calls `handle` with every piece that comes, until the peer closed its side.

        While this waits, `handle` runs within the connection's own reading: no task is switched to, so
        it must be quick, and there may be no current task. Raises as `receive_some` does, and whatever
        `handle` raises, at once. Cancelled, it has lost nothing: what was not handled comes later.
        """

    async def send_all(self, data: Data) -> None:
        """Returns when all is handed to the connection within the peer's window.

        Raises `StreamReset`, `ConnectionLost`, and `LocalProtocolError` after `send_eof`.
        """

    def send_nowait(self, data: Data) -> bool:
        """Hands all of `data` to the connection if that goes without waiting, else nothing; whether.

        It leaves at once, without a current task. Raises as `send_all` does.
        """

    async def send_eof(self) -> None:
        """Closes our side for writing; reading goes on."""

    async def aclose(self) -> None:
        """Closes both sides: ours as `send_eof`; what the peer still sends is dropped. Safe to repeat."""

    def reset(self, code: int = 0) -> None:
        """Ends both directions at once; the peer sees `StreamReset`. Never blocks, safe to repeat."""

    def watch(self, broken: Callable[[], None]) -> None:
        """Calls `broken`, once, when the stream is reset or its connection lost.

        For who only writes now and then. It must be quick, and there may be no current task.
        """


class MuxedStream(Stream, Protocol):
    """A stream before its protocol is agreed on: what a negotiation needs besides reading and writing."""

    protocol: str

    def send_soon(self, data: bytes) -> None:
        """Queues first bytes, which leave with the next write, or else when this task waits."""

    def expect_answer(self, proposal: Initiator) -> None:
        """Lets the first `receive_some` check the peer's answer to `proposal`."""

    def peek(self) -> bytes | bytearray:
        """The first piece that came, not taken; empty when nothing is there."""

    def skip(self, size: int) -> None:
        """Takes the beginning of what `peek` returned."""


class MuxedConnection(Protocol):
    """A secured connection that carries streams: what an upgrade makes, and the swarm runs."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""

    @property
    def bytes_sent(self) -> int:
        """Bytes sent so far, before encryption."""

    @property
    def num_streams(self) -> int:
        """How many streams are open, half closed ones included."""

    async def open_stream(self) -> MuxedStream:
        """A new stream; waits while too many of ours are not acknowledged. Raises `ConnectionLost`."""

    async def run(self, on_stream: Callable[[MuxedStream], Awaitable[None]]) -> None:
        """Serves the connection until it ends; `on_stream` handles each stream that the peer opens.

        Returns when it ended in order, raises `ConnectionLost` or `RemoteProtocolError` otherwise. All
        handlers have ended then.
        """

    async def aclose(self) -> None:
        """Says goodbye and ends `run`. Safe to repeat."""


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
