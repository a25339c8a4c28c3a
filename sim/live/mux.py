"""The multiplexer of the rung `light`: streams over a simulated connection without a byte of framing.

    (stream, kind, data) as they are, counted as the yamux frames that they stand for

Windows, half-closing, resets, limits and the keepalive are as in `p2p.yamux`; only what yamux does to
put them into bytes is missing. Nothing here needs a current task but what waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from zlib import crc32

import trio

from p2p.errors import ConnectionLost
from p2p.handlers import run_handler
from p2p.keys import PublicKey
from p2p.peer_id import PeerId
from p2p.scope import open_scope
from sim.live.plain_stream import Kind, PlainStream

if TYPE_CHECKING:
    from p2p.stream import MuxedStream
    from sim.heap import EventHeap
    from sim.live.fabric import Endpoint

HEADER = 12  # bytes of a yamux frame around its body
MAX_INBOUND = 256  # streams that the peer has open; as p2p.yamux
RESOURCE_LIMIT = 0x1002  # why a stream too many is reset; libp2p/specs error-codes
KEEPALIVE, PATIENCE = 30.0, 10.0  # seconds of silence until a ping, and then until the end; p2p.yamux


def checksum(frame: Any) -> int:
    """What a frame holds, for the trace; bytes of the handshake too."""
    return crc32(frame) if isinstance(frame, bytes) else crc32(frame[2], frame[0] * 8 + frame[1])


class PlainConnection:
    """A `MuxedConnection` over `raw`, whose other end is proven to hold `remote_key`."""

    def __init__(self, raw: Endpoint, heap: EventHeap, remote_key: PublicKey, *, initiator: bool) -> None:
        self.remote_key = remote_key
        self.peer = PeerId.from_public_key(remote_key)
        self.bytes_sent = 0
        self.lost: str | None = None  # why it is over
        self.streams: dict[int, PlainStream] = {}
        self.raw = raw
        raw.checksum = raw.twin.checksum = checksum
        self.heap = heap
        self._next_id = 1 if initiator else 2
        self._last_inbound = 0 if initiator else -1
        self._unseen: dict[int, None] = {}  # ids below it that the peer has used for nothing yet
        self._inbound = 0  # handlers that run
        self._accept: Callable[[PlainStream], None] | None = None
        self._heard_at = heap.now
        self._silent = False  # the peer did not answer
        self._over = trio.Event()
        self._started = False

    @property
    def num_streams(self) -> int:
        """How many streams are open, half closed ones included."""
        return len(self.streams)

    @property
    def rtt(self) -> float | None:
        """Nobody measures it here."""
        return None

    async def open_stream(self) -> PlainStream:
        """A new stream; the peer sees it with its first frame. Raises `ConnectionLost`."""
        await trio.lowlevel.checkpoint()
        self.check_alive()
        stream = self.streams[self._next_id] = PlainStream(self, self._next_id)
        self._next_id += 2
        return stream

    async def run(self, on_stream: Callable[[MuxedStream], Awaitable[None]]) -> None:
        """As `MuxedConnection.run`: raises `ConnectionLost` when the other end is gone without a word."""
        self._started = True
        try:
            async with open_scope() as handlers:
                self._accept = lambda stream: handlers.start_soon(self._handle, stream, on_stream)
                self.heap.plan(self.heap.now + KEEPALIVE, self._check_silence)
                await self.raw.receive_each(self._receive)
                self.lose("the peer closed the connection")
        except ConnectionLost:
            if self.lost is None or self._silent:
                raise
        finally:
            self.lose("the connection was closed")
            self.raw.close()
            self._over.set()

    async def aclose(self) -> None:
        """Ends `run`. Safe to repeat."""
        self.lose("the connection was closed on this side")
        self.raw.close()
        if self._started:
            await self._over.wait()
        await trio.lowlevel.checkpoint()

    # For the streams

    def send(self, stream: int, kind: Kind, data: bytes = b"", number: int = 0) -> None:
        """Sends one frame."""
        if self.lost is None:
            size = HEADER + len(data)
            self.bytes_sent += size
            self.raw.post((stream, kind, data, number), size)

    def check_alive(self) -> None:
        """Raises `ConnectionLost` when the connection is over."""
        if self.lost is not None:
            raise ConnectionLost(self.lost)

    def lose(self, reason: str) -> None:
        """Ends every stream, once."""
        if self.lost is None:
            self.lost = reason
            streams, self.streams = self.streams, {}
            for stream in streams.values():
                stream.wake()

    # What comes

    def _receive(self, frame: tuple[int, Kind, bytes, int]) -> None:
        number, kind, data, value = frame
        self._heard_at = self.heap.now
        stream = self.streams.get(number)
        if stream is None:
            if kind is Kind.PING:
                self.send(0, Kind.PONG)
                return
            stream = self._open(number, kind)
            if stream is None:
                return
        if kind is Kind.DATA:
            stream.receive_data(data)
        elif kind is Kind.WINDOW:
            stream.receive_window(value)
        elif kind is Kind.END:
            stream.receive_eof()
        elif kind is Kind.RESET:
            stream.receive_reset(value)

    def _open(self, number: int, kind: Kind) -> PlainStream | None:
        """The stream that the peer opens with this frame; None when it is gone, or one too many."""
        if number % 2 == self._next_id % 2 or kind is Kind.PONG:
            return None
        if number > self._last_inbound:  # streams are opened in order, their first frames are not sent so
            self._unseen.update(dict.fromkeys(range(self._last_inbound + 2, number, 2)))
            self._last_inbound = number
        elif number in self._unseen:
            del self._unseen[number]
        else:
            return None
        if kind is Kind.RESET:
            return None
        if self._accept is None or self._inbound >= MAX_INBOUND:
            self.send(number, Kind.RESET, number=RESOURCE_LIMIT)
            return None
        stream = self.streams[number] = PlainStream(self, number)
        self._inbound += 1
        self._accept(stream)
        return stream

    async def _handle(self, stream: PlainStream, on_stream: Callable[[MuxedStream], Awaitable[None]]) -> None:
        try:
            await run_handler(stream, on_stream)
        finally:
            self._inbound -= 1

    def _check_silence(self) -> None:
        """The keepalive: asks after a long silence, and gives up when no answer comes."""
        ask_at = self._heard_at + KEEPALIVE
        give_up_at = ask_at + PATIENCE
        if self.lost is not None:
            return
        if self.heap.now >= give_up_at:
            self._silent = True
            self.raw.break_off("the peer does not answer")
            self.lose("the peer does not answer")
        elif self.heap.now >= ask_at:
            self.send(0, Kind.PING)
            self.heap.plan(give_up_at, self._check_silence)
        else:
            self.heap.plan(ask_at, self._check_silence)
