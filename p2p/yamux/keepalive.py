"""When to ping, what the answers tell of the round trip, and when silence means that the peer is gone.

A peer that is silent for `KEEPALIVE_IDLE` seconds is pinged; a half-open connection is found after at
most 40 s. A stream that moves bytes asks for the round-trip time as well, at most every
`RTT_INTERVAL` seconds, so that an idle connection costs no pings for it. One ping is on its way at a
time. A peer that sends anything at all is alive, even if its pong is stuck behind other bytes.
"""

from __future__ import annotations

from p2p.errors import ConnectionLost

KEEPALIVE_IDLE = 30.0  # seconds without a byte from the peer; go-yamux, KeepAliveInterval
PONG_TIMEOUT = 10.0  # seconds; go-yamux, ConnectionWriteTimeout
RTT_INTERVAL = 30.0  # seconds; go-yamux, MeasureRTTInterval


class Keepalive:
    """The clockwork of one session's pings."""

    __slots__ = ("_asked", "_heard", "_measured", "_sent", "_value", "rtt")

    def __init__(self, now: float) -> None:
        self.rtt: float | None = None  # seconds of a round trip, smoothed; None before the first pong
        self._measured = now  # when the last pong came
        self._heard = now
        self._sent: float | None = None  # when the ping left that was not answered yet
        self._asked = 0.0  # since when an answer can be expected
        self._value = 0

    def heard(self, now: float) -> None:
        """Bytes came from the peer."""
        self._heard = now

    def wants_rtt(self, now: float) -> bool:
        """Whether an active stream should ping: the round-trip time is unknown or old."""
        return self._sent is None and (self.rtt is None or now - self._measured >= RTT_INTERVAL)

    def ping(self, now: float) -> int | None:
        """The value to ping with, or None while another ping is on its way."""
        if self._sent is not None:
            return None
        self._value = (self._value + 1) & 0xFFFFFFFF
        self._sent = self._asked = now
        return self._value

    def receive_pong(self, value: int, now: float) -> float | None:
        """The round-trip time in seconds, or None for a pong that answers nothing."""
        if self._sent is None or value != self._value:
            return None
        rtt = now - self._sent
        self._sent, self._measured = None, now
        self.rtt = rtt if self.rtt is None else (self.rtt + rtt) / 2
        return rtt

    def next_deadline(self) -> float:
        """When `handle_timer` has something to do."""
        if self._sent is None:
            return self._heard + KEEPALIVE_IDLE
        return max(self._asked, self._heard) + PONG_TIMEOUT

    def handle_timer(self, now: float, *, ping_waits: bool) -> int | None:
        """The value to ping with now, if any. Raises `ConnectionLost` when no pong came.

        While the ping still waits for the writer (`ping_waits`) the writer's own deadline judges.
        """
        if now < self.next_deadline():
            return None
        if self._sent is None:
            return self.ping(now)
        if not ping_waits:
            raise ConnectionLost(f"the peer answered no ping for {PONG_TIMEOUT:g} s")
        self._asked = now
        return None
