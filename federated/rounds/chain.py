"""The certified blocks of a task, one after the other: where the chain ends, and whether a link fits.

    genesis ←── block 1 ←── block 2 ←── …           each names the one before by its hash, builds on its
                                                     model, and is voted on by whom that one left as members

A block may also put an earlier model back in its place (`federated.rounds.recent`).

So a certificate can be checked only by whoever has followed the chain up to the one before it, and who
follows it comes to the same members as everybody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from federated.rounds.committee import Electorate, Membership, Panel, set_of
from federated.rounds.messages import Certificate, ChangeKind
from federated.rounds.recent import KEPT, REACH, Recent, contiguous, memberships

BATCH = 8  # certificates in one answer over gossip, and kept before their turn
KEPT_MEMBERSHIPS = 16  # earlier ones, to check what is repeated of rounds that are over


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of a chain: the last `round`, its block's hash, its model's digest, the members after it.

    `newest` is the set of those who joined in that block.
    """

    round: int
    block: bytes
    model: bytes
    membership: Membership
    newest: int = 0

    def after(self, certificate: Certificate) -> Head:
        """The head once `certificate`, which fits, is added."""
        changes = certificate.block.changes
        membership = self.membership.apply(changes) if changes else self.membership
        return _head(certificate, membership)


def genesis(membership: Membership, model: bytes) -> Head:
    """The head before round 1; `model` is the digest of the first model."""
    return Head(round=0, block=membership.task, model=model, membership=membership)


def _head(certificate: Certificate, membership: Membership) -> Head:
    """The head at `certificate`, after which these are the members."""
    block = certificate.block
    joined = [change.peer for change in block.changes if change.kind is ChangeKind.JOIN]
    numbers = [number for number in map(membership.number, joined) if number is not None]
    return Head(
        round=block.round,
        block=block.hash,
        model=block.model.digest,
        membership=membership,
        newest=set_of(numbers),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What one more certificate came to.

    `accepted` are those that count now, one after the other. `refused` has (sender, certificate, rule).
    `is_ahead` is set when one builds on others that we do not have.
    """

    accepted: tuple[Certificate, ...] = ()
    refused: tuple[tuple[int, Certificate, str], ...] = ()
    is_ahead: bool = False


class Links:
    """Follows the chain from `head` on.

    A few certificates that come before those that they build on are kept until their turn, one a round:
    the last.
    """

    def __init__(self, electorate: Electorate, head: Head) -> None:
        self.head = head
        self.recent = Recent()
        self._electorate = electorate
        self._waiting: dict[int, tuple[int, Certificate]] = {}  # by round: the sender and what it sent
        self._heads: dict[int, Head] = {head.round + 1: head}  # by round, those that changed the members

    def restore(self, certificates: Sequence[Certificate]) -> None:
        """The chain ends with these, oldest first; the head's membership is the one after the last.

        Where the chain is known by hashes alone their signatures may be false: then nobody knows who signed.
        """
        self.head = _head(certificates[-1], self.head.membership)
        self._heads = {self.head.round + 1: self.head}
        known = contiguous(certificates)[-KEPT - REACH :]
        before = memberships(known, self.head.membership)
        newest = 0
        for certificate, members in zip(known, before, strict=True):
            if certificate is not known[0] or certificate.round == 1:  # else some may have just joined
                panel = self._electorate.panel(certificate.round, certificate.block.base, members, newest)
                is_signed = panel.committee.accepts_certificate(certificate)
                self.recent.add(certificate, members, panel, is_signed=is_signed)
            newest = _head(certificate, members.apply(certificate.block.changes)).newest

    def panel(self) -> Panel:
        """Who votes in the round after the head."""
        head = self.head
        return self._electorate.panel(head.round + 1, head.model, head.membership, head.newest)

    def panel_of(self, certificate: Certificate) -> Panel | None:
        """Who voted on a certificate in the chain; None when it is from before we remember."""
        number, base = certificate.round, certificate.block.base
        rounds = [first for first in self._heads if first <= number]
        if not rounds:
            return None
        head = self._heads[max(rounds)]
        newest = head.newest if number == head.round + 1 else 0
        return self._electorate.panel(number, base, head.membership, newest)

    def follow(self, sender: int, certificate: Certificate) -> Followed:
        """Member number `sender` sent `certificate`."""
        if certificate.round <= self.head.round:
            return Followed()
        waiting = self._waiting.items()
        self._waiting = {number: item for number, item in waiting if number > self.head.round}
        if certificate.round > self.head.round + BATCH:
            return Followed(is_ahead=True)
        self._waiting[certificate.round] = (sender, certificate)
        linked: list[Certificate] = []
        while (item := self._waiting.pop(self.head.round + 1, None)) is not None:
            rule = self.fault(item[1])
            if rule is not None:
                return Followed(accepted=tuple(linked), refused=((*item, rule),))
            linked.append(item[1])
            self.advance(item[1])
        return Followed(accepted=tuple(linked), is_ahead=bool(self._waiting))

    def follow_all(self, sender: int, certificates: Iterable[Certificate]) -> Followed:
        """The same for certificates one after the other; those behind one that does not fit are dropped."""
        linked: list[Certificate] = []
        for certificate in certificates:
            if certificate.round <= self.head.round:
                continue
            rule = self.fault(certificate)
            if rule is not None:
                return Followed(accepted=tuple(linked), refused=((sender, certificate, rule),))
            linked.append(certificate)
            self.advance(certificate)
        return Followed(accepted=tuple(linked))

    def advance(self, certificate: Certificate) -> None:
        """Adds a certificate that fits."""
        self.recent.add(certificate, self.head.membership, self.panel())
        self.head = self.head.after(certificate)
        if certificate.block.changes:
            self._heads[self.head.round + 1] = self.head
            if len(self._heads) > KEPT_MEMBERSHIPS:
                del self._heads[next(iter(self._heads))]

    def fault(self, certificate: Certificate) -> str | None:
        """The rule that `certificate` breaks as the next one of the chain."""
        head, block = self.head, certificate.block
        if (block.round, block.parent, block.base) != (head.round + 1, head.block, head.model):
            return "past"
        if not head.membership.allows(block.changes):
            return "changes"
        if not self.recent.accepts(block):
            return "void"
        return None if self.panel().committee.accepts_certificate(certificate) else "signature"
