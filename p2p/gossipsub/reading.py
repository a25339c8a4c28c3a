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

    Large RPCs come in slices. While `unheard()` nothing is even decoded but small RPCs of subscriptions.
    Both may be called without a current task. Raises `RemoteProtocolError` for a malformed RPC,
    `StreamReset`, and `ConnectionLost`, also within an RPC.
    """
    inbound = Inbound()

    def take(data: bytes) -> None:
        now = trio.current_time()
        rpc = None if unheard() else inbound.receive_whole(data, now)
        if rpc is not None:
            handle(rpc, now)
            return
        inbound.receive_data(data)
        handle_all(now)
        if inbound.turn_over:
            raise _TurnOver

    def handle_all(now: float) -> None:
        while (rpc := inbound.next_of_unheard(now) if unheard() else inbound.next_rpc()) is not None:
            handle(rpc, now)

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
                handle_all(now)
    if inbound.mid_message:
        raise ConnectionLost("the peer closed the stream within a message")
