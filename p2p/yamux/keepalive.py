"""When to ping, and when a missing answer means that the peer is gone.

A peer that is silent for `KEEPALIVE_IDLE` seconds is pinged, one ping at a time; a half-open
connection is found after at most 40 s.
"""

from __future__ import annotations

from p2p.errors import ConnectionLost

KEEPALIVE_IDLE = 30.0  # seconds without a byte from the peer; go-yamux, KeepAliveInterval
PONG_TIMEOUT = 10.0  # seconds; go-yamux, ConnectionWriteTimeout


class Keepalive:
    """The clockwork of one session's pings."""

    __slots__ = ("_heard", "_pong_deadline", "_sent", "_value")

    def __init__(self, now: float) -> None:
        self._heard = now
        self._sent: float | None = None  # when the ping left that was not answered yet
        self._pong_deadline = 0.0
        self._value = 0

    def heard(self, now: float) -> None:
        """Bytes came from the peer."""
        self._heard = now

    def ping(self, now: float) -> int | None:
        """The value to ping with, or None while another ping is on its way."""
        if self._sent is not None:
            return None
        self._value = (self._value + 1) & 0xFFFFFFFF
        self._sent = now
        self._pong_deadline = now + PONG_TIMEOUT
        return self._value

    def receive_pong(self, value: int, now: float) -> float | None:
        """The round-trip time in seconds, or None for a pong that answers nothing."""
        if self._sent is None or value != self._value:
            return None
        rtt = now - self._sent
        self._sent = None
        return rtt

    def next_deadline(self) -> float:
        """When `handle_timer` has something to do."""
        return self._heard + KEEPALIVE_IDLE if self._sent is None else self._pong_deadline

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
        self._pong_deadline = now + PONG_TIMEOUT
        return None
