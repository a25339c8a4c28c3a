from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from federated.directory import driver
from federated.directory.driver import PROTOCOL, Directory, open_directory
from federated.directory.head import HeadRecord, decode_head
from federated.directory.signed import encode_task, sign_task
from federated.directory.table import LIFETIME
from federated.directory.validators import VALIDATORS, head_key, task_key
from federated.directory.wire import TOPIC, Progress
from p2p.gossipsub import open_gossipsub
from p2p.host import Host
from p2p.kad import DEFAULT_VALIDATORS, Kad, RecordNotFound, open_kad, provider_key
from p2p.request_response import responder
from p2p.transport import MemoryNetwork
from tests.federated.chains import Chain
from tests.federated.lab import START, tiny_manifest
from tests.federated.samples import manifest, members
from tests.support import connect, key_number, open_memory_host

TASK = sign_task(manifest(), key_number(1))
LARGE = sign_task(manifest(members=members(300)), key_number(1))  # over what a DHT record holds
LIMIT = 3600.0  # virtual seconds


class Peer:
    def __init__(self, host: Host, kad: Kad, directory: Directory) -> None:
        self.host = host
        self.kad = kad
        self.directory = directory


def wall_time() -> float:
    return START + trio.current_time()


@asynccontextmanager
async def open_peers(
    count: int, *, server: bool = True, network: MemoryNetwork | None = None
) -> AsyncIterator[list[Peer]]:
    """Peers with a directory, each connected to all others; `server` says whether their DHT answers."""
    network, peers = network or MemoryNetwork(), list[Peer]()
    with trio.fail_after(LIMIT):
        async with AsyncExitStack() as stack:
            for number in range(1, count + 1):
                host = await stack.enter_async_context(open_memory_host(network, number))
                pubsub = await stack.enter_async_context(open_gossipsub(host))
                kad = await stack.enter_async_context(
                    open_kad(host, server=server, validators={**DEFAULT_VALIDATORS, **VALIDATORS})
                )
                directory = await stack.enter_async_context(
                    open_directory(host, pubsub, kad, wall_clock=wall_time)
                )
                for other in peers:
                    await connect(host, other.host)
                peers.append(Peer(host, kad, directory))
            yield peers


async def until(condition: Callable[[], Any]) -> Any:
    """What `condition` comes to, once it is something; looked at every second of the virtual clock."""
    while not (found := condition()):  # noqa: ASYNC110  the clock is virtual, and nothing sets an event
        await trio.sleep(1)
    return found


async def test_a_task_is_announced_to_all_with_its_round(autojump_clock: MockClock) -> None:
    async with open_peers(4) as (one, *others):
        one.directory.hold(TASK)
        for other in others:
            [entry] = await until(other.directory.entries)
            assert (entry.listing.name, entry.creator, entry.round) == ("sample", TASK.creator, 0)
        one.directory.advance(TASK.task_id, 3, Progress.FINISHED)
        for other in others:
            await until(lambda other=other: other.directory.entries()[0].round == 3)
            assert other.directory.entries()[0].progress is Progress.FINISHED


async def test_who_comes_later_asks_and_is_told(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with open_peers(1, network=network) as [one]:
        one.directory.hold(TASK)
        await trio.sleep(60)
        async with open_memory_host(network, 9) as host:
            async with open_gossipsub(host) as pubsub, open_kad(host) as kad:
                async with open_directory(host, pubsub, kad, wall_clock=wall_time) as directory:
                    await connect(host, one.host)
                    [entry] = await directory.listen(10.0)
                    assert entry.listing.task == TASK.task_id


async def test_a_network_without_tasks_has_none_after_the_given_time(autojump_clock: MockClock) -> None:
    async with open_peers(2) as (one, _):
        before = trio.current_time()
        assert await one.directory.listen(12.0) == []
        assert trio.current_time() == before + 12.0


async def test_a_task_is_found_by_its_id_in_the_dht(autojump_clock: MockClock) -> None:
    async with open_peers(3) as (one, two, three):
        one.directory.hold(TASK)
        await until(lambda: two.kad.store.get(task_key(TASK.task_id), trio.current_time()))
        assert await three.directory.find(TASK.task_id) == TASK
        assert await one.directory.find(TASK.task_id) is TASK


@pytest.mark.parametrize("task", [TASK, LARGE])
async def test_a_task_is_fetched_from_who_announces_it(task: Any, autojump_clock: MockClock) -> None:
    """Without a DHT, and also when the manifest is too large for it."""
    async with open_peers(3, server=False) as (one, _, three):
        one.directory.hold(task)
        assert await three.directory.find(task.task_id) == task


async def test_a_task_is_fetched_from_a_member_that_the_dht_names(autojump_clock: MockClock) -> None:
    """Who asks is connected to no member, and the manifest is too large for the DHT."""
    network = MemoryNetwork()
    async with open_memory_host(network, 8) as hub, open_kad(hub, server=True) as shelf:
        async with open_peers(2, server=False, network=network) as (one, two):
            for peer in (one, two):
                await connect(peer.host, hub)
            one.directory.hold(LARGE)
            one.directory.provide(LARGE.task_id)
            key = provider_key(LARGE.task_id)
            await until(lambda: shelf.providers.providers(key, trio.current_time()))
            async with open_memory_host(network, 9) as host:
                async with open_gossipsub(host) as pubsub, open_kad(host, server=False) as kad:
                    async with open_directory(host, pubsub, kad, wall_clock=wall_time) as directory:
                        await connect(host, hub)
                        assert await directory.find(LARGE.task_id) == LARGE


async def test_who_takes_part_no_more_is_provided_no_more(autojump_clock: MockClock) -> None:
    async with open_peers(2) as (one, two):
        key = provider_key(TASK.task_id)
        one.directory.provide(TASK.task_id)  # not a task of ours
        one.directory.hold(TASK)
        one.directory.provide(TASK.task_id)
        one.directory.provide(TASK.task_id)
        await until(lambda: two.kad.providers.providers(key, trio.current_time()))
        assert one.kad.providers.providers(key, trio.current_time()) == [one.host.peer_id]
        one.directory.release(TASK.task_id)
        assert one.kad.providers.providers(key, trio.current_time()) == []
    async with open_peers(1) as [one]:  # nobody to tell: left before it was told
        one.directory.hold(TASK)
        one.directory.provide(TASK.task_id)
        await trio.sleep(2 * driver.PROVIDE_PAUSE)
        one.directory.release(TASK.task_id)
        await trio.sleep(2 * driver.PROVIDE_PAUSE)
        assert one.kad.providers.providers(key, trio.current_time()) == []


async def test_a_task_that_nobody_knows_is_not_found(autojump_clock: MockClock) -> None:
    async with open_peers(2) as (one, _):
        with pytest.raises(RecordNotFound, match="nobody knows the task"):
            await one.directory.find(TASK.task_id)


@pytest.mark.parametrize("answer", [b"", b"x", encode_task(LARGE)])
async def test_a_holder_that_sends_something_else_is_passed_over(
    answer: bytes, autojump_clock: MockClock
) -> None:
    async def lie(*_: object) -> bytes:
        return answer

    async with open_peers(3, server=False) as (liar, honest, three):
        liar.directory.hold(TASK)
        liar.host.unhandle(PROTOCOL)
        liar.host.handle(PROTOCOL, responder(lie, max_request=32, timeout=10.0))
        await until(three.directory.entries)
        with trio.move_on_after(60) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_join_later, honest)
                assert await three.directory.find(TASK.task_id) == TASK
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught


async def _join_later(peer: Peer) -> None:
    await trio.sleep(3)
    peer.directory.hold(TASK)


async def test_one_that_we_leave_is_served_and_announced_no_more(autojump_clock: MockClock) -> None:
    async with open_peers(2, server=False) as (one, two):
        one.directory.hold(TASK)
        await until(two.directory.entries)
        one.directory.release(TASK.task_id)
        one.directory.release(TASK.task_id)
        assert one.directory.entries() == []
        with pytest.raises(RecordNotFound):
            await two.directory.find(TASK.task_id)
        await trio.sleep(LIFETIME)
        assert two.directory.entries() == []


async def test_the_newest_certificate_gets_into_the_dht(autojump_clock: MockClock) -> None:
    chain = Chain(tiny_manifest(3))
    task = sign_task(chain.manifest, key_number(1))
    async with open_peers(3) as (one, two, _):
        one.directory.hold(task)
        for number in range(1, 4):
            record = HeadRecord(
                manifest=chain.manifest, voters=chain.voters(), certificate=chain.add(bytes([number]))
            )
            one.directory.advance(task.task_id, number, Progress.RUNNING, record)
        await trio.sleep(2 * driver.HEAD_INTERVAL)
        found = decode_head(await two.kad.get_value(head_key(task.task_id)))
        assert found.certificate.round == 3
        one.directory.release(task.task_id)
        one.directory.hold(task)  # put by us before: nothing breaks


async def test_what_the_dht_refuses_is_logged(autojump_clock: MockClock, caplog: Any) -> None:
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as host, open_memory_host(network, 2) as other:
        async with open_gossipsub(host) as pubsub, open_kad(host) as kad:  # without our namespaces
            async with open_gossipsub(other) as there, open_directory(host, pubsub, kad) as directory:
                with there.subscribe(TOPIC):
                    await connect(host, other)
                    directory.hold(TASK)
                    await until(lambda: "is not put into the DHT" in caplog.text)


async def test_nonsense_on_the_topic_reaches_nobody(autojump_clock: MockClock) -> None:
    async with open_peers(2) as (one, two):
        await one.directory._pubsub.wait_for_peers(TOPIC, 1)
        one.directory._pubsub.publish(TOPIC, b"nonsense")
        await trio.sleep(5)
        assert two.directory.entries() == []
