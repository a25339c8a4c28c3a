from __future__ import annotations

import pytest
import trio

from p2p.address import parse_address
from p2p.errors import AddressInUse, ConnectionLost
from p2p.transport import MemoryNetwork, MemoryTransport
from p2p.transport.memory import PIPE_CHUNKS, memory_stream_pair

ONE = parse_address("/memory/1")


async def test_bytes_pass_both_ways_and_the_end_is_seen():
    transport = MemoryTransport(MemoryNetwork())
    listener = await transport.listen(ONE)
    dialed = await transport.dial(ONE)
    accepted, remote = await listener.accept()
    assert str(remote).startswith("/memory/")
    await dialed.send_all(b"hello")
    await dialed.send_all(b"")
    assert await accepted.receive_some(2) == b"he"
    assert await accepted.receive_some() == b"llo"
    await dialed.aclose()
    assert await accepted.receive_some() == b""
    with pytest.raises(ConnectionLost):
        await accepted.send_all(b"x")
    with pytest.raises(ConnectionLost):
        await dialed.receive_some()


async def test_a_slow_reader_holds_the_sender_back(autojump_clock):
    one, other = memory_stream_pair()
    with trio.move_on_after(1) as scope:
        for _ in range(PIPE_CHUNKS + 1):
            await one.send_all(b"x")
    assert scope.cancelled_caught
    assert await other.receive_some() == b"x"


async def test_an_address_belongs_to_one_listener():
    transport = MemoryTransport(MemoryNetwork())
    listener = await transport.listen(ONE)
    with pytest.raises(AddressInUse):
        await transport.listen(ONE)
    await listener.aclose()
    await listener.aclose()
    await (await transport.listen(ONE)).aclose()
    free = await transport.listen(parse_address("/memory/0"))
    assert free.addresses != [parse_address("/memory/0")]


async def test_nobody_listening_refuses():
    transport = MemoryTransport(MemoryNetwork())
    assert transport.can_dial(ONE)
    assert not transport.can_dial(parse_address("/ip4/127.0.0.1/tcp/1"))
    with pytest.raises(ConnectionLost, match="refused"):
        await transport.dial(ONE)
    listener = await transport.listen(ONE)
    await listener.aclose()
    with pytest.raises(ConnectionLost):
        await listener.accept()
