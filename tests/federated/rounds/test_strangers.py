from __future__ import annotations

import pytest

from federated.invitation import make_invitation
from federated.manifest import ByInvitation, ByWork, TaskManifest
from federated.rounds.admission import Admissions, accept_invitation, search_work
from federated.rounds.messages import Body, Commit, Hello, Join, Message
from federated.rounds.strangers import MAX_HEARD, MIN_GAP, Recent, Strangers
from p2p.gossipsub import Verdict
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.federated.samples import manifest, members, peer

ISSUER = KeyPair.from_seed(bytes([1]) * 32)  # of `peer(1)`
INVITING = manifest(admission=ByInvitation(kind="invitation", issuers=members(2)))
WORKING = manifest(admission=ByWork(kind="work", bits=8))


def said(body: Body, task: TaskManifest = INVITING) -> Message:
    return Message(task=task.task_id, seq=1, expiry=0, body=body)


def invited(who: PeerId, invitation: int = 0) -> Message:
    ticket = make_invitation(ISSUER, INVITING.task_id, 5, bytes([invitation]) * 32)
    return said(Join(round=1, credential=accept_invitation(ticket, who)))


def strangers(task: TaskManifest = INVITING) -> Strangers:
    return Strangers(Admissions(task))


def test_a_join_by_invitation_is_let_in() -> None:
    assert strangers().judge(peer(9), invited(peer(9)), 0.0) is Verdict.ACCEPT


def test_a_join_by_work_is_let_in() -> None:
    credential = search_work(WORKING.task_id, peer(9), 8, 0, 1 << 16)
    assert credential is not None
    message = said(Join(round=1, credential=credential), WORKING)
    assert strangers(WORKING).judge(peer(9), message, 0.0) is Verdict.ACCEPT


@pytest.mark.parametrize("body", [Hello(round=1, base=bytes(32)), Commit(round=1, commitment=bytes(32))])
def test_what_else_a_stranger_says_is_nobodys_fault(body: Body) -> None:
    assert strangers().judge(peer(9), said(body), 0.0) is Verdict.IGNORE


def test_a_false_join_is_its_senders_fault() -> None:
    assert strangers().judge(peer(8), invited(peer(9)), 0.0) is Verdict.REJECT
    assert strangers().judge(peer(8), said(Join(round=1, credential=b"?")), 0.0) is Verdict.REJECT
    assert strangers(manifest()).judge(peer(9), invited(peer(9)), 0.0) is Verdict.REJECT


def test_a_sender_is_heard_once_in_a_while_and_costs_nothing_in_between() -> None:
    door, false = strangers(), said(Join(round=1, credential=b"?"))
    verdicts = [door.judge(peer(9), false, at) for at in (0.0, MIN_GAP / 2, MIN_GAP)]
    assert verdicts == [Verdict.REJECT, Verdict.IGNORE, Verdict.REJECT]
    assert door.judge(peer(9), invited(peer(9)), 2 * MIN_GAP) is Verdict.ACCEPT


def test_the_senders_that_share_an_invitation_are_heard_like_one() -> None:
    door = strangers()
    verdicts = [door.judge(peer(number), invited(peer(number)), number * 0.01) for number in range(10, 20)]
    assert verdicts == [Verdict.ACCEPT, *[Verdict.IGNORE] * 9]
    assert door.judge(peer(20), invited(peer(20), invitation=1), 0.2) is Verdict.ACCEPT
    assert door.judge(peer(21), invited(peer(21)), MIN_GAP + 0.1) is Verdict.ACCEPT


def test_a_clock_that_was_set_back_bars_nobody() -> None:
    door = strangers()
    assert door.judge(peer(9), invited(peer(9)), 1000.0) is Verdict.ACCEPT
    assert door.judge(peer(9), invited(peer(9)), 0.0) is Verdict.ACCEPT


def test_only_the_last_ones_are_remembered() -> None:
    recent = Recent()
    assert not any(recent.is_too_soon(number.to_bytes(2), 0.0) for number in range(MAX_HEARD + 1))
    assert len(recent._heard) == MAX_HEARD
    assert not recent.is_too_soon((0).to_bytes(2), 0.0)  # the oldest one was forgotten
    assert recent.is_too_soon(MAX_HEARD.to_bytes(2), 0.0)
