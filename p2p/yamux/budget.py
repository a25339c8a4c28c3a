"""The memory that receive windows may take beyond their initial size, shared by all connections of a host.

A window is a promise to hold that many bytes for a handler that does not read. The first 256 KiB of
each stream are the protocol's; what a window grows by is reserved here first, or it does not grow.
Source: go-yamux, MemoryManager; the limits are go-libp2p's resource manager's.
"""

from __future__ import annotations

HOST_WINDOW_MEMORY = 128 << 20  # bytes; go-libp2p resource manager, memory of the system scope
CONNECTION_WINDOW_MEMORY = 32 << 20  # bytes; go-libp2p resource manager, memory of one connection


class WindowBudget:
    """At most `limit` bytes (0 or more: no window grows at 0), handed out and taken back."""

    __slots__ = ("_parent", "limit", "reserved")

    def __init__(self, limit: int = HOST_WINDOW_MEMORY, *, parent: WindowBudget | None = None) -> None:
        self.limit = limit
        self.reserved = 0
        self._parent = parent  # whose bytes these are as well

    def reserve(self, size: int) -> bool:
        """Takes `size` bytes; False, and nothing is taken, when that is over a limit."""
        if self.reserved + size > self.limit:
            return False
        if self._parent is not None and not self._parent.reserve(size):
            return False
        self.reserved += size
        return True

    def release(self, size: int) -> None:
        """Gives back `size` bytes that were reserved, unless `close` did already."""
        size = min(size, self.reserved)
        self.reserved -= size
        if self._parent is not None:
            self._parent.release(size)

    def close(self) -> None:
        """Gives back everything; nothing can be reserved any more."""
        self.release(self.reserved)
        self.limit = 0

    def share(self, limit: int = CONNECTION_WINDOW_MEMORY) -> WindowBudget:
        """A part of this budget for one connection, of at most `limit` bytes."""
        return WindowBudget(limit, parent=self)
