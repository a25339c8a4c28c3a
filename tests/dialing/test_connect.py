"""Dials between whole hosts: what is left when they are cancelled, or when names and liars are among them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import trio

from p2p.address import parse_address, with_peer
from p2p.host import open_host
from p2p.peer_id import PeerId
from p2p.transport import MemoryNetwork, MemoryTransport
from tests.byte_streams import cancel_at_each_await
from tests.support import key_number, open_memory_host, open_memory_hosts


async def test_a_connect_that_is_cancelled_leaves_both_sides_of_one_mind(autojump_clock):
    @asynccontextmanager
    async def world():
        async with open_memory_hosts(2) as [one, other]:
            yield partial(one.connect, other.peer_id, [parse_address("/memory/999"), *other.addresses()])
            await trio.sleep(20)  # until every deadline of an upgrade is over
            assert one.is_connected(other.peer_id) == other.is_connected(one.peer_id)
            assert not one._swarm._dials
            assert not other._swarm._half_open

    assert await cancel_at_each_await(world) >= 2


async def test_a_liar_among_the_addresses_costs_only_its_own(autojump_clock):
    network = MemoryNetwork()
    async with open_memory_hosts(2, network) as [host, liar], open_memory_host(network, 3) as guest:
        await guest.connect(host.peer_id, [*liar.addresses(), *host.addresses()])
        assert guest.peers() == [host.peer_id]
        assert liar.peers() == []


async def test_a_connection_knows_the_address_that_won_without_its_peer(autojump_clock):
    network = MemoryNetwork()
    async with open_memory_hosts(1, network) as [host]:
        [address] = host.addresses()
        async with open_host(key=key_number(5), transports=[MemoryTransport(network)]) as guest:
            await guest.connect(host.peer_id, [with_peer(address, host.peer_id)])
            connection = guest.connection(host.peer_id)
            assert connection is not None
            assert connection.remote_address == address


async def test_hosts_that_dial_each_other_over_two_addresses_keep_one_connection(autojump_clock):
    network = MemoryNetwork()
    addresses = [[parse_address(f"/memory/{side}{number}") for number in (1, 2)] for side in (1, 2)]
    transports = [MemoryTransport(network)]
    async with (
        open_host(key=key_number(1), listen=addresses[0], transports=transports) as one,
        open_host(key=key_number(2), listen=addresses[1], transports=transports) as other,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.connect, other.peer_id, addresses[1])
            nursery.start_soon(other.connect, one.peer_id, addresses[0])
        await trio.sleep(30)
        ours, theirs = one.connection(other.peer_id), other.connection(one.peer_id)
        assert ours is not None
        assert theirs is not None
        assert ours.outbound != theirs.outbound
        assert PeerId.from_public_key(key_number(1).public) in other.peers()
