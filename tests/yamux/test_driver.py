"""A running connection as a whole: how it ends, what that does to everybody, and what a handler may do."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.errors import ConnectionLost, RemoteProtocolError, StreamReset
from p2p.yamux.driver import MAX_HANDLERS
from p2p.yamux.session import MAX_UNACKED_STREAMS
from p2p.yamux.wire import ACK, FIN, INITIAL_WINDOW, RST, SYN, GoAwayCode, StreamErrorCode
from tests.yamux.connections import PEERS, Node, echo, new_node, open_node, open_nodes, read_all, wait
from tests.yamux.frames import DATA, GO_AWAY, PING, WINDOW_UPDATE, Frame, encode


class Waiters:
    """A task for each way to wait on a connection, and what each of them got."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.errors: list[type[Exception]] = []

    async def start(self, nursery: trio.Nursery) -> None:
        full = await self.node.open_stream()
        idle = [await self.node.open_stream() for _ in range(MAX_UNACKED_STREAMS - 1)]
        nursery.start_soon(self._expect, full.send_all, bytes(INITIAL_WINDOW + 1))
        nursery.start_soon(self._expect, idle[0].receive_some)
        nursery.start_soon(self._expect, self.node.open_stream)
        self.node.end.gate = trio.Event()
        for stream in idle[1:4]:
            nursery.start_soon(self._expect, stream.send_all, bytes(INITIAL_WINDOW + 1))
        await wait_all_tasks_blocked()
        assert self.errors == []

    async def _expect(self, operation, *args) -> None:
        try:
            await operation(*args)
        except Exception as exc:
            self.errors.append(type(exc))


# --- the end


async def test_the_end_of_the_bytes_is_a_clean_end_when_nothing_is_open(autojump_clock):
    async with open_node() as (node, wire):
        await wire.stream.aclose()
        await node.ended.wait()
        assert node.error is None
        assert node.connection.closed
        assert node.end.closed


@pytest.mark.parametrize(
    "sent", [b"\x00", encode(WINDOW_UPDATE, SYN, 1), encode(DATA, 0, 9, body=b"abc")[:-1]]
)
async def test_the_end_of_the_bytes_within_a_frame_or_stream_is_a_loss(autojump_clock, sent):
    async with open_node() as (node, wire):
        await wire.send(sent)
        await wire.stream.aclose()
        await node.ended.wait()
        assert isinstance(node.error, ConnectionLost)


@pytest.mark.parametrize("how", ["eof", "go away", "garbage", "close", "cancel", "stall"])
async def test_everybody_who_waits_learns_that_the_connection_is_lost(autojump_clock, how):
    async with open_node(initiator=True) as (node, wire), trio.open_nursery() as nursery:
        waiters = Waiters(node)
        await waiters.start(nursery)
        match how:
            case "eof":
                await wire.stream.aclose()
            case "go away":
                await wire.send(encode(GO_AWAY, 0, 0, 0))
            case "garbage":
                await wire.send(b"\xff" * 12)
            case "close":
                await node.connection.aclose()
            case "cancel":
                node.connection._parts.cancel()
            case "stall":
                pass  # the gate is closed: the writer gives up
        await node.ended.wait()
        await wait_all_tasks_blocked()
        assert waiters.errors == [ConnectionLost] * 6
        assert node.end.closed
        with pytest.raises(ConnectionLost):
            await node.open_stream()


async def test_a_lost_connection_below_is_a_loss(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        await wire.stream.receive_stream.aclose()
        await node.open_stream()
        await node.ended.wait()
        assert isinstance(node.error, ConnectionLost)


async def test_a_peer_that_breaks_the_rules_gets_a_go_away(autojump_clock):
    async with open_node() as (node, wire):
        await wire.send(b"\xff" * 12)
        await node.ended.wait()
        assert isinstance(node.error, RemoteProtocolError)
        assert await wire.received() == [Frame(GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR)]


async def test_a_peer_that_breaks_the_rules_and_reads_nothing_holds_us_up_for_a_second(autojump_clock):
    async with open_node() as (node, wire):
        node.end.gate = trio.Event()
        await wire.send(b"\xff" * 12)
        start = trio.current_time()
        await node.ended.wait()
        assert isinstance(node.error, RemoteProtocolError)
        assert trio.current_time() - start == pytest.approx(1)


async def test_a_normal_go_away_is_a_clean_end(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await wire.send(encode(DATA, ACK, 1, body=b"last words"), encode(GO_AWAY, 0, 0, 0))
        assert node.ended.is_set()
        assert node.error is None
        assert await stream.receive_some() == b"last words"
        with pytest.raises(ConnectionLost):
            await stream.receive_some()


@pytest.mark.parametrize("code", [1, 2, 0x1001, 0xFFFFFFFF])
async def test_any_other_go_away_is_a_loss(autojump_clock, code):
    async with open_node() as (node, wire):
        await wire.send(encode(GO_AWAY, 0, 0, code))
        await node.ended.wait()
        with pytest.raises(ConnectionLost, match=hex(code)):
            raise node.error


async def test_closing_tells_the_peer_and_sends_what_waits(autojump_clock):
    async with open_nodes(on_other=read_all) as (one, other):
        stream = await one.open_stream()
        await stream.send_all(b"x" * 1000)
        await one.connection.aclose()
        assert one.ended.is_set() or one.end.closed
        await one.connection.aclose()  # safe to repeat
        await other.ended.wait()
        assert (one.error, other.error) == (None, None)
        assert other.connection.bytes_received == one.connection.bytes_sent > 1000
        with pytest.raises(ConnectionLost):
            await stream.send_all(b"x")


async def test_closing_tells_the_peer_why_and_takes_no_time(autojump_clock):
    async with open_node() as (node, wire):
        start = trio.current_time()
        await node.connection.aclose(0x1005)
        assert trio.current_time() == start
        assert await wire.received() == [Frame(GO_AWAY, 0, 0, 0x1005)]


async def test_closing_waits_a_second_for_a_peer_that_reads_nothing(autojump_clock):
    async with open_node() as (node, _):
        node.end.gate = trio.Event()
        start = trio.current_time()
        await node.connection.aclose()
        assert trio.current_time() - start == pytest.approx(1)
        await node.ended.wait()
        assert node.error is None


async def test_a_cancelled_close_still_ends_the_connection(autojump_clock):
    async with open_node() as (node, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await node.connection.aclose()
        await node.ended.wait()
        assert node.end.closed


async def test_two_tasks_may_close_at_once(autojump_clock):
    async with open_node() as (node, _), trio.open_nursery() as nursery:
        nursery.start_soon(node.connection.aclose)
        nursery.start_soon(node.connection.aclose)
        await node.ended.wait()
        assert node.error is None


async def test_a_loss_while_we_close_is_no_error(autojump_clock):
    async with open_node() as (node, wire), trio.open_nursery() as nursery:
        await wire.send(encode(WINDOW_UPDATE, SYN, 1))
        node.end.gate = trio.Event()
        nursery.start_soon(node.connection.aclose)
        await wait_all_tasks_blocked()
        await wire.stream.aclose()
        await wait_all_tasks_blocked()
        assert node.ended.is_set()
        assert node.error is None
        assert not nursery.child_tasks


async def test_what_comes_while_we_close_is_dropped(autojump_clock):
    async with open_node() as (node, wire), trio.open_nursery() as nursery:
        await wire.send(encode(WINDOW_UPDATE, SYN, 1), encode(WINDOW_UPDATE, SYN, 3))
        node.end.gate = trio.Event()
        nursery.start_soon(node.connection.aclose)
        await wait_all_tasks_blocked()
        await wire.send(
            encode(DATA, 0, 1, body=b"late"),
            encode(WINDOW_UPDATE, 0, 1, 1),
            encode(WINDOW_UPDATE, FIN, 1),
            encode(WINDOW_UPDATE, RST, 3),
            encode(WINDOW_UPDATE, SYN, 5),
        )
        node.end.gate.set()
        await node.ended.wait()
        assert node.error is None
        assert (await wire.received())[-1] == Frame(WINDOW_UPDATE, RST, 5, StreamErrorCode.SHUTDOWN)


async def test_a_connection_that_never_ran_can_be_closed(autojump_clock):
    node, start = new_node(), trio.current_time()
    await node.connection.aclose()
    assert trio.current_time() == start
    assert node.end.closed
    await node.connection.run(wait)  # nothing left to run
    with pytest.raises(ConnectionLost):
        await node.open_stream()


async def test_streams_may_be_opened_before_run(autojump_clock):
    node = new_node()
    stream = await node.open_stream()
    await stream.send_all(b"x")
    await stream.aclose()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run, wait)
        await wait_all_tasks_blocked()
        assert len(node.end.writes) == 1
        await node.connection.aclose()


async def test_cancelling_run_closes_everything(autojump_clock):
    node = new_node()
    stream = await node.open_stream()
    with trio.move_on_after(1) as scope:
        await node.connection.run(wait)
    assert scope.cancelled_caught
    assert node.connection.closed
    assert node.end.closed
    with pytest.raises(ConnectionLost):
        await stream.receive_some()


# --- timers


async def test_a_silent_peer_is_found_after_40_s(autojump_clock):
    async with open_node() as (node, _):
        start = trio.current_time()
        await node.ended.wait()
        assert trio.current_time() - start == pytest.approx(40)
        assert isinstance(node.error, ConnectionLost)
        assert "ping" in str(node.error)


async def test_a_peer_that_answers_pings_stays(autojump_clock):
    async with open_nodes() as (one, other):
        await trio.sleep(1000)
        assert not one.connection.closed
        assert 20 * 12 < one.connection.bytes_sent < 100 * 12
        assert one.connection.bytes_sent == other.connection.bytes_received


async def test_a_peer_that_takes_no_bytes_is_given_up_after_10_s(autojump_clock):
    async with open_node(initiator=True) as (node, _):
        node.end.gate = trio.Event()
        await node.open_stream()
        start = trio.current_time()
        await node.ended.wait()
        assert trio.current_time() - start == pytest.approx(10)
        assert isinstance(node.error, ConnectionLost)


async def test_a_large_block_has_10_s_for_each_64_kib(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        node.end.gate = trio.Event()
        stream = await node.open_stream()
        await stream.send_all(bytes(200_000))
        await trio.sleep(20)  # the peer is slow, and alive
        await wire.send(encode(PING, SYN, 0, 1))
        await trio.sleep(19)
        node.end.gate.set()
        await wait_all_tasks_blocked()
        assert not node.connection.closed
        assert node.connection.bytes_sent > 200_000


async def test_a_writer_that_has_nothing_to_do_is_not_stalled(autojump_clock):
    async with open_nodes() as (one, _):
        stream = await one.open_stream()
        for _ in range(5):
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            await trio.sleep(25)


# --- opening, handlers


async def test_opening_waits_while_256_streams_are_not_acked(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        streams = [await node.open_stream() for _ in range(MAX_UNACKED_STREAMS)]
        with trio.move_on_after(5) as scope:
            await node.open_stream()
        assert scope.cancelled_caught
        opened = []

        async def open_one() -> None:
            opened.append((await node.open_stream()).id)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(open_one)
            await wait_all_tasks_blocked()
            await wire.send(encode(WINDOW_UPDATE, ACK, streams[0].id))
            assert len(opened) == 1
            await wire.send(encode(WINDOW_UPDATE, RST, streams[1].id))
            assert len(opened) == 2
            streams[2].reset()
            await wait_all_tasks_blocked()
            assert len(opened) == 3
            await streams[3].aclose()
            await wire.send(encode(WINDOW_UPDATE, FIN, streams[3].id))
        assert len(set(opened)) == 4


async def test_streams_that_run_out_of_ids_are_a_lost_connection(autojump_clock):
    async with open_node(initiator=True) as (node, _):
        node.connection._session._next_id = 1 << 32
        with pytest.raises(ConnectionLost, match="used up"):
            await node.open_stream()


async def test_a_handler_that_crashes_costs_its_stream_and_a_warning(autojump_clock, caplog):
    async def crash(stream) -> None:
        raise ZeroDivisionError("a bug")

    async with open_nodes(on_other=crash) as (one, other):
        stream = await one.open_stream()
        with pytest.raises(StreamReset):
            await stream.receive_some()
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert not one.connection.closed
        assert not other.connection.closed
        assert other.connection.num_streams == 0


@pytest.mark.parametrize("error", [RemoteProtocolError("nonsense"), trio.TooSlowError()])
async def test_what_a_peer_does_to_a_handler_is_no_warning(autojump_clock, caplog, error):
    async def handler(stream) -> None:
        raise error

    caplog.set_level(logging.INFO)
    async with open_nodes(on_other=handler) as (one, _):
        with pytest.raises(StreamReset):
            await (await one.open_stream()).receive_some()
        assert [record.levelno for record in caplog.records] == [logging.INFO]
        assert (str(error) or "too long") in caplog.text


async def test_a_stream_is_closed_when_its_handler_returns(autojump_clock):
    async def greet(stream) -> None:
        await stream.send_all(b"hello")

    async with open_nodes(on_other=greet) as (one, _):
        stream = await one.open_stream()
        assert await read_all(stream) == b"hello"


async def test_a_handler_that_closed_its_stream_may_go_on(autojump_clock):
    done = trio.Event()

    async def close_and_work(stream) -> None:
        await stream.aclose()
        await trio.sleep(1)
        done.set()
        raise ZeroDivisionError

    async with open_nodes(on_other=close_and_work) as (one, other):
        stream = await one.open_stream()
        assert await stream.receive_some() == b""
        await done.wait()
        await wait_all_tasks_blocked()
        assert not other.connection.closed


async def test_handlers_are_cancelled_when_the_connection_ends(autojump_clock):
    cancelled = []

    async def handler(stream) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(stream.id)
            raise

    async with open_nodes(on_other=handler) as (one, other):
        for _ in range(3):
            await one.open_stream()
        await wait_all_tasks_blocked()
        await one.connection.aclose()
        await other.ended.wait()
        assert sorted(cancelled) == [1, 3, 5]
        assert other.error is None


async def test_a_handler_that_fails_while_it_is_cancelled_ends_no_host(autojump_clock, caplog):
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError("a bug in the clean-up")

    async def handler(stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    async with open_nodes(on_other=handler) as (one, other):
        await one.open_stream()
        await wait_all_tasks_blocked()
        await one.connection.aclose()
        await other.ended.wait()
        assert other.error is None
        assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_handler_may_close_its_connection(autojump_clock):
    async with open_nodes(on_other=lambda stream: other.connection.aclose()) as (one, other):
        await one.open_stream()
        await other.ended.wait()
        await one.ended.wait()
        assert (one.error, other.error) == (None, None)


async def test_a_program_that_is_interrupted_in_a_handler_ends(autojump_clock):
    async def interrupt(stream) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with open_nodes(on_other=interrupt) as (one, other):
            await one.open_stream()
            await other.ended.wait()


async def test_a_group_without_a_cancellation_that_ends_programs_is_not_held_up(autojump_clock):
    async def interrupt(stream) -> None:
        raise BaseExceptionGroup("two", [KeyboardInterrupt(), ZeroDivisionError()])

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nodes(on_other=interrupt) as (one, other):
            await one.open_stream()
            await other.ended.wait()
    assert caught.group_contains(KeyboardInterrupt)


async def test_a_peer_that_opens_and_resets_at_once_piles_up_no_handlers(autojump_clock):
    """Rapid reset: what a stream costs us must not outlive its place in the cap."""
    running = 0

    async def handler(stream) -> None:
        nonlocal running
        running += 1
        await trio.sleep_forever()

    async with open_node(handler) as (node, wire):
        for i in range(MAX_HANDLERS + 50):
            await wire.send(
                encode(WINDOW_UPDATE, SYN, 10_001 + 2 * i), encode(WINDOW_UPDATE, RST, 10_001 + 2 * i)
            )
        assert running == 0  # gone again before there was a task for it
        pairs = [
            encode(DATA, SYN, 1 + 2 * i, body=b"x") + encode(WINDOW_UPDATE, RST, 1 + 2 * i)
            for i in range(MAX_HANDLERS + 50)
        ]
        await wire.send(*pairs)
        assert running == MAX_HANDLERS
        assert node.connection.num_streams == 0
        await wire.received()
        await wire.send(encode(WINDOW_UPDATE, SYN, 9999))
        assert (await wire.received())[-1] == Frame(WINDOW_UPDATE, RST, 9999, StreamErrorCode.RESOURCE_LIMIT)


async def test_streams_over_the_cap_are_reset_and_the_others_served(autojump_clock):
    async with open_nodes() as (one, _):
        served = [await one.open_stream() for _ in range(MAX_HANDLERS)]
        await wait_all_tasks_blocked()
        refused = await one.open_stream()
        with pytest.raises(StreamReset) as caught:
            await refused.receive_some()
        assert caught.value.code == StreamErrorCode.RESOURCE_LIMIT
        await served[-1].send_all(b"x")
        assert await served[-1].receive_some() == b"x"


async def test_handlers_that_returned_make_place_for_others(autojump_clock):
    async with open_nodes() as (one, _):
        for _ in range(MAX_HANDLERS + 10):
            async with await one.open_stream() as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"
                await stream.send_eof()
                assert await stream.receive_some() == b""


async def test_late_frames_of_streams_that_are_gone_do_no_harm(autojump_clock):
    async with open_node(echo) as (_, wire):
        await wire.send(
            *(encode(kind, flags, 7, 5) for kind in (WINDOW_UPDATE,) for flags in (0, ACK, FIN, RST)),
            encode(DATA, 0, 7, body=b"late"),
            encode(PING, ACK, 0, 77),
            encode(PING, SYN, 0, 78),
        )
        assert await wire.received() == [Frame(PING, ACK, 0, 78)]


async def test_a_connection_knows_its_peer(autojump_clock):
    async with open_nodes() as (one, other):
        assert (one.connection.peer, other.connection.peer) == (PEERS[1], PEERS[0])
