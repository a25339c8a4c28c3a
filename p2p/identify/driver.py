"""Identify and identify/push on a stream: who speaks sends its messages and closes its side.

Source: libp2p/specs identify/README.md. The messages are delimited, whatever that page leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2p.errors import AuthenticationFailed, RemoteProtocolError
from p2p.framing import DelimitedReader, encode_delimited
from p2p.identify.wire import MAX_MESSAGE, MAX_MESSAGES, PeerInfo, decode
from p2p.peer_id import PeerId
from p2p.stream import Stream

PROTOCOL = "/ipfs/id/1.0.0"
PUSH_PROTOCOL = "/ipfs/id/push/1.0.0"


async def send_info(stream: Stream, messages: Iterable[bytes]) -> None:
    """Sends the encoded `messages` and closes our side. The caller sets the deadline."""
    await stream.send_all(b"".join(map(encode_delimited, messages)))
    await stream.send_eof()


async def receive_info(stream: Stream) -> PeerInfo:
    """What the peer at the other end of `stream` says until it closes its side.

    Raises `AuthenticationFailed` when it shows a key that is not its own, `RemoteProtocolError`,
    `ConnectionLost`. The caller sets the deadline.
    """
    reader = DelimitedReader(stream, MAX_MESSAGE)
    parts: list[bytes] = []
    while (part := await reader.receive()) is not None:
        if len(parts) == MAX_MESSAGES:
            raise RemoteProtocolError(f"identify in more than {MAX_MESSAGES} messages")
        parts.append(part)
    info = decode(parts)
    if info.public_key is not None and PeerId.from_public_key(info.public_key) != stream.peer:
        raise AuthenticationFailed(f"{stream.peer} identifies with the key of another peer")
    return info
