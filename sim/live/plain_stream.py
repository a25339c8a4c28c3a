"""One stream of the rung `light`, for the tasks that read and write it."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

import trio

from p2p.errors import ConnectionLost, LocalProtocolError, P2PError, StreamReset
from p2p.waiter import Waiter

if TYPE_CHECKING:
    from p2p.multistream.negotiation import Initiator
    from p2p.peer_id import PeerId
    from p2p.stream import Data
    from sim.live.mux import PlainConnection

WINDOW = 256 * 1024  # bytes that may come before the reader takes any; yamux spec, "Flow Control"
DISCARD_TIMEOUT = 10.0  # seconds that the peer has to finish its half of a stream we closed; p2p.yamux
NEGOTIATION_FAILED = 0x1001  # libp2p/specs error-codes


class Kind(IntEnum):
    """What a frame is."""

    DATA = 0
    WINDOW = 1
    END = 2
    RESET = 3
    PING = 4
    PONG = 5


class PlainStream:
    """A `MuxedStream`. One task may send and one receive at a time; another gets `trio.BusyResourceError`."""

    __slots__ = (
        "_broken",
        "_buffer",
        "_closed",
        "_credit",
        "_error",
        "_handler",
        "_mux",
        "_proposal",
        "_readable",
        "_received_eof",
        "_receiving",
        "_reset",
        "_sending",
        "_sent_eof",
        "_soon",
        "_taken",
        "_torn",
        "_writable",
        "id",
        "protocol",
    )

    def __init__(self, mux: PlainConnection, number: int) -> None:
        self.id = number
        self.protocol = ""
        self._mux = mux
        self._buffer: list[bytes] = []  # mostly empty, and a deque is 600 bytes
        self._handler: Callable[[bytes], None] | None = None
        self._error: Exception | None = None  # of the handler
        self._credit = WINDOW  # bytes that we may send
        self._taken = 0  # bytes that we read since the peer was told
        self._soon = b""
        self._proposal: Initiator | None = None
        self._received_eof = self._sent_eof = self._closed = False
        self._receiving = self._sending = False
        self._torn = False  # an interrupted send_all left a part of its data with the peer
        self._reset: StreamReset | None = None
        self._broken: Callable[[], None] | None = None  # for who watches
        self._readable, self._writable = Waiter(), Waiter()

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self._mux.peer

    # Reading

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `Stream.receive_some`."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        self._start_receiving()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not self._has_data():
                if self._at_end():
                    return b""
                self._flush()
                await self._readable.wait()
        finally:
            self._receiving = False
        data = self._buffer.pop(0)
        if max_bytes is not None and len(data) > max_bytes:
            self._buffer.insert(0, data[max_bytes:])
            data = data[:max_bytes]
        self._take(len(data))
        return data

    async def receive_each(self, handle: Callable[[bytes], None]) -> None:
        """As `Stream.receive_each`."""
        self._start_receiving()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._handler = handle
            while True:
                while self._has_data():
                    data = self._buffer.pop(0)
                    self._take(len(data))
                    handle(data)
                error, self._error = self._error, None
                if error is not None:
                    raise error
                if self._at_end():
                    return
                self._flush()
                await self._readable.wait()
        finally:
            self._handler, self._receiving = None, False

    def _start_receiving(self) -> None:
        if self._receiving:
            raise trio.BusyResourceError("another task receives from this stream")
        self._receiving = True

    def _has_data(self) -> bool:
        return bool(self._buffer) and (self._proposal is None or self._take_answer())

    def _at_end(self) -> bool:
        """Whether the peer closed its side; raises when the stream or the connection is gone."""
        if self._received_eof and not self._closed and self._reset is None:
            if self._proposal is not None:
                raise ConnectionLost("the peer closed the stream before it answered the proposal")
            return True
        self._check_open()
        return False

    def _take(self, size: int) -> None:
        """Bytes were read: tells the peer, once half a window is free."""
        self._taken += size
        if self._taken >= WINDOW // 2 and not self._received_eof:
            self._mux.send(self.id, Kind.WINDOW, number=self._taken)
            self._taken = 0

    def _take_answer(self) -> bool:
        """Checks what came against the proposal; whether there is something behind the answer."""
        proposal = self._proposal
        while self._buffer and proposal is not None:
            piece = self._buffer[0][: proposal.wanted]
            self.skip(len(piece))
            try:
                proposal.receive_data(piece)
            except P2PError:
                self.reset(NEGOTIATION_FAILED)
                raise
            if proposal.next_event() is not None:
                self._proposal = proposal = None
        return bool(self._buffer)

    # Writing

    async def send_all(self, data: Data) -> None:
        """As `Stream.send_all`: after a cancellation an unknown part was sent, and `aclose` resets."""
        self._check_not_sending()
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.send_nowait(data):
            await self._send_in_parts(bytes(data))

    async def _send_in_parts(self, data: bytes) -> None:
        """Sends more than the peer's window takes now."""
        self._sending, sent = True, 0
        try:
            self._flush()
            while sent < len(data):
                if part := data[sent : sent + self._credit]:
                    self._send(part)
                    sent += len(part)
                else:
                    await self._writable.wait()
                    self._check_writable()
        finally:
            self._sending = False
            self._torn = self._torn or 0 < sent < len(data)

    def send_nowait(self, data: Data) -> bool:
        """As `Stream.send_nowait`."""
        if self._sending:
            return False
        if self._sent_eof or self._closed or self._reset is not None or self._mux.lost is not None:
            self._check_writable()
        if len(data) + len(self._soon) > self._credit:
            return False
        if self._soon:
            data, self._soon = self._soon + data, b""
        if data:
            self._credit -= len(data)
            self._mux.send(self.id, Kind.DATA, bytes(data))
        return True

    def _send(self, data: bytes) -> None:
        """Sends what the peer's window takes."""
        if data:
            self._credit -= len(data)
            self._mux.send(self.id, Kind.DATA, data)

    def _check_not_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task sends on this stream")

    async def send_eof(self) -> None:
        """As `Stream.send_eof`."""
        self._check_not_sending()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        if not self._sent_eof:
            self._close_write()

    async def aclose(self) -> None:
        """As `Stream.aclose`; the peer has `DISCARD_TIMEOUT` to finish its half, then the stream is reset."""
        if not self._closed:
            self._closed = True
            if self._torn or self._sending:
                self.reset()
            elif self._reset is None and self._mux.lost is None:
                if not self._sent_eof:
                    self._close_write()
                if not self._received_eof:
                    self._take(sum(map(len, self._buffer)))
                    self._mux.heap.plan(self._mux.heap.now + DISCARD_TIMEOUT, self._give_up)
            self._buffer.clear()
            self.wake()
        await trio.lowlevel.checkpoint()

    def _give_up(self) -> None:
        """The peer had its time to finish its half of a stream that nobody reads any more."""
        if self._mux.streams.pop(self.id, None) is not None:
            self._mux.send(self.id, Kind.RESET)

    def reset(self, code: int = 0) -> None:
        """As `Stream.reset`."""
        if self._reset is None:
            self._flush()
            if not (self._received_eof and self._sent_eof):
                self._mux.send(self.id, Kind.RESET, number=code)
            self._reset = StreamReset("the stream was reset on this side", code)
            self._buffer.clear()
            self._let_go()

    def _close_write(self) -> None:
        self._flush()
        self._sent_eof = True
        self._mux.send(self.id, Kind.END)
        if self._received_eof:
            self._let_go()

    def watch(self, broken: Callable[[], None]) -> None:
        """As `Stream.watch`."""
        self._broken = broken
        self._tell()

    def _tell(self) -> None:
        """Tells who watches, if there is reason to."""
        if self._broken is not None and (self._reset is not None or self._mux.lost is not None):
            broken, self._broken = self._broken, None
            broken()

    # The negotiation of its protocol

    def send_soon(self, data: bytes) -> None:
        """Queues first bytes: they leave with the next write, or else at the end of this instant."""
        self._check_writable()
        if len(self._soon) + len(data) > self._credit:
            raise LocalProtocolError(f"{len(data)} bytes are over the window of stream {self.id}")
        if not self._soon:
            self._mux.heap.plan(self._mux.heap.now, self._flush)
        self._soon += data

    def expect_answer(self, proposal: Initiator) -> None:
        """What comes first is the answer to `proposal`."""
        self._proposal = proposal

    def peek(self) -> bytes:
        """The first piece that came, not taken."""
        return self._buffer[0] if self._buffer else b""

    def skip(self, size: int) -> None:
        """Takes the beginning of what `peek` returned."""
        data = self._buffer.pop(0)
        if len(data) > size:
            self._buffer.insert(0, data[size:])
        self._take(size)

    def _flush(self) -> None:
        if self._soon and self._reset is None and self._mux.lost is None:
            data, self._soon = self._soon, b""
            self._send(data)

    # Called by the connection

    def receive_data(self, data: bytes) -> None:
        """Bytes came: to the handler of `receive_each` at once, or for whoever reads."""
        if self._closed:
            self._take(len(data))
            return
        if self._handler is None or self._buffer or self._proposal is not None or not self._readable:
            self._buffer.append(data)
            self._readable.wake()
            return
        self._take(len(data))
        try:
            self._handler(data)
        except Exception as exc:
            self._error, self._handler = exc, None
            self._readable.wake()

    def receive_window(self, size: int) -> None:
        """The peer has read so many bytes."""
        self._credit += size
        self._writable.wake()

    def receive_eof(self) -> None:
        """The peer closed its side."""
        self._received_eof = True
        self._readable.wake()
        if self._sent_eof:
            self._mux.streams.pop(self.id, None)

    def receive_reset(self, code: int) -> None:
        """The peer ended both sides."""
        if self._closed:
            self._mux.streams.pop(self.id, None)
        elif self._reset is None:
            self._reset = StreamReset("the peer reset the stream", code)
            self._let_go()

    def wake(self) -> None:
        """Lets whoever waits look again."""
        self._readable.wake()
        self._writable.wake()
        self._tell()

    def _let_go(self) -> None:
        self._mux.streams.pop(self.id, None)
        self.wake()

    def _check_open(self) -> None:
        if self._reset is not None:
            raise StreamReset(str(self._reset), self._reset.code)
        if self._closed:
            raise LocalProtocolError("the stream is closed")
        if self._mux.lost is not None:
            raise ConnectionLost(self._mux.lost)

    def _check_writable(self) -> None:
        self._check_open()
        if self._sent_eof:
            raise LocalProtocolError("our side of the stream is closed")
