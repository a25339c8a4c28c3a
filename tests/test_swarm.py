from __future__ import annotations

import pytest
import trio

from p2p.address import parse_address
from p2p.config import HostConfig
from p2p.errors import AuthenticationFailed, DialFailed, InvalidAddress
from p2p.events import PeerConnected, PeerDisconnected
from p2p.host import open_host
from p2p.peer_id import PeerId
from p2p.transport import MemoryNetwork, MemoryTransport, TcpTransport
from tests.support import connect, key_number, open_memory_host, open_memory_hosts, upgrader

NOWHERE = parse_address("/memory/999")


async def wait_until_gone(host, peer):
    with host.events() as events:
        while host.is_connected(peer):
            await events.receive()


async def test_an_address_that_failed_is_left_alone_for_a_while(autojump_clock):
    async with open_memory_hosts(1) as [host]:
        stranger = PeerId.from_public_key(key_number(9).public)
        with pytest.raises(DialFailed, match="refused"):
            await host.connect(stranger, [NOWHERE])
        with pytest.raises(DialFailed, match="failed before"):
            await host.connect(stranger, [NOWHERE])
        await trio.sleep(1)
        with pytest.raises(DialFailed, match="refused"):
            await host.connect(stranger, [NOWHERE])


async def test_a_peer_without_an_address_cannot_be_reached(autojump_clock):
    async with open_memory_hosts(1) as [host]:
        stranger = PeerId.from_public_key(key_number(9).public)
        with pytest.raises(DialFailed, match="no known address"):
            await host.connect(stranger)
        with pytest.raises(DialFailed, match="ourselves"):
            await host.connect(host.peer_id, host.addresses())
        with pytest.raises(DialFailed, match="no transport"):
            await host.connect(stranger, [parse_address("/ip4/127.0.0.1/tcp/1")])
        with pytest.raises(InvalidAddress, match="cannot listen"):
            await host.listen(parse_address("/ip4/127.0.0.1/tcp/1"))


async def test_somebody_else_at_the_address_is_not_taken_for_the_peer(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        wanted = PeerId.from_public_key(key_number(9).public)
        with pytest.raises(DialFailed):
            await one.connect(wanted, other.addresses())
        assert one.peers() == []


async def test_callers_that_want_the_same_peer_share_one_dial(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        accepted = []
        with other.events() as events:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(one.connect, other.peer_id, other.addresses())
            await one.wait_for_peer(other.peer_id)
            while True:
                try:
                    accepted.append(events.receive_nowait())
                except trio.WouldBlock:
                    break
        assert sum(isinstance(event, PeerConnected) for event in accepted) == 1


async def test_a_cancelled_dial_does_not_take_the_others_with_it(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(one.connect, other.peer_id, other.addresses())
                scope.cancel()
                with pytest.raises(trio.Cancelled):
                    await one.connect(other.peer_id, other.addresses())
        assert one.is_connected(other.peer_id)


async def test_crossing_dials_end_in_one_connection_that_both_keep(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.connect, other.peer_id, other.addresses())
            nursery.start_soon(other.connect, one.peer_id, one.addresses())
        await one.wait_for_peer(other.peer_id)
        await other.wait_for_peer(one.peer_id)
        await trio.sleep(30)
        ours, theirs = one.connection(other.peer_id), other.connection(one.peer_id)
        assert ours is not None
        assert theirs is not None
        assert ours.outbound != theirs.outbound
        assert ours.outbound == (one.peer_id < other.peer_id)


async def test_a_peer_that_comes_back_replaces_its_old_connection(autojump_clock):
    """The old one is half-open: the peer lost it, we did not notice yet."""
    network = MemoryNetwork()
    async with open_memory_hosts(1, network) as [host], open_memory_host(network, 2) as first:
        await connect(first, host)
        await trio.sleep(20)
        transports = [MemoryTransport(network)]
        async with open_host(key=first.key, transports=transports) as second:
            await second.connect(host.peer_id, host.addresses())
            await second.wait_for_peer(host.peer_id)
            await wait_until_gone(first, host.peer_id)
            assert host.peers() == [second.peer_id]
        await wait_until_gone(host, second.peer_id)


async def test_the_end_of_a_connection_is_an_event_at_both_ends(autojump_clock):
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as host:
        with host.events() as events:
            async with open_memory_host(network, 2) as guest:
                await connect(guest, host)
            seen = [event async for event in _until_disconnected(events)]
        assert [type(event).__name__ for event in seen] == [
            "PeerConnected",
            "PeerIdentified",
            "PeerDisconnected",
        ]
        assert host.peers() == []


async def _until_disconnected(events):
    async for event in events:
        yield event
        if isinstance(event, PeerDisconnected):
            return


async def test_a_silent_stranger_costs_the_upgrade_timeout_and_no_more(autojump_clock):
    network = MemoryNetwork()
    config = HostConfig(upgrade_timeout=5)
    transport = MemoryTransport(network)
    address = parse_address("/memory/1")
    async with open_host(key=key_number(1), listen=[address], transports=[transport], config=config):
        silent = await transport.dial(address)
        start = trio.current_time()
        while await silent.receive_some():
            pass
        assert trio.current_time() - start == pytest.approx(5)


async def test_silent_strangers_do_not_keep_others_out(autojump_clock):
    network = MemoryNetwork()
    config = HostConfig(max_half_open=2)
    transport = MemoryTransport(network)
    address = parse_address("/memory/1")
    async with open_host(key=key_number(1), listen=[address], transports=[transport], config=config) as host:
        silent = [await transport.dial(address) for _ in range(10)]
        async with open_memory_host(network, 2) as guest:
            start = trio.current_time()
            await connect(guest, host)
            assert trio.current_time() == start
        for stream in silent[:8]:
            while await stream.receive_some():
                pass
        assert trio.current_time() == start


async def test_a_host_that_is_full_refuses_and_says_so(autojump_clock, caplog):
    network = MemoryNetwork()
    address = parse_address("/memory/1")
    config = HostConfig(max_connections=1)
    async with (
        open_host(
            key=key_number(1), listen=[address], transports=[MemoryTransport(network)], config=config
        ) as host,
        open_memory_hosts(0),
        open_memory_host(network, 2) as one,
        open_memory_host(network, 3) as two,
    ):
        await connect(one, host)
        with pytest.raises(DialFailed):
            await two.connect(host.peer_id, [address])
    assert "refusing /memory/" in caplog.text


async def test_a_dial_gives_up_after_its_deadline(autojump_clock):
    network = MemoryNetwork()
    config = HostConfig(dial_timeout=3)
    transport = MemoryTransport(network)
    await transport.listen(NOWHERE)  # accepts and says nothing
    stranger = PeerId.from_public_key(key_number(9).public)
    async with open_host(key=key_number(1), transports=[transport], config=config) as host:
        start = trio.current_time()
        with pytest.raises(DialFailed, match="gave up after 3 s"):
            await host.connect(stranger, [NOWHERE])
        assert trio.current_time() - start == pytest.approx(3)


async def test_a_transport_that_does_not_connect_costs_its_own_deadline(autojump_clock):
    class Slow(MemoryTransport):
        async def dial(self, address):
            if address == NOWHERE:
                await trio.sleep_forever()
            return await super().dial(address)

    network = MemoryNetwork()
    async with open_memory_hosts(1, network) as [host]:
        async with open_host(key=key_number(2), transports=[Slow(network)]) as guest:
            await guest.connect(host.peer_id, [NOWHERE, *host.addresses()])
            assert guest.is_connected(host.peer_id)


async def test_a_bug_met_by_a_stranger_does_not_end_the_listener(autojump_clock, monkeypatch, caplog):
    async def broken(raw):
        monkeypatch.undo()
        await raw.aclose()
        raise IndexError("a parser's bug")

    async with open_memory_hosts(2) as [one, other]:
        monkeypatch.setattr(other._swarm, "_upgrade_inbound", broken)
        with pytest.raises(DialFailed):
            await one.connect(other.peer_id, other.addresses())
        await trio.sleep(10)
        await connect(one, other)
    assert "met a bug" in caplog.text


async def test_a_connection_to_ourselves_is_refused(autojump_clock):
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as host:
        raw = await MemoryTransport(network).dial(host.addresses()[0])
        muxed = await upgrader(host.key).upgrade_outbound(raw, host.peer_id)
        assert muxed.peer == host.peer_id
        while await raw.receive_some():
            pass
        assert host.peers() == []


async def test_the_wrong_key_fails_the_upgrade_with_its_type(autojump_clock):
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as host:
        raw = await MemoryTransport(network).dial(host.addresses()[0])
        with pytest.raises(AuthenticationFailed):
            await upgrader(key_number(2)).upgrade_outbound(raw, PeerId.from_public_key(key_number(3).public))


LOOPBACK = parse_address("/ip4/127.0.0.1/tcp/0")


@pytest.mark.parametrize("setting", [{"max_per_ip": 2}, {"accept_burst": 2, "accept_rate": 0.001}])
async def test_one_ip_address_has_a_limited_number_of_connections(setting, caplog):
    config = HostConfig(limit_loopback=True, **setting)
    caplog.set_level("INFO", "p2p.swarm")
    async with (
        open_host(listen=[LOOPBACK], config=config) as host,
        open_host() as one,
        open_host() as two,
        open_host() as three,
    ):
        for guest in (one, two):
            await guest.connect(host.peer_id, host.addresses())
        with pytest.raises(DialFailed):
            await three.connect(host.peer_id, host.addresses())
    assert "refusing /ip4/127.0.0.1/tcp/" in caplog.text


async def test_a_connection_that_ended_makes_room_for_another_of_its_address():
    config = HostConfig(limit_loopback=True, max_per_ip=1)
    async with open_host(listen=[LOOPBACK], config=config) as host:
        for _ in range(3):
            with host.events() as events:
                async with open_host() as guest:
                    await guest.connect(host.peer_id, host.addresses())
                while not isinstance(await events.receive(), PeerDisconnected):
                    pass
            await trio.testing.wait_all_tasks_blocked()


async def test_a_crowd_is_trimmed_once_its_grace_is_over_and_friends_stay(autojump_clock):
    network = MemoryNetwork()
    address = parse_address("/memory/100")
    config = HostConfig(low_water=2, high_water=4)
    transports = [MemoryTransport(network)]
    async with (
        open_host(key=key_number(100), listen=[address], transports=transports, config=config) as host,
        open_memory_hosts(6, network) as guests,
    ):
        host._swarm.manager.protect(guests[0].peer_id, "bootstrap")
        for guest in guests:
            await connect(guest, host)
            await trio.sleep(1)
            host._swarm.manager.tag(guest.peer_id, "test", 1)
        host._swarm.manager.tag(guests[3].peer_id, "test", 7)
        await trio.sleep(config.grace - 10)
        assert len(host.peers()) == 6
        await trio.sleep(30)
        assert guests[0].peer_id in host.peers()
        assert guests[3].peer_id in host.peers()
        assert len(host.peers()) <= 4


async def test_ipv4_and_ipv6_are_listened_on_side_by_side_on_one_port():
    transport = TcpTransport()
    async with open_host(listen=[parse_address("/ip4/0.0.0.0/tcp/0")]) as host:
        port = str(host.addresses()[0]).split("/")[4]
        await host.listen(parse_address(f"/ip6/::/tcp/{port}"))
        assert {str(address).split("/")[1] for address in host.addresses()} == {"ip4", "ip6"}
        for text in (f"/ip4/127.0.0.1/tcp/{port}", f"/ip6/::1/tcp/{port}"):
            async with open_host(transports=[transport]) as guest:
                await guest.connect(host.peer_id, [parse_address(text)])
                connection = guest.connection(host.peer_id)
                assert connection is not None
                assert str(connection.remote_address) == text


async def test_a_name_is_listened_on_and_dialed():
    async with open_host(listen=[parse_address("/dns4/localhost/tcp/0")]) as host, open_host() as guest:
        [address] = host.addresses()
        name = str(address).replace("/ip4/127.0.0.1/", "/dns4/localhost/")
        await guest.connect(host.peer_id, [parse_address(name)])
        assert guest.is_connected(host.peer_id)
