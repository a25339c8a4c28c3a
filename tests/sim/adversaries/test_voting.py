"""Routers of members that break a rule of the agreement: what each of their neighbours gets of a message."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from federated.equivocation import TwoFaced
from federated.rounds.changes import evidence_of, excludes, is_true
from federated.rounds.committee import verify_signature
from federated.rounds.messages import (
    NO_BLOCK,
    Body,
    Choice,
    Hello,
    Message,
    Proof,
    Propose,
    Vote,
    vote_bytes,
)
from federated.rounds.wire import decode, encode
from p2p.gossipsub.events import Publish, Published, SendRpc
from p2p.gossipsub.router import Router
from p2p.peer_id import PeerId
from sim.adversaries.voting import Abstainer, FalseLeader
from tests.gossipsub.support import SEQNO, open_peer, peer_number
from tests.search.parliament import ROUND, TASK, block, hash_of
from tests.support import key_number

TOPIC, KEY = "task", key_number(1)
HELLO = Hello(round=ROUND, base=bytes(32))
PROPOSAL = Propose(view=3, parent=0, block=block(1))
PROOF = Proof(round=ROUND, view=1, choice=Choice.NULLIFY, block=NO_BLOCK, votes=((0, bytes(64)),))


def vote(choice: Choice) -> Vote:
    what = NO_BLOCK if choice is Choice.NULLIFY else hash_of(1)
    signature = KEY.sign(vote_bytes(TASK, ROUND, 3, choice, what))
    return Vote(round=ROUND, view=3, choice=choice, block=what, signature=signature)


def publish(kind: type[Router], body: Body | None, neighbours: int = 5) -> dict[PeerId, list[Body]]:
    """What each neighbour is sent of one message; whoever published it is told of one."""
    router = kind(key=KEY, rng=Random(1), seqno=SEQNO)
    peers = [open_peer(router, number, [TOPIC]) for number in range(2, 2 + neighbours)]
    data = b"no message" if body is None else encode(Message(task=TASK, seq=5, expiry=9, body=body))
    actions = router.handle(Publish(topic=TOPIC, data=data), 0.0)
    assert sum(isinstance(action, Published) for action in actions) == 1
    sent: dict[PeerId, list[Body]] = {peer: [] for peer in peers}
    for action in actions:
        if isinstance(action, SendRpc):
            for message in action.rpc.messages:
                if body is None:
                    assert message.data == b"no message"
                    sent[action.peer].append(HELLO)
                else:
                    sent[action.peer].append(decode(message.data).body)
    return sent


@pytest.mark.parametrize("choice", Choice)
def test_a_two_faced_member_casts_votes_that_are_evidence_against_it(choice: Choice) -> None:
    honest = vote(choice)
    sent = publish(TwoFaced, honest)
    first = [peer for peer, bodies in sent.items() if bodies == [honest]]
    lies = [body for peer, bodies in sent.items() if peer not in first for body in bodies]
    assert (len(first), len(lies)) == (3, 2)
    for lie in lies:
        assert isinstance(lie, Vote)
        assert excludes(honest, lie)
        assert is_true(TASK, evidence_of(peer_number(1), honest, lie), verify_signature)


def test_a_false_leader_tells_one_half_of_a_model_that_nobody_made() -> None:
    sent = publish(FalseLeader, PROPOSAL)
    assert [bodies for bodies in sent.values() if bodies == [PROPOSAL]] == [[PROPOSAL]] * 3
    [lie, same] = [body for bodies in sent.values() for body in bodies if body != PROPOSAL]
    assert lie == same
    assert isinstance(lie, Propose)
    assert (lie.view, lie.parent, lie.block.inputs) == (3, 2, PROPOSAL.block.inputs)
    assert lie.block.model.digest != PROPOSAL.block.model.digest
    assert replace(lie.block, model=PROPOSAL.block.model) == PROPOSAL.block


@pytest.mark.parametrize("body", [PROPOSAL, PROOF, vote(Choice.NOTARIZE)])
def test_an_abstainer_says_nothing_that_is_for_an_agreement(body: Body) -> None:
    assert set(map(tuple, publish(Abstainer, body).values())) == {()}


@pytest.mark.parametrize("kind", [TwoFaced, FalseLeader, Abstainer])
@pytest.mark.parametrize("body", [HELLO, None])
def test_everything_else_goes_to_all_as_it_is(kind: type[Router], body: Body | None) -> None:
    assert list(publish(kind, body).values()) == [[HELLO]] * 5
