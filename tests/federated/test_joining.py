from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from federated.compute import ThreadCompute
from federated.credential import find_credential
from federated.directory.driver import open_directory
from federated.directory.signed import sign_task
from federated.directory.validators import VALIDATORS
from federated.driver import Task, topic_of
from federated.errors import JoinRefused
from federated.history import serve_history
from federated.invitation import Ticket, make_invitation
from federated.joining import open_member
from federated.manifest import Admission, ByInvitation, ByWork, TaskManifest
from federated.registry import Registry
from federated.rounds.messages import Certificate, Hello, Join, Message
from federated.rounds.wire import decode_entry, encode, encode_entry
from p2p.kad import DEFAULT_VALIDATORS, open_kad
from tests.federated import tiny
from tests.federated.lab import Lab, Member, assert_agreed, open_lab, peer_number, start_idle, tiny_manifest
from tests.support import key_number

INVITING = ByInvitation(kind="invitation", issuers=[str(peer_number(1))])
NAMESPACES = {**DEFAULT_VALIDATORS, **VALIDATORS}
WORKING = ByWork(kind="work", bits=8)


def manifest(admission: Admission = INVITING, **changes: Any) -> TaskManifest:
    return tiny_manifest(4, **{"admission": admission, "rounds": 7, **changes})


def ticket(task: TaskManifest, last_round: int = 7, invitation: int = 0, issuer: int = 1) -> Ticket:
    entropy = bytes([invitation]) * 32
    return make_invitation(key_number(issuer), task.task_id, last_round, entropy)


class JoinLab(Lab):
    """A lab whose members may come without being in the manifest, with a ticket."""

    def __init__(self, manifest: TaskManifest, folder: Path | None = None) -> None:
        super().__init__(manifest, folder)
        self.tickets: dict[int, Ticket] = {}
        self.refused: dict[int, str] = {}

    def _open_task(
        self, member: Member, manifest: TaskManifest | None, plugins: Registry | None
    ) -> AbstractAsyncContextManager[Task]:
        number = member.number
        return open_member(
            member.host,
            member.pubsub,
            member.blobs,
            manifest or self.manifest,
            plugins or tiny.registry(),
            self.folder(number),
            lambda event: self._report(number, event),
            ticket=self.tickets.get(number),
            compute=self.compute,
            rng=random.Random(number),
            wall_clock=self.wall_time,
        )

    async def run_refused(self, number: int) -> None:
        """Runs a member that is not let in."""
        with pytest.raises(JoinRefused) as caught:
            await self.run(number)
        self.refused[number] = caught.value.rule
        self._news.set()

    def members_reported(self, number: int) -> list[str]:
        """Who joined, as a member tells it."""
        events = self.reports[number]
        return [
            event["peer"] for event in events if event["event"] == "membership" and event["change"] == "join"
        ]


@pytest.mark.parametrize("admission", [INVITING, WORKING])
async def test_a_peer_that_joins_takes_part_two_rounds_later(
    autojump_clock: MockClock, admission: Admission
) -> None:
    lab = JoinLab(manifest(admission))
    lab.tickets[5] = ticket(lab.manifest)
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await lab.until_round(3, 1, 2, 3, 4)
        begun = max(lab.rounds(1))
        nursery.start_soon(lab.run, 5)
        await lab.until_round(7, 1, 2, 3, 4, 5)
    assert_agreed(lab, 7)
    joiner = str(peer_number(5))
    took_part = [number for number, event in lab.rounds(1).items() if joiner in event["participants"]]
    assert took_part
    assert took_part[0] == begun + 2  # the round in progress admits it, and it trains in the one after
    assert {tuple(lab.members_reported(number)) for number in (1, 2, 3, 4)} == {(joiner,)}
    assert [event["state"] for event in lab.task_events(5)] == ["joining", "joined", "finished"]


async def test_a_member_that_joined_comes_back_without_its_ticket(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lab = JoinLab(manifest(), tmp_path)
    lab.tickets[5] = ticket(lab.manifest)
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await lab.until_round(2, 1, 2, 3, 4)
        nursery.start_soon(lab.run, 5)
        await lab.until(lambda: bool(lab.rounds(5)))
        await lab.members[5].crash()
        del lab.tickets[5]
        nursery.start_soon(lab.run, 5)
        await lab.until_round(7, 1, 2, 3, 4, 5)
    assert_agreed(lab, 7)
    assert [event["state"] for event in lab.task_events(5)] == ["joining", "joined", "joined", "finished"]


async def test_two_peers_join_one_after_the_other_and_all_have_the_same_members(
    autojump_clock: MockClock,
) -> None:
    lab = JoinLab(manifest(rounds=9))
    for number in (5, 6):
        lab.tickets[number] = ticket(lab.manifest, last_round=9, invitation=number)
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await lab.until_round(1, 1)
        nursery.start_soon(lab.run, 5)
        await lab.until(lambda: bool(lab.rounds(5)))
        nursery.start_soon(lab.run, 6)
        await lab.until_round(9, 1, 2, 3, 4, 5, 6)
    assert_agreed(lab, 9)
    joined = [str(peer_number(5)), str(peer_number(6))]
    assert all(lab.members_reported(number) == joined for number in (1, 2, 3, 4))
    assert set(joined) <= set(lab.rounds(1)[9]["participants"])


async def test_a_peer_that_comes_before_the_members_waits_for_them(autojump_clock: MockClock) -> None:
    lab = JoinLab(manifest(rounds=4))
    lab.tickets[5] = ticket(lab.manifest)
    async with open_lab(lab) as nursery:
        await nursery.start(start_idle, lab, 4)  # a member, but it does not take part: it has no history
        nursery.start_soon(lab.run, 5)
        await lab.until(lambda: bool(lab.reports.get(5)))
        await trio.sleep(30)
        for number in (1, 2, 3):
            await nursery.start(lab.run, number)
        await lab.until_round(4, 1, 2, 3, 5)
    assert_agreed(lab, 4)
    assert str(peer_number(5)) in lab.rounds(1)[4]["participants"]


async def test_a_member_that_lies_about_the_past_is_found_out(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab = JoinLab(manifest())
    lab.tickets[5] = ticket(lab.manifest)
    task = lab.manifest.task_id

    async def forge(task: bytes, first: int, count: int) -> list[bytes]:
        """True certificates, with the votes of a few."""
        state = lab.members[1].task._state  # type: ignore[union-attr]
        entries = [decode_entry(task, data) for data in state.certificates(first, count)]
        found = [replace(entry, votes=entry.votes[:1]) for entry in entries if isinstance(entry, Certificate)]
        return [encode_entry(task, certificate) for certificate in found]

    async with open_lab(lab) as nursery:
        liar = await nursery.start(start_idle, lab, 4)  # the first one that the joiner knows
        with serve_history(liar.host, task, forge), liar.pubsub.subscribe(topic_of(lab.manifest)):
            for number in (1, 2, 3):
                await nursery.start(lab.run, number)
            await lab.until_round(2, 1, 2, 3)
            nursery.start_soon(lab.run, 5)
            await lab.until(lambda: bool(lab.reports.get(5)))
            for data in (b"no message", encode(Message(task=bytes(32), seq=1, expiry=0, body=HELLO))):
                liar.pubsub.publish(topic_of(lab.manifest), data)
            await lab.until_round(7, 1, 2, 3, 5)
    assert_agreed(lab, 7)
    assert f"{peer_number(4)} broke the rule signature" in caplog.text


@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.4, 0.7])
async def test_a_peer_that_is_killed_while_it_joins_joins_all_the_same(
    autojump_clock: MockClock, tmp_path: Path, seconds: float
) -> None:
    lab = JoinLab(manifest(), tmp_path)
    lab.tickets[5] = ticket(lab.manifest)
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await lab.until_round(1, 1, 2, 3, 4)
        nursery.start_soon(lab.run, 5)
        await trio.sleep(seconds)
        await lab.members[5].crash()
        nursery.start_soon(lab.run, 5)
        await lab.until_round(7, 1, 2, 3, 4, 5)
    assert_agreed(lab, 7)
    assert lab.members_reported(1) == [str(peer_number(5))]


class ScatteredLab(JoinLab):
    """Peer 9 is no member, and serves the DHT for all others; who joins is connected to nobody else."""

    def neighbours(self, number: int) -> list[Member]:
        return [other for other in super().neighbours(number) if number <= 4 or other.number == 9]

    @asynccontextmanager
    async def _open_task(
        self, member: Member, manifest: TaskManifest | None, plugins: Registry | None
    ) -> AsyncIterator[Task]:
        number, task = member.number, sign_task(self.manifest, key_number(1))
        async with (
            open_kad(member.host, server=False, validators=NAMESPACES) as kad,
            open_directory(member.host, member.pubsub, kad, wall_clock=self.wall_time) as directory,
        ):
            directory.hold(task)
            async with open_member(
                member.host,
                member.pubsub,
                member.blobs,
                self.manifest,
                tiny.registry(),
                self.folder(number),
                lambda event: self._report(number, event),
                ticket=self.tickets.get(number),
                kad=kad,
                compute=self.compute,
                rng=random.Random(number),
                wall_clock=self.wall_time,
            ) as running:
                directory.provide(self.manifest.task_id)
                yield running


async def test_who_is_connected_to_no_member_finds_them_by_the_dht(autojump_clock: MockClock) -> None:
    lab = ScatteredLab(manifest(rounds=60))
    lab.tickets[5] = ticket(lab.manifest, last_round=60)
    async with open_lab(lab) as nursery:
        hub = await nursery.start(start_idle, lab, 9)
        async with open_kad(hub.host, server=True, validators=NAMESPACES):
            for number in (1, 2, 3, 4):
                await nursery.start(lab.run, number)
            await lab.until_round(2, 1, 2, 3, 4)
            nursery.start_soon(lab.run, 5)
            await lab.until(lambda: bool(lab.rounds(5)))
            last = max(lab.rounds(1))
            await lab.until_round(last + 2, 1, 5)
            others = {other.host.peer_id for other in lab.members.values() if other.number <= 4}
            assert others & set(lab.members[5].host.peers())
    assert all(len(digests) == 1 for digests in lab.digests().values())
    assert str(peer_number(5)) in lab.rounds(1)[last + 2]["participants"]


async def test_a_peer_that_joins_at_round_100_trains_in_round_101_or_102(autojump_clock: MockClock) -> None:
    """It has more certificates to fetch than one answer holds, and does so while a round goes on."""
    lab = JoinLab(tiny_manifest(2, admission=INVITING, rounds=104))
    lab.tickets[5] = ticket(lab.manifest, last_round=104)
    async with open_lab(lab, 1, 2) as nursery:
        await lab.until_round(99, 1)  # round 100 is under way
        nursery.start_soon(lab.run, 5)
        await lab.until_round(104, 1, 5)
    joiner = str(peer_number(5))
    trained = [number for number, event in lab.rounds(1).items() if joiner in event["participants"]]
    assert trained[0] in (101, 102)
    assert trained == list(range(trained[0], 105))
    assert_agreed(lab, 104)


async def test_an_invitation_that_was_used_lets_nobody_in(autojump_clock: MockClock) -> None:
    lab = JoinLab(manifest())
    lab.tickets[5] = lab.tickets[6] = ticket(lab.manifest)
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await lab.until_round(1, 1)
        nursery.start_soon(lab.run, 5)
        await lab.until(lambda: bool(lab.rounds(5)))
        await lab.run_refused(6)
        await lab.until_round(7, 1, 2, 3, 4, 5)
    assert lab.refused == {6: "used"}
    assert lab.members_reported(1) == [str(peer_number(5))]


@pytest.mark.parametrize(
    ("rule", "values"),
    [("expired", {"last_round": 1}), ("issuer", {"issuer": 3})],
)
async def test_an_invitation_that_is_no_good_is_refused_by_its_rule(
    autojump_clock: MockClock, rule: str, values: dict[str, int]
) -> None:
    lab = JoinLab(manifest())
    lab.tickets[5] = ticket(lab.manifest, **values)
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(2, 1, 2, 3, 4)
        await lab.run_refused(5)
        await lab.until_round(7, 1, 2, 3, 4)
    assert lab.refused == {5: rule}
    assert lab.members_reported(1) == []
    assert [event["state"] for event in lab.task_events(5)] == ["joining"]


async def test_a_full_task_takes_nobody_in(autojump_clock: MockClock) -> None:
    lab = JoinLab(manifest(max_members=4))
    lab.tickets[5] = ticket(lab.manifest)
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(1, 1)
        await lab.run_refused(5)
    assert lab.refused == {5: "full"}


async def test_a_task_that_is_over_takes_nobody_in(autojump_clock: MockClock) -> None:
    lab = JoinLab(manifest(rounds=2))
    lab.tickets[5] = ticket(lab.manifest, last_round=2)
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(2, 1, 2, 3, 4)
        await lab.run_refused(5)
    assert lab.refused == {5: "finished"}


async def test_forged_joins_change_nothing(autojump_clock: MockClock) -> None:
    """Joins as nobody would send them who goes through `open_member`: stolen, forged, without work."""
    lab = JoinLab(manifest(WORKING))
    other = await find_credential(lab.manifest, peer_number(9), None, lab.compute())
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        stranger = await nursery.start(start_idle, lab, 5)
        topic = topic_of(lab.manifest)
        with stranger.pubsub.subscribe(topic):
            for seq, credential in enumerate([other, b"\x80", bytes(512)]):
                body = Join(round=1, credential=credential)
                await lab.until_round(seq + 1, 1)
                say(lab, stranger, seq, body)
            say(lab, stranger, 9, HELLO)
            await lab.until_round(7, 1, 2, 3, 4)
    assert_agreed(lab, 7)
    assert lab.members_reported(1) == []


def say(lab: Lab, member: Member, seq: int, body: Join | Hello) -> None:
    message = Message(task=lab.manifest.task_id, seq=seq, expiry=int(lab.wall_time() + 30), body=body)
    member.pubsub.publish(topic_of(lab.manifest), encode(message))


HELLO = Hello(round=4, base=bytes(32))


async def refusal_of(make: Callable[[], Any]) -> str:
    with pytest.raises(JoinRefused) as caught:
        await make()
    return caught.value.rule


async def test_who_has_nothing_to_show_is_told_at_once() -> None:
    compute = ThreadCompute()
    inviting, closed, who = manifest(), tiny_manifest(4), peer_number(5)
    assert await refusal_of(lambda: find_credential(closed, who, None, compute)) == "closed"
    assert await refusal_of(lambda: find_credential(inviting, who, None, compute)) == "credential"
    wrong = ticket(closed)
    assert await refusal_of(lambda: find_credential(inviting, who, wrong, compute)) == "signature"


async def test_work_that_nobody_waits_for_ends() -> None:
    hard = manifest(ByWork(kind="work", bits=32))
    compute = ThreadCompute()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(find_credential, hard, peer_number(5), None, compute)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert await compute.run(lambda should_stop: 1) == 1  # its place is free again
