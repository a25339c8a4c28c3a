from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.manifest import ByWork
from federated.rounds import gate as gate_module
from federated.rounds.admission import Admissions, search_work
from federated.rounds.gate import Gate
from federated.rounds.messages import CLOCK_SKEW, LIFETIME, Commit, Hello, Join, Message
from federated.rounds.strangers import Strangers
from federated.rounds.wire import MAX_MESSAGE, encode
from p2p.gossipsub import PubsubMessage, Verdict
from p2p.peer_id import PeerId
from tests.federated.samples import manifest
from tests.support import key_number

TASK = bytes(range(32))
NOW = 1_800_000_000.0  # unix seconds
ALICE, BOB, STRANGER = (PeerId.from_public_key(key_number(number).public) for number in (1, 2, 3))


def gate() -> Gate:
    return Gate(task=TASK, members=[ALICE, BOB], wall_clock=lambda: NOW)


def packet(
    *, task: bytes = TASK, seq: int = 1, expiry: float = NOW + LIFETIME, body: Hello | Commit | None = None
) -> bytes:
    body = body or Hello(round=1, base=bytes(32))
    return encode(Message(task=task, seq=seq, expiry=int(expiry), body=body))


def message(data: bytes, sender: PeerId = ALICE) -> PubsubMessage:
    return PubsubMessage(topic="t", data=data, sender=sender, seqno=b"", id=b"", received_from=BOB)


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
