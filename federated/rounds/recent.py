"""The newest blocks of the chain: which of them can be declared void, who voted then, what was before them.

    … ←── k−1 ←── k ←── k+1 ←── r      r has VOID changes that name k: its model is the one of k−1, the next
                                       round builds on that, and k and k+1 are work that counts no more

A block *restores* if it has VOID changes and the work of the block that they name still counts. It counts
no updates. VOID changes that come later, of other signers of the same block, restore nothing again.
Everybody who follows the chain comes to the same answer, without knowing whether k is a fraud: a quorum
said so that found it out (`federated.rounds.fraud`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from federated.manifest import MAX_STALENESS
from federated.rounds.changes import pack_fraud, proof_hash
from federated.rounds.committee import Membership, Panel, set_of
from federated.rounds.messages import Block, Certificate, ChangeKind, Fraud, Signed
from p2p.peer_id import PeerId

REACH = 16  # rounds back that a block can name a fraud; its bytes are kept as long by who found it
EVIDENCE_ROUNDS = REACH + 1  # for which what shows a fraud is kept
KEPT = REACH + MAX_STALENESS + 1  # with those whose models the updates of the oldest one may build on


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A certified block: `membership` is the one before it, and `voters` could vote on it.

    `signers` did in the certificate that we have; others may have one with other votes, as good as ours.
    `proof` is what a change names that declares it void. `lineage` has the rounds that count after it, as far
    back as is kept. `restores` is the round of the fraud when it restores the model before that.
    """

    certificate: Certificate
    membership: Membership
    voters: int
    signers: int
    proof: bytes
    lineage: frozenset[int]
    restores: int | None

    def signed(self, member: int) -> Signed:
        """The vote of member number `member`, one of the signers."""
        seat = (self.voters & ((1 << member) - 1)).bit_count()
        signature = dict(self.certificate.votes)[seat]
        return Signed(fraud=self.fraud, view=self.certificate.view, signature=signature)

    @property
    def fraud(self) -> Fraud:
        """What says that it is one."""
        return Fraud(round=self.certificate.round, block=self.certificate.block.hash)


class Recent:
    """The last `KEPT` blocks of a chain, which are added one after the other."""

    def __init__(self) -> None:
        self._decided: dict[int, Decided] = {}  # by round, oldest first
        self._lineage: frozenset[int] = frozenset()

    def get(self, round_number: int) -> Decided | None:
        """The block of a round, None when it is not kept."""
        return self._decided.get(round_number)

    def last(self, count: int, before: int) -> list[Certificate]:
        """Up to `count` certificates in front of round `before`, oldest first."""
        numbers = range(max(1, before - count), before)
        return [self._decided[number].certificate for number in numbers if number in self._decided]

    def counts(self, round_number: int) -> bool:
        """Whether the work of that round is part of the model as it is now."""
        return round_number in self._lineage

    def named(self, block: Block) -> Decided | None:
        """What the VOID changes of the next one, `block`, name; None when that is nothing, or two blocks."""
        names = {change.proof: None for change in block.voids}
        if not names:
            return None
        numbers = range(max(1, block.round - REACH), block.round)
        found = [self._decided[number] for number in numbers if number in self._decided]
        return next((item for item in found if list(names) == [item.proof]), None)

    def accepts(self, block: Block) -> bool:
        """Whether the model and the VOID changes of the next block go together, be they justified or not."""
        if not block.voids:
            return bool(block.participants) or block.skipped
        decided = self.named(block)
        if decided is None:
            return False
        numbers = [decided.membership.number(change.peer) for change in block.voids]
        if any(number is None or not decided.voters >> number & 1 for number in numbers):
            return False
        if not self.counts(decided.certificate.round):
            return bool(block.participants) or block.skipped
        return not block.participants and block.model.digest == decided.certificate.block.base

    def add(
        self, certificate: Certificate, membership: Membership, panel: Panel, *, is_signed: bool = True
    ) -> None:
        """The next block, on which `panel` of `membership` voted; who did we know only if it `is_signed`."""
        block, number = certificate.block, certificate.round
        named = self.named(block)
        restores = named.certificate.round if named is not None else None
        if restores is not None and not self.counts(restores):
            restores = None
        if restores is None:
            lineage = self._lineage
        else:
            before = self._decided.get(restores - 1)
            lineage = frozenset() if before is None else before.lineage
        self._lineage = frozenset(item for item in lineage if item > number - KEPT) | {number}
        votes = certificate.votes if is_signed else ()
        self._decided[number] = Decided(
            certificate=certificate,
            membership=membership,
            voters=panel.voters,
            signers=set_of(panel.members[seat] for seat, _ in votes),
            proof=proof_hash(pack_fraud(Fraud(round=number, block=block.hash))),
            lineage=self._lineage,
            restores=restores,
        )
        self._decided.pop(number - KEPT, None)


def memberships(certificates: Sequence[Certificate], after: Membership) -> list[Membership]:
    """The members before each of these certificates, one after the other; `after` are those after the last.

    Nobody who is gone comes back, so a member was active until the first block that has it go; one that
    is declared void later on was gone by then.
    """
    going: dict[PeerId, int] = {}
    for certificate in certificates:
        for change in certificate.block.changes:
            if change.kind is not ChangeKind.JOIN:
                going.setdefault(change.peer, certificate.round)
    found = []
    for certificate in reversed(certificates):
        after = after.before(
            change
            for change in certificate.block.changes
            if change.kind is ChangeKind.JOIN or going[change.peer] == certificate.round
        )
        found.append(after)
    return found[::-1]


def contiguous(items: Sequence[Certificate]) -> list[Certificate]:
    """The last of these certificates, which are in order, as far back as they are one after the other."""
    found = list(items[-1:])
    for item in reversed(items[:-1]):
        if item.round != found[-1].round - 1:
            break
        found.append(item)
    return found[::-1]
