from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from p2p.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from p2p.transport.websocket.outgoing import MAX_PIECE
from tests.byte_streams import cancel_at_each_await
from tests.transport.pipes import NarrowStream, narrow_pair
from tests.transport.websocket.test_session import BAD_REQUESTS, REQUEST
from tests.transport.websocket.world import layered, open_ends

both = pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])


async def receive_all(stream):
    received = bytearray()
    while data := await stream.receive_some():
        received += data
    return bytes(received)


async def receive_exactly(stream, size):
    received = bytearray(size)
    view = memoryview(received)
    while view:
        count = await stream.receive_into(view)
        assert count
        view = view[count:]
    return bytes(received)


async def echo(stream):
    while data := await stream.receive_some():
        await stream.send_all(data)


async def stranger() -> tuple[NarrowStream, Connection, object]:
    """A client's raw end after the handshake, its frames, and the server that it talks to."""
    near, far = narrow_pair()
    server = layered(far, client=False, secure=False)
    await near.send_all(REQUEST)
    await server.open()
    await near.receive_some()
    return near, Connection(ConnectionType.CLIENT), server


@both
@pytest.mark.parametrize("most", [7, 1000, 1 << 16])
async def test_bytes_pass_both_ways_through_the_narrowest_pipe(autojump_clock, secure, most):
    message = bytes(range(256)) * 40
    async with open_ends(secure=secure, capacity=max(most, 200), most=most) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, server)
            await client.open()
            nursery.start_soon(client.send_all, message)
            assert await receive_exactly(client, len(message)) == message
            await client.send_all(b"")
            await client.send_all(memoryview(b"more"))
            assert len(await client.receive_some(1)) == 1
            assert await receive_exactly(client, 3) == b"ore"
            nursery.cancel_scope.cancel()


@both
async def test_a_writer_that_never_waits_for_the_reader_loses_nothing(autojump_clock, secure):
    """What `EncryptedStream` does: `send_nowait` as far as it goes, then `wait_writable`."""
    message = bytes(range(251)) * 3000
    async with open_ends(secure=secure, capacity=5000, most=777) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.open)
            await client.open()

            async def write(stream):
                view = memoryview(message)
                while view:
                    if not (sent := stream.send_nowait(view[: 2 * MAX_PIECE + 1])):
                        await stream.wait_writable()
                    view = view[sent:]

            nursery.start_soon(write, client)
            nursery.start_soon(write, server)
            results = {}

            async def read(name, stream):
                results[name] = await receive_exactly(stream, len(message))

            async with trio.open_nursery() as readers:
                readers.start_soon(read, "client", client)
                readers.start_soon(read, "server", server)
        assert results == {"client": message, "server": message}


async def test_what_waits_is_pushed_out_by_the_byte_that_was_not_counted():
    near, far = narrow_pair(capacity=100)
    async with trio.open_nursery() as nursery:
        client, server = (layered(end, client=end is near, secure=False) for end in (near, far))
        near.out.capacity = far.out.capacity = 1000
        nursery.start_soon(server.open)
        await client.open()
    near.out.capacity = 100
    assert client.send_nowait(b"x" * 150) == 149
    assert client.send_nowait(b"x") == 0
    assert len(near.out.buffer) == 100
    assert await server.receive_some() == b"x" * (100 - 8)
    assert client.send_nowait(b"") == 0
    assert client.send_nowait(b"xy") == 2  # the x went with the others
    assert await receive_exactly(server, 59) == b"x" * 58 + b"y"
    await client.aclose()


async def test_after_a_cancelled_send_all_the_next_one_starts_afresh():
    near, far = narrow_pair()
    client, server = (layered(end, client=end is near, secure=False) for end in (near, far))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.open)
        await client.open()
    near.out.capacity = 10
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"a" * 50)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    near.out.capacity = 1000
    await client.send_all(b"abc")
    await client.aclose()
    assert await receive_all(server) == b"a" * 50 + b"abc"


@both
async def test_a_buffer_that_was_given_can_be_changed_at_once(secure):
    async with open_ends(secure=secure) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.open)
        await client.open()
        held = bytearray(b"hello world")
        del held[: client.send_nowait(held)]
        held += b"x"  # would be refused if a view of it were left
        assert await receive_exactly(server, 11) == b"hello world"


async def test_two_tasks_that_send_at_once_are_our_own_mistake():
    near, far = narrow_pair()
    server = layered(far, client=False, secure=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"first")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LocalProtocolError):
            await server.send_all(b"second")
        with pytest.raises(LocalProtocolError):
            server.send_nowait(b"second")
        await near.send_all(REQUEST)
    assert bytes(near.back.buffer).endswith(b"first")


@both
async def test_a_close_is_seen_as_the_end_and_answered(secure):
    async with open_ends(secure=secure) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"bye")
        assert await receive_exactly(client, 3) == b"bye"
        await server.aclose()
        await server.aclose()
        for _ in range(2):
            assert await client.receive_some() == b""
            assert await client.receive_into(memoryview(bytearray(5))) == 0
        with pytest.raises(ConnectionLost):
            client.send_nowait(b"x")
        with pytest.raises(ConnectionLost):
            await client.wait_writable()
        with pytest.raises(ConnectionLost):
            await client.send_all(b"x")
        with pytest.raises(ConnectionLost):
            await server.receive_some()


@both
async def test_each_piece_is_handled_until_the_goodbye(secure):
    async with open_ends(secure=secure) as (client, server), trio.open_nursery() as nursery:
        got = bytearray()
        nursery.start_soon(client.receive_each, got.extend)
        await server.send_all(bytes(200_000))
        await server.aclose()
    assert got == bytes(200_000)


async def test_an_end_without_goodbye_is_an_end_between_messages_only():
    near, frames, server = await stranger()
    await near.send_all(frames.send(BytesMessage(data=b"whole")))
    near.end()
    assert await receive_all(server) == b"whole"
    near, frames, server = await stranger()
    await near.send_all(frames.send(BytesMessage(data=b"part", message_finished=False)))
    near.end()
    assert await server.receive_some() == b"part"
    with pytest.raises(ConnectionLost, match="within a message"):
        await server.receive_some()


async def test_a_half_open_peer_can_still_be_written_to():
    near, _, server = await stranger()
    near.end()
    assert await server.receive_some() == b""
    await server.aclose()


async def test_a_peer_that_stopped_listening_is_still_read():
    near, frames, server = await stranger()
    await near.send_all(frames.send(Ping()) + frames.send(BytesMessage(data=b"last words")))
    await near.aclose()
    assert await server.receive_some() == b"last words"
    assert await server.receive_some() == b""


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("from_client", [False, True])
async def test_a_connection_that_breaks_at_any_byte_is_lost_or_over(autojump_clock, secure, from_client):
    """Never another error, never bytes that were not sent, and nobody waits for ever."""
    message = b"0123456789" * 3
    for position in range(1, 3000, 41) if secure else range(1, 260):
        async with open_ends(secure=secure) as (client, server):
            end = (client if from_client else server)._raw
            (end._raw if secure else end).out.left = position
            results: list[bytearray] = []

            async def run(stream, results=results):
                results.append(received := bytearray())
                with suppress(ConnectionLost):
                    await stream.send_all(message)
                    while len(received) < len(message) and (data := await stream.receive_some()):
                        received += data
                await stream.aclose()

            with trio.fail_after(1):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run, client)
                    nursery.start_soon(run, server)
            assert all(message.startswith(received) for received in results)
    assert results == [message, message]  # the last position is behind everything


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request_gets_its_answer_before_the_connection_closes(name):
    wire, status = BAD_REQUESTS[name]
    near, far = narrow_pair()
    server = layered(far, client=False, secure=False)
    await near.send_all(wire)
    with pytest.raises(RemoteProtocolError):
        await server.receive_some()
    await server.aclose()
    assert bytes(near.back.buffer).startswith(b"HTTP/1.1 %d " % status)


async def test_text_is_refused_with_a_close_frame():
    near, frames, server = await stranger()
    await near.send_all(frames.send(TextMessage(data="x")))
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="text"):
            await server.receive_some()
    frames.receive_data(await near.receive_some())
    assert [event.code for event in frames.events() if isinstance(event, CloseConnection)] == [1003]


async def test_a_ping_flood_from_a_peer_that_does_not_read_costs_one_pong():
    near, frames, server = await stranger()
    near.back.capacity = 5
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_all, server)
        for number in range(2000):
            await near.send_all(frames.send(Ping(payload=b"%04d" % number)))
        await trio.testing.wait_all_tasks_blocked()
        assert len(server._outgoing) < 10
        near.back.capacity = 1000
        near.back.buffer.clear()
        await near.send_all(frames.send(Ping(payload=b"last")))
        await trio.testing.wait_all_tasks_blocked()
        assert bytes(near.back.buffer).endswith(b"\x8a\x04last")
        assert len(near.back.buffer) < 40
        near.end()


async def test_a_stranger_that_says_nothing_costs_its_own_deadline_only(autojump_clock):
    near, far = narrow_pair()
    server = layered(far, client=False, secure=False)
    with trio.move_on_after(15) as scope:
        await server.receive_some()
    assert scope.cancelled_caught
    assert server.send_nowait(b"x") == 0
    await near.aclose()
    with pytest.raises(ConnectionLost, match="during the WebSocket handshake"):
        await server.wait_writable()


async def test_reader_and_writer_may_both_be_first(autojump_clock):
    async with open_ends(secure=True) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"hello")
        nursery.start_soon(server.receive_some)
        nursery.start_soon(client.send_all, b"hi")
        assert await receive_exactly(client, 5) == b"hello"


@both
async def test_a_cancelled_operation_leaves_the_connection_in_order(autojump_clock, secure):
    message = bytes(range(256)) * 4

    @asynccontextmanager
    async def world():
        async with open_ends(secure=secure, capacity=300) as (client, server):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo, server)

                async def operation():
                    await client.open()
                    await client.wait_writable()
                    await client.receive_some()

                yield operation
                got = bytearray()
                nursery.start_soon(client.send_all, message)
                got += await receive_exactly(client, len(message))
                assert bytes(got) == message
                nursery.cancel_scope.cancel()

    assert await cancel_at_each_await_until_blocked(world) > 3


async def cancel_at_each_await_until_blocked(world):
    """As `cancel_at_each_await`, for an operation whose last await never returns by itself."""

    @asynccontextmanager
    async def bounded():
        async with world() as operation:

            async def limited():
                with trio.move_on_after(1):
                    await operation()

            yield limited

    return await cancel_at_each_await(bounded)


@both
async def test_a_cancelled_send_or_close_leaves_no_half_frame_before_a_whole_one(autojump_clock, secure):
    @asynccontextmanager
    async def world():
        async with open_ends(secure=secure, capacity=400) as (client, server):
            async with trio.open_nursery() as nursery:
                received = bytearray()

                @nursery.start_soon
                async def read():
                    try:
                        while data := await server.receive_some():
                            received.extend(data)
                    except ConnectionLost:
                        pass

                async def operation():
                    await client.send_all(b"a" * 3000)
                    await client.aclose()

                yield operation
                await client.aclose()
            assert received == b"a" * len(received)

    assert await cancel_at_each_await(world) > 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3000), max_size=6), st.integers(1, 500), st.booleans())
def test_any_writes_arrive_whole_through_any_pipe(sizes, most, secure):
    message = b"".join(bytes([index]) * size for index, size in enumerate(sizes))

    async def main():
        async with open_ends(secure=secure, capacity=600, most=most) as (client, server):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def write():
                    rest = memoryview(message)
                    for size in sizes:
                        await client.send_all(rest[:size])
                        rest = rest[size:]

                assert await receive_exactly(server, len(message)) == message

    trio.run(main)
