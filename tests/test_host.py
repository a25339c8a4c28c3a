from __future__ import annotations

import pytest
import trio

from p2p.errors import (
    ConnectionLost,
    DialFailed,
    LocalProtocolError,
    NegotiationFailed,
    RemoteProtocolError,
    StreamReset,
)
from p2p.events import PeerConnected, PeerDisconnected, PeerIdentified
from p2p.framing import receive_exactly
from p2p.host import EVENT_BUFFER
from p2p.peer_id import PeerId
from p2p.persistence import open_peerstore_file
from p2p.ping import MAX_INBOUND, PROTOCOL
from p2p.transport import MemoryNetwork
from tests.support import connect, key_number, open_memory_host, open_memory_hosts

ECHO = "/test/echo/1"


async def echo(stream):
    while data := await stream.receive_some():
        await stream.send_all(data)


async def test_a_stream_reaches_the_handler_of_its_protocol(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        other.handle(ECHO, echo)
        one.peerstore.add_addresses(other.peer_id, other.addresses(), 60)
        stream = await one.open_stream(other.peer_id, ["/test/unknown/1", ECHO])
        assert (stream.protocol, stream.peer) == (ECHO, other.peer_id)
        await stream.send_all(b"hello")
        await stream.send_eof()
        assert await receive_exactly(stream, 5) == b"hello"
        assert await stream.receive_some() == b""
        await stream.aclose()


async def test_a_protocol_that_the_peer_does_not_speak_is_no_stream(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        with pytest.raises(NegotiationFailed):
            await one.open_stream(other.peer_id, ["/test/unknown/1"])
        assert one.is_connected(other.peer_id)


async def test_a_peer_without_addresses_has_no_streams(autojump_clock):
    async with open_memory_hosts(1) as [host]:
        with pytest.raises(DialFailed):
            await host.open_stream(PeerId.from_public_key(key_number(9).public), [ECHO])


async def test_a_handler_that_crashes_costs_its_stream_alone(autojump_clock, caplog):
    async def crash(stream):
        raise ZeroDivisionError("a plugin's bug")

    async with open_memory_hosts(2) as [one, other]:
        other.handle("/test/crash/1", crash)
        other.handle(ECHO, echo)
        await connect(one, other)
        stream = await one.open_stream(other.peer_id, ["/test/crash/1"])
        with pytest.raises(StreamReset):
            await stream.receive_some()
        stream = await one.open_stream(other.peer_id, [ECHO])
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"


async def test_a_stream_that_never_negotiates_is_given_up(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        connection = one.connection(other.peer_id)
        stream = await connection.muxed.open_stream()
        start = trio.current_time()
        with pytest.raises(ConnectionLost):
            while await stream.receive_some():
                pass
        assert trio.current_time() - start == pytest.approx(10, abs=1)
        assert one.is_connected(other.peer_id)


async def test_a_peer_that_does_not_answer_a_new_stream_costs_one_deadline(autojump_clock, monkeypatch):
    async def silence(stream, supported):
        await trio.sleep_forever()

    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        monkeypatch.setattr("p2p.multistream.handle_lazily", silence)
        with pytest.raises(ConnectionLost, match="did not answer within 10 s"):
            await one.open_stream(other.peer_id, [ECHO])


async def test_an_announced_protocol_that_is_gone_is_said_at_the_first_read(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        other.handle(ECHO, echo)
        await connect(one, other)
        assert ECHO in one.peerstore.protocols(other.peer_id)
        other._handlers.pop(ECHO)  # and nobody is told
        stream = await one.open_stream(other.peer_id, [ECHO])
        await stream.send_all(b"hello")
        with pytest.raises(NegotiationFailed):
            await stream.receive_some()
        assert await one.ping(other.peer_id) >= 0


async def test_disconnecting_ends_the_connection_on_both_sides(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        with other.events() as events:
            await one.disconnect(other.peer_id)
            assert one.peers() == []
            async for event in events:
                if isinstance(event, PeerDisconnected):
                    break
        await one.disconnect(other.peer_id)
        await connect(one, other)


async def test_a_protocol_has_one_handler(autojump_clock):
    async with open_memory_hosts(1) as [host]:
        host.handle(ECHO, echo)
        with pytest.raises(LocalProtocolError):
            host.handle(ECHO, echo)
        host.unhandle(ECHO)
        host.unhandle(ECHO)
        host.handle(ECHO, echo)


async def test_identify_tells_each_side_about_the_other(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        for here, there in ((one, other), (other, one)):
            seen = await here.wait_for_peer(there.peer_id)
            assert PROTOCOL in seen.protocols
            assert seen.agent.startswith("atcp/")
            assert here.peerstore.addresses(there.peer_id) == there.addresses()


async def test_a_protocol_added_later_is_pushed_to_connected_peers(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        with one.events() as events:
            other.handle(ECHO, echo)
            async for event in events:
                if isinstance(event, PeerIdentified) and ECHO in event.protocols:
                    break
            other.unhandle(ECHO)
            async for event in events:
                if isinstance(event, PeerIdentified) and ECHO not in event.protocols:
                    break


async def test_a_late_subscriber_first_hears_what_is(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        with one.events() as events:
            assert await events.receive() == PeerConnected(peer=other.peer_id, outbound=True)
            assert isinstance(await events.receive(), PeerIdentified)


async def test_a_subscriber_that_lags_is_cut_off(autojump_clock, caplog):
    async with open_memory_hosts(1) as [host]:
        with host.events() as lagging:
            for _ in range(EVENT_BUFFER + 1):
                host._notify(PeerConnected(peer=host.peer_id, outbound=True))
            seen = [event async for event in lagging]
        assert len(seen) == EVENT_BUFFER
    assert "cut off" in caplog.text


async def test_a_failure_of_the_body_leaves_as_itself(autojump_clock):
    with pytest.raises(ZeroDivisionError):
        async with open_memory_hosts(2) as [one, other]:
            await connect(one, other)
            raise ZeroDivisionError


async def test_everything_ends_with_the_body(autojump_clock):
    network = MemoryNetwork()
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_memory_hosts(3, network) as hosts:
        for host in hosts[1:]:
            await connect(host, hosts[0])
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert network.listeners == {}


async def test_ping_measures_a_round_trip(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        assert await one.ping(other.peer_id) >= 0
        assert await other.ping(one.peer_id) >= 0


async def test_ping_echoes_every_block_of_a_stream_until_it_is_closed(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        for number in range(3):
            await stream.send_all(bytes([number]) * 16)
            await stream.send_all(bytes([number]) * 16)
            assert await receive_exactly(stream, 32) == bytes([number]) * 32
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_an_idle_ping_stream_is_closed(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        start = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - start == pytest.approx(30, abs=1)


async def test_more_ping_streams_than_allowed_are_reset(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        streams = [await one.open_stream(other.peer_id, [PROTOCOL]) for _ in range(MAX_INBOUND)]
        await trio.testing.wait_all_tasks_blocked()  # they are served before the next one comes
        late = await one.open_stream(other.peer_id, [PROTOCOL])
        with pytest.raises(StreamReset):
            await late.receive_some()
        await streams[0].send_all(b"x" * 32)
        assert await receive_exactly(streams[0], 32) == b"x" * 32


async def test_a_wrong_and_a_missing_answer_to_a_ping_are_errors(autojump_clock):
    async def lie(stream):
        await receive_exactly(stream, 32)
        await stream.send_all(b"z" * 32)

    async def silence(stream):
        await trio.sleep_forever()

    async with open_memory_hosts(2) as [one, other]:
        await connect(one, other)
        for handler, error in ((lie, RemoteProtocolError), (silence, ConnectionLost)):
            other.unhandle(PROTOCOL)
            other.handle(PROTOCOL, handler)
            with pytest.raises(error):
                await one.ping(other.peer_id)


async def test_the_peerstore_file_brings_back_known_peers(autojump_clock, tmp_path):
    network = MemoryNetwork()
    path = tmp_path / "peers.sqlite"
    async with open_memory_host(network, 1) as other:
        async with open_memory_host(network, 2) as first, open_peerstore_file(first, path):
            await connect(first, other)
        async with open_memory_host(network, 2) as again, open_peerstore_file(again, path):
            assert again.peerstore.addresses(other.peer_id) == other.addresses()
            await again.connect(other.peer_id)
