import random
from contextlib import asynccontextmanager

import pytest
import trio

from p2p.address import parse_address, with_peer
from p2p.discovery import open_discovery
from p2p.errors import InvalidAddress
from p2p.events import PeerDisconnected
from p2p.host import open_host
from p2p.kad import open_kad
from p2p.peer_id import PeerId
from p2p.transport import MemoryNetwork, MemoryTransport
from tests.support import connect, key_number, open_memory_host, open_memory_hosts

BOOTSTRAP = 1


def address_of(number):
    """Where peer `number` is at first, with its id."""
    return with_peer(parse_address(f"/memory/{number}"), id_of(number))


def id_of(number):
    return PeerId.from_public_key(key_number(number).public)


class Overlay:
    """Peers as tasks of one nursery, so that each can be closed and started at any time."""

    def __init__(self, nursery):
        self.network = MemoryNetwork()
        self.hosts = {}
        self._nursery = nursery
        self._scopes = {}

    async def start(self, number, *, bootstrap=(BOOTSTRAP,), port=None, target_peers=64):
        """Starts peer `number`, which knows the addresses of the peers `bootstrap`."""
        self.hosts[number] = await self._nursery.start(
            self._run, number, bootstrap, port or number, target_peers
        )
        return self.hosts[number]

    async def close(self, number):
        scope, closed = self._scopes.pop(number)
        del self.hosts[number]
        scope.cancel()
        await closed.wait()

    async def _run(self, number, bootstrap, port, target_peers, *, task_status):
        closed = trio.Event()
        with trio.CancelScope() as scope:
            self._scopes[number] = scope, closed
            async with (
                open_host(
                    key=key_number(number),
                    listen=[parse_address(f"/memory/{port}")],
                    transports=[MemoryTransport(self.network)],
                    rng=random.Random(number),
                ) as host,
                open_kad(host) as kad,
                open_discovery(host, kad, [address_of(other) for other in bootstrap], target_peers),
            ):
                task_status.started(host)
                await trio.sleep_forever()
        closed.set()

    async def wait_until_all_are_connected(self):
        """Returns once every peer has a connection to every other one."""
        for host in self.hosts.values():
            await wait_for(host, [other.peer_id for other in self.hosts.values() if other is not host])


@asynccontextmanager
async def open_overlay():
    async with trio.open_nursery() as nursery:
        yield Overlay(nursery)
        nursery.cancel_scope.cancel()


async def wait_for(host, peers):
    """Returns once `host` is connected to all of `peers`."""
    with host.events() as events:
        while not all(host.is_connected(other) for other in peers):
            await events.receive()


async def test_twelve_peers_that_know_one_address_all_connect_to_each_other(autojump_clock):
    async with open_overlay() as overlay:
        for number in range(1, 13):
            await overlay.start(number, bootstrap=[BOOTSTRAP] if number != BOOTSTRAP else [])
        with trio.fail_after(10):
            await overlay.wait_until_all_are_connected()
        await trio.sleep(60)
        assert all(len(host.peers()) == 11 for host in overlay.hosts.values())


async def test_the_network_stays_and_grows_without_its_bootstrap_peer(autojump_clock):
    async with open_overlay() as overlay:
        for number in range(1, 7):
            await overlay.start(number)
        await overlay.wait_until_all_are_connected()
        await overlay.close(BOOTSTRAP)
        await trio.sleep(120)
        for host in overlay.hosts.values():
            assert len(host.peers()) == 4
        await overlay.start(7, bootstrap=[3])
        with trio.fail_after(10):
            await overlay.wait_until_all_are_connected()


async def test_peers_that_start_before_their_bootstrap_peer_wait_for_it(autojump_clock):
    async with open_overlay() as overlay:
        for number in range(2, 6):
            await overlay.start(number)
        await trio.sleep(300)
        await overlay.start(BOOTSTRAP)
        with trio.fail_after(150):
            await overlay.wait_until_all_are_connected()


async def test_a_bootstrap_peer_that_is_not_there_is_one_warning(autojump_clock, caplog):
    async with trio.open_nursery() as nursery:
        overlay = Overlay(nursery)
        await overlay.start(2)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert str(id_of(BOOTSTRAP)) in warnings[0].getMessage()


async def test_a_bootstrap_peer_that_comes_back_is_connected_to_all_again(autojump_clock):
    async with open_overlay() as overlay:
        for number in range(1, 6):
            await overlay.start(number)
        await overlay.wait_until_all_are_connected()
        await trio.sleep(60)
        await overlay.close(BOOTSTRAP)
        await trio.sleep(20)
        await overlay.start(BOOTSTRAP, bootstrap=[])
        with trio.fail_after(100):
            await overlay.wait_until_all_are_connected()


async def test_a_peer_that_returns_with_another_address_is_found_by_all(autojump_clock):
    async with open_overlay() as overlay:
        for number in range(1, 6):
            await overlay.start(number)
        await overlay.wait_until_all_are_connected()
        await overlay.close(4)
        await overlay.start(4, port=444)
        with trio.fail_after(10):
            await overlay.wait_until_all_are_connected()
        moved = [parse_address("/memory/444")]
        await trio.sleep(1)
        assert all(overlay.hosts[n].peerstore.addresses(id_of(4)) == moved for n in (1, 2, 3, 5))


async def test_a_lost_connection_is_made_again(autojump_clock):
    async with open_overlay() as overlay:
        one, other = await overlay.start(1), await overlay.start(2)
        await overlay.wait_until_all_are_connected()
        await trio.sleep(40)
        await one._swarm.connections[other.peer_id].muxed.aclose()
        await trio.sleep(0.1)
        assert not one.is_connected(other.peer_id)
        with trio.fail_after(5):
            await overlay.wait_until_all_are_connected()


async def test_peers_known_from_an_earlier_run_are_dialed_without_any_bootstrap(autojump_clock):
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as one, open_memory_host(network, 2) as other:
        one.peerstore.add_addresses(other.peer_id, other.addresses(), 60)
        async with open_kad(one) as kad, open_discovery(one, kad, []):
            with trio.fail_after(5):
                await wait_for(one, [other.peer_id])


async def test_no_more_peers_are_dialed_than_are_wanted(autojump_clock):
    async with open_memory_hosts(6) as [one, *others], open_kad(one) as kad:
        for other in others:
            one.peerstore.add_addresses(other.peer_id, other.addresses(), 600)
        async with open_discovery(one, kad, [], target_peers=3):
            await trio.sleep(100)
            assert len(one.peers()) == 3


async def test_a_bootstrap_address_without_a_peer_id_is_refused(autojump_clock):
    async with open_memory_host(MemoryNetwork(), 1) as host, open_kad(host) as kad:
        for text in ("/memory/5", f"/p2p/{id_of(5)}"):
            with pytest.raises(InvalidAddress, match="peer id"):
                async with open_discovery(host, kad, [parse_address(text)]):
                    pass


async def test_an_event_subscription_that_is_cut_off_is_renewed(autojump_clock, monkeypatch):
    monkeypatch.setattr("p2p.host.EVENT_BUFFER", 8)
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as one, open_memory_host(network, 2) as other:
        async with open_kad(one) as kad, open_kad(other), open_discovery(one, kad, []):
            await connect(one, other)
            await trio.sleep(40)
            connection = one._swarm.connections[other.peer_id]
            for _ in range(9):
                one._notify(PeerDisconnected(peer=id_of(9)))
            one._swarm._remove(connection)
            await connection.muxed.aclose()
            with trio.fail_after(10):
                await wait_for(one, [other.peer_id])
