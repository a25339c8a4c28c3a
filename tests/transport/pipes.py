"""A pair of `ByteStream`s that are as narrow as a test wants them."""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2p.errors import ConnectionLost
from p2p.reading import receive_each
from p2p.stream import Data


class Direction:
    """Bytes on their way."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buffer = bytearray()
        self.ended = False  # the writer is done
        self.unread = False  # the reader is gone
        self.left: int | None = None  # bytes until the connection breaks
        self._changed = trio.Event()

    def changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def change(self) -> None:
        await self._changed.wait()


class NarrowStream:
    """One end: each call moves at most `most` bytes, and `capacity` fit in between."""

    def __init__(self, out: Direction, back: Direction, most: int) -> None:
        self.out, self.back, self.most = out, back, most
        self.closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.back.buffer and not self.back.ended and not self.closed:
            await self.back.change()
        if self.closed:
            raise ConnectionLost("closed here")
        size = min(self.most, max_bytes or self.most)
        data = bytes(self.back.buffer[:size])
        del self.back.buffer[:size]
        self.back.changed()
        return data

    async def receive_into(self, buffer: memoryview) -> int:
        data = await self.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        await receive_each(self, handle)

    def send_nowait(self, data: Data) -> int:
        if self.out.ended or self.out.unread:
            raise ConnectionLost("closed")
        size = max(0, min(self.most, len(data), self.out.capacity - len(self.out.buffer)))
        if self.out.left is not None:
            size = min(size, self.out.left)
            self.out.left -= size
            self.out.ended = not self.out.left
        self.out.buffer += data[:size]
        self.out.changed()
        return size

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while len(self.out.buffer) >= self.out.capacity and not (self.out.ended or self.out.unread):
            await self.out.change()

    async def send_all(self, data: Data) -> None:
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view := view[self.send_nowait(view) :]:
            await self.wait_writable()

    def end(self) -> None:
        """Half close: nothing more goes out of here."""
        self.out.ended = True
        self.out.changed()

    async def aclose(self) -> None:
        self.closed = self.out.ended = self.back.unread = True
        self.out.changed()
        self.back.changed()
        await trio.lowlevel.checkpoint()


def narrow_pair(*, capacity: int = 1 << 16, most: int = 1 << 16) -> tuple[NarrowStream, NarrowStream]:
    """Two connected ends; closing one closes the other, what is on its way can still be read."""
    there, back = Direction(capacity), Direction(capacity)
    return NarrowStream(there, back, most), NarrowStream(back, there, most)
