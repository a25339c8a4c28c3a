"""What a layer has encoded and its transport did not take yet.

A WebSocket frame or TLS record is made of bytes that the layer above gave, and must leave whole. So
the rest of one stays here, and of the bytes that went into it one is not counted as sent until all has
left: the caller comes back with it, and by that pushes the rest out. (Counted too early, the rest would
lie here until somebody has something else to say.) OpenSSL's SSL_write asks the same of its callers.
"""

from __future__ import annotations

from collections.abc import Callable

from p2p.stream import ByteStream, Data

MAX_PIECE = 64 * 1024  # bytes of one frame; what it costs to have one waiting


class Outgoing:
    """The way of encoded bytes into `raw`."""

    def __init__(self, raw: ByteStream) -> None:
        self._raw = raw
        self._rest = memoryview(b"")
        self._uncounted = 0  # 1 when the last byte of what is in `_rest` will be offered again

    def __len__(self) -> int:
        return len(self._rest)

    def flush(self) -> bool:
        """Whether nothing waits here any more, after sending what leaves without waiting.

        Raises `ConnectionLost`.
        """
        while self._rest:
            sent = self._raw.send_nowait(self._rest)
            if not sent:
                return False
            self._rest = self._rest[sent:]
        return True

    def append(self, encoded: Data) -> None:
        """Sends `encoded`, of the layer's own, behind what waits; what does not leave waits too."""
        if encoded:
            self._rest = memoryview(bytes(self._rest) + encoded if self._rest else encoded)
            self.flush()

    def send_nowait(self, data: Data, encode: Callable[[Data], Data]) -> int:
        """Sends the beginning of `data`, encoded piece by piece; how many of its bytes count as sent.

        What is not counted must be offered again, first. Raises `ConnectionLost`.
        """
        if not data or not self.flush():
            return 0
        view = memoryview(data)
        taken, self._uncounted = self._uncounted, 0
        while taken < len(view):
            piece = view[taken : taken + MAX_PIECE]
            self._rest = memoryview(encode(piece))
            taken += len(piece)
            if not self.flush():
                self._uncounted = 1
                return taken - 1
        return taken

    def abandon(self) -> None:
        """The caller of `send_nowait` will not come back with what was not counted."""
        self._uncounted = 0
