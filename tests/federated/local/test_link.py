"""The bus: what is said reaches all others, whoever sleeps is woken, and nobody hears himself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio
from trio.testing import wait_all_tasks_blocked

from federated.local.link import Bus, LocalLink
from federated.rounds.actions import FetchHistory
from federated.rounds.events import (
    Event,
    HistoryFailed,
    HistoryFetched,
    MessageReceived,
    PeerConnected,
    TrainFailed,
)
from federated.rounds.messages import Choice, Hello, Vote
from federated.rounds.wire import encode_entry
from tests.federated.chains import Chain
from tests.federated.lab import peer_number, tiny_manifest
from tests.support import key_number

MANIFEST = tiny_manifest(3)
TASK = MANIFEST.task_id
PEERS = [peer_number(number) for number in range(1, 4)]


def links() -> list[LocalLink]:
    bus = Bus(TASK, PEERS)
    return [LocalLink(bus, peer, key_number(number)) for number, peer in enumerate(PEERS, 1)]


async def heard_by(link: LocalLink) -> list[Event]:
    """What it hears without waiting."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            found = list[Event]()

            async def hear() -> None:
                found.extend(await link.receive(may_wait=False))
                scope.cancel()

            nursery.start_soon(hear)
            await wait_all_tasks_blocked()
            scope.cancel()
    return found


def hello(number: int = 1) -> Hello:
    return Hello(round=number, base=bytes(32))


async def test_all_are_connected_from_the_beginning() -> None:
    for link in links():
        assert await heard_by(link) == [PeerConnected(peer=peer) for peer in PEERS if peer != link.peer]
        assert await heard_by(link) == []


async def test_what_is_said_wakes_all_that_sleep_and_comes_in_order() -> None:
    members = links()
    heard: dict[int, list[Event]] = {}
    for link in members:
        await link.receive(may_wait=False)

    async def listen(number: int) -> None:
        heard[number] = [*await members[number].receive(may_wait=False)]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, 1)
        nursery.start_soon(listen, 2)
        await wait_all_tasks_blocked()
        members[0].publish(hello(1))
        members[0].publish(hello(2))
    said = [MessageReceived(sender=PEERS[0], body=hello(number)) for number in (1, 2)]
    assert heard == {1: said, 2: said}
    assert await heard_by(members[0]) == []


async def test_what_comes_of_work_wakes_its_member_and_comes_before_what_is_heard_later() -> None:
    one, other, _ = links()
    await one.receive(may_wait=False)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.put, TrainFailed(round=1))
            assert [*await one.receive(may_wait=False)] == [TrainFailed(round=1)]
    await one.put(TrainFailed(round=2))
    other.publish(hello())
    assert [*await one.receive(may_wait=False)] == [
        TrainFailed(round=2),
        MessageReceived(sender=PEERS[1], body=hello()),
    ]


async def test_who_was_cancelled_while_it_slept_sleeps_again() -> None:
    one, other, _ = links()
    await one.receive(may_wait=False)
    with trio.move_on_after(0):
        await one.receive(may_wait=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(one.receive, may_wait=False))
        await wait_all_tasks_blocked()
        other.publish(hello())


async def test_history_comes_from_the_first_holder_that_has_some() -> None:
    one, other, third = links()
    chain = Chain(MANIFEST)
    certificates = [chain.add(bytes([number])) for number in range(3)]
    asked: list[tuple[bytes, int, int]] = []

    async def nothing(task: bytes, first: int, count: int) -> Sequence[bytes]:
        return []

    async def read(task: bytes, first: int, count: int) -> Sequence[bytes]:
        asked.append((task, first, count))
        return [encode_entry(TASK, each) for each in certificates[:count]]

    action = FetchHistory(first=1, count=2, holders=(peer_number(9), PEERS[1], PEERS[2]))
    await one.receive(may_wait=False)
    async with trio.open_nursery() as nursery:
        with one.listen(), other.follow(nursery, nothing), third.follow(nursery, read):
            await one.fetch_history(action)
            assert asked == [(TASK, 1, 2)]
            assert [*await one.receive(may_wait=False)] == [
                HistoryFetched(holder=PEERS[2], certificates=tuple(certificates[:2]))
            ]
    await one.fetch_history(action)
    assert [*await one.receive(may_wait=False)] == [HistoryFailed()]


async def test_who_may_wait_hears_what_voters_say_once_something_else_is_said() -> None:
    members = links()
    for link in members:
        await link.receive(may_wait=False)
    heard: dict[int, list[Event]] = {}

    async def listen(number: int) -> None:
        heard[number] = [*await members[number].receive(may_wait=number == 1)]

    vote = Vote(round=1, view=1, choice=Choice.NOTARIZE, block=bytes(32), signature=bytes(64))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, 1)
        nursery.start_soon(listen, 2)
        await wait_all_tasks_blocked()
        members[0].publish(vote)
        await wait_all_tasks_blocked()
        assert [*heard] == [2]
        members[2].publish(hello())
    said = [MessageReceived(sender=PEERS[0], body=vote), MessageReceived(sender=PEERS[2], body=hello())]
    assert heard == {1: said, 2: said[:1]}


async def test_who_may_wait_is_woken_by_its_own_work() -> None:
    one, _, _ = links()
    await one.receive(may_wait=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(one.receive, may_wait=True))
        await wait_all_tasks_blocked()
        await one.put(TrainFailed(round=1))
