from __future__ import annotations

import random

import pytest

from federated.equivocation import TwoFaced, other_vote
from federated.rounds.changes import evidence_of, excludes, is_true
from federated.rounds.committee import verify_signature
from federated.rounds.messages import NO_BLOCK, Choice, Hello, Message, Vote, vote_bytes
from federated.rounds.wire import decode, encode
from p2p.gossipsub.events import Publish, Published, SendRpc
from p2p.gossipsub.signing import message_id_from_seqno
from tests.gossipsub.support import SEQNO, open_peer, peer_number
from tests.support import key_number

TASK = bytes(range(32))
KEY = key_number(1)


def vote(choice: Choice, block: bytes) -> Vote:
    signature = KEY.sign(vote_bytes(TASK, 3, 2, choice, block))
    return Vote(round=3, view=2, choice=choice, block=block, signature=signature)


VOTES = [
    vote(Choice.NOTARIZE, b"b" * 32),
    vote(Choice.NULLIFY, NO_BLOCK),
    vote(Choice.FINALIZE, b"b" * 32),
]
choices = pytest.mark.parametrize("honest", VOTES, ids=lambda honest: honest.choice.name.lower())


@choices
def test_the_other_vote_is_evidence_against_the_liar(honest: Vote) -> None:
    lie = other_vote(KEY, TASK, honest)
    assert excludes(honest, lie)
    assert is_true(TASK, evidence_of(peer_number(1), honest, lie), verify_signature)


def publish(body: Vote | Hello, neighbours: int) -> tuple[list[object], dict[bytes, list[object]]]:
    """What a liar with so many neighbours sends each of them of a message, in bytes and by peer."""
    router = TwoFaced(
        key=KEY, rng=random.Random(1), seqno=SEQNO, params=None, message_id=message_id_from_seqno
    )
    for number in range(2, neighbours + 2):
        open_peer(router, number, ["topic"])
    message = Message(task=TASK, seq=5, expiry=9, body=body)
    actions = router.handle(Publish(topic="topic", data=encode(message)), 0.0)
    sent: dict[bytes, list[object]] = {}
    for action in actions:
        if isinstance(action, SendRpc):
            bodies = [decode(found.data).body for found in action.rpc.messages]
            sent.setdefault(action.peer.raw, []).extend(bodies)
    return [action for action in actions if isinstance(action, Published)], sent


@choices
def test_one_half_is_sent_the_vote_and_the_other_half_its_counterpart(honest: Vote) -> None:
    published, sent = publish(honest, 5)
    assert len(published) == 1
    lie = other_vote(KEY, TASK, honest)
    bodies = [sent[peer] for peer in sorted(sent)]
    assert sorted(bodies.count([body]) for body in (honest, lie)) == [2, 3]
    assert len(bodies) == 5


def test_everything_else_goes_to_all() -> None:
    hello = Hello(round=1, base=bytes(32))
    published, sent = publish(hello, 4)
    assert len(published) == 1
    assert list(sent.values()) == [[hello]] * 4


def test_a_message_that_is_none_goes_as_it_is() -> None:
    router = TwoFaced(
        key=KEY, rng=random.Random(1), seqno=SEQNO, params=None, message_id=message_id_from_seqno
    )
    open_peer(router, 2, ["topic"])
    actions = router.handle(Publish(topic="topic", data=b"words"), 0.0)
    assert [action.rpc.messages[0].data for action in actions if isinstance(action, SendRpc)] == [b"words"]
