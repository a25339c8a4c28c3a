"""What came for one stream and was not read yet.

A peer may cut its bytes as small as it likes; kept one object each, a window of two-byte frames
would cost 25 times its size. Small pieces are therefore merged, so a buffer takes less than twice
the bytes in it.
"""

from __future__ import annotations

from collections import deque

SMALL_PIECE = 1024  # bytes; an object's own overhead is under a tenth of this
MERGED_CHUNK = 16 * 1024  # bytes; merging stops here, so that taking it copies little


class ReceiveBuffer:
    """Bytes in order: `append` at the back, `take` from the front."""

    __slots__ = ("_chunks", "_taken")

    def __init__(self) -> None:
        self._chunks: deque[bytes | bytearray] = deque()
        self._taken = 0  # bytes of the first chunk that were taken already

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def append(self, data: bytes) -> None:
        """Adds `data` (not empty) at the back; large pieces are kept as they are."""
        chunks = self._chunks
        if len(data) < SMALL_PIECE and chunks:
            last = chunks[-1]
            if isinstance(last, bytearray):
                if len(last) < MERGED_CHUNK:
                    last += data
                    return
            elif len(last) < SMALL_PIECE:
                chunks[-1] = bytearray(last) + data
                return
        chunks.append(data)

    def take(self, max_bytes: int | None = None) -> bytes:
        """The first piece as it came, cut to `max_bytes`. The buffer must not be empty."""
        chunk, start = self._chunks[0], self._taken
        end = len(chunk) if max_bytes is None else min(len(chunk), start + max_bytes)
        whole = start == 0 and end == len(chunk)
        piece = chunk if whole else chunk[start:end]
        if end == len(chunk):
            self._chunks.popleft()
            self._taken = 0
        else:
            self._taken = end
        return bytes(piece)

    def peek(self) -> bytes | bytearray:
        """The first piece, without taking it; empty when there is none. Not to be changed or kept."""
        if not self._chunks:
            return b""
        chunk = self._chunks[0]
        return chunk[self._taken :] if self._taken else chunk

    def clear(self) -> None:
        """Drops everything."""
        self._chunks.clear()
        self._taken = 0
