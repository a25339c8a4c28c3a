"""Members that are connected to a peer which is none find each other, and look no longer than they must."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from federated.directory import members
from federated.directory.members import ENOUGH, meet_members
from federated.manifest import TaskId
from p2p.gossipsub import Pubsub, open_gossipsub
from p2p.host import Host
from p2p.kad import Kad, open_kad, provider_key
from p2p.peer_id import PeerId
from p2p.transport import MemoryNetwork
from tests.support import connect, open_memory_host

TASK, TOPIC = TaskId(bytes(range(32))), "topic"
KEY = provider_key(TASK)


class Peer:
    """One that listens to the topic; `searches` counts its look-ups of providers."""

    def __init__(self, host: Host, pubsub: Pubsub, kad: Kad) -> None:
        self.host, self.pubsub, self.kad = host, pubsub, kad
        self.searches = 0

    def find_providers(self, key: bytes, limit: int) -> Any:
        self.searches += 1
        return self.kad.find_providers(key, limit)

    async def meet(self, others: list[PeerId]) -> None:
        """Looks for members, who are those."""
        kad: Any = self  # only `find_providers` is asked of it
        await meet_members(self.host, self.pubsub, kad, TASK, TOPIC, lambda peer: peer in others)


@asynccontextmanager
async def open_star(count: int) -> AsyncIterator[list[Peer]]:
    """Peers that are connected to the server of their DHT, and to nobody else."""
    network, peers = MemoryNetwork(), list[Peer]()
    with trio.fail_after(3600):
        async with AsyncExitStack() as stack:
            hub = await stack.enter_async_context(open_memory_host(network, 99))
            await stack.enter_async_context(open_kad(hub, server=True))
            for number in range(1, count + 1):
                host = await stack.enter_async_context(open_memory_host(network, number))
                pubsub = await stack.enter_async_context(open_gossipsub(host))
                kad = await stack.enter_async_context(open_kad(host, server=False))
                stack.enter_context(pubsub.subscribe_each(TOPIC, lambda message: None))
                await connect(host, hub)
                peers.append(Peer(host, pubsub, kad))
            yield peers


async def provided(peer: Peer) -> None:
    """Returns when the DHT knows that `peer` is a member."""
    while not await peer.kad.provide(KEY):  # noqa: ASYNC110  the clock is virtual
        await trio.sleep(1)


@asynccontextmanager
async def meeting(peer: Peer, others: list[PeerId]) -> AsyncIterator[None]:
    """Looks for members while the body runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.meet, others)
        yield
        nursery.cancel_scope.cancel()


async def test_a_member_finds_others_and_looks_no_more(autojump_clock: MockClock) -> None:
    async with open_star(ENOUGH + 3) as (one, *others):
        ids = [other.host.peer_id for other in others]
        for other in others:
            await provided(other)
        async with meeting(one, ids):
            await one.pubsub.wait_for_peers(TOPIC, ENOUGH)
            await trio.sleep(1000)
            assert set(one.pubsub.peers(TOPIC)) <= set(ids)
            assert one.searches == 1


async def test_who_is_not_there_or_is_no_member_keeps_nobody_from_being_found(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "DIAL_TIMEOUT", 1.0)
    async with open_star(4) as (one, liar, gone, true):
        for other in (liar, gone, true):
            await provided(other)
        with unreachable(one.host, gone.host.peer_id):
            async with meeting(one, [gone.host.peer_id, true.host.peer_id]):
                while true.host.peer_id not in one.pubsub.peers(TOPIC):  # noqa: ASYNC110  virtual seconds
                    await trio.sleep(1)


@contextmanager
def unreachable(host: Host, peer: PeerId) -> Any:
    """Dials of `peer` never end."""
    dial = host.connect

    async def never(target: PeerId, addresses: Any = ()) -> None:
        if target == peer:
            await trio.sleep_forever()
        await dial(target, addresses)

    host.connect = never  # type: ignore[method-assign]
    try:
        yield
    finally:
        del host.connect  # type: ignore[method-assign]


async def test_in_vain_it_looks_ever_more_rarely(autojump_clock: MockClock) -> None:
    async with open_star(1) as [one]:
        async with meeting(one, []):
            await trio.sleep(3600 - 100)
        assert 10 < one.searches < 25


async def test_who_loses_the_others_after_a_long_time_looks_again_at_once(autojump_clock: MockClock) -> None:
    async with open_star(ENOUGH + 1) as (one, *others):
        for other in others:
            await provided(other)
        async with meeting(one, [other.host.peer_id for other in others]):
            for _ in range(2):
                await one.pubsub.wait_for_peers(TOPIC, ENOUGH)
                await trio.sleep(1000)
                for other in others:
                    await one.host.disconnect(other.host.peer_id)
                with trio.fail_after(2 * members.PAUSE):
                    await one.pubsub.wait_for_peers(TOPIC, ENOUGH)
