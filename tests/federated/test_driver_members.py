"""Members that leave, are ejected, or are far behind, with the shipped driver on memory hosts."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from federated.driver import topic_of
from federated.history import fetch_history
from federated.rounds.committee import verify_signature
from federated.rounds.messages import Choice, Hello, Message, Vote, vote_bytes
from federated.rounds.wire import encode
from p2p.errors import InvalidInput
from tests.federated.lab import Lab, Member, assert_agreed, open_lab, peer_number, start_idle, tiny_manifest


def states(lab: Lab, number: int) -> list[str]:
    return [event["state"] for event in lab.task_events(number)]


def participants(lab: Lab, member: int, number: int) -> list[str]:
    found: list[str] = lab.rounds(member)[number]["participants"]
    return found


async def test_a_member_that_leaves_is_let_go_and_cannot_come_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lab = Lab(tiny_manifest(4), tmp_path)
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await lab.until_round(1, 4)
        leaver = lab.members[4]
        assert leaver.task is not None
        await leaver.task.leave()
        await leaver.task.wait_left()
        assert states(lab, 4)[-1] == "left"
        await lab.until_finished(1, 2, 3)
        await leaver.crash()
        with pytest.raises(InvalidInput, match="not a member"):
            await lab.run(4)
        nursery.cancel_scope.cancel()
    assert_agreed(lab, 6)
    assert str(peer_number(4)) not in participants(lab, 1, 6)
    assert len(participants(lab, 1, 6)) == 3


class Liar:
    """A member without a task that says on the topic what it wants."""

    def __init__(self, lab: Lab, member: Member) -> None:
        self._lab = lab
        self._member = member
        self._seq = 0

    def say(self, body: Hello | Vote) -> None:
        self._seq += 1
        expiry = int(self._lab.wall_time() + 30)
        task = self._lab.manifest.task_id
        message = Message(task=task, seq=self._seq, expiry=expiry, body=body)
        self._member.pubsub.publish(topic_of(self._lab.manifest), encode(message))

    def vote(self, number: int, label: int) -> None:
        block = sha256(bytes([label])).digest()
        data = vote_bytes(self._lab.manifest.task_id, number, 1, Choice.NOTARIZE, block)
        signature = self._member.host.key.sign(data)
        assert verify_signature(self._member.host.peer_id, data, signature)
        self.say(Vote(round=number, view=1, choice=Choice.NOTARIZE, block=block, signature=signature))


async def test_a_member_that_votes_twice_is_ejected_and_not_heard_any_more(
    autojump_clock: MockClock,
) -> None:
    lab = Lab(tiny_manifest(5, rounds=5))
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        member = await nursery.start(start_idle, lab, 5)
        await member.pubsub.wait_for_peers(topic_of(lab.manifest), 4)
        liar = Liar(lab, member)
        await lab.until(lambda: any(event["event"] == "phase" for event in lab.reports.get(1, [])))
        for label in (1, 2):
            liar.vote(1, label)
        await lab.until_round(3, 1, 2, 3, 4)
        changes = [event for event in lab.reports[1] if event["event"] == "membership"]
        assert [(event["peer"], event["change"]) for event in changes] == [(str(peer_number(5)), "eject")]
        counters = lab.members[1].pubsub.counters
        before = counters.rejected + counters.ignored
        liar.say(Hello(round=1, base=bytes(32)))
        await lab.until(lambda: counters.rejected + counters.ignored > before)
        await lab.until_round(5, 1, 2, 3, 4)
    assert_agreed(lab, 5)


async def test_every_member_serves_the_whole_chain_and_who_was_away_for_long_follows_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lab = Lab(tiny_manifest(3, rounds=16), tmp_path)
    task = lab.manifest.task_id
    async with open_lab(lab, 1, 2, 3) as nursery:
        await lab.until_round(2, 1, 2, 3)
        await lab.members[3].crash()
        await lab.until_round(14, 1, 2)
        nursery.start_soon(lab.run, 3)
        await lab.until_finished(1, 2, 3)
        host = lab.members[1].host
        chain = await fetch_history(host, peer_number(3), task, 1, 64)
        assert [certificate.round for certificate in chain] == list(range(1, 17))
        assert chain[-1].block.model.digest.hex() == lab.rounds(1)[16]["digest"]
        fetched = [event for event in lab.reports[3] if event["event"] == "catch_up"]
        assert fetched
    assert_agreed(lab, 16)


async def test_what_the_members_certified_without_disks_can_be_fetched_too(
    autojump_clock: MockClock,
) -> None:
    lab = Lab(tiny_manifest(2, rounds=3))
    async with open_lab(lab, 1, 2):
        await lab.until_finished(1, 2)
        with trio.fail_after(10):
            chain = await fetch_history(lab.members[1].host, peer_number(2), lab.manifest.task_id, 2, 2)
        assert [certificate.round for certificate in chain] == [2, 3]
