"""Bytes that are handled where they arrive, and sent without waiting: no task is switched to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.errors import ConnectionLost, LocalProtocolError, StreamReset
from p2p.multistream.negotiation import Initiator
from p2p.yamux.link import HIGH_WATER
from p2p.yamux.stream import YIELD_EVERY
from p2p.yamux.wire import ACK, FIN, INITIAL_WINDOW, RST, SYN
from tests.byte_streams import cancel_at_each_await
from tests.yamux.connections import SecureEnd, echo, open_node, open_nodes, read_all, wait
from tests.yamux.frames import DATA, WINDOW_UPDATE, Frame, encode


class Reader:
    """Handles what comes on a stream; raises `error` at the piece `poison`."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.ended = trio.Event()
        self.error: Exception | None = None

    def handle(self, data: bytes) -> None:
        self.got.append(bytes(data))
        if data == b"poison":
            raise KeyError("poison")

    async def run(self, stream) -> None:
        try:
            await stream.receive_each(self.handle)
        except Exception as exc:
            self.error = exc
        self.ended.set()


@asynccontextmanager
async def open_reader():
    """(reader, its stream, the node, the wire): stream 1, which the node opened, is being handled."""
    async with open_node(initiator=True) as (node, wire), trio.open_nursery() as nursery:
        reader, stream = Reader(), await node.open_stream()
        nursery.start_soon(reader.run, stream)
        await wire.received()
        yield reader, stream, node, wire
        nursery.cancel_scope.cancel()


async def test_what_came_and_what_comes_is_handled_until_the_peer_closes_its_side(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream, reader = await node.open_stream(), Reader()
        await wire.send(encode(DATA, ACK, 1, body=b"before"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.run, stream)
            await wait_all_tasks_blocked()
            assert reader.got == [b"before"]
            await wire.send(encode(DATA, 0, 1, body=b"one"), encode(DATA, 0, 1, body=b"two"))
            assert reader.got == [b"before", b"one", b"two"]
            await wire.send(encode(DATA, FIN, 1, body=b"last"))
        assert (reader.got[3:], reader.error) == ([b"last"], None)
        await stream.receive_each(reader.handle)  # the end is still there


async def test_what_is_handled_is_credited_as_what_is_read(autojump_clock):
    async with open_reader() as (reader, _, _, wire):
        await wire.send(encode(DATA, ACK, 1, body=bytes(INITIAL_WINDOW // 2)))
        assert sum(map(len, reader.got)) == INITIAL_WINDOW // 2
        updates = [frame for frame in await wire.received() if frame.kind == WINDOW_UPDATE]
        assert updates == [Frame(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW // 2)]


async def test_a_reset_and_a_lost_connection_reach_who_handles(autojump_clock):
    async with open_reader() as (reader, _, _, wire):
        await wire.send(encode(DATA, ACK, 1, body=b"came"), encode(WINDOW_UPDATE, RST, 1, 7))
        assert reader.got == [b"came"]
        assert isinstance(reader.error, StreamReset)
        assert reader.error.code == 7
    async with open_reader() as (reader, _, _, wire):
        await wire.stream.aclose()
        await reader.ended.wait()
        assert isinstance(reader.error, ConnectionLost)


async def test_a_handler_that_raises_costs_neither_the_connection_nor_what_comes_behind(autojump_clock):
    async with open_reader() as (reader, stream, node, wire):
        await wire.send(encode(DATA, ACK, 1, body=b"poison"), encode(DATA, 0, 1, body=b"behind"))
        assert isinstance(reader.error, KeyError)
        assert reader.got == [b"poison"]
        assert not node.connection.closed
        await wire.send(encode(DATA, FIN, 1, body=b"last"))
        again = Reader()
        await again.run(stream)
        assert (b"".join(again.got), again.error) == (b"behindlast", None)


async def test_a_handler_may_reset_its_own_stream(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()

        async def read() -> None:
            with pytest.raises(StreamReset):
                await stream.receive_each(lambda data: stream.reset())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wire.send(encode(DATA, ACK, 1, body=b"x"), encode(DATA, 0, 1, body=b"y"))
        assert Frame(WINDOW_UPDATE, RST, 1, 0) in await wire.received()
        assert not node.connection.closed


async def test_one_task_reads_at_a_time(autojump_clock):
    async with open_reader() as (_, stream, _, _):
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_each(lambda data: None)
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()


async def test_the_answer_to_a_proposal_is_checked_before_anything_is_handled(autojump_clock):
    async with open_node(initiator=True) as (node, wire), trio.open_nursery() as nursery:
        stream, reader = await node.open_stream(), Reader()
        proposal = Initiator(["/p"])
        stream.send_soon(proposal.data_to_send())
        stream.expect_answer(proposal)
        nursery.start_soon(reader.run, stream)
        answer = b"\x13/multistream/1.0.0\n\x03/p\n"
        await wire.send(encode(DATA, ACK, 1, body=answer[:9]))
        await wire.send(encode(DATA, 0, 1, body=answer[9:] + b"data"))
        assert reader.got == [b"data"]
        await wire.send(encode(DATA, 0, 1, body=b"more"))
        assert reader.got == [b"data", b"more"]
        nursery.cancel_scope.cancel()


async def test_pieces_that_wait_already_let_others_run(autojump_clock):
    async with open_node(initiator=True) as (node, _):
        stream = await node.open_stream()
        for _ in range(3 * YIELD_EVERY):
            stream.receive_data(bytes(1024))
            stream._state.receive_window -= 1024
        handled: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_each, lambda data: handled.append(len(data)))
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            assert 0 < len(handled) < 3 * YIELD_EVERY
            nursery.cancel_scope.cancel()


async def test_wherever_it_is_cancelled_nothing_is_lost(autojump_clock):
    @asynccontextmanager
    async def world():
        async with open_node(initiator=True) as (node, wire):
            stream, reader = await node.open_stream(), Reader()
            await wire.send(encode(DATA, ACK, 1, body=b"one"))

            async def send() -> None:
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                await wire.stream.send_all(encode(DATA, FIN, 1, body=b"two"))

            async def read() -> None:
                await stream.receive_each(reader.handle)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                yield read
            await read()
            assert b"".join(reader.got) == b"onetwo"

    assert await cancel_at_each_await(world) > 1


class _Outside(trio.abc.Instrument):
    """Calls something once from the event loop itself, outside of any task."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self.called = False

    def before_io_wait(self, timeout: float) -> None:
        if not self.called:
            self.called = True
            with pytest.raises(RuntimeError):
                trio.lowlevel.current_task()
            self._call()


async def test_bytes_are_handled_and_answered_outside_of_any_task(autojump_clock, monkeypatch):
    takes: list[Callable[[bytes], None]] = []

    async def keep(self: SecureEnd, handle: Callable[[bytes], None]) -> None:
        takes.append(handle)
        await trio.sleep_forever()

    monkeypatch.setattr(SecureEnd, "receive_each", keep)
    async with open_node(initiator=True) as (node, wire), trio.open_nursery() as nursery:
        stream = await node.open_stream()
        nursery.start_soon(stream.receive_each, stream.send_nowait)
        await wire.received()
        outside = _Outside(lambda: takes[0](encode(DATA, ACK, 1, body=b"back")))
        trio.lowlevel.add_instrument(outside)
        await wait_all_tasks_blocked(0.01)
        trio.lowlevel.remove_instrument(outside)
        assert outside.called
        assert await wire.received() == [Frame(DATA, 0, 1, 4, b"back")]
        nursery.cancel_scope.cancel()


# --- send_nowait


async def test_what_fits_leaves_at_once_in_order(autojump_clock):
    async with open_nodes(on_other=echo) as (one, _):
        stream = await one.open_stream()
        for number in range(3):
            writes = len(one.end.writes)
            assert stream.send_nowait(b"%d" % number)
            assert len(one.end.writes) == writes + 1
        await stream.send_eof()
        assert await read_all(stream) == b"012"


async def test_what_does_not_fit_the_window_is_not_taken_at_all(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        assert not stream.send_nowait(bytes(INITIAL_WINDOW + 1))
        assert stream.send_nowait(bytes(INITIAL_WINDOW))
        assert not stream.send_nowait(b"x")
        await wire.send(encode(WINDOW_UPDATE, ACK, 1, 1))
        assert stream.send_nowait(b"x")
        sizes = [frame.length for frame in await wire.received() if frame.kind == DATA]
        assert sum(sizes) == INITIAL_WINDOW + 1


async def test_nothing_is_taken_while_the_peer_is_slow_and_enough_waits(autojump_clock):
    async with open_node(initiator=True) as (node, _):
        node.end.gate = trio.Event()
        streams = [await node.open_stream() for _ in range(8)]
        taken = [stream.send_nowait(bytes(INITIAL_WINDOW // 2)) for stream in streams]
        await wait_all_tasks_blocked()
        assert taken[0]
        assert not taken[-1]
        assert node.connection._session.queued <= HIGH_WATER
        node.end.gate.set()
        await wait_all_tasks_blocked()
        assert streams[-1].send_nowait(b"x")


async def test_nothing_is_taken_while_another_task_sends(autojump_clock):
    async with open_node(initiator=True) as (node, wire), trio.open_nursery() as nursery:
        stream = await node.open_stream()
        nursery.start_soon(stream.send_all, bytes(INITIAL_WINDOW + 1))
        await wait_all_tasks_blocked()
        assert not stream.send_nowait(b"")
        await wire.send(encode(WINDOW_UPDATE, ACK, 1, 10))
        assert stream.send_nowait(b"")


async def test_a_dead_stream_takes_nothing_and_says_why(autojump_clock):
    async with open_nodes(on_other=wait) as (one, _):
        finished, reset, lost = [await one.open_stream() for _ in range(3)]
        await finished.send_eof()
        with pytest.raises(LocalProtocolError):
            finished.send_nowait(b"x")
        reset.reset()
        with pytest.raises(StreamReset):
            reset.send_nowait(b"x")
        await one.connection.aclose()
        with pytest.raises(ConnectionLost):
            lost.send_nowait(b"x")


async def test_a_stream_that_the_peer_opened_is_handled_the_same(autojump_clock):
    reader = Reader()
    async with open_node(reader.run) as (_, wire):
        await wire.send(encode(DATA, SYN, 1, body=b"first"))
        await wire.send(encode(DATA, FIN, 1, body=b"last"))
        assert (reader.got, reader.error) == ([b"first", b"last"], None)


async def test_who_watches_a_stream_is_told_once_that_it_was_reset(autojump_clock):
    async with open_node(initiator=True) as (node, wire):
        stream, told = await node.open_stream(), []
        stream.watch(lambda: told.append("over"))
        await wire.send(encode(DATA, ACK, 1, body=b"data"))
        assert not told
        await wire.send(encode(WINDOW_UPDATE, RST, 1))
        stream.reset()
        assert told == ["over"]


async def test_who_watches_a_stream_is_told_that_its_connection_is_lost(autojump_clock):
    async with open_node(initiator=True) as (node, _):
        streams, told = [await node.open_stream(), await node.open_stream()], []
        for stream in streams:
            stream.watch(lambda stream=stream: (told.append(stream.id), stream.reset()))
        await node.connection.aclose()
        assert told == [1, 3]
        streams[0].watch(lambda: told.append("at once"))
        assert told[-1] == "at once"
