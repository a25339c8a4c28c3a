"""TensorBoard's event files: records with checksums, each a protobuf message `Event`.

    record  = length u64 · masked CRC-32C of it · event · masked CRC-32C of that      all little-endian
    Event   = wall_time = 1 (double) · step = 2 · file_version = 3 | summary = 5
    Summary = value = 1, each (tag = 1 · simple_value = 2 (float))

Of the format only what scalars need; written by hand, for what would write it otherwise brings threads and
queues of its own. Sources: tensorflow/core/lib/io/record_writer.cc, tensorflow/core/util/event.proto and
tensorflow/core/framework/summary.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from p2p import varint

VERSION = b"brain.Event:2"  # what a file begins with
MASK = 0xA282EAD8  # added to a checksum, so that a checksum of checksums is still one
CASTAGNOLI = 0x82F63B78  # the polynomial of CRC-32C, its bits turned round
LARGEST = 3.4028234663852886e38  # of float32; beyond it a value has no form here


def first_record(now: float) -> bytes:
    """What a file begins with; `now` in unix seconds."""
    return _record(_time(now) + b"\x1a" + _with_length(VERSION))


def scalar_record(now: float, step: int, scalars: Iterable[tuple[str, float]]) -> bytes:
    """The scalars of one step."""
    summary = b"".join(b"\x0a" + _with_length(_value(tag, value)) for tag, value in scalars)
    return _record(_time(now) + b"\x10" + varint.encode(step) + b"\x2a" + _with_length(summary))


def crc32c(data: bytes) -> int:
    """The checksum of RFC 3720, section 12.1."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (CASTAGNOLI if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _table()


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + _checksum(length) + event + _checksum(event)


def _checksum(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + MASK) & 0xFFFFFFFF)


def _time(now: float) -> bytes:
    return b"\x09" + struct.pack("<d", now)


def _value(tag: str, value: float) -> bytes:
    fitting = min(max(value, -LARGEST), LARGEST)
    return b"\x0a" + _with_length(tag.encode()) + b"\x15" + struct.pack("<f", fitting)


def _with_length(data: bytes) -> bytes:
    return varint.encode(len(data)) + data
