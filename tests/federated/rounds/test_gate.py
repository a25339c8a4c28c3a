from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.manifest import ByWork
from federated.rounds import gate as gate_module
from federated.rounds.admission import Admissions, search_work
from federated.rounds.committee import Membership
from federated.rounds.gate import Gate
from federated.rounds.messages import CLOCK_SKEW, LIFETIME, Commit, Hello, Join, Message
from federated.rounds.strangers import Strangers
from federated.rounds.wire import MAX_MESSAGE, encode
from p2p.gossipsub import PubsubMessage, Verdict
from p2p.peer_id import PeerId
from tests.federated.rounds.chains import joining, leaving
from tests.federated.samples import manifest, peer
from tests.support import key_number

TASK = bytes(range(32))
NOW = 1_800_000_000.0  # unix seconds
ALICE, BOB, STRANGER = (PeerId.from_public_key(key_number(number).public) for number in (1, 2, 3))


def gate() -> Gate:
    return Gate(task=TASK, members=[ALICE, BOB], wall_clock=lambda: NOW)


def packet(
    *,
    task: bytes = TASK,
    seq: int = 1,
    expiry: float = NOW + LIFETIME,
    body: Hello | Commit | Join | None = None,
) -> bytes:
    body = body or Hello(round=1, base=bytes(32))
    return encode(Message(task=task, seq=seq, expiry=int(expiry), body=body))


def message(data: bytes, sender: PeerId = ALICE, by: PeerId = BOB) -> PubsubMessage:
    return PubsubMessage(topic="t", data=data, sender=sender, seqno=b"", id=b"", received_from=by)


def test_a_members_fresh_message_is_let_in() -> None:
    assert gate().judge(message(packet())) is Verdict.ACCEPT


@pytest.mark.parametrize(
    "bad",
    [
        message(packet(), STRANGER),
        message(packet(task=bytes(32))),
        message(packet() + b"x"),
        message(bytes(MAX_MESSAGE + 1)),
        message(b""),
    ],
)
def test_what_breaks_the_rules_is_rejected(bad: PubsubMessage) -> None:
    assert gate().judge(bad) is Verdict.REJECT


@given(st.binary(max_size=200))
def test_garbage_is_rejected(data: bytes) -> None:
    assert gate().judge(message(data)) is Verdict.REJECT


@pytest.mark.parametrize("expiry", [NOW - 1, NOW + LIFETIME + CLOCK_SKEW + 1])
def test_what_is_expired_or_from_the_future_is_ignored(expiry: float) -> None:
    assert gate().judge(message(packet(expiry=expiry))) is Verdict.IGNORE


def test_what_was_said_before_is_ignored_whoever_hands_it_on() -> None:
    door = gate()
    assert door.judge(message(packet(seq=7))) is Verdict.ACCEPT
    assert door.judge(message(packet(seq=7))) is Verdict.IGNORE
    assert door.judge(message(packet(seq=7), BOB)) is Verdict.ACCEPT  # another member's seven
    assert door.judge(message(packet(seq=6))) is Verdict.ACCEPT  # gossip does not keep the order


def test_an_expired_message_does_not_use_up_its_number() -> None:
    door = gate()
    assert door.judge(message(packet(seq=7, expiry=NOW - 1))) is Verdict.IGNORE
    assert door.judge(message(packet(seq=7))) is Verdict.ACCEPT


def test_the_memory_of_each_member_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "MAX_SEQS", 3)
    door = gate()
    assert door.judge(message(packet(seq=1), BOB)) is Verdict.ACCEPT
    for seq in range(5):
        assert door.judge(message(packet(seq=seq))) is Verdict.ACCEPT
    assert door.judge(message(packet(seq=4))) is Verdict.IGNORE
    assert door.judge(message(packet(seq=0))) is Verdict.ACCEPT  # forgotten
    assert door.judge(message(packet(seq=1), BOB)) is Verdict.IGNORE  # a loud member costs no other


def test_an_open_task_hears_the_joins_of_strangers_and_nothing_else_of_them() -> None:
    task = manifest(admission=ByWork(kind="work", bits=8))
    credential = search_work(task.task_id, STRANGER, 8, 0, 1 << 16)
    assert credential is not None
    open_gate = Gate(
        task=task.task_id,
        members=[ALICE, BOB],
        wall_clock=lambda: NOW,
        strangers=Strangers(Admissions(task)),
    )
    join = Join(round=1, credential=credential)
    for body, expiry, verdict in [
        (join, NOW - 1, Verdict.IGNORE),  # said too long ago
        (join, NOW + LIFETIME, Verdict.ACCEPT),
        (join, NOW + LIFETIME, Verdict.IGNORE),  # said just before
        (Hello(round=1, base=bytes(32)), NOW + LIFETIME, Verdict.IGNORE),
    ]:
        data = encode(Message(task=task.task_id, seq=1, expiry=int(expiry), body=body))
        assert open_gate.judge(message(data, STRANGER)) is verdict
    assert open_gate.judge(message(b"", STRANGER)) is Verdict.REJECT


class Later:
    """A gate whose clock can be put forward, to an open task of Alice and Bob that has lost Alice."""

    def __init__(self) -> None:
        self.now = NOW
        self.task = manifest(admission=ByWork(kind="work", bits=8))
        self.gate = Gate(
            task=self.task.task_id,
            members=[ALICE, BOB],
            wall_clock=lambda: self.now,
            strangers=Strangers(Admissions(self.task)),
        )
        self.members = Membership(self.task.task_id, [ALICE, BOB])
        self.lose(ALICE)

    def lose(self, peer: PeerId) -> None:
        self.members = self.members.apply([leaving(peer)])
        self.gate.turn(self.members)

    def judge(self, sender: PeerId, by: PeerId, body: Hello | Join | None = None) -> Verdict:
        data = packet(task=self.task.task_id, seq=int(self.now), expiry=self.now + 1, body=body)
        return self.gate.judge(message(data, sender, by))


def test_who_is_no_member_any_more_is_excused_until_it_must_have_heard_and_who_hands_it_on_always() -> None:
    door = Later()
    assert door.judge(ALICE, ALICE) is Verdict.IGNORE
    door.now += LIFETIME
    door.members = door.members.apply([joining(STRANGER)])
    door.gate.turn(door.members)  # another change does not begin it anew
    assert door.judge(ALICE, ALICE) is Verdict.IGNORE
    door.now += 1.0
    assert door.judge(ALICE, ALICE) is Verdict.REJECT
    assert door.judge(ALICE, BOB) is Verdict.IGNORE
    assert door.judge(BOB, ALICE) is Verdict.ACCEPT


def test_who_hands_on_what_a_member_says_that_we_do_not_know_yet_is_not_to_blame() -> None:
    door = Later()
    false = Join(round=1, credential=b"?")
    assert door.judge(STRANGER, BOB) is Verdict.IGNORE
    assert door.judge(STRANGER, BOB, false) is Verdict.IGNORE
    door.now += 1.0
    assert door.judge(STRANGER, STRANGER, false) is Verdict.REJECT
    door.members = door.members.apply([joining(STRANGER)])
    door.gate.turn(door.members)
    door.now += 1.0
    assert door.judge(STRANGER, BOB, false) is Verdict.ACCEPT


def test_the_more_members_there_are_the_less_is_remembered_of_each() -> None:
    door = Later()
    door.members = door.members.apply([joining(peer(number)) for number in range(10, 1030)])
    door.gate.turn(door.members)
    for seq in range(gate_module.MIN_SEQS + 1):
        data = packet(task=door.task.task_id, seq=seq)
        assert door.gate.judge(message(data, BOB)) is Verdict.ACCEPT
    again = [packet(task=door.task.task_id, seq=seq) for seq in (1, 0)]
    assert [door.gate.judge(message(data, BOB)) for data in again] == [Verdict.IGNORE, Verdict.ACCEPT]
