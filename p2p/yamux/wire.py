"""Yamux frames: a 12-byte header, and a body behind Data frames only.

    version u8 = 0 │ type u8 │ flags u16 │ stream id u32 │ length u32        (network order)

`length` is the body's size for Data, a window delta or an error code for WindowUpdate, an opaque
value for Ping and a code for GoAway. Source: hashicorp/yamux spec.md; libp2p/specs yamux/README.md.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from p2p.errors import MessageTooLarge, RemoteProtocolError
from p2p.stream import MAX_BLOCK

PROTOCOL = "/yamux/1.0.0"

VERSION = 0
HEADER_SIZE = 12  # bytes; spec, "Framing"
SESSION_ID = 0  # the stream id of Ping and GoAway; spec, "StreamID Field"
MAX_STREAM_ID = (1 << 32) - 1  # u32; spec, "StreamID Field"
INITIAL_WINDOW = 256 * 1024  # bytes, each stream, each direction; spec, "Flow Control"
MAX_WINDOW = (1 << 32) - 1  # bytes; more overflows a u32 (CVE-2026-31814)
MAX_BODY_SENT = MAX_BLOCK - HEADER_SIZE  # bytes; header + body fill one secured message exactly
MAX_STREAM_WINDOW = 16 << 20  # bytes that we ever grant ahead; go-yamux, MaxStreamWindowSize
MAX_BODY_RECEIVED = MAX_STREAM_WINDOW  # bytes of one frame; js-yamux sends all that the window takes in one

SYN = 0x1  # opens a stream; a ping's request
ACK = 0x2  # accepts a stream; a ping's answer
FIN = 0x4  # the sender's half of the stream is closed
RST = 0x8  # the stream is gone in both directions


class FrameType(IntEnum):
    """What a frame is; spec, "Type Field"."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class GoAwayCode(IntEnum):
    """Why a session ends; spec, "GoAway". Peers send other values too: libp2p's connection error codes."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


class StreamErrorCode(IntEnum):
    """Why a stream is reset, in the length of the RST; libp2p/specs error-codes."""

    NONE = 0
    NEGOTIATION_FAILED = 0x1001
    RESOURCE_LIMIT = 0x1002
    RATE_LIMITED = 0x1003
    PROTOCOL_VIOLATION = 0x1004
    SUPPLANTED = 0x1005
    GARBAGE_COLLECTED = 0x1006
    SHUTDOWN = 0x1007
    GATED = 0x1008


_HEADER = struct.Struct(">BBHII")
_LENGTH = struct.Struct(">I")
_LENGTH_AT = HEADER_SIZE - _LENGTH.size


def encode_header(kind: FrameType, flags: int, stream_id: int, length: int) -> bytes:
    """The 12 bytes of a header."""
    return _HEADER.pack(VERSION, kind, flags, stream_id, length)


def put_header(
    buffer: bytearray | memoryview, at: int, kind: FrameType, flags: int, stream_id: int, length: int
) -> None:
    """Writes the 12 bytes of a header into `buffer`."""
    _HEADER.pack_into(buffer, at, VERSION, kind, flags, stream_id, length)


def set_length(buffer: bytearray | memoryview, header_at: int, length: int) -> None:
    """Rewrites the length of the header that starts at `header_at`, for a frame that grows."""
    _LENGTH.pack_into(buffer, header_at + _LENGTH_AT, length)


def decode_header(data: bytes | bytearray | memoryview, start: int = 0) -> tuple[int, int, int, int]:
    """(type, flags, stream id, length) of the header at `start`; 12 bytes must be there.

    Raises `RemoteProtocolError` for another version or type, and `MessageTooLarge` for a body that
    no window of ours ever allowed: nothing has been allocated for it.
    """
    version, kind, flags, stream_id, length = _HEADER.unpack_from(data, start)
    if version != VERSION:
        raise RemoteProtocolError(f"yamux version {version} is not supported")
    if kind > FrameType.GO_AWAY:
        raise RemoteProtocolError(f"unknown yamux frame type {kind}")
    if kind == FrameType.DATA and length > MAX_BODY_RECEIVED:
        raise MessageTooLarge(length, MAX_BODY_RECEIVED)
    return kind, flags, stream_id, length
