"""multistream-select over a stream: `select` for who opened it, `handle` for who accepted it.

Both read exactly up to the end of the negotiation, so whatever the peer sent behind it stays in the
stream for the protocol. The caller bounds the time, and closes or resets the stream after an error.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import suppress

from p2p.errors import ConnectionLost, NegotiationFailed
from p2p.multistream.negotiation import Initiator, Responder
from p2p.multistream.wire import HEADER, encode_line, first_proposal
from p2p.stream import MuxedStream, ReadWritable


async def select(stream: ReadWritable, protocols: Sequence[str]) -> str:
    """The first of `protocols` that the peer speaks; header and first proposal are one write.

    Raises `NegotiationFailed` when the peer refuses all, `RemoteProtocolError` for a wrong answer,
    `ConnectionLost` when the stream ends before.
    """
    initiator = Initiator(protocols)
    while True:
        if data := initiator.data_to_send():
            await stream.send_all(data)
        if (agreed := initiator.next_event()) is not None:
            return agreed.protocol
        received = await stream.receive_some(initiator.wanted)
        if not received:
            raise ConnectionLost("the peer closed the stream before it answered which protocol it speaks")
        initiator.receive_data(received)


async def handle(stream: ReadWritable, supported: Container[str] | Callable[[str], bool]) -> str:
    """The protocol that the peer proposed and that is `supported`.

    Raises `NegotiationFailed` when the peer gives up or ends the stream, `RemoteProtocolError` when it
    talks nonsense, `ConnectionLost`.
    """
    responder = Responder(supported)
    writable = True
    while True:
        if (data := responder.data_to_send()) and writable:
            writable = await _try_send(stream, data)
        if (agreed := responder.next_event()) is not None:
            return agreed.protocol
        received = await stream.receive_some(responder.wanted)
        if not received:
            raise NegotiationFailed("the peer ended the stream before a protocol was agreed on")
        responder.receive_data(received)


def select_lazily(stream: MuxedStream, protocol: str) -> None:
    """Speaks `protocol` on a new stream without waiting for the peer's consent.

    Sound only for a protocol that the peer announced: to one that it refuses, the data behind the
    proposal would be more proposals. Header and proposal leave with the first write, or else when
    this task waits; the first `receive_some` raises what `select` would. Raises `ConnectionLost`.
    """
    proposal = Initiator((protocol,))
    stream.send_soon(proposal.data_to_send())
    stream.expect_answer(proposal)
    stream.protocol = protocol


async def handle_lazily(stream: MuxedStream, supported: Container[str] | Callable[[str], bool]) -> str:
    """As `handle`; if the whole proposal came already, our answer leaves with the handler's first write.

    It is never withheld: when the handler waits before it writes, the answer leaves then.
    """
    if (first := first_proposal(stream.peek())) is not None:
        protocol, size = first
        if supported(protocol) if callable(supported) else protocol in supported:
            stream.skip(size)
            with suppress(ConnectionLost):  # as in `_try_send`
                stream.send_soon(HEADER + encode_line(protocol))
            return protocol
    return await handle(stream, supported)


async def _try_send(stream: ReadWritable, data: bytes) -> bool:
    """Sends `data`; False when the peer will not read it.

    No failure of the negotiation: a peer may send its proposal and its data and be gone. If there is
    nothing left to read, reading says so.
    """
    try:
        await stream.send_all(data)
    except ConnectionLost:
        return False
    return True
