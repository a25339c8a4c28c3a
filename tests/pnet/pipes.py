"""Two ends of a connection that takes only so many bytes at a time."""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2p.errors import ConnectionLost
from p2p.reading import receive_each
from p2p.stream import Data


class Pipe:
    """One direction: what is on its way, at most `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.sent = bytearray()  # everything, ever
        self.data = bytearray()
        self.closed = False
        self.changed = trio.lowlevel.ParkingLot()


class End:
    """A `ByteStream` between two pipes."""

    def __init__(self, inbound: Pipe, outbound: Pipe) -> None:
        self.inbound = inbound
        self.outbound = outbound

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.inbound.data:
            if self.inbound.closed:
                return b""
            await self.inbound.changed.park()
        taken = bytes(self.inbound.data[:max_bytes])
        del self.inbound.data[: len(taken)]
        self.inbound.changed.unpark_all()
        return taken

    async def receive_into(self, buffer: memoryview) -> int:
        data = await self.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        await receive_each(self, handle)

    def send_nowait(self, data: Data) -> int:
        pipe = self.outbound
        if pipe.closed:
            raise ConnectionLost("closed")
        taken = bytes(data[: max(0, pipe.capacity - len(pipe.data))])
        pipe.data += taken
        pipe.sent += taken
        pipe.changed.unpark_all()
        return len(taken)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while len(self.outbound.data) >= self.outbound.capacity and not self.outbound.closed:
            await self.outbound.changed.park()

    async def send_all(self, data: Data) -> None:
        rest = memoryview(data)
        while rest:
            await self.wait_writable()
            rest = rest[self.send_nowait(rest) :]

    async def aclose(self) -> None:
        for pipe in (self.inbound, self.outbound):
            pipe.closed = True
            pipe.changed.unpark_all()
        await trio.lowlevel.checkpoint()


def end_pair(capacity: int = 1 << 16) -> tuple[End, End]:
    first, second = Pipe(capacity), Pipe(capacity)
    return End(first, second), End(second, first)
