"""The frames of a session that wait to be sent, joined as they will leave.

Pings and pongs go ahead of everything else. Small writes of one stream that wait together share one
frame, and a large write is cut so that a frame fills one noise transport message.
"""

from __future__ import annotations

from p2p.errors import RemoteProtocolError
from p2p.yamux.wire import (
    ACK,
    HEADER_SIZE,
    MAX_BODY_SENT,
    SESSION_ID,
    SYN,
    FrameType,
    encode_header,
    set_length,
)

MAX_QUEUED_PONGS = 32  # frames; go-yamux, maxQueuedPongs: further ones are dropped
MAX_QUEUED_REPLIES = 4096  # ACK and RST frames; four times what an honest peer can have in flight


class Outbox:
    """Frames in, one block of bytes out."""

    __slots__ = ("_output", "_pongs", "_replies", "_tail_at", "_tail_id", "_urgent", "ping_waits", "size")

    def __init__(self) -> None:
        self._urgent = bytearray()
        self._output = bytearray()
        self._tail_id = SESSION_ID  # the stream of the Data frame that ends `_output`, if one does
        self._tail_at = 0
        self._pongs = 0
        self._replies = 0
        self.size = 0  # bytes that wait
        self.ping_waits = False  # whether a ping of ours has not been taken yet

    def add(self, kind: FrameType, flags: int, stream_id: int, length: int) -> None:
        """Queues a frame without a body."""
        self._output += encode_header(kind, flags, stream_id, length)
        self.size += HEADER_SIZE
        self._tail_id = SESSION_ID

    def add_data(self, stream_id: int, data: memoryview) -> None:
        """Queues Data frames; the last frame grows first, when it is of the same stream."""
        output, start, end = self._output, 0, len(data)
        while start < end:
            size = len(output) - self._tail_at - HEADER_SIZE
            if self._tail_id != stream_id or size >= MAX_BODY_SENT:
                self._tail_id, self._tail_at, size = stream_id, len(output), 0
                output += encode_header(FrameType.DATA, 0, stream_id, 0)
            piece = data[start : start + MAX_BODY_SENT - size]
            output += piece
            set_length(output, self._tail_at, size + len(piece))
            start += len(piece)
        self.size = len(self._urgent) + len(output)

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

    def take(self) -> bytes | bytearray:
        """Everything that waits; it belongs to the caller now."""
        output = self._output
        if self._urgent:
            output = self._urgent + output
            self._urgent = bytearray()
        elif not output:
            return b""
        self._output = bytearray()
        self._tail_id = SESSION_ID
        self._pongs = self._replies = self.size = 0
        self.ping_waits = False
        return output

    def _add_urgent(self, flags: int, value: int) -> None:
        self._urgent += encode_header(FrameType.PING, flags, SESSION_ID, value)
        self.size += HEADER_SIZE
