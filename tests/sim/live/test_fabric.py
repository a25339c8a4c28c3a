"""Connections between simulated nodes: bytes in order, each once, and every way in which they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.errors import AddressInUse, ConnectionLost, InvalidAddress
from sim.live.fabric import BACKLOG, CAPACITY, PACKET, Endpoint
from tests.byte_streams import cancel_at_each_await
from tests.sim.live.support import LATENCY, World, simulated


async def read(endpoint: Endpoint, until: int | None = None) -> bytes:
    """What comes: `until` bytes, or all up to the end."""
    data = b""
    while until is None or len(data) < until:
        piece = await endpoint.receive_some(None if until is None else until - len(data))
        if not piece:
            break
        data += piece
    return data


class Reader:
    """A task in `receive_each`: what it got, and how it ended."""

    def __init__(self, endpoint: Endpoint, nursery: trio.Nursery, poison: bytes = b"poison") -> None:
        self.endpoint, self.poison = endpoint, poison
        self.got: list[bytes] = []
        self.ended = trio.Event()
        self.error: Exception | None = None
        nursery.start_soon(self.run)

    def handle(self, data: bytes) -> None:
        self.got.append(bytes(data))
        if data == self.poison:
            raise KeyError("poison")

    async def run(self) -> None:
        try:
            await self.endpoint.receive_each(self.handle)
        except Exception as exc:
            self.error = exc
        self.ended.set()


# Data


@simulated()
async def test_a_connection_takes_a_round_trip_and_a_piece_half_of_one(world: World) -> None:
    near, far = await world.connect()
    assert trio.current_time() == pytest.approx(2 * LATENCY)
    await near.send_all(b"hello")
    assert await far.receive_some() == b"hello"
    assert trio.current_time() == pytest.approx(3 * LATENCY)
    assert world.frames[-1][1:4] == (0, 1, 5)


@settings(max_examples=25)
@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=12),
    st.lists(st.integers(1, 400), min_size=1, max_size=6),
    st.floats(0, 0.3),
)
def test_bytes_arrive_in_order_and_once_however_they_are_cut(
    pieces: list[bytes], sizes: list[int], loss: float
) -> None:
    world = World(jitter=5.0, loss=loss)

    async def main() -> None:
        near, far = await world.connect()
        got, turn = b"", 0
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for piece in pieces:
                    await near.send_all(piece)
                await near.aclose()

            nursery.start_soon(send)
            while data := await far.receive_some(sizes[turn % len(sizes)]):
                assert len(data) <= sizes[turn % len(sizes)]
                got, turn = got + data, turn + 1
        assert got == b"".join(pieces)
        assert far.twin.room == CAPACITY

    world.run(main)


@simulated()
async def test_a_buffer_is_filled_from_its_beginning(world: World) -> None:
    near, far = await world.connect()
    await near.send_all(b"abcdef")
    buffer = bytearray(b"........")
    assert await far.receive_into(memoryview(buffer)[:4]) == 4
    assert await far.receive_into(memoryview(buffer)[4:]) == 2
    assert buffer == b"abcdef.."
    await near.aclose()
    assert await far.receive_into(memoryview(buffer)) == 0


@simulated()
async def test_a_sender_waits_when_the_capacity_is_used_up(world: World) -> None:
    near, far = await world.connect()
    assert near.send_nowait(bytes(CAPACITY + 10)) == CAPACITY
    assert near.send_nowait(b"x") == near.room == 0
    with trio.move_on_after(100) as scope:
        await near.wait_writable()
    assert scope.cancelled_caught
    assert len(await read(far, CAPACITY // 2)) == CAPACITY // 2
    await near.wait_writable()
    assert near.send_nowait(bytes(CAPACITY)) == CAPACITY // 2


@simulated()
async def test_what_counts_more_than_there_is_room_is_sent_all_the_same_but_nothing_behind_it(
    world: World,
) -> None:
    near, far = await world.connect()
    near.post(b"frame", CAPACITY + 5)
    assert near.room == -5
    assert near.send_nowait(b"0123456789") == 0
    assert await far.receive_some() == b"frame"
    assert near.send_nowait(b"0123456789") == 10


@simulated()
async def test_a_large_write_goes_through_as_it_is_read(world: World) -> None:
    near, far = await world.connect()
    data = bytes(range(256)) * (3 * CAPACITY // 256)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, data)
        assert await read(far, len(data)) == data


# receive_each


@simulated()
async def test_what_came_and_what_comes_is_handled_in_order_until_the_end(world: World) -> None:
    near, far = await world.connect()
    await near.send_all(b"one")
    await near.send_all(b"two")
    await trio.sleep(1)
    async with trio.open_nursery() as nursery:
        reader = Reader(far, nursery)
        await trio.sleep(1)
        assert reader.got == [b"one", b"two"]
        await near.send_all(b"three")
        await near.aclose()
        await reader.ended.wait()
    assert (reader.got[2:], reader.error) == ([b"three"], None)
    assert near.room == CAPACITY


@simulated()
async def test_an_error_of_a_handler_reaches_who_reads_and_what_came_behind_is_kept(world: World) -> None:
    near, far = await world.connect()
    async with trio.open_nursery() as nursery:
        reader = Reader(far, nursery)
        for piece in (b"good", b"poison", b"behind"):
            await near.send_all(piece)
        await trio.sleep(1)
        assert isinstance(reader.error, KeyError)
        assert reader.got == [b"good", b"poison"]
        await near.send_all(b"last")  # the connection goes on
        await near.aclose()
        again = Reader(far, nursery)
        await again.ended.wait()
        assert (again.got, again.error) == ([b"behind", b"last"], None)


@simulated()
async def test_an_error_of_a_handler_over_what_waited_already_is_raised_too(world: World) -> None:
    near, far = await world.connect()
    await near.send_all(b"poison")
    await near.send_all(b"behind")
    await trio.sleep(1)
    async with trio.open_nursery() as nursery:
        reader = Reader(far, nursery)
    assert isinstance(reader.error, KeyError)
    assert await far.receive_some() == b"behind"


@simulated()
async def test_wherever_a_reader_is_cancelled_nothing_is_lost(world: World) -> None:
    await _cancel(world, lambda far, got: far.receive_each(got.append))


@simulated()
async def test_wherever_a_single_read_is_cancelled_nothing_is_lost(world: World) -> None:
    async def receive(far: Endpoint, got: list[bytes]) -> None:
        while data := await far.receive_some(2):
            got.append(data)

    await _cancel(world, receive)


async def _cancel(world: World, receive: Callable[[Endpoint, list[bytes]], Awaitable[None]]) -> None:
    @asynccontextmanager
    async def one_world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        near, far = await world.connect()
        got: list[bytes] = []
        near.send_nowait(b"one")
        await trio.sleep(1)
        near.send_nowait(b"two")
        world.at(1, near.send_nowait, b"three")
        world.at(2, near.close)
        yield lambda: receive(far, got)
        await receive(far, got)
        assert b"".join(got) == b"onetwothree"

    assert await cancel_at_each_await(one_world) > 1


@simulated()
async def test_wherever_a_writer_is_cancelled_the_connection_counts_right(world: World) -> None:
    @asynccontextmanager
    async def one_world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        near, far = await world.connect()
        near.send_nowait(bytes(CAPACITY))
        got: list[bytes] = []

        async def receive() -> None:
            await trio.sleep(1)
            await far.receive_each(got.append)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            yield lambda: near.send_all(b"behind")
            await near.aclose()
        assert len(b"".join(got)) in (CAPACITY, CAPACITY + 6)
        assert near.room == CAPACITY

    assert await cancel_at_each_await(one_world) > 1


# Slow readers


@simulated()
async def test_a_node_that_reads_nothing_gets_all_of_it_in_order_when_it_reads_again(world: World) -> None:
    near, far = await world.connect()
    second, third = await world.connect(0, 1)
    async with trio.open_nursery() as nursery:
        reader = Reader(far, nursery)
        await trio.sleep(1)
        fault = world.network.begin_slow_reader([1])
        for number in range(5):
            await near.send_all(b"%d" % number)
        await second.send_all(b"single")
        with trio.move_on_after(10) as scope:
            await third.receive_some()
        assert scope.cancelled_caught
        assert reader.got == []
        assert near.room == CAPACITY - 5  # in flight, or in the node's buffers
        world.network.end(fault)
        assert await third.receive_some() == b"single"
        await trio.sleep(1)
        assert reader.got == [b"0", b"1", b"2", b"3", b"4"]
        assert near.room == CAPACITY
        nursery.cancel_scope.cancel()


@simulated()
async def test_the_end_of_a_connection_waits_behind_what_a_slow_reader_has_not_read(world: World) -> None:
    near, far = await world.connect()
    async with trio.open_nursery() as nursery:
        reader = Reader(far, nursery)
        await trio.sleep(1)
        fault = world.network.begin_slow_reader([1])
        await near.send_all(b"last words")
        await near.aclose()
        await trio.sleep(5)
        assert not reader.ended.is_set()
        world.network.end(fault)
        await reader.ended.wait()
        assert (reader.got, reader.error) == ([b"last words"], None)


@simulated()
async def test_a_slow_reader_whose_task_is_gone_when_it_reads_again_does_no_harm(world: World) -> None:
    near, far = await world.connect()
    fault = world.network.begin_slow_reader([1])
    with trio.move_on_after(1):
        await near.send_all(b"kept")
        await far.receive_each(lambda data: None)
    world.network.end(fault)
    assert await far.receive_some() == b"kept"


# How connections end


@simulated()
async def test_the_end_comes_behind_the_data_and_stays(world: World) -> None:
    near, far = await world.connect()
    await near.send_all(b"data")
    await near.aclose()
    await near.aclose()
    assert [await far.receive_some() for _ in range(3)] == [b"data", b"", b""]
    with pytest.raises(ConnectionLost):
        near.send_nowait(b"x")
    with pytest.raises(ConnectionLost):
        await near.receive_some()
    await far.aclose()
    assert world.fabric.endpoints == [{}, {}, {}]


@simulated()
async def test_who_writes_to_a_closed_connection_learns_it(world: World) -> None:
    near, far = await world.connect()
    near.send_nowait(bytes(CAPACITY))
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(ConnectionLost, match="closed by the other end"):
                await near.wait_writable()

        nursery.start_soon(wait)
        await trio.sleep(1)
        await far.aclose()  # and never reads the mebibyte
    with pytest.raises(ConnectionLost):
        near.send_nowait(b"x")


@simulated()
async def test_what_is_on_its_way_to_a_closed_end_is_dropped(world: World) -> None:
    near, far = await world.connect()
    near.send_nowait(b"late")
    await far.aclose()
    await trio.sleep(1)
    with pytest.raises(ConnectionLost):
        await far.receive_some()


@simulated()
async def test_closing_ends_our_own_reader(world: World) -> None:
    _, far = await world.connect()
    async with trio.open_nursery() as nursery:
        reader = Reader(far, nursery)
        await trio.sleep(1)
        await far.aclose()
    assert isinstance(reader.error, ConnectionLost)


@simulated()
async def test_a_reset_reaches_both_ends_and_drops_what_was_not_read(world: World) -> None:
    near, far = await world.connect()
    other, _ = await world.connect(0, 2)
    await near.send_all(b"lost")
    await trio.sleep(1)
    world.fabric.reset(0, 1)
    for endpoint in (near, far):
        with pytest.raises(ConnectionLost, match="was reset"):
            await endpoint.receive_some()
        with pytest.raises(ConnectionLost, match="was reset"):
            await endpoint.send_all(b"x")
        with pytest.raises(ConnectionLost, match="was reset"):
            await endpoint.receive_each(lambda data: None)
        await endpoint.aclose()
    assert other.send_nowait(b"x") == 1


@simulated()
async def test_a_crash_tells_the_other_end_behind_what_was_sent(world: World) -> None:
    near, far = await world.connect()
    async with trio.open_nursery() as nursery:
        reader = Reader(far, nursery)
        await trio.sleep(1)
        near.send_nowait(b"last words")
        world.fabric.crash(0, silently=False)
        await reader.ended.wait()
    assert reader.got == [b"last words"]
    assert isinstance(reader.error, ConnectionLost)
    assert near.dead


@simulated()
async def test_a_crash_without_power_tells_nobody_until_the_node_is_back(world: World) -> None:
    _, far = await world.connect()
    async with trio.open_nursery() as nursery:
        reader = Reader(far, nursery)
        world.fabric.crash(0, silently=True)
        await trio.sleep(100)
        far.send_nowait(b"anybody?")
        await trio.sleep(100)
        assert not reader.ended.is_set()
        world.fabric.start(0)
        await trio.sleep(100)
        assert not reader.ended.is_set()
        far.send_nowait(b"anybody?")
        await reader.ended.wait()
    assert isinstance(reader.error, ConnectionLost)
    assert "reset by the peer" in str(reader.error)
    assert trio.current_time() == pytest.approx(300 + 2 * LATENCY + 2 * LATENCY)


@simulated()
async def test_nothing_that_a_dead_process_still_does_gets_out(world: World) -> None:
    near, far = await world.connect()
    world.fabric.crash(0, silently=True)
    near.post(b"frame", 5)
    with pytest.raises(ConnectionLost):
        near.send_nowait(b"x")
    await near.aclose()
    with trio.move_on_after(1000) as scope:
        await far.receive_some()
    assert scope.cancelled_caught


@simulated()
async def test_the_end_of_a_connection_to_a_dead_process_harms_nobody(world: World) -> None:
    near, far = await world.connect()
    world.fabric.crash(0, silently=True)
    await far.aclose()
    await trio.sleep(1)
    assert near.dead


@simulated()
async def test_a_partition_keeps_what_is_sent_until_it_ends(world: World) -> None:
    near, far = await world.connect()
    fault = world.network.begin_partition([0])
    near.send_nowait(b"kept")
    with trio.move_on_after(60) as scope:
        await far.receive_some()
    assert scope.cancelled_caught
    world.network.end(fault)
    assert await far.receive_some() == b"kept"


# Dialing and listening


@simulated()
async def test_a_dial_to_nobody_is_refused_after_a_round_trip(world: World) -> None:
    transport = world.transport(0)
    with pytest.raises(ConnectionLost, match="refused"):
        await transport.dial(world.fabric.address(1))
    assert trio.current_time() == pytest.approx(2 * LATENCY)
    with pytest.raises(ConnectionLost, match="no such node"):
        await transport.dial(world.fabric.address(1, port=9))
    assert transport.can_dial(world.fabric.address(2))
    assert not transport.can_dial(world.fabric.address(2, port=9))


@simulated()
async def test_a_dial_to_a_node_without_power_has_no_answer(world: World) -> None:
    world.fabric.crash(1, silently=True)
    with trio.move_on_after(1000) as scope:
        await world.transport(0).dial(world.fabric.address(1))
    assert scope.cancelled_caught


@simulated(nat=[{"kind": "symmetric", "share": 0.99}])
async def test_a_dial_to_a_node_behind_a_nat_has_no_answer(world: World) -> None:
    await world.transport(1).listen(world.fabric.address(1))
    with trio.move_on_after(1000) as scope:
        await world.transport(0).dial(world.fabric.address(1))
    assert scope.cancelled_caught


@simulated()
async def test_a_dial_that_was_given_up_leaves_nothing_behind(world: World) -> None:
    listener = await world.transport(1).listen(world.fabric.address(1))
    with trio.move_on_after(LATENCY / 2):  # before the SYN arrives
        await world.transport(0).dial(world.fabric.address(1))
    with trio.move_on_after(1.5 * LATENCY):  # behind it
        await world.transport(0).dial(world.fabric.address(1))
    far, _ = await listener.accept()
    assert await far.receive_some() == b""
    await far.aclose()
    await listener.aclose()
    await trio.sleep(1)
    assert world.fabric.endpoints == [{}, {}, {}]
    assert all(size == PACKET for *_, size, _ in world.frames)


@simulated()
async def test_a_node_that_crashes_between_the_packets_of_a_dial_leaves_nothing_behind(world: World) -> None:
    for crashed in (0, 1):
        listener = await world.transport(1).listen(world.fabric.address(1))
        world.at(1.5 * LATENCY, lambda node=crashed: world.fabric.crash(node, silently=False))
        if crashed:
            near = await world.transport(0).dial(world.fabric.address(1))
            with pytest.raises(ConnectionLost, match="reset by the peer"):
                await near.receive_some()
        else:
            with trio.move_on_after(1.4 * LATENCY):
                await world.transport(0).dial(world.fabric.address(1))
            far, _ = await listener.accept()
            with pytest.raises(ConnectionLost):
                await far.receive_some()
            await listener.aclose()
        await trio.sleep(1)
        assert world.fabric.endpoints == [{}, {}, {}]


@simulated(nodes=2)
async def test_connections_over_the_backlog_are_refused(world: World) -> None:
    listener = await world.transport(1).listen(world.fabric.address(1))
    outcomes: list[str] = []

    async def dial() -> None:
        try:
            await world.transport(0).dial(world.fabric.address(1))
            outcomes.append("made")
        except ConnectionLost:
            outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        for _ in range(BACKLOG + 3):
            nursery.start_soon(dial)
    assert (outcomes.count("made"), outcomes.count("refused")) == (BACKLOG, 3)
    await listener.aclose()  # and with it what nobody accepted
    await trio.sleep(1)
    assert world.fabric.endpoints[1] == {}


@simulated()
async def test_a_closed_listener_tells_who_accepts_and_frees_the_address(world: World) -> None:
    transport, address = world.transport(1), world.fabric.address(1)
    listener = await transport.listen(address)
    assert listener.addresses == [address]
    with pytest.raises(AddressInUse):
        await transport.listen(address)
    with pytest.raises(InvalidAddress):
        await transport.listen(world.fabric.address(2))
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(ConnectionLost, match="listener is closed"):
                await listener.accept()

        nursery.start_soon(accept)
        await trio.sleep(1)
        await listener.aclose()
        await listener.aclose()
    again = await transport.listen(address)
    await listener.aclose()  # the old one takes nothing from the new one
    assert world.fabric.listeners[1] is again
