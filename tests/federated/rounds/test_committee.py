"""Quorums, leaders, and who counts as live."""

from __future__ import annotations

import math
from hashlib import sha256

import pytest

from federated.manifest import RoundPolicy
from federated.rounds.capabilities import Capabilities
from federated.rounds.committee import Committee, Membership, verify_signature
from federated.rounds.messages import Choice, Vote, vote_bytes
from federated.rounds.pending import Pending
from federated.rounds.roster import Roster, Seat
from p2p.errors import InvalidInput
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.federated.samples import peer

TASK, BASE = sha256(b"task").digest(), sha256(b"base").digest()


def committee(count: int) -> Committee:
    return Committee(TASK, [peer(number) for number in range(count)])


@pytest.mark.parametrize(
    ("count", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 4), (7, 5), (13, 9), (64, 43)]
)
def test_any_two_quorums_share_an_honest_member(count: int, quorum: int) -> None:
    made = committee(count)
    assert made.quorum == quorum
    assert 2 * quorum - count > made.faults
    assert count - made.faults >= quorum


def test_every_member_leads_once_in_a_rotation_in_an_order_that_changes() -> None:
    made = committee(7)
    orders = [
        [made.leader(number, base, view) for view in range(start, start + 7)]
        for number, base, start in [(1, BASE, 1), (1, BASE, 8), (2, BASE, 1), (1, TASK, 1)]
    ]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert [committee(7).leader(1, BASE, view) for view in range(1, 8)] == orders[0]


def test_members_are_numbered_in_the_order_of_their_ids_whatever_order_they_come_in() -> None:
    peers = [peer(number) for number in range(5)]
    made = Membership(TASK, peers[::-1])
    assert list(made.members) == sorted(peers)
    assert [made.number(item) for item in made.members] == list(range(5))
    assert made.number(peer(9)) is None
    assert made.peers(0b10010) == (made.members[1], made.members[4])


def test_a_vote_is_accepted_with_the_signature_of_its_member_only() -> None:
    keys = [KeyPair.from_seed(bytes([number]) * 32) for number in range(2)]
    voters = [PeerId.from_public_key(key.public) for key in keys]
    made = Committee(TASK, voters)
    data = vote_bytes(TASK, 1, 1, Choice.NOTARIZE, BASE)
    vote = Vote(round=1, view=1, choice=Choice.NOTARIZE, block=BASE, signature=keys[0].sign(data))
    assert [made.accepts_vote(member, vote) for member in range(2)] == [True, False]


def test_a_member_whose_key_nobody_knows_cannot_vote() -> None:
    stranger = PeerId(b"\x12\x20" + bytes(32))
    assert not verify_signature(stranger, b"", bytes(64))
    with pytest.raises(InvalidInput, match="does not contain its key"):
        Membership(TASK, [stranger])


def test_a_member_is_live_once_heard_and_while_connected_or_heard_lately() -> None:
    roster = Roster(0, window=10.0, grace=0.0)
    roster.connect(1)
    assert roster.live(0.0) == 0b1
    roster.hear(1, 0.0)
    roster.hear(2, 0.0)
    assert roster.live(10.0) == 0b111
    assert roster.live(10.1) == 0b11
    roster.lose(1, 10.1)
    assert roster.live(10.1) == 0b1
    roster.hear(1, 11.0)
    assert roster.live(12.0) == 0b11
    assert roster.live(21.5) == 0b1


def test_without_a_window_a_member_is_live_until_it_was_silent_for_a_whole_round() -> None:
    roster = Roster(0, window=math.inf, grace=0.0)
    roster.turn(0.0)
    roster.hear(1, 1.0)
    roster.hear(2, 1.0)
    roster.connect(2)
    roster.turn(10.0)
    assert roster.live(1e6) == 0b111
    roster.hear(3, 11.0)
    roster.turn(20.0)
    assert roster.live(20.0) == 0b1101  # one is not connected and said nothing in the second round
    roster.hear(1, 21.0)
    assert roster.live(21.0) == 0b1111


def test_a_member_that_is_known_and_connected_again_is_live_at_once() -> None:
    roster = Roster(0, window=1.0, grace=0.0)
    roster.hear(1, 0.0)
    assert roster.live(2.0) == 0b1
    roster.connect(1)
    assert roster.is_live(1, 2.0)


def test_a_member_that_was_live_is_awaited_for_a_while_after_its_loss() -> None:
    roster = Roster(0, window=10.0, grace=5.0)
    roster.connect(1)
    roster.lose(1, 0.0)
    assert roster.awaited(0.0) == 0b1  # nobody had heard it
    roster.connect(1)
    roster.hear(1, 1.0)
    roster.lose(1, 2.0)
    assert roster.live(2.0) == 0b1
    assert roster.awaited(6.9) == 0b11
    assert roster.awaited(7.0) == 0b1
    roster.hear(1, 8.0)
    assert roster.awaited(30.0) == 0b1


@pytest.mark.parametrize(
    ("share", "count", "minimum"), [(0.5, 6, 3), (0.5, 5, 3), (0.1, 30, 3), (1.0, 4, 4), (0.01, 4, 1)]
)
def test_the_least_number_of_updates_is_a_share_of_all_members(
    share: float, count: int, minimum: int
) -> None:
    membership = Membership(TASK, [peer(number) for number in range(count)])
    seat = Seat(
        membership=membership,
        me=0,
        sign=bytes,
        rng=math,  # type: ignore[arg-type]
        policy=RoundPolicy(min_updates=share),
        max_update=1,
        roster=Roster(0, window=1.0, grace=0.0),
        pending=Pending(membership, verify_signature, None),
        frauds=math,  # type: ignore[arg-type]
        capabilities=Capabilities(0, is_drawn=False),
        period=1.0,
        is_drawn=False,
    )
    assert seat.minimum == minimum
