"""A hash of everything that happened in a run, in order: two runs with equal hashes went the same way."""

from __future__ import annotations

import hashlib
from struct import Struct

BLOCK = 64 << 10  # bytes that are hashed at once: SHA-256 in small pieces costs more calls than hashing

Part = int | str | bytes | bool | float | None

_FRAME = Struct("<cdiiII").pack  # kind, time, source, target, size, checksum
_DELIVERY = Struct("<cdiIii").pack  # kind, time, node, message, origin, received from
_NOTE = Struct("<cdI").pack  # kind, time, number of parts
_INT = Struct("<cq").pack
_FLOAT = Struct("<cd").pack
_LENGTH = Struct("<cI").pack
_INT_LIMIT = 1 << 63


class TraceHash:
    """A running SHA-256. What each entry is, and where it ends, is in the bytes: no two runs look alike."""

    __slots__ = ("_hash", "_pending")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pending = bytearray()

    def frame(self, now: float, source: int, target: int, size: int, checksum: int) -> None:
        """`size` bytes from `source` arrived at `target`; `checksum` is their CRC-32, or any 32 bits."""
        pending = self._pending
        pending += _FRAME(b"F", now, source, target, size, checksum)
        if len(pending) >= BLOCK:
            self._hash.update(pending)
            pending.clear()

    def delivery(self, now: float, node: int, message: int, origin: int, received_from: int) -> None:
        """`node` got the message of this number, which a note bound to its id."""
        pending = self._pending
        pending += _DELIVERY(b"D", now, node, message, origin, received_from)
        if len(pending) >= BLOCK:
            self._hash.update(pending)
            pending.clear()

    def note(self, now: float, kind: str, *parts: Part) -> None:
        """Anything else that happened. The type, the length and the value of each part count."""
        pending = self._pending
        pending += _NOTE(b"N", now, len(parts))
        _add_bytes(pending, b"s", kind.encode())
        for part in parts:
            _add(pending, part)
        if len(pending) >= BLOCK:
            self._hash.update(pending)
            pending.clear()

    def digest(self) -> str:
        """The hash so far, in hexadecimal. More may follow."""
        whole = self._hash.copy()
        whole.update(self._pending)
        return whole.hexdigest()


def _add(pending: bytearray, part: Part) -> None:
    match part:
        case bool():
            pending += b"t" if part else b"u"
        case int() if -_INT_LIMIT <= part < _INT_LIMIT:
            pending += _INT(b"i", part)
        case bytes():
            _add_bytes(pending, b"b", part)
        case str():
            _add_bytes(pending, b"s", part.encode())
        case float():
            pending += _FLOAT(b"f", part)
        case None:
            pending += b"n"
        case int():
            _add_bytes(pending, b"I", f"{part:x}".encode())
        case _:
            raise TypeError(f"{type(part).__name__} cannot be part of a trace")


def _add_bytes(pending: bytearray, kind: bytes, data: bytes) -> None:
    pending += _LENGTH(kind, len(data))
    pending += data
