from __future__ import annotations

import errno
import gc
import socket
import struct
from contextlib import asynccontextmanager

import pytest
import trio

from p2p.address import parse_address
from p2p.errors import AddressInUse, ConnectionLost, InvalidAddress, LocalProtocolError
from p2p.scope import close_forcefully, open_scope
from p2p.stream import ByteStream
from p2p.transport import TcpTransport
from p2p.transport.tcp import TcpStream, _reachable
from p2p.turns import TURN
from tests.byte_streams import cancel_at_each_await

LOOPBACK = parse_address("/ip4/127.0.0.1/tcp/0")


@asynccontextmanager
async def open_pair():
    """The dialed and the accepted end of a connection."""
    transport = TcpTransport()
    listener = await transport.listen(LOOPBACK)
    dialed = await transport.dial(listener.addresses[0])
    accepted, _ = await listener.accept()
    await listener.aclose()
    try:
        yield dialed, accepted
    finally:
        await close_forcefully_all(dialed, accepted)


async def close_forcefully_all(*resources):
    for resource in resources:
        await close_forcefully(resource)


def fill(stream):
    """Sends until the kernel takes no more; how many bytes that were."""
    total = 0
    while size := stream.send_nowait(bytes(1 << 20)):
        total += size
    return total


async def test_bytes_pass_both_ways_and_the_end_is_seen():
    transport = TcpTransport()
    listener = await transport.listen(LOOPBACK)
    dialed: ByteStream = await transport.dial(listener.addresses[0])
    accepted, remote = await listener.accept()
    assert str(remote).startswith("/ip4/127.0.0.1/tcp/")
    await dialed.send_all(b"hello")
    await dialed.send_all(b"")
    assert await accepted.receive_some(2) == b"he"
    assert await accepted.receive_some() == b"llo"
    await accepted.send_all(b"back")
    buffer = memoryview(bytearray(8))
    assert await dialed.receive_into(buffer[:3]) == 3
    assert await dialed.receive_into(buffer[3:]) == 1
    assert buffer == b"back" + bytes(4)
    await dialed.aclose()
    assert await accepted.receive_some() == b""
    assert await accepted.receive_into(buffer) == 0
    for attempt in (dialed.receive_some, dialed.wait_writable):
        with pytest.raises(ConnectionLost, match="this side"):
            await attempt()
    with pytest.raises(ConnectionLost, match="this side"):
        await dialed.receive_into(buffer)
    with pytest.raises(ConnectionLost, match="this side"):
        await dialed.send_all(b"x")
    with pytest.raises(ConnectionLost, match="this side"):
        dialed.send_nowait(b"x")
    await dialed.aclose()
    await accepted.aclose()
    await listener.aclose()
    await listener.aclose()
    with pytest.raises(ConnectionLost):
        await listener.accept()


async def test_small_writes_leave_at_once():
    async with open_pair() as ends:
        for end in ends:
            assert end._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_slow_reader_holds_the_sender_back_and_nothing_is_lost():
    async with open_pair() as (one, other):
        sent = fill(one)
        assert one.send_nowait(b"x") == 0

        async def send():
            await one.wait_writable()
            await one.send_all(bytes(3 << 20) + b"end")
            await one.aclose()

        received, last = 0, b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while data := await other.receive_some():
                received, last = received + len(data), data
        assert received == sent + (3 << 20) + 3
        assert last.endswith(b"end")


async def test_a_reset_by_the_peer_gives_the_systems_reason():
    async with open_pair() as (one, other):
        other._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await other.aclose()
        with pytest.raises(ConnectionLost, match="reset by peer"):
            await one.receive_into(memoryview(bytearray(1)))
        with pytest.raises(ConnectionLost, match=r"[Bb]roken pipe"):
            one.send_nowait(b"x")
        with pytest.raises(ConnectionLost):
            await one.send_all(b"x")


async def test_closing_wakes_the_reader_the_writer_and_who_accepts():
    listener = await TcpTransport().listen(LOOPBACK)
    async with open_pair() as (one, _):
        fill(one)

        async def expect(attempt, *arguments):
            with pytest.raises(ConnectionLost):
                await attempt(*arguments)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, one.receive_some)
            nursery.start_soon(expect, one.send_all, b"x")
            nursery.start_soon(expect, listener.accept)
            await trio.testing.wait_all_tasks_blocked()
            await one.aclose()
            await listener.aclose()


async def test_two_tasks_in_one_direction_are_our_own_error():
    async with open_pair() as (one, _):
        fill(one)
        async with open_scope() as scope:
            scope.start_soon(one.receive_some)
            scope.start_soon(one.send_all, b"x")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(LocalProtocolError):
                await one.receive_into(memoryview(bytearray(1)))
            with pytest.raises(LocalProtocolError):
                await one.send_all(b"y")
            with pytest.raises(LocalProtocolError):
                one.send_nowait(b"y")


async def test_a_busy_stream_lets_others_run_and_can_be_cancelled():
    async with open_pair() as (one, other):
        await other.send_all(bytes(4 * TURN))
        turns = 0

        async def count():
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with open_scope() as scope:
            scope.start_soon(count)
            for _ in range(4 * TURN):
                await one.receive_some(1)
            assert 1 <= turns <= 4  # a full checkpoint each time would have given it 64
        await other.send_all(b"x")
        with trio.move_on_after(0) as cancelled:
            await one.receive_some()
        assert cancelled.cancelled_caught
        assert await one.receive_some() == b"x"


async def test_a_taken_port_is_named():
    transport = TcpTransport()
    listener = await transport.listen(LOOPBACK)
    with pytest.raises(AddressInUse, match=r"cannot listen on /ip4/127.*in use"):
        await transport.listen(listener.addresses[0])
    await listener.aclose()


async def test_a_port_is_free_again_right_after_its_connections_ended():
    transport = TcpTransport()
    listener = await transport.listen(LOOPBACK)
    dialed = await transport.dial(listener.addresses[0])
    accepted, _ = await listener.accept()
    for resource in (accepted, dialed, listener):
        await resource.aclose()
    await (await transport.listen(listener.addresses[0])).aclose()


async def test_a_refused_connection_gives_the_systems_reason():
    transport = TcpTransport()
    listener = await transport.listen(LOOPBACK)
    await listener.aclose()
    with pytest.raises(ConnectionLost, match=r"/ip4/127.*refused"):
        await transport.dial(listener.addresses[0])


async def test_an_address_that_cannot_be_reached_is_a_lost_connection():
    with pytest.raises(ConnectionLost, match="255"):
        await TcpTransport().dial(parse_address("/ip4/255.255.255.255/tcp/1"))


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/udp/1",
        "/memory/1",
        "/ip4/127.0.0.1",
        "/ip4/1.2.3.4/tcp/1/ws",
        "/dns4/localhost/tcp/1",
        "/dns/example.org/tcp/1",
    ],
)
async def test_other_addresses_are_not_for_tcp_nor_are_names(text):
    transport = TcpTransport()
    assert not transport.can_dial(parse_address(text))
    for attempt in (transport.listen, transport.dial):
        with pytest.raises(InvalidAddress, match="cannot use"):
            await attempt(parse_address(text))


async def test_both_families_share_a_port():
    transport = TcpTransport()
    six = await transport.listen(parse_address("/ip6/::/tcp/0"))
    port = str(six.addresses[0]).rpartition("/")[2]
    four = await transport.listen(parse_address(f"/ip4/0.0.0.0/tcp/{port}"))
    for ip, listener in (("/ip4/127.0.0.1", four), ("/ip6/::1", six)):
        assert f"{ip}/tcp/{port}" in map(str, listener.addresses)
        dialed = await transport.dial(parse_address(f"{ip}/tcp/{port}"))
        accepted, remote = await listener.accept()
        assert str(remote).startswith(f"{ip}/tcp/")
        await close_forcefully_all(dialed, accepted)
    await four.aclose()
    await six.aclose()


def test_a_wildcard_stands_for_every_interface():
    assert "127.0.0.1" in _reachable("0.0.0.0")
    assert _reachable("127.0.0.1") == ["127.0.0.1"]
    assert _reachable("::")


async def test_accept_survives_a_process_out_of_descriptors(autojump_clock, monkeypatch, caplog):
    listener = await TcpTransport().listen(LOOPBACK)
    failures = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ECONNABORTED, "aborted")]
    real = listener._accept

    def accept():
        if failures:
            raise failures.pop(0)
        return real()

    monkeypatch.setattr(listener, "_accept", accept)
    dialed = await TcpTransport().dial(listener.addresses[0])
    started = trio.current_time()
    accepted, _ = await listener.accept()
    assert 0 < trio.current_time() - started < 1
    await close_forcefully_all(dialed, accepted, listener)
    assert "Too many open files" in caplog.text
    assert not failures


async def test_a_connection_that_is_gone_before_it_is_set_up_leaves_nothing_open(monkeypatch):
    listener = await TcpTransport().listen(LOOPBACK)
    transport = TcpTransport()
    first = await transport.dial(listener.addresses[0])
    real, failures = TcpStream.__init__, [1]

    def fail_once(self, sock):
        if failures:
            failures.pop()
            raise OSError(errno.EINVAL, "gone")
        real(self, sock)

    monkeypatch.setattr(TcpStream, "__init__", fail_once)
    accepted = []

    async def accept():
        accepted.append((await listener.accept())[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        assert await first.receive_some() == b""
        second = await transport.dial(listener.addresses[0])
    await close_forcefully_all(first, second, listener, *accepted)
    gc.collect()


async def test_each_await_of_a_stream_can_be_cancelled():
    @asynccontextmanager
    async def world():
        async with open_pair() as (one, other):
            sent = fill(one)
            got = bytearray()
            buffer = memoryview(bytearray(1))

            async def use():
                got.extend(await one.receive_some(1))
                got.extend(buffer[: await one.receive_into(buffer)])
                await one.wait_writable()
                await one.send_all(b"x")
                got.extend(await one.receive_some(1))
                await one.aclose()

            async def far_end():
                left = sent
                await other.send_all(b"ab")
                while left:
                    left -= len(await other.receive_some(min(left, 1 << 20)))
                await other.send_all(b"c")

            async with open_scope() as scope:
                scope.start_soon(far_end)
                yield use
                with trio.move_on_after(0.2):
                    while len(got) < 3:  # what a cancelled read did not take is still there
                        got.extend(await one.receive_some(1))
            assert got == b"abc"

    assert await cancel_at_each_await(world) >= 4


async def test_dialing_and_accepting_can_be_cancelled_at_each_await_and_leave_no_socket():
    listener = await TcpTransport().listen(LOOPBACK)

    @asynccontextmanager
    async def world():
        done = []

        async def use():
            dialed = await TcpTransport().dial(listener.addresses[0])
            done.append(dialed)
            accepted, _ = await listener.accept()
            done.append(accepted)
            done.append(await TcpTransport().listen(LOOPBACK))

        yield use
        await close_forcefully_all(*done)
        gc.collect()  # a socket left open is a ResourceWarning, which is an error here

    assert await cancel_at_each_await(world) >= 3
    await listener.aclose()


async def test_each_piece_is_handled_until_the_end():
    transport = TcpTransport()
    listener = await transport.listen(LOOPBACK)
    dialed: ByteStream = await transport.dial(listener.addresses[0])
    accepted, _ = await listener.accept()
    got = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepted.receive_each, got.extend)
        await dialed.send_all(b"some")
        await dialed.send_all(bytes(1 << 20))
        await dialed.aclose()
    assert got == b"some" + bytes(1 << 20)
    await accepted.aclose()
    with pytest.raises(ConnectionLost):
        await accepted.receive_each(got.extend)
    await listener.aclose()
