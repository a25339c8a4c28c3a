"""What proves a change of the membership, as values and as bytes: nothing forged passes, all agree."""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.rounds.changes import (
    Departure,
    evidence_of,
    excludes,
    is_true,
    judge_changes,
    pack_departure,
    pack_evidence,
    pack_fraud,
    pack_proofs,
    pack_signed,
    proof_hash,
    unpack_changes,
    unpack_departure,
    unpack_evidence,
    unpack_proofs,
    unpack_signed,
)
from federated.rounds.committee import Committee, Electorate, Membership, set_of
from federated.rounds.messages import (
    MAX_CHANGES,
    MAX_PROOFS,
    MAX_VIEW,
    NO_BLOCK,
    SIGNATURE_SIZE,
    Block,
    Certificate,
    Change,
    ChangeKind,
    Choice,
    Evidence,
    Fraud,
    MessageError,
    Model,
    Proof,
    Signed,
    Vote,
    leave_bytes,
    pack_changes,
    vote_bytes,
)
from federated.rounds.pending import MAX_JOINS, Pending
from federated.rounds.witness import WATCHED_VIEWS, Witness
from p2p.blobs.merkle import EMPTY_ROOT
from p2p.peer_id import PeerId
from tests.federated.rounds.network import sign, verify
from tests.federated.samples import peer

TASK = sha256(b"task").digest()
NOTARIZE, NULLIFY, FINALIZE = Choice
BLOCKS = [sha256(bytes([label])).digest() for label in range(3)]


def members(count: int = 4) -> Membership:
    return Membership(TASK, [peer(number) for number in range(count)])


def vote(who: PeerId, choice: Choice, block: bytes, view: int = 1, round_number: int = 1) -> Vote:
    signature = sign(who, vote_bytes(TASK, round_number, view, choice, block))
    return Vote(round=round_number, view=view, choice=choice, block=block, signature=signature)


def evidence(who: PeerId) -> Evidence:
    return evidence_of(who, vote(who, NOTARIZE, BLOCKS[0]), vote(who, NOTARIZE, BLOCKS[1]))


def ejection(who: PeerId) -> tuple[Change, bytes]:
    proof = pack_evidence(evidence(who))
    return Change(kind=ChangeKind.EJECT, peer=who, proof=proof_hash(proof)), proof


def departure(who: PeerId, round_number: int = 3) -> tuple[Change, bytes]:
    signature = sign(who, leave_bytes(TASK, round_number))
    proof = pack_departure(Departure(round=round_number, signature=signature))
    return Change(kind=ChangeKind.LEAVE, peer=who, proof=proof_hash(proof)), proof


class OpenDoor:
    """An admission: a credential is good when it is the peer's, and is for one use by its first byte."""

    def judge(
        self, credential: bytes, peer: PeerId, round_number: int, members: Membership, used: Container[bytes]
    ) -> str | None:
        if members.number(peer) is not None:
            return "member"
        if credential[1:] != peer.raw:
            return "credential"
        return "used" if self.proof_of(credential) in used else None

    def proof_of(self, credential: bytes) -> bytes:
        return sha256(credential[:1]).digest()


def credential(who: PeerId, label: int) -> bytes:
    return bytes([label]) + who.raw


def joining(who: PeerId, label: int) -> tuple[Change, bytes]:
    proof = credential(who, label)
    return Change(kind=ChangeKind.JOIN, peer=who, proof=OpenDoor().proof_of(proof)), proof


def judge(*items: tuple[Change, bytes], count: int = 4) -> str | None:
    changes, proofs = tuple(item[0] for item in items), tuple(item[1] for item in items)
    return judge_changes(changes, proofs, members(count), 5, verify, OpenDoor())


# votes that exclude each other


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        ((NOTARIZE, BLOCKS[0]), (NOTARIZE, BLOCKS[1]), True),
        ((FINALIZE, BLOCKS[0]), (FINALIZE, BLOCKS[1]), True),
        ((NULLIFY, NO_BLOCK), (FINALIZE, BLOCKS[1]), True),
        ((NOTARIZE, BLOCKS[0]), (NOTARIZE, BLOCKS[0]), False),
        ((NULLIFY, NO_BLOCK), (NULLIFY, NO_BLOCK), False),
        ((NOTARIZE, BLOCKS[0]), (NULLIFY, NO_BLOCK), False),  # the leader was too slow after all
        ((NOTARIZE, BLOCKS[0]), (FINALIZE, BLOCKS[1]), False),  # a quorum notarized the other one
    ],
)
def test_only_votes_that_no_correct_member_casts_are_evidence(
    one: tuple[Choice, bytes], other: tuple[Choice, bytes], excluded: bool
) -> None:
    first, second = vote(peer(1), *one), vote(peer(1), *other)
    for pair in ((first, second), (second, first)):
        assert excludes(*pair) is excluded
        made = evidence_of(peer(1), *pair)
        assert is_true(TASK, made, verify) is excluded
        assert made == evidence_of(peer(1), *pair[::-1])
    for moved in (replace(second, view=2), replace(second, round=2)):
        assert not excludes(first, moved)


def test_evidence_convinces_by_the_members_key_alone_and_a_forgery_does_not() -> None:
    true = evidence(peer(1))
    assert is_true(TASK, true, verify)
    assert not is_true(sha256(b"another task").digest(), true, verify)
    assert not is_true(TASK, replace(true, peer=peer(2)), verify)
    for forged in (
        replace(true, first=vote(peer(2), NOTARIZE, true.first.block)),
        replace(true, second=replace(true.second, signature=bytes(64))),
        replace(true, second=replace(true.second, block=BLOCKS[2])),
    ):
        assert not is_true(TASK, forged, verify)


# what voters judge


def test_what_is_proved_may_be_certified() -> None:
    assert judge() is None
    assert judge(ejection(peer(1)), departure(peer(2)), joining(peer(9), 1), joining(peer(8), 2)) is None


@pytest.mark.parametrize(
    ("rule", "items"),
    [
        ("member", [ejection(peer(9))]),
        ("member", [departure(peer(9))]),
        ("member", [ejection(peer(1)), departure(peer(1))]),
        ("member", [joining(peer(1), 1)]),
        ("proof", [(ejection(peer(1))[0], ejection(peer(2))[1])]),
        ("proof", [(departure(peer(1))[0], ejection(peer(1))[1])]),
        ("proof", [(Change(kind=ChangeKind.EJECT, peer=peer(1), proof=proof_hash(b"x")), b"x")]),
        ("proof", [(Change(kind=ChangeKind.LEAVE, peer=peer(1), proof=proof_hash(b"x")), b"x")]),
        ("proof", [(replace(joining(peer(9), 1)[0], proof=BLOCKS[0]), joining(peer(9), 1)[1])]),
        ("evidence", [(replace(ejection(peer(1))[0], peer=peer(2)), ejection(peer(1))[1])]),
        ("signature", [(replace(departure(peer(1))[0], peer=peer(2)), departure(peer(1))[1])]),
        ("credential", [(joining(peer(9), 1)[0], joining(peer(8), 1)[1])]),
        ("used", [joining(peer(9), 1), joining(peer(8), 1)]),
        ("empty", [departure(peer(number)) for number in range(4)]),
    ],
)
def test_what_is_not_proved_is_refused(rule: str, items: list[tuple[Change, bytes]]) -> None:
    assert judge(*items) == rule


def test_a_task_without_admission_takes_nobody_in() -> None:
    change, proof = joining(peer(9), 1)
    assert judge_changes((change,), (proof,), members(), 5, verify, None) == "closed"


# the membership


def test_a_number_never_changes_and_none_is_given_twice() -> None:
    first = members(3)
    second = first.apply([joining(peer(9), 1)[0], departure(peer(0))[0]])
    third = second.apply([joining(peer(8), 2)[0], ejection(peer(9))[0]])
    assert third.members == (*first.members, peer(9), peer(8))
    assert [third.number(item) for item in third.members] == [0, 1, 2, 3, 4]
    gone = first.number(peer(0))
    assert gone is not None
    assert third.active == set_of(number for number in range(5) if number not in (gone, 3))
    assert third.is_active(peer(8))
    assert not third.is_active(peer(0))
    assert not third.is_active(peer(7))
    assert third.used == {joining(peer(9), 1)[0].proof, joining(peer(8), 2)[0].proof}
    assert third == second.apply([joining(peer(8), 2)[0], ejection(peer(9))[0]])
    assert len({first, second, third}) == 3
    assert first != object()


@pytest.mark.parametrize(
    "nonsense",
    [
        joining(peer(0), 1)[0],
        departure(peer(9))[0],
        Change(kind=ChangeKind.JOIN, peer=PeerId(b"\x12\x20" + bytes(32)), proof=BLOCKS[0]),
    ],
)
def test_a_change_that_cannot_be_changes_nothing(nonsense: Change) -> None:
    assert not members().allows([nonsense])
    assert members().apply([nonsense]) == members()


def test_nobody_can_be_the_last_to_go() -> None:
    alone = members(2).apply([departure(peer(0))[0]])
    assert alone.allows([])
    assert not alone.allows([departure(peer(1))[0]])
    assert alone.apply([departure(peer(1))[0]]) == alone


def test_the_votes_of_a_grown_membership_are_by_number_and_not_by_id() -> None:
    grown = members(3)
    for number in range(20, 40):
        grown = grown.apply([joining(peer(number), number)[0]])
    panel = Electorate(64, verify).panel(2, BLOCKS[0], grown)
    assert panel.committee.members == grown.members
    assert panel.committee.members != tuple(sorted(grown.members))
    drawn = Electorate(5, verify).panel(2, BLOCKS[0], grown)
    assert [grown.members[number] for number in drawn.members] == list(drawn.committee.members)
    left = grown.apply([departure(drawn.committee.members[0])[0]])
    again = Electorate(5, verify).panel(2, BLOCKS[0], left)
    assert set(again.members) > set(drawn.members[1:])


# as bytes


def test_changes_and_proofs_survive_the_wire() -> None:
    items = [ejection(peer(1)), departure(peer(2)), joining(peer(9), 1)]
    changes = tuple(item[0] for item in items)
    assert unpack_changes(pack_changes(changes)) == changes
    assert unpack_changes(b"") == ()
    proofs = tuple(item[1] for item in items)
    assert unpack_proofs(pack_proofs(proofs)) == proofs
    for change, proof in items[:2]:
        assert proof_hash(proof) == change.proof
    assert unpack_evidence(items[0][1]) == evidence(peer(1))
    assert unpack_departure(items[1][1]).round == 3


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_are_what_they_stand_for(data: bytes) -> None:
    with suppress(MessageError):
        assert pack_changes(unpack_changes(data)) == data
    with suppress(MessageError):
        assert pack_proofs(unpack_proofs(data)) == data
    with suppress(MessageError):
        assert pack_departure(unpack_departure(data)) == data
    with pytest.raises(MessageError):
        unpack_evidence(data)


PACKED = pack_evidence(evidence(peer(1)))
CHANGES = pack_changes((ejection(peer(1))[0], joining(peer(9), 1)[0]))


@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_evidence_with_a_flipped_byte_is_refused_or_false(at: int, mask: int) -> None:
    data = bytearray(PACKED)
    data[at] ^= mask
    try:
        found = unpack_evidence(bytes(data))
    except MessageError:
        return
    assert not is_true(TASK, found, verify)


@pytest.mark.parametrize(
    "data",
    [
        *(CHANGES[:end] for end in range(1, len(CHANGES)) if end != len(CHANGES) // 2),
        b"\x05" + CHANGES[1:],
        CHANGES[: len(CHANGES) // 2] * 2,
        b"\x01\x03abc" + bytes(32),
        b"".join(pack_changes((joining(peer(number), 1)[0],)) for number in range(MAX_CHANGES + 1)),
    ],
)
def test_changes_that_are_cut_doubled_or_too_many_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_changes(data)


@pytest.mark.parametrize(
    "data", [b"\0", b"\0\0", b"\0\5abcd", pack_proofs([bytes(513)]), pack_proofs([bytes(512)] * 5)]
)
def test_proofs_that_are_cut_or_too_long_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_proofs(data)


@pytest.mark.parametrize(
    "bad",
    [
        PACKED[:-1],
        PACKED + b"x",
        bytes(11),
        pack_evidence(replace(evidence(peer(1)), first=evidence(peer(1)).second)),
        pack_evidence(Evidence(peer=peer(1), first=evidence(peer(1)).second, second=evidence(peer(1)).first)),
        pack_evidence(
            Evidence(
                peer=peer(1),
                first=vote(peer(1), NULLIFY, NO_BLOCK, view=0),
                second=vote(peer(1), FINALIZE, BLOCKS[0], view=0),
            )
        ),
        pack_evidence(
            evidence_of(peer(1), vote(peer(1), NOTARIZE, BLOCKS[0]), vote(peer(1), NULLIFY, BLOCKS[1]))
        ),
    ],
)
def test_what_is_no_evidence_is_refused(bad: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_evidence(bad)


# what is asked for


def test_the_next_leader_proposes_what_is_proved_ejections_first_and_forgets_what_is_done() -> None:
    pending = Pending(members(6), verify, OpenDoor())
    pending.join(peer(9), credential(peer(9), 1), 5)
    signature = sign(peer(2), leave_bytes(TASK, 3))
    number = members(6).number(peer(2))
    assert number is not None
    assert pending.leave(number, Departure(round=3, signature=signature))
    assert pending.leave(number, Departure(round=3, signature=bytes(64)))  # known already
    assert pending.accuse(evidence(peer(1))) is True
    assert pending.accuse(evidence(peer(1))) is False
    changes, proofs = pending.propose(5)
    assert [(change.kind, change.peer) for change in changes] == [
        (ChangeKind.EJECT, peer(1)),
        (ChangeKind.LEAVE, peer(2)),
        (ChangeKind.JOIN, peer(9)),
    ]
    assert pending.judge(changes, proofs, 5) is None
    assert pending.propose(5) == (changes, proofs)
    pending.settle(members(6).apply(changes))
    assert pending.propose(6) == ((), ())
    assert pending.accuse(evidence(peer(1))) is False


def test_forged_accusations_departures_and_joins_come_to_nothing() -> None:
    pending = Pending(members(), verify, OpenDoor())
    assert pending.accuse(replace(evidence(peer(1)), peer=peer(2))) is None
    assert pending.accuse(evidence(peer(9))) is False
    assert not pending.leave(0, Departure(round=3, signature=bytes(64)))
    pending.join(peer(9), credential(peer(8), 1), 5)
    assert pending.propose(5) == ((), ())
    closed = Pending(members(), verify, None)
    closed.join(peer(9), credential(peer(9), 1), 5)
    assert closed.propose(5) == ((), ())


def test_as_much_is_proposed_as_fits_and_joins_are_kept_up_to_a_bound() -> None:
    pending = Pending(members(64), verify, OpenDoor())
    for number in range(100, 100 + 2 * MAX_JOINS):
        pending.join(peer(number), credential(peer(number), number), 5)
    assert len(pending._joins) == MAX_JOINS
    for number in range(12):
        pending.accuse(evidence(peer(number)))
    changes, proofs = pending.propose(5)
    assert len(changes) == MAX_CHANGES
    assert sum(map(len, proofs)) <= MAX_PROOFS
    assert [change.kind for change in changes].count(ChangeKind.EJECT) >= 6
    assert pending.judge(changes, proofs, 5) is None


def test_of_two_that_use_one_invitation_only_one_is_proposed() -> None:
    pending = Pending(members(), verify, OpenDoor())
    pending.join(peer(9), credential(peer(9), 1), 5)
    pending.join(peer(8), credential(peer(8), 1), 5)
    changes, _ = pending.propose(5)
    assert [change.peer for change in changes] == [peer(9)]
    assert pending.propose(5)[0] == changes


WANTS = st.lists(st.tuples(st.sampled_from(ChangeKind), st.integers(0, 9)), max_size=30)


@given(WANTS, st.randoms(use_true_random=False))
def test_in_any_order_all_that_is_asked_for_is_certified_and_all_have_the_same_members(
    wants: list[tuple[ChangeKind, int]], rng: object
) -> None:
    """Leaders that learned of the changes in different orders take turns; followers read their blocks."""
    books = [Pending(members(6), verify, OpenDoor()) for _ in range(3)]
    memberships = [members(6)] * 3
    for book in books:
        order = list(wants)
        rng.shuffle(order)  # type: ignore[attr-defined]
        for kind, number in order:
            who = peer(number)
            known = book.membership.number(who)
            if kind is ChangeKind.JOIN:
                book.join(who, credential(who, number), 1)
            elif kind is ChangeKind.EJECT:
                book.accuse(evidence(who))
            elif known is not None:
                signature = sign(who, leave_bytes(TASK, 1))
                book.leave(known, Departure(round=1, signature=signature))
    for number in range(1, 16):
        leader = books[number % 3]
        changes, proofs = leader.propose(number)
        for at, book in enumerate(books):
            assert book.judge(changes, proofs, number) is None
            assert memberships[at].allows(changes)
            memberships[at] = memberships[at].apply(changes)
            book.settle(memberships[at])
    assert memberships[0] == memberships[1] == memberships[2]
    goes = {number for kind, number in wants if kind is not ChangeKind.JOIN and number < 6}
    joined = {number for kind, number in wants if kind is ChangeKind.JOIN and number >= 6}
    active = {number for number in range(10) if memberships[0].is_active(peer(number))}
    assert active >= joined
    assert active - joined >= set(range(6)) - goes
    assert len(active & goes) <= (not joined and len(goes) == 6)  # the last one is not let go


# the witness


def panel_witness(count: int = 4) -> tuple[Membership, Witness]:
    membership, witness = members(count), Witness(TASK, verify)
    witness.turn(1, Electorate(64, verify).panel(1, BLOCKS[0], membership))
    return membership, witness


def test_two_votes_of_one_member_are_evidence_whichever_comes_first() -> None:
    for order in ((0, 1), (1, 0)):
        membership, witness = panel_witness()
        who = membership.members[2]
        votes = [vote(who, NOTARIZE, BLOCKS[label]) for label in order]
        assert witness.see(2, votes[0]) == []
        assert witness.see(2, votes[0]) == []
        assert witness.see(2, votes[1]) == [evidence_of(who, *votes)]
        assert witness.votes_of(2, 1) == votes[:1]


def test_what_a_member_told_others_is_held_against_what_it_told_us() -> None:
    membership, witness = panel_witness()
    who = membership.members[2]
    told = vote(who, FINALIZE, BLOCKS[0])
    assert witness.see(2, told) == []
    nullified = vote(who, NULLIFY, NO_BLOCK)
    proof = Proof(
        round=1, view=1, choice=NULLIFY, block=NO_BLOCK, votes=((1, bytes(64)), (2, nullified.signature))
    )
    assert witness.see(0, proof) == [evidence_of(who, told, nullified)]
    block = Block(
        task=TASK,
        parent=TASK,
        round=1,
        base=BLOCKS[0],
        inputs=EMPTY_ROOT,
        participants=0,
        examples=0,
        model=Model(digest=BLOCKS[0], root=BLOCKS[0], size=1),
    )
    final = vote(who, FINALIZE, block.hash)
    certificate = Certificate(view=1, block=block, votes=((2, final.signature), (60, bytes(64))))
    assert witness.see(0, certificate) == [evidence_of(who, told, final)]


def test_a_false_signature_is_no_evidence_and_does_not_hide_a_true_one() -> None:
    membership, witness = panel_witness()
    who = membership.members[2]
    true = [vote(who, NOTARIZE, BLOCKS[label]) for label in (0, 1)]
    forged = Proof(round=1, view=1, choice=NOTARIZE, block=BLOCKS[2], votes=((2, bytes(64)),))
    assert witness.see(1, forged) == []
    assert witness.see(2, true[0]) == []
    assert witness.see(1, forged) == []
    assert witness.see(2, true[1]) == [evidence_of(who, *true)]


def test_votes_of_the_round_before_count_too_and_then_are_forgotten() -> None:
    membership, witness = panel_witness()
    who = membership.members[2]
    panel = Electorate(64, verify).panel(2, BLOCKS[1], membership)
    assert witness.see(2, vote(who, NOTARIZE, BLOCKS[0])) == []
    witness.turn(2, panel)
    assert witness.see(2, vote(who, NOTARIZE, BLOCKS[1]))
    witness.turn(3, panel)
    assert witness.see(2, vote(who, NOTARIZE, BLOCKS[1])) == []
    assert witness.votes_of(2, 1) == []


def test_who_has_no_vote_and_views_that_never_come_cost_nothing() -> None:
    membership, witness = panel_witness(10)
    witness.turn(2, Electorate(4, verify).panel(2, BLOCKS[0], membership))
    panel = Electorate(4, verify).panel(2, BLOCKS[0], membership)
    outside = next(number for number in range(10) if panel.seat(number) is None)
    who = membership.members[outside]
    for label in (0, 1):
        assert witness.see(outside, vote(who, NOTARIZE, BLOCKS[label], round_number=2)) == []
    assert witness.votes_of(outside, 2) == []
    for label in (0, 1):
        far = vote(membership.members[1], NOTARIZE, BLOCKS[label], view=WATCHED_VIEWS + 1)
        assert witness.see(1, far) == []
    assert witness.see(1, vote(who, NOTARIZE, BLOCKS[0], round_number=9)) == []


def test_a_committee_is_numbered_as_it_is_given() -> None:
    assert Committee(TASK, [peer(3), peer(1)]).members == (peer(3), peer(1))


# frauds


@given(st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32), st.integers(0, MAX_VIEW), st.binary())
def test_a_vote_for_a_fraud_survives_the_wire_and_nothing_else_is_one(
    number: int, block: bytes, view: int, data: bytes
) -> None:
    signed = Signed(fraud=Fraud(round=number, block=block), view=view, signature=bytes(SIGNATURE_SIZE))
    assert unpack_signed(pack_signed(signed)) == signed
    assert len(pack_signed(signed)) * MAX_CHANGES <= MAX_PROOFS
    try:
        assert pack_signed(unpack_signed(data)) == data
    except MessageError:
        assert len(data) != len(pack_signed(signed))


def void(who: PeerId, choice: Choice = Choice.FINALIZE) -> tuple[Change, bytes]:
    cast = vote(who, choice, BLOCKS[0], view=3)
    signed = Signed(fraud=Fraud(round=1, block=BLOCKS[0]), view=3, signature=cast.signature)
    proof = proof_hash(pack_fraud(signed.fraud))
    return Change(kind=ChangeKind.VOID, peer=who, proof=proof), pack_signed(signed)


def test_who_is_ejected_for_a_fraud_has_voted_to_finalize_it() -> None:
    assert judge(void(peer(1)), void(peer(2))) is None
    assert judge((void(peer(1))[0], void(peer(2))[1])) == "signature"
    assert judge(void(peer(1), Choice.NOTARIZE)) == "signature"
    assert judge((void(peer(1))[0], b"short")) == "proof"
    assert judge((replace(void(peer(1))[0], proof=bytes(32)), void(peer(1))[1])) == "proof"
    assert judge(void(peer(9))) == "member"
    gone = members().apply((void(peer(1))[0],))
    assert not gone.is_active(peer(1))
    assert gone.allows((void(peer(1))[0],))  # it may be named once more
    assert gone.apply((void(peer(1))[0],)) == gone
    assert gone.before((void(peer(1))[0],)) == members()
