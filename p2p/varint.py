"""Unsigned varints of multiformats: LEB128, at most 9 bytes, below 2^63, minimal.

Source: multiformats/unsigned-varint.
"""

from p2p.errors import RemoteProtocolError

MAX_BYTES = 9  # unsigned-varint, "practical maximum"


def encode(value: int) -> bytes:
    """`value` (0 <= value < 2^63) as the shortest varint."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{value} does not fit an unsigned varint")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes | bytearray | memoryview, start: int = 0) -> tuple[int, int] | None:
    """(value, offset behind it) of the varint at `start`, or None when more bytes are needed.

    Raises `RemoteProtocolError` for a varint that is too long or not minimal.
    """
    value = 0
    for index in range(MAX_BYTES):
        if start + index >= len(data):
            return None
        byte = data[start + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if byte == 0 and index:
                raise RemoteProtocolError("varint is not minimal")
            return value, start + index + 1
    raise RemoteProtocolError(f"varint is longer than {MAX_BYTES} bytes")
