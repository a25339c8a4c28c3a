from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from p2p.errors import ConnectionLost
from p2p.reading import READ_AHEAD, receive_each
from tests.byte_streams import cancel_at_each_await, open_pipe


async def test_every_piece_is_handled_in_order_until_the_end() -> None:
    got = bytearray()
    async with open_pipe() as (near, far):
        for number in range(10):
            await far.send_all(b"%d" % number)
        await far.send_eof()
        await receive_each(near, got.extend)
        await receive_each(near, got.extend)
    assert got == b"0123456789"


async def test_what_the_handler_raises_leaves_at_once_and_the_rest_comes_with_the_next_call() -> None:
    got = bytearray()

    def handle(data: memoryview) -> None:
        got.extend(data)
        if got == b"one":
            raise KeyError("one")

    async with open_pipe() as (near, far):
        await far.send_all(b"one")
        with pytest.raises(KeyError):
            await receive_each(near, handle)
        await far.send_all(b"two")
        await far.send_eof()
        await receive_each(near, handle)
    assert got == b"onetwo"


async def test_a_lost_connection_is_told() -> None:
    async with open_pipe() as (near, _):
        await near.aclose()
        with pytest.raises(ConnectionLost):
            await receive_each(near, lambda data: None)


class Endless:
    """Always has bytes, without waiting."""

    async def receive_into(self, buffer: memoryview) -> int:
        return min(len(buffer), 1 << 16)


async def test_a_stream_that_never_waits_lets_others_run() -> None:
    handled = 0

    def count(data: memoryview) -> None:
        nonlocal handled
        handled += len(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_each, Endless(), count)
        while handled < 10 * READ_AHEAD:
            before = handled
            await trio.lowlevel.checkpoint()
            assert handled - before <= 2 * READ_AHEAD  # it may have been the last before and the first since
        nursery.cancel_scope.cancel()


async def test_wherever_it_is_cancelled_nothing_is_lost() -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        got = bytearray()
        async with open_pipe() as (near, far):
            await far.send_all(b"some")
            await far.send_eof()

            async def read() -> None:
                await receive_each(near, got.extend)

            yield read
            await read()
        assert got == b"some"

    assert await cancel_at_each_await(world) > 0
