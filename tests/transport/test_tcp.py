from __future__ import annotations

import errno
import socket

import pytest
import trio

from p2p.address import parse_address
from p2p.errors import AddressInUse, ConnectionLost, InvalidAddress
from p2p.transport import TcpTransport
from p2p.transport.tcp import _reachable

LOOPBACK = parse_address("/ip4/127.0.0.1/tcp/0")
HAS_IPV6 = socket.has_ipv6


async def test_bytes_pass_both_ways_and_the_end_is_seen():
    transport = TcpTransport()
    listener = await transport.listen(LOOPBACK)
    dialed = await transport.dial(listener.addresses[0])
    accepted, remote = await listener.accept()
    assert str(remote).startswith("/ip4/127.0.0.1/tcp/")
    await dialed.send_all(b"hello")
    assert await accepted.receive_some(2) == b"he"
    assert await accepted.receive_some() == b"llo"
    await accepted.send_all(b"back")
    assert await dialed.receive_some() == b"back"
    await dialed.aclose()
    assert await accepted.receive_some() == b""
    with pytest.raises(ConnectionLost):
        await dialed.receive_some()
    with pytest.raises(ConnectionLost):
        await dialed.send_all(b"x")
    await accepted.aclose()
    await listener.aclose()
    with pytest.raises(ConnectionLost):
        await listener.accept()


async def test_a_taken_port_is_named():
    transport = TcpTransport()
    listener = await transport.listen(LOOPBACK)
    with pytest.raises(AddressInUse, match="cannot listen on /ip4/127"):
        await transport.listen(listener.addresses[0])
    await listener.aclose()


async def test_a_refused_connection_gives_the_systems_reason():
    transport = TcpTransport()
    listener = await transport.listen(LOOPBACK)
    await listener.aclose()
    with pytest.raises(ConnectionLost, match="refused"):
        await transport.dial(listener.addresses[0])


@pytest.mark.parametrize(
    "text", ["/ip4/127.0.0.1/udp/1", "/memory/1", "/ip4/127.0.0.1", "/ip4/1.2.3.4/tcp/1/ws"]
)
async def test_other_addresses_are_not_for_tcp(text):
    transport = TcpTransport()
    assert not transport.can_dial(parse_address(text))
    with pytest.raises(InvalidAddress):
        await transport.listen(parse_address(text))


async def test_a_name_is_resolved():
    transport = TcpTransport()
    listener = await transport.listen(parse_address("/dns4/localhost/tcp/0"))
    dialed = await transport.dial(listener.addresses[0])
    await dialed.aclose()
    await listener.aclose()


def test_a_wildcard_stands_for_every_interface():
    assert "127.0.0.1" in _reachable("0.0.0.0")
    assert _reachable("127.0.0.1") == ["127.0.0.1"]
    assert _reachable("::")


async def test_accept_survives_a_process_out_of_descriptors(autojump_clock, monkeypatch, caplog):
    listener = await TcpTransport().listen(LOOPBACK)
    failures = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ECONNABORTED, "aborted")]
    real = listener._listener.accept

    async def accept():
        if failures:
            raise failures.pop(0)
        return await real()

    monkeypatch.setattr(listener._listener, "accept", accept)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def dial():
            stream = await TcpTransport().dial(listener.addresses[0])
            await stream.aclose()

        stream, _ = await listener.accept()
        await stream.aclose()
    await listener.aclose()
    assert "Too many open files" in caplog.text
    assert not failures
