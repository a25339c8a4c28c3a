from __future__ import annotations

import ssl
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from p2p.errors import AuthenticationFailed, ConnectionLost, InvalidAddress, RemoteProtocolError
from p2p.transport.websocket import tls_layer
from p2p.transport.websocket.tls_layer import TlsLayer
from tests.byte_streams import cancel_at_each_await
from tests.transport.pipes import narrow_pair
from tests.transport.websocket.world import NAME, contexts


@asynccontextmanager
async def open_layers(*, capacity=1 << 16, most=1 << 16, name=NAME, client_context=None):
    """(client, server, the server's raw end), before the handshake."""
    near, far = narrow_pair(capacity=capacity, most=most)
    client = TlsLayer(near, client_context or contexts()[0], name)
    server = TlsLayer(far, contexts()[1])
    try:
        yield client, server, far
    finally:
        with trio.CancelScope(shield=True):
            await client.aclose()
            await server.aclose()


async def test_bytes_pass_both_ways_and_a_goodbye_is_the_end():
    async with open_layers() as (client, server, _), trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"x" * 40_000)
        buffer = memoryview(bytearray(100_000))
        received = 0
        while received < 40_000:
            received += await client.receive_into(buffer[received:])
        assert bytes(buffer[:received]) == b"x" * 40_000
        await client.send_all(b"hello")
        assert bytes(await server.receive_some(2)) == b"he"
        assert bytes(await server.receive_some()) == b"llo"
        await client.aclose()
        assert await server.receive_some() == b""


async def test_each_piece_is_handled_until_the_goodbye():
    async with open_layers() as (client, server, _), trio.open_nursery() as nursery:
        got = bytearray()
        nursery.start_soon(server.receive_each, got.extend)
        await client.send_all(b"x" * 40_000)
        await client.aclose()
    assert got == b"x" * 40_000


async def test_what_came_before_the_goodbye_is_read_first():
    async with open_layers() as (client, server, _), trio.open_nursery() as nursery:
        nursery.start_soon(server.open)
        await client.send_all(b"last words")
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await server.receive_into(memoryview(bytearray(100))) == 10
        assert await server.receive_some() == b""


@pytest.mark.parametrize("name", ["other.org", "127.0.0.2"])
async def test_a_certificate_of_another_name_is_refused(name):
    async with open_layers(name=name) as (client, server, _), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve():
            with pytest.raises(RemoteProtocolError, match="ALERT"):
                await server.receive_some()

        with pytest.raises(AuthenticationFailed, match=r"certificate refused: .*mismatch"):
            await client.open()


async def test_an_authority_that_the_system_does_not_know_is_refused():
    async with open_layers(client_context=ssl.create_default_context()) as (client, server, _):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def serve():
                with pytest.raises(RemoteProtocolError):
                    await server.receive_some()

            with pytest.raises(AuthenticationFailed, match="unable to get local issuer"):
                await client.wait_writable()


@pytest.mark.parametrize("wire", [b"GET / HTTP/1.1\r\n\r\n", b"\x13/multistream/1.0.0\n"])
async def test_what_is_not_tls_is_refused(wire):
    near, far = narrow_pair()
    server = TlsLayer(far, contexts()[1])
    await near.send_all(wire)
    with pytest.raises(RemoteProtocolError, match="TLS"):
        await server.receive_some()
    await server.aclose()


async def test_changed_bytes_end_the_connection():
    async with open_layers() as (client, server, far), trio.open_nursery() as nursery:
        nursery.start_soon(server.open)
        await client.open()
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(b"hello")
        far.back.buffer[-1] ^= 1
        with pytest.raises(RemoteProtocolError, match="TLS"):
            await server.receive_some()
        with pytest.raises(ConnectionLost):
            await server.send_all(b"x")


@pytest.mark.parametrize("during_handshake", [False, True])
async def test_an_end_without_goodbye_cuts_something_off(during_handshake):
    async with open_layers() as (client, server, far), trio.open_nursery() as nursery:
        if not during_handshake:
            nursery.start_soon(server.open)
            await client.open()
            await trio.testing.wait_all_tasks_blocked()
        far.back.ended = True
        with pytest.raises(ConnectionLost, match="without TLS's goodbye"):
            await server.receive_some()


async def test_a_name_that_tls_cannot_use_is_our_own_mistake():
    with pytest.raises(InvalidAddress, match="not a host"):
        TlsLayer(narrow_pair()[0], contexts()[0], ".example.org")


async def test_answers_that_a_peer_leaves_unread_are_bounded(monkeypatch):
    monkeypatch.setattr(tls_layer, "MAX_UNREAD", 100)
    async with open_layers() as (client, server, far), trio.open_nursery() as nursery:
        nursery.start_soon(server.open)
        await client.open()
        await trio.testing.wait_all_tasks_blocked()
        far.out.capacity = 0
        server._outgoing.append(b"x" * 101)  # as a flood of key updates makes OpenSSL answer
        await client.send_all(b"hello")
        with pytest.raises(RemoteProtocolError, match="unread"):
            await server.receive_some()


async def test_a_handshake_can_be_cancelled_anywhere_and_taken_up_again(autojump_clock):
    @asynccontextmanager
    async def world():
        async with open_layers(capacity=200, most=150) as (client, server, _), trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, b"hello")

            async def operation():
                await client.open()
                await client.wait_writable()

            yield operation
            received = b""
            while len(received) < 5:
                received += await client.receive_some()
            assert received == b"hello"

    assert await cancel_at_each_await(world) > 5


async def test_a_send_can_be_cancelled_anywhere(autojump_clock):
    @asynccontextmanager
    async def world():
        async with open_layers(capacity=900, most=500) as (client, server, _), trio.open_nursery() as nursery:
            received = bytearray()

            @nursery.start_soon
            async def read():
                with suppress(ConnectionLost):
                    while data := await server.receive_some():
                        received.extend(data)

            async def operation():
                await client.send_all(b"a" * 5000)

            yield operation
            await client.send_all(b"b")
            await client.aclose()
            nursery.cancel_scope.deadline = trio.current_time() + 1
        assert received.rstrip(b"b") == b"a" * (len(received) - received.count(b"b"))

    assert await cancel_at_each_await(world) > 5
