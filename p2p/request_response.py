"""One message out, one message back: the shape of most small protocols.

Messages are delimited by their length. A client sends on a stream of its own and closes it; a server
answers one request after the other until the client closes the stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from p2p.errors import ConnectionLost
from p2p.framing import DelimitedReader, encode_delimited
from p2p.limits import StreamLimit
from p2p.peer_id import PeerId
from p2p.scope import reset_on_error
from p2p.stream import Stream, StreamHandler

MAX_STREAMS = 16  # of one peer at once; go-libp2p's limit for small protocols such as identify
IDLE_TIMEOUT = 60.0  # seconds without a request before a stream is closed


class Opener(Protocol):
    """Whoever opens streams: a host."""

    async def open_stream(self, peer: PeerId, protocols: Sequence[str]) -> Stream:
        """A stream to `peer` that speaks one of `protocols`."""


async def request(
    host: Opener, peer: PeerId, protocols: Sequence[str], message: bytes, *, max_answer: int
) -> bytes:
    """What `peer` answers to `message`, at most `max_answer` bytes. The caller sets the deadline.

    Raises `DialFailed`, `NegotiationFailed`, `MessageTooLarge`, `RemoteProtocolError`, `StreamReset`
    when the peer refuses, and `ConnectionLost`, also when the stream ends without an answer.
    """
    stream = await host.open_stream(peer, protocols)
    with reset_on_error(stream):
        await stream.send_all(encode_delimited(message))
        answer = await DelimitedReader(stream, max_answer).receive()
        if answer is None:
            raise ConnectionLost(f"{peer} closed the stream instead of answering")
        await stream.aclose()
    return answer


def responder(
    answer: Callable[[PeerId, bytes], Awaitable[bytes]],
    *,
    max_request: int,
    timeout: float,
    max_streams: int = MAX_STREAMS,
) -> StreamHandler:
    """A handler for `Host.handle` that sends `await answer(peer, message)` for each message.

    `answer` has `timeout` seconds, sending included; what it raises resets the stream and nothing
    else. A request over `max_request` bytes, and the stream after `max_streams` of one peer, are reset.
    """
    limit = StreamLimit(max_streams)

    async def serve(stream: Stream) -> None:
        with limit.admitted(stream) as admitted:
            if not admitted:
                return
            reader = DelimitedReader(stream, max_request)
            while (message := await _next_request(reader)) is not None:
                with trio.fail_after(timeout):
                    await stream.send_all(encode_delimited(await answer(stream.peer, message)))

    return serve


async def _next_request(reader: DelimitedReader) -> bytes | None:
    with trio.move_on_after(IDLE_TIMEOUT):
        return await reader.receive()
    return None
