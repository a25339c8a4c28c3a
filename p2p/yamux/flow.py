"""One stream's book-keeping: which halves are open, and the window of each direction.

`receive_window` + what the application has not read + `consumed` is `INITIAL_WINDOW`, always: in this
version a window never grows, so that a peer's share of our memory is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2p.errors import LocalProtocolError, RemoteProtocolError
from p2p.yamux.wire import INITIAL_WINDOW, MAX_WINDOW

UPDATE_THRESHOLD = INITIAL_WINDOW // 2  # bytes consumed that are worth a WindowUpdate; go-yamux, rust-yamux


@dataclass(slots=True, kw_only=True)
class StreamState:
    """A stream that is not gone."""

    id: int
    outbound: bool
    acked: bool
    send_window: int = INITIAL_WINDOW  # bytes that the peer takes
    receive_window: int = INITIAL_WINDOW  # bytes that the peer may send
    consumed: int = 0  # bytes that were read here and not granted again yet
    discarded: bool = False  # nobody reads it any more
    local_closed: bool = False  # our FIN is queued
    remote_closed: bool = False  # the peer's FIN came

    @property
    def unread(self) -> int:
        """Bytes that came and that the application has not consumed."""
        return INITIAL_WINDOW - self.receive_window - self.consumed

    def grow_send_window(self, delta: int) -> None:
        """Deltas add up. Raises `RemoteProtocolError` past 32 bits (CVE-2026-31814)."""
        if delta > MAX_WINDOW - self.send_window:
            raise RemoteProtocolError(f"the window of stream {self.id} overflows by {delta} bytes")
        self.send_window += delta

    def check_body(self, size: int) -> None:
        """Raises `RemoteProtocolError` when a body of `size` bytes is over what we granted."""
        if size > self.receive_window:
            raise RemoteProtocolError(
                f"{size} bytes on stream {self.id} overrun its window of {self.receive_window}"
            )

    def consume(self, size: int) -> int:
        """Counts `size` bytes as read; the delta to grant now, 0 while it is not worth a frame."""
        if size > self.unread:
            raise LocalProtocolError(f"consumed more of stream {self.id} than was received")
        self.consumed += size
        if self.consumed < UPDATE_THRESHOLD or self.remote_closed:
            return 0
        delta, self.consumed = self.consumed, 0
        self.receive_window += delta
        return delta
