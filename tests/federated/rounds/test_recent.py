"""What the chain remembers of its newest blocks, and which of them it lets be declared void."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from federated.certificate_lines import VerifyError, certificate_line, parse_certificate
from federated.export import follow
from federated.rounds.actions import Recompute
from federated.rounds.audits import AUDITORS, auditors, list_fault, read_list
from federated.rounds.chain import Links, genesis
from federated.rounds.changes import pack_fraud, proof_hash
from federated.rounds.committee import Electorate, Membership
from federated.rounds.events import Input
from federated.rounds.inputs import pack_inputs
from federated.rounds.messages import Certificate, Change, ChangeKind, Choice, Fraud, Model, vote_bytes
from federated.rounds.past import Base
from federated.rounds.recent import KEPT, REACH
from p2p.blobs.merkle import EMPTY_ROOT
from tests.federated.rounds.chains import INITIAL, Chain, leaving, sign, verify
from tests.federated.samples import manifest, members, peer

COUNT, SEATS = 12, 4


class Story:
    """A chain that is followed as it grows."""

    def __init__(self) -> None:
        self.task = manifest(members=members(COUNT), rounds=200, committee=SEATS)
        self.chain = Chain(self.task)
        self.links = self.fresh()
        self.certificates: list[Certificate] = []

    def fresh(self) -> Links:
        start = genesis(Membership(self.task.task_id, self.task.peer_ids), INITIAL)
        return Links(Electorate(SEATS, verify), start)

    def go_on(self, rounds: int = 1, *changes: Change) -> None:
        for _ in range(rounds):
            self.add(self.chain.make(*changes))

    def add(self, certificate: Certificate) -> None:
        assert self.links.fault(certificate) is None
        self.links.advance(certificate)
        self.chain.head = self.chain.head.after(certificate)
        self.certificates.append(certificate)

    def voids(self, number: int, count: int = 1, skip: int = 0) -> list[Change]:
        decided = self.links.recent.get(number)
        assert decided is not None
        voters = decided.membership.peers(decided.signers)[skip : skip + count]
        return [Change(kind=ChangeKind.VOID, peer=voter, proof=decided.proof) for voter in voters]

    def make(self, model: bytes, changes: Sequence[Change], participants: int = 0) -> Certificate:
        """The next certificate, with this model."""
        made = self.chain.make(*changes)
        block = replace(made.block, model=Model(digest=model, root=model, size=1), participants=participants)
        if not participants:
            block = replace(block, inputs=EMPTY_ROOT, examples=0)
        data = vote_bytes(block.task, block.round, 1, Choice.FINALIZE, block.hash)
        voters = self.links.panel().committee.members
        return Certificate(
            view=1, block=block, votes=tuple((at, sign(who, data)) for at, who in enumerate(voters))
        )


def test_a_block_restores_the_model_before_the_one_that_it_names_and_only_that() -> None:
    story = Story()
    story.go_on(5)
    before = story.certificates[1].block.model.digest
    good = story.make(before, story.voids(3))
    for bad in (
        story.make(before, ()),  # for no reason
        story.make(before, story.voids(4)),  # the model before another block
        story.make(before, [*story.voids(3), *story.voids(4, skip=1)]),  # two at once
        story.make(before, story.voids(3), participants=1),  # and counts updates
        story.make(story.links.head.model, story.voids(3)),  # restores nothing
        story.make(before, [replace(story.voids(3)[0], proof=bytes(32))]),  # names none of ours
    ):
        assert story.links.fault(bad) == "void"
    outsider = next(
        who
        for who in map(peer, range(COUNT))
        if who
        not in story.links.recent.get(3).membership.peers(  # type: ignore[union-attr]
            story.links.recent.get(3).voters  # type: ignore[union-attr]
        )
    )
    assert story.links.fault(story.make(before, [replace(story.voids(3)[0], peer=outsider)])) == "void"
    assert story.links.fault(good) is None


def test_a_fraud_restores_once_and_so_does_the_earliest_of_several() -> None:
    story = Story()
    story.go_on(5)
    before = story.certificates[1].block.model.digest
    story.add(story.make(before, story.voids(3)))
    counts = story.links.recent.counts
    assert [number for number in range(1, 7) if counts(number)] == [1, 2, 6]
    for number in (3, 4):  # their work counts no more: who else signed goes, and the model stays
        other = story.make(story.certificates[0].block.model.digest, story.voids(number, skip=1))
        assert story.links.fault(other) == "void"
        story.go_on(1, *story.voids(number, skip=1))
    assert counts(7)
    assert counts(8)
    story.add(story.make(story.chain.head.model, story.voids(5, skip=1)))  # also where the round is skipped
    story.add(story.make(INITIAL, story.voids(1, skip=2)))  # one from before all that
    assert [number for number in range(1, 11) if counts(number)] == [10]


def test_what_liars_restored_can_be_put_back() -> None:
    story = Story()
    story.go_on(4)
    model = story.chain.head.model
    story.add(story.make(story.certificates[1].block.model.digest, story.voids(3)))
    story.add(story.make(model, story.voids(5)))
    assert [number for number in range(1, 7) if story.links.recent.counts(number)] == [1, 2, 3, 4, 6]


@pytest.mark.parametrize("age", [REACH, REACH + 1])
def test_a_block_that_is_too_old_stays(age: int) -> None:
    story = Story()
    story.go_on(2)
    voids, before = story.voids(2), story.certificates[0].block.model.digest
    story.go_on(age - 1)
    fault = story.links.fault(story.make(before, voids))
    assert fault == (None if age == REACH else "void")


@pytest.mark.parametrize("kept", [200, KEPT + REACH])
def test_after_a_restart_the_same_blocks_count(kept: int) -> None:
    story = Story()
    story.go_on(30)
    leaver = story.voids(30)[0].peer
    story.go_on(1, leaving(leaver))
    story.add(story.make(story.certificates[28].block.model.digest, story.voids(30)))  # one that has left
    story.go_on(3)
    again = story.fresh()
    again.head = story.links.head
    again.restore(story.certificates[-kept:])
    assert again.head == story.links.head
    assert again.panel().members == story.links.panel().members
    for number in range(36 - REACH, 36):
        assert again.recent.counts(number) == story.links.recent.counts(number) == (number not in (30, 31))
        mine, theirs = again.recent.get(number), story.links.recent.get(number)
        assert mine is not None
        assert theirs is not None
        assert (mine.voters, mine.signers, mine.proof) == (theirs.voters, theirs.signers, theirs.proof)
        assert (mine.membership, mine.restores) == (theirs.membership, theirs.restores)


def test_nobody_is_a_signer_for_a_signature_that_is_false() -> None:
    story = Story()
    story.go_on(3)
    false = replace(
        story.certificates[1], votes=tuple((at, bytes(64)) for at, _ in story.certificates[1].votes)
    )
    again = story.fresh()
    again.head = story.links.head
    again.restore([story.certificates[0], false, story.certificates[2]])
    assert [again.recent.get(number).signers != 0 for number in (1, 2, 3)] == [True, False, True]  # type: ignore[union-attr]


def test_a_few_that_did_not_vote_are_auditors_and_others_of_another_block() -> None:
    story = Story()
    story.go_on(30)
    chosen = []
    for number in range(10, 31):
        decided = story.links.recent.get(number)
        assert decided is not None
        found = auditors(decided)
        assert found.bit_count() == AUDITORS
        assert not found & decided.voters
        chosen.append(found)
    assert len(set(chosen)) > 10


# the list of a block's updates


def action(inputs: tuple[Input, ...], **changes: object) -> Recompute:
    story = Story()
    made = story.chain.make()
    block = replace(made.block, participants=0b111, examples=60)
    values = {
        "certificate": replace(made, block=block),
        "base": Model(digest=INITIAL, root=INITIAL, size=1),
        "bases": (Base(digest=INITIAL, participants=0), Base(digest=bytes(32), participants=0b1)),
        "membership": Membership(story.task.task_id, story.task.peer_ids),
        "minimum": 2,
        "max_update": 100,
        "holders": (),
    }
    return Recompute(**{**values, **changes})  # type: ignore[arg-type]


def updates(**changes: object) -> tuple[Input, ...]:
    """Of the first three members; the first one has these changes."""
    who = sorted(map(peer, range(COUNT)))
    made = [Input(peer=who[at], root=bytes([at + 1]) * 32, size=100, examples=20) for at in range(3)]
    return (replace(made[0], **changes), *made[1:])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "inputs", "changes"),
    [
        (None, updates(), {}),
        ("participants", updates()[:2], {}),
        ("participants", updates(peer=updates()[1].peer), {}),
        ("examples", updates(examples=21), {}),
        ("minimum", updates(), {"minimum": 4}),
        ("size", updates(size=101), {}),
        ("staleness", updates(staleness=2), {}),
        ("staleness", updates(staleness=1), {}),  # its owner has taken part since
        (None, (updates()[0], replace(updates()[1], staleness=1), updates()[2]), {}),
    ],
)
def test_a_list_is_that_of_its_block_or_a_fraud(
    rule: str | None, inputs: tuple[Input, ...], changes: dict[str, object]
) -> None:
    made = action(inputs, **changes)
    assert list_fault(inputs, made) == rule
    listed = pack_inputs(inputs, made.membership)
    assert read_list(listed, made) == (rule or inputs)
    assert read_list(listed[:-1], made) == "list"
    gone = replace(made, membership=made.membership.apply([leaving(inputs[0].peer)]))
    assert list_fault(inputs, gone) == ("participants" if rule == "participants" else "member")


def test_a_fraud_is_named_by_its_round_and_hash() -> None:
    story = Story()
    story.go_on(2)
    fraud = Fraud(round=2, block=story.certificates[1].block.hash)
    assert story.voids(2)[0].proof == proof_hash(pack_fraud(fraud))


def test_an_export_of_a_chain_with_a_restored_model_is_verified() -> None:
    story = Story()
    story.go_on(4)
    story.add(story.make(story.certificates[1].block.model.digest, story.voids(3)))
    story.go_on(1, *story.voids(3, skip=1))
    lines = [certificate_line(item) for item in story.certificates]
    read = [parse_certificate(story.task.task_id, line.encode()) for line in lines]
    assert read == story.certificates
    found = follow(story.task, read, verify)
    assert found.skipped == 0
    assert found.membership.active.bit_count() == COUNT - 2
    with pytest.raises(VerifyError, match="may not"):
        follow(story.task, [*read, story.make(INITIAL, story.voids(4))], verify)
