"""Ping: 32 random bytes and their echo, again and again on one stream.

Source: libp2p/specs ping/ping.md.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from p2p.errors import ConnectionLost, RemoteProtocolError
from p2p.framing import receive_exactly
from p2p.peer_id import PeerId
from p2p.scope import reset_on_error
from p2p.stream import Stream

if TYPE_CHECKING:
    from p2p.host import Host

PROTOCOL = "/ipfs/ping/1.0.0"
SIZE = 32  # bytes
MAX_INBOUND = 2  # streams a peer, as js-libp2p enforces
IDLE_TIMEOUT = 30.0  # seconds without a ping before the stream is closed
TIMEOUT = 10.0  # seconds for one answer


class PingService:
    """Answers pings of others."""

    def __init__(self) -> None:
        self._streams: Counter[PeerId] = Counter()

    async def serve(self, stream: Stream) -> None:
        """Echoes blocks of 32 bytes until the peer stops."""
        if self._streams[stream.peer] >= MAX_INBOUND:
            stream.reset()
            return
        self._streams[stream.peer] += 1
        try:
            while True:
                with trio.move_on_after(IDLE_TIMEOUT) as idle:
                    first = await stream.receive_some(SIZE)
                    if not first:
                        return
                    rest = await receive_exactly(stream, SIZE - len(first))
                    await stream.send_all(first + rest)
                if idle.cancelled_caught:
                    return
        finally:
            self._streams[stream.peer] -= 1
            if not self._streams[stream.peer]:
                del self._streams[stream.peer]


async def ping(host: Host, peer: PeerId) -> float:
    """Seconds of one round trip to `peer`, after connecting where necessary.

    Raises `DialFailed`, `NegotiationFailed`, `ConnectionLost` (also when no answer came within
    10 s) and `RemoteProtocolError` for a wrong answer.
    """
    block = host.rng.randbytes(SIZE)
    with trio.move_on_after(TIMEOUT):
        stream = await host.open_stream(peer, [PROTOCOL])
        with reset_on_error(stream):
            start = trio.current_time()
            await stream.send_all(block)
            answer = await receive_exactly(stream, SIZE)
            elapsed = trio.current_time() - start
            if answer != block:
                raise RemoteProtocolError(f"{peer} answered a ping with other bytes")
            await stream.aclose()
            return elapsed
    raise ConnectionLost(f"{peer} did not answer a ping within {TIMEOUT:g} s")
