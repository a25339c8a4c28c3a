"""Connections, handlers and negotiations behave the same in both rungs."""

from __future__ import annotations

import logging

import pytest
import trio

from p2p.errors import ConnectionLost, LocalProtocolError, NegotiationFailed, StreamReset
from p2p.multistream.driver import handle, handle_lazily, select, select_lazily
from p2p.stream import MuxedStream
from sim.live.mux import MAX_INBOUND, RESOURCE_LIMIT
from sim.live.plain_stream import NEGOTIATION_FAILED, WINDOW
from tests.sim.live.support import (
    RUNGS,
    Handler,
    Peer,
    World,
    echo,
    open_pair,
    read_all,
    simulated,
    upgrader,
    wait,
)

# Handlers


@RUNGS
@simulated()
async def test_the_257th_stream_is_reset_and_the_others_are_served(world: World, rung: str) -> None:
    async with open_pair(world, rung) as (one, _):
        served = []
        for _ in range(MAX_INBOUND):
            served.append(await one.open())
            await served[-1].send_all(b"x")
        for stream in served:
            assert await stream.receive_some() == b"x"
        refused = await one.open()
        await refused.send_all(b"x")
        with pytest.raises(StreamReset) as caught:
            await refused.receive_some()
        assert caught.value.code == RESOURCE_LIMIT
        await served[0].send_eof()
        assert await served[0].receive_some() == b""
        again = await one.open()
        await again.send_all(b"x")
        assert await again.receive_some() == b"x"


@RUNGS
@simulated()
async def test_a_handler_that_fails_costs_its_stream_and_a_warning(
    world: World, rung: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(stream: MuxedStream) -> None:
        raise ZeroDivisionError("a bug")

    async with open_pair(world, rung, on_other=fail) as (one, other):
        stream = await one.open()
        await stream.send_all(b"x")
        with pytest.raises(StreamReset):
            await stream.receive_some()
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert not other.ended.is_set()


@RUNGS
@simulated()
async def test_a_stream_ends_in_order_when_its_handler_returns(world: World, rung: str) -> None:
    async def greet(stream: MuxedStream) -> None:
        await stream.send_all(b"hello")

    async with open_pair(world, rung, on_other=greet) as (one, _):
        stream = await one.open()
        await stream.send_all(b"x")
        await trio.sleep(1)
        assert await read_all(stream) == b"hello"


# Negotiation


def speaking(protocol: str, then: Handler) -> Handler:
    """A handler of `protocol` that answers lazily."""

    async def negotiate(stream: MuxedStream) -> None:
        stream.protocol = await handle_lazily(stream, [protocol])
        await then(stream)

    return negotiate


@RUNGS
@simulated()
async def test_a_protocol_is_spoken_without_waiting_for_consent(world: World, rung: str) -> None:
    async with open_pair(world, rung, on_other=speaking("/p", echo)) as (one, _):
        stream = await one.open()
        began = trio.current_time()
        select_lazily(stream, "/p")
        await stream.send_all(b"data")
        assert await stream.receive_some() == b"data"
        assert trio.current_time() - began == pytest.approx(0.1)


@RUNGS
@simulated()
async def test_a_proposal_leaves_also_when_nothing_is_written(world: World, rung: str) -> None:
    async def greet(stream: MuxedStream) -> None:
        await stream.send_all(b"hello")

    async with open_pair(world, rung, on_other=speaking("/p", greet)) as (one, _):
        for waits in (True, False):
            stream = await one.open()
            select_lazily(stream, "/p")
            if not waits:
                await trio.sleep(1)
            assert await read_all(stream) == b"hello"
        closed = await one.open()
        select_lazily(closed, "/p")
        await closed.aclose()


@RUNGS
@simulated()
async def test_more_than_a_window_behind_a_proposal_arrives_whole(world: World, rung: str) -> None:
    data = bytes(range(256)) * (3 * WINDOW // 256)
    async with open_pair(world, rung, on_other=speaking("/p", echo)) as (one, _):
        async with trio.open_nursery() as nursery:
            stream = await one.open()
            select_lazily(stream, "/p")
            nursery.start_soon(stream.send_all, data)
            got = b""
            while len(got) < len(data):
                got += await stream.receive_some()
            assert got == data


@RUNGS
@simulated()
async def test_a_proposal_that_is_refused_ends_the_stream_with_a_code(world: World, rung: str) -> None:
    reset: list[int] = []

    async def refuse(stream: MuxedStream) -> None:
        try:
            await handle(stream, ["/other"])
        except NegotiationFailed:
            pass
        except StreamReset as exc:
            reset.append(exc.code)
            raise

    async with open_pair(world, rung, on_other=refuse) as (one, _):
        stream = await one.open()
        select_lazily(stream, "/p")
        with pytest.raises(NegotiationFailed):
            await stream.receive_some()
        with pytest.raises(StreamReset):
            await stream.send_all(b"x")
        await trio.sleep(1)
        assert reset == [NEGOTIATION_FAILED]


@RUNGS
@simulated()
async def test_a_peer_that_closes_before_it_answers_a_proposal_is_no_end_of_the_data(
    world: World, rung: str
) -> None:
    async def close(stream: MuxedStream) -> None:
        await stream.receive_some()

    async with open_pair(world, rung, on_other=close) as (one, _):
        stream = await one.open()
        select_lazily(stream, "/p")
        with pytest.raises(ConnectionLost, match="before it answered"):
            await stream.receive_some()


@RUNGS
@simulated()
async def test_the_answer_to_a_proposal_is_checked_before_anything_is_handled(
    world: World, rung: str
) -> None:
    async def in_pieces(stream: MuxedStream) -> None:
        await stream.receive_some()
        answer = b"\x13/multistream/1.0.0\n\x03/p\n"
        for piece in (answer[:9], answer[9:] + b"data", b"more"):
            await stream.send_all(piece)
            await trio.sleep(1)

    got: list[bytes] = []
    async with open_pair(world, rung, on_other=in_pieces) as (one, _):
        stream = await one.open()
        select_lazily(stream, "/p")
        await stream.receive_each(got.append)
        assert got == [b"data", b"more"]


@RUNGS
@simulated()
async def test_protocols_are_negotiated_with_a_peer_of_which_nothing_is_known(
    world: World, rung: str
) -> None:
    async with open_pair(world, rung, on_other=speaking("/p", echo)) as (one, _):
        stream = await one.open()
        assert await select(stream, ["/other", "/p"]) == "/p"
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"


@RUNGS
@simulated()
async def test_first_bytes_are_limited_by_the_window(world: World, rung: str) -> None:
    async with open_pair(world, rung, on_other=wait) as (one, _):
        stream = await one.open()
        with pytest.raises(LocalProtocolError, match="over the window"):
            stream.send_soon(bytes(WINDOW + 1))


# How connections end


@RUNGS
@simulated()
async def test_closing_ends_both_sides_in_order(world: World, rung: str) -> None:
    cancelled = []

    async def handler(stream: MuxedStream) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(stream)
            raise

    async with open_pair(world, rung, on_other=handler) as (one, other):
        stream, unused = await one.open(), await one.open()
        await stream.send_all(b"x")
        await trio.sleep(1)
        await one.connection.aclose()
        await one.connection.aclose()
        await other.ended.wait()
        assert (one.error, other.error, len(cancelled)) == (None, None, 1 if rung == "light" else 2)
        for call in (stream.receive_some, lambda: unused.send_all(b"x"), one.open, other.open):
            with pytest.raises(ConnectionLost):
                await call()
        stream.reset()
        await unused.aclose()
    assert world.fabric.endpoints == [{}, {}, {}]


@RUNGS
@simulated()
async def test_a_crash_of_the_process_is_a_lost_connection_and_what_came_first_is_read(
    world: World, rung: str
) -> None:
    peer = Peer()
    async with open_pair(world, rung, on_other=peer) as (one, other):
        stream = await one.open()
        await stream.send_all(b"last words")
        world.fabric.crash(0, silently=False)
        await other.ended.wait()
        assert isinstance(other.error, ConnectionLost)
        assert await peer.streams[0].receive_some() == b"last words"
        with pytest.raises(ConnectionLost):
            await peer.streams[0].receive_some()


@RUNGS
@simulated()
async def test_a_silent_crash_is_found_within_40_s(world: World, rung: str) -> None:
    async with open_pair(world, rung) as (one, other):
        stream = await one.open()
        began = trio.current_time()
        world.fabric.crash(1, silently=True)
        with pytest.raises(ConnectionLost):
            await stream.receive_some()
        await one.ended.wait()
        assert 30 < one.at - began <= 40
        assert isinstance(one.error, ConnectionLost)
        assert not other.ended.is_set() or rung == "full"


@RUNGS
@simulated()
async def test_a_connection_that_is_only_quiet_stays(world: World, rung: str) -> None:
    async with open_pair(world, rung) as (one, other):
        await trio.sleep(1000)
        assert not one.ended.is_set()
        assert not other.ended.is_set()
        stream = await one.open()
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"


@RUNGS
@simulated()
async def test_a_partition_longer_than_the_keepalive_ends_the_connection_on_both_sides(
    world: World, rung: str
) -> None:
    async with open_pair(world, rung) as (one, other):
        world.network.begin_partition([0])
        await one.ended.wait()
        await other.ended.wait()
        assert isinstance(one.error, ConnectionLost)
        assert isinstance(other.error, ConnectionLost)


@RUNGS
@simulated()
async def test_a_reset_of_the_connection_ends_both_sides(world: World, rung: str) -> None:
    async with open_pair(world, rung) as (one, other):
        world.fabric.reset(0, 1)
        await one.ended.wait()
        await other.ended.wait()
        assert isinstance(one.error, ConnectionLost)
        assert isinstance(other.error, ConnectionLost)


@RUNGS
@simulated()
async def test_a_connection_that_never_ran_can_be_closed(world: World, rung: str) -> None:
    near, far = await world.connect()
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            await (await upgrader(world, rung, 1).upgrade_inbound(far)).aclose()

        nursery.start_soon(accept)
        connection = await upgrader(world, rung, 0).upgrade_outbound(near, None)
        await connection.aclose()
    with pytest.raises(ConnectionLost):
        await connection.open_stream()
    assert world.fabric.endpoints == [{}, {}, {}]
