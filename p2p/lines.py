"""Lines out of a byte stream, each within a bound (sans-I/O)."""

from __future__ import annotations


class LineSplitter:
    """Bytes in, lines out, without their newline. A line over `limit` bytes is dropped and counted."""

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self._limit = limit
        self._rest = bytearray()
        self._overlong = False

    def receive_data(self, data: bytes | bytearray) -> list[bytes]:
        """The lines that `data` completes."""
        *ends, rest = bytes(data).split(b"\n")
        lines = [line for end in ends if (line := self._end_line(end)) is not None]
        self._extend(rest)
        return lines

    def finish(self) -> list[bytes]:
        """The last line, when it came without a newline."""
        last = self._end_line(b"") if self._rest or self._overlong else None
        return [] if last is None else [last]

    def _extend(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > self._limit:
            self._rest.clear()
            self._overlong = True

    def _end_line(self, end: bytes) -> bytes | None:
        self._extend(end)
        line = None if self._overlong else bytes(self._rest)
        self.dropped += self._overlong
        self._rest.clear()
        self._overlong = False
        return line
