"""What tests of many rooms share: hosts on an in-memory network."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from p2p.address import parse_address
from p2p.config import HostConfig
from p2p.host import Host, open_host
from p2p.keys import KeyPair
from p2p.pnet import PreSharedKey
from p2p.transport import MemoryNetwork, MemoryTransport
from p2p.upgrade import Upgrader


def key_number(number: int) -> KeyPair:
    """The identity number `number`: the same in every run."""
    return KeyPair.from_seed(number.to_bytes(32, "big"))


def upgrader(key: KeyPair, psk: PreSharedKey | None = None, **config: Any) -> Upgrader:
    """What secures and muxes the connections of `key`, with `config` as in `HostConfig`."""
    return Upgrader(key, HostConfig(**config), random.Random(key.public.data), psk)


@asynccontextmanager
async def open_memory_host(network: MemoryNetwork, number: int) -> AsyncIterator[Host]:
    """Host `number` of `network`, listening on /memory/<number>."""
    transports = [MemoryTransport(network)]
    listen = [parse_address(f"/memory/{number}")]
    async with open_host(
        key=key_number(number), listen=listen, transports=transports, rng=random.Random(number)
    ) as host:
        yield host


@asynccontextmanager
async def open_memory_hosts(count: int, network: MemoryNetwork | None = None) -> AsyncIterator[list[Host]]:
    """`count` hosts numbered from 1 on one network, not connected to one another."""
    network = network or MemoryNetwork()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_memory_host(network, number))
            for number in range(1, count + 1)
        ]


async def connect(one: Host, other: Host) -> None:
    """Connects two hosts and returns once each knows what the other speaks."""
    await one.connect(other.peer_id, other.addresses())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.wait_for_peer, other.peer_id)
        nursery.start_soon(other.wait_for_peer, one.peer_id)
