"""From one peer's stream into the router: within the connection's own reading, as long as that is fair."""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2p.errors import ConnectionLost
from p2p.gossipsub.inbound import Inbound
from p2p.gossipsub.wire import Rpc
from p2p.stream import Stream


class _TurnOver(Exception):
    """The peer sent so much that others come first: leaves the connection's reading for the task."""


async def receive_rpcs(
    stream: Stream, handle: Callable[[Rpc, float], object], unheard: Callable[[], bool]
) -> None:
    """Calls `handle(rpc, now)` for all RPCs until the stream's end; a burst from one peer holds up nobody.

    Large RPCs come in slices. While `unheard()` nothing is even decoded. Both may be called without a
    current task. Raises
    `RemoteProtocolError` for a malformed RPC, `StreamReset`, and `ConnectionLost`, also within an RPC.
    """
    inbound = Inbound()

    def take(data: bytes) -> None:
        if unheard():
            inbound.skip_data(data)
            return
        now = trio.current_time()
        rpc = inbound.receive_whole(data, now)
        if rpc is not None:
            handle(rpc, now)
            return
        inbound.receive_data(data)
        while (rpc := inbound.next_rpc()) is not None:
            handle(rpc, now)
        if inbound.turn_over:
            raise _TurnOver

    ended = False
    while not ended:
        try:
            await stream.receive_each(take)
            ended = True
        except _TurnOver:
            while inbound.turn_over:
                await trio.lowlevel.checkpoint()
                now = trio.current_time()
                inbound.start_turn(now)
                while (rpc := inbound.next_rpc()) is not None:
                    handle(rpc, now)
    if inbound.mid_message:
        raise ConnectionLost("the peer closed the stream within a message")
