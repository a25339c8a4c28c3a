"""One stream of a running connection: sending, receiving, closing, and being cancelled at each of them."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.errors import ConnectionLost, LocalProtocolError, StreamReset
from p2p.yamux.link import HIGH_WATER
from p2p.yamux.wire import ACK, FIN, INITIAL_WINDOW, RST, SYN
from tests.byte_streams import cancel_at_each_await
from tests.yamux.connections import PEERS, echo, open_node, open_nodes, read_all, wait
from tests.yamux.frames import DATA, WINDOW_UPDATE, Frame, encode

MIB = random.Random(7).randbytes(1 << 20)


async def test_a_mebibyte_comes_back_as_it_went(autojump_clock):
    async with open_nodes() as (one, other), trio.open_nursery() as nursery:
        stream = await one.open_stream()

        async def send() -> None:
            await stream.send_all(MIB)
            await stream.send_eof()

        nursery.start_soon(send)
        assert await read_all(stream) == MIB
        await stream.aclose()
        await wait_all_tasks_blocked()
        assert one.connection.num_streams == other.connection.num_streams == 0
        assert one.connection.bytes_sent == other.connection.bytes_received > len(MIB)


async def test_a_stream_knows_its_peer_and_carries_its_protocol(autojump_clock):
    async with open_nodes() as (one, _):
        stream = await one.open_stream()
        assert (stream.peer, stream.protocol) == (PEERS[1], "")
        stream.protocol = "/echo/1"
        assert stream.protocol == "/echo/1"


async def test_either_side_opens_streams(autojump_clock):
    async with open_nodes(on_one=echo) as (one, other):
        for node in (one, other):
            async with await node.open_stream() as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"


async def test_a_hundred_streams_run_in_parallel(autojump_clock):
    async with open_nodes() as (one, other):

        async def exchange(number: int) -> None:
            data = random.Random(number).randbytes(20_000)
            async with await one.open_stream() as stream:
                await stream.send_all(data)
                await stream.send_eof()
                assert await read_all(stream) == data

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(exchange, number)
        await wait_all_tasks_blocked()
        assert one.connection.num_streams == other.connection.num_streams == 0


async def test_many_large_writes_share_the_connection_in_turn(autojump_clock):
    """More senders than the output queue takes: none starves, none is lost."""
    received: dict[int, int] = {}

    async def sink(stream) -> None:
        received[stream.id] = len(await read_all(stream))

    async with open_nodes(on_other=sink) as (one, _):

        async def send() -> None:
            async with await one.open_stream() as stream:
                await stream.send_all(MIB)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert list(received.values()) == [len(MIB)] * 20


async def test_a_slow_reader_stalls_no_other_stream(autojump_clock):
    async with open_nodes(on_other=wait) as (one, other), trio.open_nursery() as nursery:
        slow = await one.open_stream()
        nursery.start_soon(slow.send_all, MIB)
        await wait_all_tasks_blocked()
        assert one.connection.bytes_sent < INITIAL_WINDOW + 1000  # stopped at the window
        streams = []
        for number in range(10):
            quick = await one.open_stream()
            await quick.send_all(bytes([number]) * 1000)
            streams.append(quick)
        await wait_all_tasks_blocked()
        assert one.connection.bytes_sent > INITIAL_WINDOW + 10_000
        assert other.connection.num_streams == 11
        nursery.cancel_scope.cancel()


async def test_two_sides_that_write_more_than_a_window_first_hang_only_themselves(autojump_clock):
    async def write_first(stream) -> None:
        if await stream.receive_some(1) == b"w":
            await stream.send_all(MIB)
        else:
            await echo(stream)

    async with open_nodes(on_other=write_first) as (one, _), trio.open_nursery() as nursery:
        stuck = await one.open_stream()
        nursery.start_soon(stuck.send_all, b"w" + MIB)
        await wait_all_tasks_blocked()
        live = await one.open_stream()
        await live.send_all(b"eping")
        assert await live.receive_some() == b"ping"
        assert await stuck.receive_some()  # reading while it writes is what sets it free
        nursery.cancel_scope.cancel()


async def test_the_output_queue_is_bounded(autojump_clock):
    async with open_node(initiator=True) as (node, _), trio.open_nursery() as nursery:
        node.end.gate = trio.Event()
        for _ in range(20):
            stream = await node.open_stream()
            nursery.start_soon(stream.send_all, bytes(INITIAL_WINDOW))
        await wait_all_tasks_blocked()
        assert node.connection._session.queued <= HIGH_WATER + 1000
        node.end.gate.set()
        await wait_all_tasks_blocked()
        assert sum(len(data) for data in node.end.writes) > 20 * INITIAL_WINDOW
        assert max(len(data) for data in node.end.writes) <= HIGH_WATER + 1000


async def test_small_writes_leave_at_once_and_waiting_ones_together(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await stream.send_all(b"first")
        assert [frame.body for frame in await wire.received()] == [b"", b"first"]
        for _ in range(10):
            await stream.send_all(b"more")
        assert [frame.body for frame in await wire.received()] == [b"more" * 10]


# --- half close, close, reset


async def test_half_close_lets_the_answer_come(autojump_clock):
    async def answer(stream) -> None:
        request = await read_all(stream)
        await stream.send_all(request[::-1])

    async with open_nodes(on_other=answer) as (one, _), await one.open_stream() as stream:
        await stream.send_all(b"abc")
        await stream.send_eof()
        await stream.send_eof()  # safe to repeat
        assert await read_all(stream) == b"cba"
        assert await stream.receive_some() == b""
        with pytest.raises(LocalProtocolError, match="our side"):
            await stream.send_all(b"x")


async def test_what_came_before_a_fin_is_read_behind_it(autojump_clock):
    handled = trio.Event()

    async def late(stream) -> None:
        await trio.sleep(1)
        assert await read_all(stream) == b"abc"
        handled.set()

    async with open_node(late) as (node, wire):
        await wire.send(encode(DATA, SYN | FIN, 1, body=b"abc"))
        await handled.wait()
        await wait_all_tasks_blocked()
        assert node.connection.num_streams == 0


async def test_writing_goes_on_when_the_peer_finished(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await wire.send(encode(WINDOW_UPDATE, ACK | FIN, 1))
        await stream.send_all(b"x")
        await stream.send_eof()
        assert await stream.receive_some() == b""
        assert [frame.flags for frame in await wire.received()] == [SYN, 0, FIN]
        assert node.connection.num_streams == 0
        stream.reset()  # gone already: nobody hears of it
        assert await wire.received() == []


async def test_a_closed_stream_is_of_no_use(autojump_clock):
    async with open_nodes() as (one, _):
        stream = await one.open_stream()
        await stream.aclose()
        await stream.aclose()
        for operation in (stream.receive_some, stream.wait_send_all_might_not_block, stream.send_eof):
            with pytest.raises(LocalProtocolError, match="closed"):
                await operation()
        with pytest.raises(LocalProtocolError, match="closed"):
            await stream.send_all(b"x")


async def test_closing_wakes_a_task_that_receives(autojump_clock):
    async with open_nodes(on_other=wait) as (one, _), trio.open_nursery() as nursery:
        stream = await one.open_stream()

        async def receive() -> None:
            with pytest.raises(LocalProtocolError):
                await stream.receive_some()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await stream.aclose()


async def test_closing_under_a_task_that_sends_resets_the_stream(autojump_clock):
    async with open_node(initiator=True) as (node, wire), trio.open_nursery() as nursery:
        stream = await node.open_stream()

        async def send() -> None:
            with pytest.raises(StreamReset):
                await stream.send_all(MIB)

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        await stream.aclose()
        assert (await wire.received())[-1] == Frame(WINDOW_UPDATE, RST, 1, 0)


async def test_after_a_close_what_still_comes_is_dropped_with_credit(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await wire.send(encode(DATA, ACK, 1, body=bytes(INITIAL_WINDOW)))
        await stream.aclose()
        assert await wire.received() == [
            Frame(WINDOW_UPDATE, SYN, 1, 0),
            Frame(WINDOW_UPDATE, FIN, 1, 0),
            Frame(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW),
        ]
        await wire.send(encode(DATA, 0, 1, body=bytes(INITIAL_WINDOW)))
        assert await wire.received() == [Frame(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW)]
        await wire.send(encode(WINDOW_UPDATE, FIN, 1))
        assert node.connection.num_streams == 0
        await trio.sleep(20)
        assert await wire.received() == []


async def test_after_a_close_the_peer_has_10_s_to_finish(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await trio.sleep(5)
        await stream.aclose()
        await wire.received()
        await trio.sleep(9.9)
        assert await wire.received() == []
        await trio.sleep(0.2)
        assert await wire.received() == [Frame(WINDOW_UPDATE, RST, 1, 0)]
        assert node.connection.num_streams == 0


async def test_a_reset_reaches_the_peer_with_its_code(autojump_clock):
    seen = []

    async def receive(stream) -> None:
        assert await stream.receive_some() == b"before"
        with pytest.raises(StreamReset, match="peer") as caught:
            await stream.receive_some()
        seen.append(caught.value.code)
        with pytest.raises(StreamReset):
            await stream.send_all(b"x")

    async with open_nodes(on_other=receive) as (one, other):
        stream = await one.open_stream()
        await stream.send_all(b"before")
        stream.reset(0x1003)
        stream.reset(0x1004)  # the first one counts
        with pytest.raises(StreamReset, match="this side") as caught:
            await stream.receive_some()
        assert caught.value.code == 0x1003
        await wait_all_tasks_blocked()
        assert seen == [0x1003]
        assert one.connection.num_streams == other.connection.num_streams == 0


async def test_a_reset_wakes_whoever_waits_on_the_stream(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        errors = []

        async def expect_reset(operation, *args) -> None:
            with pytest.raises(StreamReset) as caught:
                await operation(*args)
            errors.append(caught.value.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_reset, stream.send_all, MIB)
            nursery.start_soon(expect_reset, stream.receive_some)
            await wait_all_tasks_blocked()
            await wire.send(encode(WINDOW_UPDATE, RST, 1, 0x1002))
        assert errors == [0x1002, 0x1002]


async def test_our_own_reset_wakes_a_sender_that_waits_for_room(autojump_clock):
    async with open_node(initiator=True) as (node, _):
        node.end.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            streams = [await node.open_stream() for _ in range(6)]

            async def send(stream) -> None:
                with pytest.raises(StreamReset):
                    await stream.send_all(MIB)

            for stream in streams:
                nursery.start_soon(send, stream)
            await wait_all_tasks_blocked()
            with trio.fail_after(1):
                for stream in streams:
                    stream.reset()
                await wait_all_tasks_blocked()
            assert not nursery.child_tasks


@asynccontextmanager
async def open_full_node():
    """A node with a full output queue, five fresh streams, a sixth one, and a nursery for senders.

    Every sender waits for room until the node's gate is opened.
    """
    async with open_node(initiator=True) as (node, _), trio.open_nursery() as nursery:
        streams = [await node.open_stream() for _ in range(6)]
        for stream in streams[:5]:
            await stream.send_all(bytes(INITIAL_WINDOW - 1))
            await wait_all_tasks_blocked()
        node.end.gate = trio.Event()
        for _ in range(4):
            nursery.start_soon((await node.open_stream()).send_all, bytes(INITIAL_WINDOW))
            await wait_all_tasks_blocked()
        yield node, streams[:5], streams[5], nursery
        nursery.cancel_scope.cancel()


async def opens_the_way(node, stream, nursery) -> None:
    """Whoever waits ahead of `stream`, its turn comes once the gate is open."""
    sent = trio.Event()

    async def send() -> None:
        await stream.send_all(b"x")
        sent.set()

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    assert not sent.is_set()
    node.end.gate.set()
    with trio.fail_after(1):
        await sent.wait()


async def test_a_sender_that_finds_its_window_used_up_lets_the_next_one_send(autojump_clock):
    async with open_full_node() as (node, streams, live, nursery):
        for stream in streams:
            stream._session._streams[stream.id].send_window = 0
            nursery.start_soon(stream.send_all, b"x")
            await wait_all_tasks_blocked()
        await opens_the_way(node, live, nursery)


async def test_a_task_that_only_asked_for_room_lets_the_next_one_send(autojump_clock):
    async with open_full_node() as (node, streams, live, nursery):
        for stream in streams:
            nursery.start_soon(stream.wait_send_all_might_not_block)
            await wait_all_tasks_blocked()
        await opens_the_way(node, live, nursery)


async def test_wait_send_all_might_not_block_waits_for_the_window(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await stream.wait_send_all_might_not_block()
        await stream.send_all(bytes(INITIAL_WINDOW))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.wait_send_all_might_not_block)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            await wire.send(encode(WINDOW_UPDATE, 0, 1, 1))


async def test_wait_send_all_might_not_block_waits_for_room(autojump_clock):
    async with open_node(initiator=True) as (node, _):
        node.end.gate = trio.Event()
        stream = await node.open_stream()
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon((await node.open_stream()).send_all, bytes(INITIAL_WINDOW))
            await wait_all_tasks_blocked()
            with trio.move_on_after(1) as scope:
                await stream.wait_send_all_might_not_block()
            assert scope.cancelled_caught
            nursery.start_soon(stream.wait_send_all_might_not_block)
            await wait_all_tasks_blocked()
            node.end.gate.set()


async def test_streams_that_ended_leave_nothing_behind(autojump_clock):
    async with open_nodes() as (one, other):
        for end in ("close", "our half first", "reset"):
            stream = await one.open_stream()
            await stream.send_all(b"x")
            await stream.receive_some()
            if end == "reset":
                stream.reset()
            elif end == "our half first":
                await stream.send_eof()
                assert await stream.receive_some() == b""
            else:
                await stream.aclose()
            await wait_all_tasks_blocked()
            assert one.connection._link.streams == other.connection._link.streams == {}


async def test_a_stream_whose_peer_finished_first_leaves_nothing_behind(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await wire.send(encode(WINDOW_UPDATE, ACK | FIN, 1))
        assert await stream.receive_some() == b""
        await stream.send_eof()
        assert node.connection._link.streams == {}


@pytest.mark.parametrize(("end", "error"), [("reset", StreamReset), ("aclose", LocalProtocolError)])
async def test_what_we_end_ourselves_gives_nothing_more(autojump_clock, end, error):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await wire.send(encode(DATA, ACK | FIN, 1, body=b"unread"))
        if end == "reset":
            stream.reset()
        else:
            await stream.aclose()
        with pytest.raises(error):
            await stream.receive_some()


async def test_a_peer_that_reuses_an_id_confuses_only_itself(autojump_clock):
    streams = []

    async def keep(stream) -> None:
        await stream.send_eof()
        streams.append(stream)
        await trio.sleep_forever()

    async with open_node(keep) as (node, wire):
        await wire.send(encode(DATA, SYN | FIN, 1, body=b"first"))
        await wire.send(encode(DATA, SYN, 1, body=b"2nd"))
        first, second = streams
        assert await first.receive_some() == b"first"
        first.reset()
        await first.aclose()
        assert await second.receive_some() == b"2nd"
        await wire.send(encode(WINDOW_UPDATE, FIN, 1))
        assert await second.receive_some() == b""
        assert node.connection.num_streams == 0


# --- misuse, cancellation


async def test_a_second_task_on_the_same_side_of_a_stream_is_busy(autojump_clock):
    async with open_node(initiator=True) as (node, _), trio.open_nursery() as nursery:
        stream = await node.open_stream()
        nursery.start_soon(stream.send_all, MIB)
        nursery.start_soon(stream.receive_some)
        await wait_all_tasks_blocked()
        for operation in (stream.receive_some, stream.wait_send_all_might_not_block, stream.send_eof):
            with pytest.raises(trio.BusyResourceError):
                await operation()
        with pytest.raises(trio.BusyResourceError):
            await stream.send_all(b"x")
        nursery.cancel_scope.cancel()


async def test_a_read_takes_at_most_what_was_asked(autojump_clock):
    async with open_nodes() as (one, _):
        stream = await one.open_stream()
        await stream.send_all(b"abcdef")
        assert await stream.receive_some(4) == b"abcd"
        assert await stream.receive_some(4) == b"ef"
        with pytest.raises(ValueError, match="max_bytes"):
            await stream.receive_some(0)


async def test_operations_that_need_not_wait_are_cancellation_points(autojump_clock):
    async with open_nodes() as (one, _):
        stream = await one.open_stream()
        await stream.send_all(b"x")
        await wait_all_tasks_blocked()
        for operation in (
            stream.receive_some,
            lambda: stream.send_all(b"y"),
            stream.send_eof,
            stream.wait_send_all_might_not_block,
            one.connection.open_stream,
        ):
            with trio.CancelScope() as scope:
                scope.cancel()
                await operation()
            assert scope.cancelled_caught
        assert await stream.receive_some() == b"x"
        await stream.send_all(b"z")
        assert await stream.receive_some() == b"z"


async def test_a_task_that_never_waits_lets_others_run(autojump_clock):
    async with open_nodes(on_other=wait) as (one, _), trio.open_nursery() as nursery:
        stream = await one.open_stream()
        turns = []

        async def other_task() -> None:
            while True:
                turns.append(len(turns))
                await trio.lowlevel.checkpoint()

        nursery.start_soon(other_task)
        for _ in range(1000):
            await stream.send_all(b"x")
        assert len(turns) >= 10
        nursery.cancel_scope.cancel()


async def test_a_cancelled_write_leaves_no_half_frame(autojump_clock):
    async with open_nodes() as (one, other), trio.open_nursery() as nursery:
        one.end.gate = trio.Event()
        torn, whole = await one.open_stream(), await one.open_stream()
        with trio.move_on_after(1):
            await torn.send_all(MIB)
        nursery.start_soon(whole.send_all, b"whole")
        await wait_all_tasks_blocked()
        one.end.gate.set()
        assert await whole.receive_some() == b"whole"
        await torn.aclose()
        await wait_all_tasks_blocked()
        assert other.connection.num_streams == 1


async def test_after_a_cancelled_write_a_close_is_a_reset(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        with trio.move_on_after(1):
            await stream.send_all(MIB)
        await stream.aclose()
        assert (await wire.received())[-1] == Frame(WINDOW_UPDATE, RST, 1, 0)


async def test_a_write_cancelled_before_its_first_byte_tears_nothing(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await stream.send_all(bytes(INITIAL_WINDOW))
        with trio.move_on_after(1):
            await stream.send_all(b"x")
        await stream.aclose()
        assert (await wire.received())[-1] == Frame(WINDOW_UPDATE, FIN, 1, 0)


async def test_a_close_that_is_cancelled_still_closes(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert (await wire.received())[-1] == Frame(WINDOW_UPDATE, FIN, 1, 0)


async def test_whichever_await_is_cancelled_the_connection_serves_other_streams(autojump_clock):
    @asynccontextmanager
    async def world():
        async with open_nodes() as (one, other):
            stream = await one.open_stream()

            async def exchange() -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send_all, MIB)
                    received = 0
                    while received < len(MIB):
                        received += len(await stream.receive_some())
                await stream.aclose()

            yield exchange
            await stream.aclose()
            async with await one.open_stream() as another:
                await another.send_all(b"alive")
                assert await another.receive_some() == b"alive"
                await another.send_eof()
                assert await another.receive_some() == b""
            await trio.sleep(11)
            assert one.connection.num_streams == other.connection.num_streams == 0

    assert await cancel_at_each_await(world) > 3


async def test_a_cancelled_read_has_taken_nothing(autojump_clock):
    async with open_nodes() as (one, _):
        stream = await one.open_stream()
        with trio.move_on_after(1):
            await stream.receive_some()
        await stream.send_all(b"kept")
        assert await stream.receive_some() == b"kept"


async def test_a_stream_over_a_lost_connection_gives_what_came_first(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream, finished = await node.open_stream(), await node.open_stream()
        await wire.send(
            encode(DATA, ACK, 1, body=b"came"), encode(DATA, ACK | FIN, 3, body=b"all"), encode(DATA, 0, 9)
        )
        await wire.stream.aclose()
        await node.ended.wait()
        assert await stream.receive_some() == b"came"
        with pytest.raises(ConnectionLost):
            await stream.receive_some()
        assert await read_all(finished) == b"all"
        await stream.aclose()
        finished.reset()
