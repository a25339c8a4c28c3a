"""One stream's book-keeping: which halves are open, and the window of each direction.

`receive_window` + what the application has not read + `consumed` is `window`, always. A window starts
at `INITIAL_WINDOW` and doubles, up to `MAX_STREAM_WINDOW`, whenever half of it was used up within
`GROWTH_RTTS` round trips: then the window, and not the peer, is what limits the stream. Growth is
reserved from a `WindowBudget`, and comes only with bytes that the application has read, so a reader
that is slow from the start never costs more than the initial window.
Source: go-yamux, stream.go sendWindowUpdate.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2p.errors import LocalProtocolError, RemoteProtocolError
from p2p.yamux.budget import WindowBudget
from p2p.yamux.wire import INITIAL_WINDOW, MAX_STREAM_WINDOW, MAX_WINDOW

GROWTH_RTTS = 4  # round trips; go-yamux and js-yamux


@dataclass(slots=True, kw_only=True, eq=False)
class StreamState:
    """A stream that is not gone, or one whose last bytes are still being read."""

    id: int
    outbound: bool
    acked: bool
    send_window: int = INITIAL_WINDOW  # bytes that the peer takes
    receive_window: int = INITIAL_WINDOW  # bytes that the peer may send
    window: int = INITIAL_WINDOW  # bytes of it that the peer may have sent and we not read
    consumed: int = 0  # bytes that were read here and not granted again yet
    granted_at: float = 0.0  # seconds; when the last grant was made, or the stream opened
    discarded: bool = False  # nobody reads it any more
    local_closed: bool = False  # our FIN is queued
    remote_closed: bool = False  # the peer's FIN came
    gone: bool = False  # both halves ended; its id means nothing any more

    @property
    def unread(self) -> int:
        """Bytes that came and that the application has not consumed."""
        return self.window - self.receive_window - self.consumed

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

    def consume(self, size: int) -> bool:
        """Counts `size` bytes as read; whether it is time to `grant`, at half a window (go, rust)."""
        if size > self.window - self.receive_window - self.consumed:
            raise LocalProtocolError(f"consumed more of stream {self.id} than was received")
        self.consumed += size
        return 2 * self.consumed >= self.window and not self.remote_closed

    def grant(self, now: float, rtt: float | None, budget: WindowBudget) -> int:
        """The delta that gives back what was consumed, and more when the window was used up fast."""
        if rtt and now - self.granted_at < GROWTH_RTTS * rtt:
            growth = min(self.window, MAX_STREAM_WINDOW - self.window)
            if growth and budget.reserve(growth):
                self.window += growth
                self.consumed += growth
        self.granted_at = now
        delta, self.consumed = self.consumed, 0
        self.receive_window += delta
        return delta

    def settle(self, budget: WindowBudget) -> None:
        """Gives back what the window grew by, once the stream is gone and what came of it was read."""
        if self.gone and self.window > INITIAL_WINDOW and (self.discarded or not self.unread):
            budget.release(self.window - INITIAL_WINDOW)
            self.receive_window -= self.window - INITIAL_WINDOW
            self.window = INITIAL_WINDOW
