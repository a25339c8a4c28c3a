"""Ping: 32 random bytes and their echo, again and again on one stream.

Source: libp2p/specs ping/ping.md.
"""

from __future__ import annotations

import trio

from p2p.errors import RemoteProtocolError
from p2p.framing import receive_exactly
from p2p.limits import StreamLimit
from p2p.stream import Stream

PROTOCOL = "/ipfs/ping/1.0.0"
SIZE = 32  # bytes
MAX_INBOUND = 2  # streams a peer, as js-libp2p enforces
IDLE_TIMEOUT = 30.0  # seconds without a ping before the stream is closed
TIMEOUT = 10.0  # seconds for one answer


class PingService:
    """Answers pings of others."""

    def __init__(self) -> None:
        self._streams = StreamLimit(MAX_INBOUND)

    async def serve(self, stream: Stream) -> None:
        """Echoes blocks of 32 bytes until the peer stops."""
        with self._streams.admitted(stream) as admitted:
            while admitted:
                with trio.move_on_after(IDLE_TIMEOUT) as idle:
                    first = await stream.receive_some(SIZE)
                    if not first:
                        return
                    rest = await receive_exactly(stream, SIZE - len(first))
                    await stream.send_all(first + rest)
                if idle.cancelled_caught:
                    return


async def measure(stream: Stream, block: bytes) -> float:
    """Seconds until `block`, of 32 bytes, is back; the caller sets the deadline.

    Raises `ConnectionLost`, and `RemoteProtocolError` for a wrong answer.
    """
    start = trio.current_time()
    await stream.send_all(block)
    if await receive_exactly(stream, SIZE) != block:
        raise RemoteProtocolError(f"{stream.peer} answered a ping with other bytes")
    return trio.current_time() - start
