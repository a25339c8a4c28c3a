"""Byte streams for driver tests, and a way to cancel a driver at each of its awaits."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio
from trio.testing import memory_stream_pair

from p2p.errors import ConnectionLost
from p2p.reading import receive_each
from p2p.stream import Data

Memory = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class PipeEnd:
    """One end of a pair of `ByteStream`s without a bound; keeps what it sent, and can be half closed.

    `allowance` limits how many bytes `send_nowait` still takes; `wait_writable` waits while it is 0.
    """

    def __init__(self, stream: Memory) -> None:
        self._stream = stream
        self.writes: list[bytes] = []
        self._allowance: int | None = None
        self._allowed = trio.lowlevel.ParkingLot()

    @property
    def allowance(self) -> int | None:
        return self._allowance

    @allowance.setter
    def allowance(self, size: int | None) -> None:
        self._allowance = size
        self._allowed.unpark_all()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost("closed") from exc

    async def receive_into(self, buffer: memoryview) -> int:
        data = await self.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        await receive_each(self, handle)

    def send_nowait(self, data: Data) -> int:
        taken = bytes(data) if self._allowance is None else bytes(data)[: self._allowance]
        if self._allowance is not None:
            self._allowance -= len(taken)
        sending = self._put(taken)
        try:
            sending.send(None)  # a pipe without a bound finishes at once
        except StopIteration:
            return len(taken)
        raise AssertionError("a send to memory had to wait")

    async def _put(self, data: bytes) -> None:
        if data:
            self.writes.append(data)
        try:
            self._stream.send_stream._outgoing.put(data)
            await self._stream.send_stream.send_all_hook()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost("closed") from exc

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._allowance == 0:
            await self._allowed.park()

    async def send_all(self, data: Data) -> None:
        self.writes.append(bytes(data))
        try:
            await self._stream.send_all(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost("closed") from exc

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def open_pipe() -> AsyncIterator[tuple[PipeEnd, PipeEnd]]:
    """Two connected ends, closed on exit."""
    near, far = (PipeEnd(stream) for stream in memory_stream_pair())
    try:
        yield near, far
    finally:
        with trio.CancelScope(shield=True):
            await near.aclose()
            await far.aclose()


class Unwritable:
    """A stream whose peer is gone for our writes, while what it sent before can be read."""

    def __init__(self, received: bytes, *, writes: int = 0) -> None:
        self._received = received
        self._writes = writes  # that still succeed

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        data, self._received = self._received[:max_bytes], self._received[len(self._received[:max_bytes]) :]
        return data

    async def receive_into(self, buffer: memoryview) -> int:
        data = await self.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        await receive_each(self, handle)

    def send_nowait(self, data: Data) -> int:
        self._writes -= 1
        if self._writes < 0:
            raise ConnectionLost("the peer is gone")
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_all(self, data: Data) -> None:
        await trio.lowlevel.checkpoint()
        self.send_nowait(data)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int) -> None:
        self._task = task
        self._scope = scope
        self._steps_left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._steps_left -= 1
            if self._steps_left == 0:
                self._scope.cancel()


async def _cancelled_at(step: int, operation: Callable[[], Awaitable[object]]) -> bool:
    """Runs `operation` and cancels it at its await number `step`; False when it has fewer."""
    with trio.CancelScope() as scope:
        if step == 1:
            scope.cancel()
        instrument = _CancelAtStep(trio.lowlevel.current_task(), scope, step - 1)
        trio.lowlevel.add_instrument(instrument)
        try:
            await operation()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def cancel_at_each_await(
    world: Callable[[], AbstractAsyncContextManager[Callable[[], Awaitable[object]]]],
) -> int:
    """Runs the operation of a fresh `world` for each of its awaits, cancelled there; how many there were.

    The world's own assertions belong behind its `yield`.
    """
    for step in itertools.count(1):
        with trio.fail_after(60):
            async with world() as operation:
                cancelled = await _cancelled_at(step, operation)
        if not cancelled:
            return step - 1
    raise AssertionError("unreachable")
