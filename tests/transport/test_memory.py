from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from p2p.address import parse_address
from p2p.errors import AddressInUse, ConnectionLost, LocalProtocolError
from p2p.scope import open_scope
from p2p.stream import ByteStream
from p2p.transport import MemoryNetwork, MemoryTransport
from p2p.transport.memory import PIPE_SIZE, memory_stream_pair
from tests.byte_streams import cancel_at_each_await

ONE = parse_address("/memory/1")


async def test_bytes_pass_both_ways_and_the_end_is_seen():
    transport = MemoryTransport(MemoryNetwork())
    listener = await transport.listen(ONE)
    dialed: ByteStream = await transport.dial(ONE)
    accepted, remote = await listener.accept()
    assert str(remote).startswith("/memory/")
    await dialed.send_all(b"hello")
    await dialed.send_all(b"")
    assert await accepted.receive_some(2) == b"he"
    assert await accepted.receive_some() == b"llo"
    await accepted.send_all(b"back")
    buffer = bytearray(8)
    assert await dialed.receive_into(memoryview(buffer)[:3]) == 3
    assert await dialed.receive_into(memoryview(buffer)[3:]) == 1
    assert buffer == b"back" + bytes(4)
    await dialed.send_all(b"bye")
    await dialed.aclose()
    assert await accepted.receive_some() == b"bye"
    assert await accepted.receive_some() == b""
    assert await accepted.receive_into(memoryview(buffer)) == 0
    for use in (accepted.send_all, dialed.send_all):
        with pytest.raises(ConnectionLost):
            await use(b"x")
    for end in (accepted, dialed):
        with pytest.raises(ConnectionLost):
            end.send_nowait(b"x")
        with pytest.raises(ConnectionLost):
            await end.wait_writable()
    with pytest.raises(ConnectionLost):
        await dialed.receive_some()
    with pytest.raises(ConnectionLost):
        await dialed.receive_into(memoryview(buffer))
    await dialed.aclose()


async def test_a_slow_reader_holds_the_sender_back(autojump_clock):
    one, other = memory_stream_pair()
    with trio.move_on_after(1) as scope:
        await one.send_all(bytes(PIPE_SIZE + 1))
    assert scope.cancelled_caught
    assert one.send_nowait(b"x") == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.wait_writable)
        await trio.testing.wait_all_tasks_blocked()
        assert await other.receive_some(3) == bytes(3)
    assert one.send_nowait(b"12345") == 3
    assert await other.receive_some() == bytes(PIPE_SIZE - 3) + b"123"


async def test_closing_either_end_wakes_who_waits(autojump_clock):
    for closing, end in ((0, b""), (1, None)):
        ends = memory_stream_pair(4)

        async def read(stream=ends[1], end=end):
            if end is None:
                with pytest.raises(ConnectionLost):
                    await stream.receive_some()
            else:
                assert await stream.receive_some() == end

        async def write(stream=ends[1]):
            with pytest.raises(ConnectionLost):
                await stream.send_all(b"12345")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            await ends[closing].aclose()


async def test_two_senders_at_once_are_our_own_error(autojump_clock):
    one, _ = memory_stream_pair(1)
    async with open_scope() as scope:
        scope.start_soon(one.send_all, b"12")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LocalProtocolError):
            await one.send_all(b"x")
        with pytest.raises(LocalProtocolError):
            one.send_nowait(b"x")


async def test_an_address_belongs_to_one_listener():
    transport = MemoryTransport(MemoryNetwork())
    listener = await transport.listen(ONE)
    with pytest.raises(AddressInUse):
        await transport.listen(ONE)
    await listener.aclose()
    second = await transport.listen(ONE)
    await listener.aclose()  # the address is another's by now
    await (await transport.dial(ONE)).aclose()
    await second.aclose()
    free = await transport.listen(parse_address("/memory/0"))
    assert free.addresses != [parse_address("/memory/0")]


async def test_nobody_listening_refuses():
    transport = MemoryTransport(MemoryNetwork())
    assert transport.can_dial(ONE)
    assert not transport.can_dial(parse_address("/ip4/127.0.0.1/tcp/1"))
    with pytest.raises(ConnectionLost, match="refused"):
        await transport.dial(ONE)
    listener = await transport.listen(ONE)
    waiting = await transport.dial(ONE)
    await listener.aclose()
    with pytest.raises(ConnectionLost):
        await listener.accept()
    assert await waiting.receive_some() == b""


async def test_each_await_of_a_stream_can_be_cancelled(autojump_clock):
    @asynccontextmanager
    async def world():
        one, other = memory_stream_pair(4)
        got = bytearray()
        buffer = memoryview(bytearray(2))

        async def use():
            one.send_nowait(b"1234")
            await one.wait_writable()
            await one.send_all(b"56")
            while len(got) < 8:
                got.extend(await one.receive_some(1))
                got.extend(buffer[: await one.receive_into(buffer[:1])])
            await one.aclose()

        async def drain():
            while await other.receive_some(1):
                pass

        async with open_scope() as scope:
            scope.start_soon(drain)
            scope.start_soon(other.send_all, b"abcdefgh")
            yield use
            while len(got) < 8:  # what a cancelled read did not take is still there
                got.extend(await one.receive_some(1))
        assert got == b"abcdefgh"

    assert await cancel_at_each_await(world) >= 10


async def test_dialing_listening_and_accepting_can_be_cancelled_at_each_await(autojump_clock):
    @asynccontextmanager
    async def world():
        network = MemoryNetwork()
        transport = MemoryTransport(network)

        async def use():
            listener = await transport.listen(ONE)
            dialed = await transport.dial(ONE)
            accepted, _ = await listener.accept()
            for resource in (dialed, accepted, listener):
                await resource.aclose()

        yield use
        for address in list(network.listeners):
            assert address == ONE

    assert await cancel_at_each_await(world) >= 6


async def test_each_piece_is_handled_until_the_end_and_makes_room(autojump_clock):
    one, other = memory_stream_pair(4)
    got = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.receive_each, got.extend)
        await one.send_all(b"0123456789")
        await trio.testing.wait_all_tasks_blocked()
        assert got == b"0123456789"
        one.send_nowait(b"last")
        await one.aclose()
    assert got == b"0123456789last"
    await other.receive_each(got.extend)
    await other.aclose()
    with pytest.raises(ConnectionLost):
        await other.receive_each(got.extend)


async def test_closing_wakes_whoever_handles_each_piece(autojump_clock):
    one, _ = memory_stream_pair()

    async def read() -> None:
        with pytest.raises(ConnectionLost):
            await one.receive_each(lambda data: None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        one.close()


async def test_a_piece_that_answers_itself_lets_others_run(autojump_clock):
    one, other = memory_stream_pair()

    def send_again(data: memoryview) -> None:
        one.send_nowait(bytes(len(data)))

    async with trio.open_nursery() as nursery:
        one.send_nowait(bytes(1 << 16))
        nursery.start_soon(other.receive_each, send_again)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_a_second_task_may_not_wait_for_the_same(autojump_clock):
    one, _ = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LocalProtocolError):
            await one.receive_some()
        nursery.cancel_scope.cancel()
