"""The frames of a session that wait to be sent, packed into blocks that fill one secured message each.

Frames are written straight into a block: small writes of one stream that follow one another share a
frame, small frames share a block, and a large write is cut where a block is full. Pings and pongs go
ahead of everything else. A block is a buffer of `MAX_BLOCK` bytes that is used again and again; what
is not in use is kept for all sessions together, so an idle one has none.
"""

from __future__ import annotations

from collections import deque

from p2p.errors import RemoteProtocolError
from p2p.stream import MAX_BLOCK, Data
from p2p.yamux.wire import ACK, HEADER_SIZE, SESSION_ID, SYN, FrameType, put_header, set_length

MAX_QUEUED_PONGS = 32  # frames; go-yamux, maxQueuedPongs: further ones are dropped
MAX_QUEUED_REPLIES = 4096  # ACK and RST frames; four times what an honest peer can have in flight
MAX_SPARE = 32  # blocks, 2 MiB for all sessions of the process: what four of them send at a time
MAX_TAKEN = 8  # blocks at a time: few system calls, and more gains nothing

_spare: list[memoryview] = []  # buffers that nobody uses now


class Outbox:
    """Frames in, blocks of bytes out."""

    __slots__ = (
        "_at",
        "_block",
        "_full",
        "_pongs",
        "_replies",
        "_tail_at",
        "_tail_id",
        "_taken",
        "_urgent",
        "ping_waits",
        "size",
    )

    def __init__(self) -> None:
        self._urgent = bytearray()
        self._full: deque[memoryview] = deque()  # blocks that nothing more goes into
        self._block: memoryview | None = None  # the one that fills up
        self._at = 0  # bytes of it that are used
        self._tail_id = SESSION_ID  # the stream of the Data frame that ends the block, if one does
        self._tail_at = 0
        self._taken: list[memoryview] = []
        self._pongs = 0
        self._replies = 0
        self.size = 0  # bytes that wait
        self.ping_waits = False  # whether a ping of ours has not been taken yet

    def add(self, kind: FrameType, flags: int, stream_id: int, length: int) -> None:
        """Queues a frame without a body."""
        self._add_header(kind, flags, stream_id, length)

    def add_data(self, stream_id: int, data: Data) -> None:
        """Queues Data frames; the last frame grows first, when it is of the same stream."""
        start, end = 0, len(data)
        if self._tail_id == stream_id and self._at + end <= MAX_BLOCK and self._block is not None:
            self._block[self._at : self._at + end] = data  # as most small writes go
            self._at += end
            self.size += end
            return
        while start < end:
            if self._tail_id != stream_id or self._at == MAX_BLOCK:
                if self._at + HEADER_SIZE >= MAX_BLOCK:
                    self._close_block()  # without room for a byte behind the header
                tail_at = self._add_header(FrameType.DATA, 0, stream_id, 0)
                self._tail_id, self._tail_at = stream_id, tail_at
            block, at = self._block, self._at
            assert block is not None
            size = min(end - start, MAX_BLOCK - at)
            self._at = at + size
            block[at : at + size] = data if size == end else data[start : start + size]
            self.size += size
            start += size

    def add_reply(self, flags: int, stream_id: int, code: int) -> None:
        """Queues the answer to a SYN. Raises `RemoteProtocolError` when the peer reads none of them.

        Without the limit a peer fills our memory with answers (CVE-2024-32984).
        """
        if self._replies >= MAX_QUEUED_REPLIES:
            raise RemoteProtocolError(f"{MAX_QUEUED_REPLIES} answers wait and the peer opens more streams")
        self._replies += 1
        self.add(FrameType.WINDOW_UPDATE, flags, stream_id, code)

    def add_pong(self, value: int) -> None:
        """Answers a ping, unless too many answers wait already."""
        if self._pongs < MAX_QUEUED_PONGS:
            self._pongs += 1
            self._add_urgent(ACK, value)

    def add_ping(self, value: int) -> None:
        """Asks for an answer with `value`."""
        self.ping_waits = True
        self._add_urgent(SYN, value)

    def take(self, *, whole: bool = False) -> list[memoryview]:
        """The next blocks, at most `MAX_TAKEN`, good until `sent` is called; none when nothing waits.

        With `whole` the block that fills up is left where it is.
        """
        taken, full = self._taken, self._full
        if self._urgent:
            taken.append(memoryview(self._urgent))
            self._urgent = bytearray()
            self._pongs = 0
            self.ping_waits = False
        while full and len(taken) < MAX_TAKEN:
            taken.append(full.popleft())
        if self._at and not whole and not full and len(taken) < MAX_TAKEN:
            self._close_block()
            taken.append(full.popleft())
            self._replies = 0
        for block in taken:
            self.size -= len(block)
        return taken

    def sent(self) -> None:
        """What `take` returned has left: its buffers can be used again."""
        for block in self._taken:
            buffer = block.obj
            if len(_spare) < MAX_SPARE and isinstance(buffer, bytearray) and len(buffer) == MAX_BLOCK:
                _spare.append(memoryview(buffer))
        self._taken = []

    def _add_header(self, kind: FrameType, flags: int, stream_id: int, length: int) -> int:
        """Puts a header at the end of the block, or into a new one; where it is."""
        self._end_frame()
        if self._at + HEADER_SIZE > MAX_BLOCK:
            self._close_block()
        if self._block is None:
            self._block = _spare.pop() if _spare else memoryview(bytearray(MAX_BLOCK))
        at = self._at
        put_header(self._block, at, kind, flags, stream_id, length)
        self._at = at + HEADER_SIZE
        self.size += HEADER_SIZE
        return at

    def _end_frame(self) -> None:
        """Nothing more goes into the Data frame that ends the block, if one does: its length is known."""
        if self._tail_id != SESSION_ID and self._block is not None:
            set_length(self._block, self._tail_at, self._at - self._tail_at - HEADER_SIZE)
        self._tail_id = SESSION_ID

    def _close_block(self) -> None:
        self._end_frame()
        if self._block is not None:
            self._full.append(self._block[: self._at])
        self._block, self._at = None, 0

    def _add_urgent(self, flags: int, value: int) -> None:
        at = len(self._urgent)
        self._urgent += bytes(HEADER_SIZE)
        put_header(self._urgent, at, FrameType.PING, flags, SESSION_ID, value)
        self.size += HEADER_SIZE
