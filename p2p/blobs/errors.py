"""What can go wrong with a blob."""

from __future__ import annotations

from collections.abc import Sequence

from p2p.errors import LocalProtocolError, P2PError


class BlobUnavailable(P2PError):
    """Nobody gave the blob; `reasons` has one line for each holder that was tried."""

    def __init__(self, root: bytes, reasons: Sequence[str]) -> None:
        super().__init__(f"blob {root.hex()[:16]} is unavailable: {'; '.join(reasons) or 'no holder'}")
        self.root = root
        self.reasons = list(reasons)


class StoreFull(LocalProtocolError):
    """A blob does not fit: it is over the capacity, or what would have to go for it is needed."""

    def __init__(self, size: int, capacity: int, room: int) -> None:
        super().__init__(
            f"blob of {size} bytes is over the store's limit: {room} of {capacity} bytes can be had"
        )
        self.size = size
        self.capacity = capacity
        self.room = room  # bytes that are free, or can be made so
