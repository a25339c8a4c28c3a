"""Streams behave the same in both rungs: bytes, windows, and every way in which they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from p2p.errors import ConnectionLost, LocalProtocolError, StreamReset
from p2p.stream import MuxedStream
from sim.live.plain_stream import DISCARD_TIMEOUT, WINDOW
from tests.byte_streams import cancel_at_each_await
from tests.sim.live.support import (
    RUNGS,
    Peer,
    World,
    echo,
    open_pair,
    open_streams,
    read_all,
    simulated,
    wait,
)


async def cancel_everywhere(
    one_world: Callable[[], AbstractAsyncContextManager[Callable[[], Awaitable[object]]]],
) -> None:
    """Cancels the operation where it goes on, and also while it waits."""
    assert await cancel_at_each_await(one_world) > 0
    for number in range(12):
        async with one_world() as operation:
            with trio.move_on_after(0.25 * number):
                await operation()


# Bytes


@RUNGS
@simulated()
async def test_a_mebibyte_comes_back_as_it_went(world: World, rung: str) -> None:
    data = bytes(range(256)) * 4096
    async with open_pair(world, rung) as (one, _), trio.open_nursery() as nursery:
        stream = await one.open()
        nursery.start_soon(stream.send_all, data)
        got = b""
        while len(got) < len(data):
            got += await stream.receive_some(50_000)
        assert got == data


@RUNGS
@simulated()
async def test_either_side_opens_streams_and_knows_its_peer(world: World, rung: str) -> None:
    async with open_pair(world, rung, on_one=echo) as (one, other):
        for side, opposite in ((one, other), (other, one)):
            stream = await side.open()
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            assert (stream.peer, stream.protocol) == (side.connection.peer, "")
            assert side.connection.num_streams == opposite.connection.num_streams > 0
            assert side.connection.bytes_sent > 0


@RUNGS
@simulated()
async def test_a_hundred_streams_run_in_parallel(world: World, rung: str) -> None:
    async with open_pair(world, rung) as (one, other):

        async def talk(number: int) -> None:
            stream = await one.open()
            for turn in range(5):
                await stream.send_all(b"%d of %d" % (turn, number))
                assert await stream.receive_some() == b"%d of %d" % (turn, number)
            await stream.send_eof()
            assert await stream.receive_some() == b""

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(talk, number)
        await trio.sleep(1)
        assert one.connection.num_streams == other.connection.num_streams == 0


@RUNGS
@simulated()
async def test_streams_may_be_used_in_another_order_than_they_were_opened(world: World, rung: str) -> None:
    async with open_pair(world, rung) as (one, _):
        streams = [await one.open() for _ in range(4)]
        for stream in reversed(streams):
            await stream.send_all(b"x")
        for stream in streams:
            with trio.fail_after(1):
                assert await stream.receive_some() == b"x"


@RUNGS
@simulated()
async def test_a_stream_that_was_reset_before_its_first_byte_does_no_harm(world: World, rung: str) -> None:
    peer = Peer()
    async with open_pair(world, rung, on_other=peer) as (one, other):
        first, second = await one.open(), await one.open()
        await second.send_all(b"x")
        first.reset()
        await trio.sleep(1)
        (served,) = [stream for stream in peer.streams if stream.peek()]
        assert await served.receive_some() == b"x"
        assert one.connection.num_streams == other.connection.num_streams == 1


@RUNGS
@simulated()
async def test_a_read_takes_at_most_what_was_asked(world: World, rung: str) -> None:
    async with open_streams(world, rung) as (near, far):
        await near.send_all(b"abc")
        await trio.sleep(1)
        assert [await far.receive_some(2), await far.receive_some(2)] == [b"ab", b"c"]
        with pytest.raises(ValueError, match="max_bytes"):
            await far.receive_some(0)


@RUNGS
@simulated()
async def test_nothing_is_no_data_and_not_the_end(world: World, rung: str) -> None:
    async with open_streams(world, rung) as (near, far):
        await near.send_all(b"")
        assert near.send_nowait(b"")
        await near.send_all(b"x")
        assert await far.receive_some() == b"x"


@RUNGS
@simulated()
async def test_a_second_task_on_the_same_side_of_a_stream_is_busy(world: World, rung: str) -> None:
    async with open_streams(world, rung) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.receive_some)
        nursery.start_soon(near.receive_each, lambda data: None)
        nursery.start_soon(near.send_all, bytes(WINDOW * 2))
        nursery.start_soon(far.send_all, bytes(WINDOW * 2))
        await trio.sleep(1)
        for stream in (near, far):
            for call in (stream.receive_some, lambda each=stream: each.receive_each(print)):
                if stream is near:
                    with pytest.raises(trio.BusyResourceError):
                        await call()
        for call in (lambda: near.send_all(b"x"), near.send_eof):
            with pytest.raises(trio.BusyResourceError):
                await call()
        assert not near.send_nowait(b"x")
        nursery.cancel_scope.cancel()


# Windows


@RUNGS
@simulated()
async def test_a_sender_waits_at_the_end_of_the_window_until_the_reader_has_read(
    world: World, rung: str
) -> None:
    async with open_streams(world, rung) as (near, far), trio.open_nursery() as nursery:
        sent = trio.Event()

        async def send() -> None:
            await near.send_all(bytes(2 * WINDOW))
            sent.set()

        nursery.start_soon(send)
        await trio.sleep(5)
        assert not sent.is_set()
        got = 0
        while got < 2 * WINDOW:
            got += len(await far.receive_some())
        await trio.sleep(1)
        assert sent.is_set()


@RUNGS
@simulated()
async def test_what_does_not_fit_the_window_is_not_taken_at_all(world: World, rung: str) -> None:
    async with open_streams(world, rung) as (near, far):
        left = WINDOW - len(b"hello")
        assert not near.send_nowait(bytes(left + 1))
        assert near.send_nowait(bytes(left))
        assert not near.send_nowait(b"x")
        await trio.sleep(1)
        got = 0
        while got < left:
            got += len(await far.receive_some())
        await trio.sleep(1)
        assert near.send_nowait(b"x")


@RUNGS
@simulated()
async def test_a_slow_reader_stalls_no_other_stream(world: World, rung: str) -> None:
    peer = Peer()
    async with open_pair(world, rung, on_other=peer) as (one, _), trio.open_nursery() as nursery:
        slow, fast = await one.open(), await one.open()
        nursery.start_soon(slow.send_all, bytes(4 * WINDOW))
        await trio.sleep(2)
        await fast.send_all(b"first come")
        await trio.sleep(1)
        assert await peer.streams[-1].receive_some() == b"first come"
        nursery.cancel_scope.cancel()


@RUNGS
@simulated()
async def test_two_sides_that_write_more_than_a_window_first_hang_only_themselves(
    world: World, rung: str
) -> None:
    peer = Peer()
    async with open_pair(world, rung, on_other=peer) as (one, _), trio.open_nursery() as nursery:
        near, third = await one.open(), await one.open()
        await near.send_all(b"x")
        await trio.sleep(1)
        nursery.start_soon(near.send_all, bytes(2 * WINDOW))
        nursery.start_soon(peer.streams[0].send_all, bytes(2 * WINDOW))
        await trio.sleep(100)
        assert len(nursery.child_tasks) == 2
        await third.send_all(b"x")
        await trio.sleep(1)
        assert await peer.streams[-1].receive_some() == b"x"
        nursery.cancel_scope.cancel()


# receive_each


@RUNGS
@simulated()
async def test_pieces_are_handled_until_the_peer_closes_its_side(world: World, rung: str) -> None:
    got: list[bytes] = []
    async with open_streams(world, rung) as (near, far):
        await near.send_all(b"before")
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.receive_each, got.append)
            for piece in (b"one", b"two"):
                await near.send_all(piece)
                await trio.sleep(1)
            await near.send_eof()
        assert got == [b"before", b"one", b"two"]
        await far.receive_each(got.append)  # the end is still there


@RUNGS
@simulated()
async def test_an_error_of_a_handler_reaches_its_task_and_what_came_behind_is_kept(
    world: World, rung: str
) -> None:
    def refuse(data: bytes) -> None:
        raise KeyError(data)

    async with open_streams(world, rung) as (near, far):
        for waits in (False, True):  # for the data, or finds it

            async def read() -> None:
                with pytest.raises(KeyError, match="poison"):
                    await far.receive_each(refuse)

            async with trio.open_nursery() as nursery:
                if waits:
                    nursery.start_soon(read)
                    await trio.sleep(1)
                near.send_nowait(b"poison")
                await trio.sleep(0 if waits else 1)
                near.send_nowait(b"behind")
                if not waits:
                    nursery.start_soon(read)
            assert await far.receive_some() == b"behind"


@RUNGS
@simulated()
async def test_a_handler_may_reset_its_own_stream(world: World, rung: str) -> None:
    async with open_streams(world, rung) as (near, far):
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(StreamReset):
                    await far.receive_each(lambda data: far.reset(5))

            nursery.start_soon(read)
            await trio.sleep(1)
            await near.send_all(b"x")
        with pytest.raises(StreamReset) as caught:
            await near.receive_some()
        assert caught.value.code == 5


@RUNGS
@simulated()
async def test_wherever_a_reader_is_cancelled_nothing_is_lost(world: World, rung: str) -> None:
    @asynccontextmanager
    async def one_world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        got: list[bytes] = []
        async with open_streams(world, rung) as (near, far):

            async def send() -> None:
                for piece in (b"one", b"two"):
                    await near.send_all(piece)
                    await trio.sleep(1)
                await near.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                yield lambda: far.receive_each(got.append)
            await far.receive_each(got.append)
            assert b"".join(got) == b"onetwo"

    await cancel_everywhere(one_world)


@RUNGS
@simulated()
async def test_a_write_that_was_cancelled_is_not_taken_for_the_whole(world: World, rung: str) -> None:
    @asynccontextmanager
    async def one_world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        size, got, outcome = WINDOW + 100, list[bytes](), list[str]()
        async with open_streams(world, rung) as (near, far):

            async def receive() -> None:
                await trio.sleep(1)
                try:
                    await far.receive_each(got.append)
                    outcome.append("end")
                except StreamReset:
                    outcome.append("reset")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                yield lambda: near.send_all(bytes(size))
                await near.aclose()
            assert (len(b"".join(got)), outcome) in [(0, ["end"]), (size, ["end"])] or outcome == ["reset"]

    await cancel_everywhere(one_world)


# How streams end


@RUNGS
@simulated()
async def test_half_close_lets_the_answer_come(world: World, rung: str) -> None:
    async def answer(stream: MuxedStream) -> None:
        request = await read_all(stream)
        await trio.sleep(60)
        await stream.send_all(request.upper())

    async with open_pair(world, rung, on_other=answer) as (one, other):
        stream = await one.open()
        await stream.send_all(b"request")
        await stream.send_eof()
        await stream.send_eof()
        with pytest.raises(LocalProtocolError, match="our side"):
            await stream.send_all(b"x")
        with pytest.raises(LocalProtocolError, match="our side"):
            stream.send_nowait(b"x")
        assert await read_all(stream) == b"REQUEST"
        await trio.sleep(1)
        assert one.connection.num_streams == other.connection.num_streams == 0


@RUNGS
@simulated()
async def test_what_came_before_a_reset_can_be_read(world: World, rung: str) -> None:
    async with open_streams(world, rung) as (near, far):
        await near.send_all(b"last words")
        near.reset(77)
        near.reset(78)
        await trio.sleep(1)
        assert await far.receive_some() == b"last words"
        for call in (far.receive_some, lambda: far.send_all(b"x"), far.send_eof):
            with pytest.raises(StreamReset) as caught:
                await call()
            assert caught.value.code == 77
        with pytest.raises(StreamReset) as caught:
            await near.receive_some()
        assert caught.value.code == 77
        await far.aclose()
        await near.aclose()


@RUNGS
@pytest.mark.parametrize("ours", [True, False])
@simulated()
async def test_a_reset_wakes_whoever_waits_on_the_stream(world: World, rung: str, ours: bool) -> None:
    async with open_streams(world, rung) as (near, far):
        woken = []

        async def expect(call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(StreamReset):
                await call()
            woken.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, near.receive_some)
            nursery.start_soon(expect, lambda: near.send_all(bytes(2 * WINDOW)))
            await trio.sleep(1)
            (near if ours else far).reset()
        assert len(woken) == 2


@RUNGS
@simulated()
async def test_after_a_close_the_peer_reads_to_the_end_and_may_go_on_writing(world: World, rung: str) -> None:
    async with open_streams(world, rung) as (near, far):
        await near.send_all(b"last words")
        await near.aclose()
        await near.aclose()
        await trio.sleep(1)
        assert [await far.receive_some(), await far.receive_some()] == [b"last words", b""]
        await far.send_all(bytes(3 * WINDOW))  # dropped, with credit
        await far.send_eof()
        for call in (near.receive_some, lambda: near.send_all(b"x"), near.send_eof):
            with pytest.raises(LocalProtocolError):
                await call()


@RUNGS
@simulated()
async def test_after_a_close_the_peer_has_10_s_to_finish(world: World, rung: str) -> None:
    async with open_streams(world, rung) as (near, far):
        await near.aclose()
        with trio.move_on_after(DISCARD_TIMEOUT - 1):
            while True:
                await far.send_all(b"x")
                await trio.sleep(0.5)
        await trio.sleep(2)
        with pytest.raises(StreamReset):
            await far.send_all(b"x")


@RUNGS
@simulated()
async def test_a_stream_that_both_close_leaves_nothing_behind(world: World, rung: str) -> None:
    peer = Peer()
    async with open_pair(world, rung, on_other=peer) as (one, other):
        for first_of_both in (True, False):
            near = await one.open()
            await near.send_all(b"unread")
            await trio.sleep(1)
            both = [near, peer.streams[-1]]
            for stream in both if first_of_both else reversed(both):
                await stream.aclose()
                await trio.sleep(1)
            assert one.connection.num_streams == other.connection.num_streams == 0
            await trio.sleep(20)


@RUNGS
@simulated()
async def test_a_stream_that_the_peer_resets_after_our_close_is_closed_and_not_reset(
    world: World, rung: str
) -> None:
    async with open_streams(world, rung) as (near, far):
        await near.aclose()
        far.reset(7)
        await trio.sleep(1)
        with pytest.raises(LocalProtocolError, match="closed"):
            await near.receive_some()


@RUNGS
@simulated()
async def test_closing_wakes_a_task_that_receives_and_resets_under_one_that_sends(
    world: World, rung: str
) -> None:
    async with open_pair(world, rung, on_other=wait) as (one, _):
        near = await one.open()
        errors: list[type[Exception]] = []

        async def expect(call: Callable[[], Awaitable[object]]) -> None:
            try:
                await call()
            except (LocalProtocolError, ConnectionLost) as exc:
                errors.append(type(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, near.receive_some)
            await trio.sleep(1)
            await near.aclose()
            await trio.sleep(1)
            assert errors == [LocalProtocolError]
        async with trio.open_nursery() as nursery:
            other = await one.open()
            nursery.start_soon(expect, lambda: other.send_all(bytes(2 * WINDOW)))
            await trio.sleep(1)
            await other.aclose()
        assert errors == [LocalProtocolError, StreamReset]


# Watching


@RUNGS
@pytest.mark.parametrize("ours", [True, False])
@simulated()
async def test_who_watches_a_stream_hears_once_of_its_reset(world: World, rung: str, ours: bool) -> None:
    told: list[float] = []
    async with open_streams(world, rung) as (near, far):
        near.watch(lambda: told.append(trio.current_time()))
        assert told == []
        (near if ours else far).reset()
        await trio.sleep(1)
        assert len(told) == 1
        near.watch(lambda: told.append(trio.current_time()))  # it is broken already
        assert len(told) == 2
    assert len(told) == 2


@RUNGS
@simulated()
async def test_an_orderly_end_is_told_to_no_watcher(world: World, rung: str) -> None:
    told: list[str] = []
    async with open_streams(world, rung) as (near, far):
        near.watch(lambda: told.append("near"))
        far.watch(lambda: told.append("far"))
        await near.send_eof()
        await far.send_eof()
        await near.aclose()
        await far.aclose()
        await trio.sleep(20)
        assert told == []


@RUNGS
@simulated()
async def test_watchers_of_a_lost_connection_may_reset_their_streams(world: World, rung: str) -> None:
    told: list[int] = []
    async with open_pair(world, rung) as (one, _):
        streams = [await one.open() for _ in range(3)]
        for number, stream in enumerate(streams):
            await stream.send_all(b"x")
            stream.watch(lambda number=number, stream=stream: (told.append(number), stream.reset()))
        await trio.sleep(1)
        world.fabric.reset(0, 1)
        await one.ended.wait()
        assert told == [0, 1, 2]
        assert isinstance(one.error, ConnectionLost)


@RUNGS
@simulated()
async def test_who_watches_a_stream_is_told_once_that_it_is_over(world: World, rung: str) -> None:
    async def reset(stream: MuxedStream) -> None:
        await stream.receive_some()
        stream.reset()

    async with open_pair(world, rung, on_other=reset) as (one, _):
        told: list[str] = []
        first, second = await one.open(), await one.open()
        first.watch(lambda: told.append("reset"))
        second.watch(lambda: told.append("lost"))
        await first.send_all(b"x")
        await trio.sleep(1)
        assert told == ["reset"]
        await one.connection.aclose()
        assert told == ["reset", "lost"]
        first.watch(lambda: told.append("at once"))
        assert told[-1] == "at once"
