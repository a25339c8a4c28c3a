"""Frames as tests write and read them."""

from __future__ import annotations

from dataclasses import dataclass

from p2p.yamux.events import StreamOpened
from p2p.yamux.flow import StreamState
from p2p.yamux.session import Session
from p2p.yamux.wire import HEADER_SIZE, FrameType, decode_header, encode_header

DATA = FrameType.DATA
WINDOW_UPDATE = FrameType.WINDOW_UPDATE
PING = FrameType.PING
GO_AWAY = FrameType.GO_AWAY


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream_id: int
    length: int
    body: bytes = b""


def encode(kind: FrameType, flags: int, stream_id: int, length: int = 0, body: bytes = b"") -> bytes:
    """A frame; with a `body` the length is the body's."""
    return encode_header(kind, flags, stream_id, len(body) or length) + body


def decode(data: bytes | bytearray) -> list[Frame]:
    """The whole frames in `data`, which must not end within one."""
    frames, at = [], 0
    while at < len(data):
        kind, flags, stream_id, length = decode_header(data, at)
        at += HEADER_SIZE
        size = length if kind == DATA else 0
        body = bytes(data[at : at + size])
        assert len(body) == size
        at += size
        frames.append(Frame(kind, flags, stream_id, length, body))
    return frames


def sent(session: Session) -> list[Frame]:
    """The frames that wait in `session`, taken."""
    return decode(data_to_send(session))


def data_to_send(session: Session) -> bytes:
    """All bytes that wait in `session`, taken."""
    data = b""
    while blocks := session.blocks_to_send():
        data += b"".join(blocks)
        session.blocks_sent()
    return data


def happened(session: Session) -> list[object]:
    """The events that wait in `session`, taken."""
    taken: list[object] = []
    while (event := session.next_event()) is not None:
        taken.append(event)
    return taken


def opened(stream_id: int) -> StreamOpened:
    """The event of a new inbound stream, whatever its state."""
    return StreamOpened(
        stream_id=stream_id, stream=StreamState(id=stream_id, outbound=False, acked=True, granted_at=0.0)
    )
