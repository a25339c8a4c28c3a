"""Who the members are, and what is under way about it, for the member number `me`.

votes, proofs, certificates ──→ Witness ──→ evidence ──┐                    ┌─→ journal, published once
Accuse, Leave, Join ───────────────────────────────────┴──→ Pending ────────┤
the next certificate ──→ the next membership ──→ MembershipChanged, Ejected └─→ proposed by who leads
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from federated.rounds.actions import Action, Ejected, MembershipChanged, Misbehaved, Publish, WriteJournal
from federated.rounds.changes import Admission, Departure
from federated.rounds.committee import Membership, Panel, Verify
from federated.rounds.messages import (
    Accuse,
    Body,
    Certificate,
    ChangeKind,
    Join,
    Leave,
    Proof,
    Recall,
    Vote,
    leave_bytes,
)
from federated.rounds.pending import Pending
from federated.rounds.witness import Witness
from p2p.peer_id import PeerId


class Register:
    """The membership as the last certificate left it; methods return what is to be done."""

    def __init__(
        self,
        *,
        membership: Membership,
        me: int,
        sign: Callable[[bytes], bytes],
        verify: Verify,
        admission: Admission | None,
    ) -> None:
        self.membership = membership
        self.is_ejected = False
        self.pending = Pending(membership, verify, admission)
        self._witness = Witness(membership.task, verify)
        self._me = me
        self._sign = sign
        self._recalled: dict[int, bool] = {}  # members that were told in this round
        self._leave: Leave | None = None  # what we said when we were to leave

    @property
    def is_active(self) -> bool:
        """Whether we take part."""
        return bool(self.membership.active >> self._me & 1)

    def restore(self, entries: Iterable[Body]) -> None:
        """Takes back what the journal has about members."""
        for entry in entries:
            match entry:
                case Accuse(evidence=evidence):
                    self.pending.accuse(evidence)
                case Leave():
                    self._leave = entry

    def turn(self, round_number: int, panel: Panel) -> list[Action]:
        """A round begins; says again that we leave."""
        self._witness.turn(round_number, panel)
        self._recalled = {}
        return self._say_leave()

    def leave(self, round_number: int) -> list[Action]:
        """We are to leave, in this round or a later one."""
        if self._leave is not None:
            return []
        signature = self._sign(leave_bytes(self.membership.task, round_number))
        self._leave = Leave(round=round_number, signature=signature)
        return [WriteJournal(entries=(self._leave,)), *self._say_leave()]

    def watch(self, sender: int, body: Vote | Proof | Certificate) -> list[Action]:
        """Looks whether what member number `sender` said is evidence against somebody."""
        actions: list[Action] = []
        for evidence in self._witness.see(sender, body):
            if self.pending.accuse(evidence):
                accusation = Accuse(evidence=evidence)
                actions += [WriteJournal(entries=(accusation,)), Publish(body=accusation)]
        return actions

    def recall(self, sender: int, round_number: int) -> list[Action]:
        """Member number `sender` begins the round in progress: tells it if it has voted in it, once."""
        if sender in self._recalled:
            return []
        votes = self._witness.votes_of(sender, round_number)
        if not votes:
            return []
        self._recalled[sender] = True
        return [Publish(body=Recall(peer=self.membership.members[sender], vote=votes[0]))]

    def lose(self, member: int) -> None:
        """The member is gone; when it comes back it may have lost its memory."""
        self._recalled.pop(member, None)

    def handle_accusation(self, sender: PeerId, body: Accuse) -> list[Action]:
        """Somebody says that a member broke its word."""
        is_news = self.pending.accuse(body.evidence)
        if is_news is None:
            return [Misbehaved(round=body.round, peer=sender, rule="evidence")]
        return [WriteJournal(entries=(body,))] if is_news else []

    def handle_leave(self, sender: int, body: Leave) -> list[Action]:
        """Member number `sender` wants to leave."""
        if self.pending.leave(sender, Departure(round=body.round, signature=body.signature)):
            return []
        peer = self.membership.members[sender]
        return [Misbehaved(round=body.round, peer=peer, rule="signature")]

    def handle_join(self, sender: PeerId, body: Join, round_number: int) -> None:
        """A stranger wants to join."""
        self.pending.join(sender, body.credential, round_number)

    def certified(self, certificate: Certificate) -> list[Action]:
        """The next certificate of the chain."""
        changes = certificate.block.changes
        if not changes:
            return []
        self.membership = self.membership.apply(changes)
        self.pending.settle(self.membership)
        number = certificate.round
        actions: list[Action] = [MembershipChanged(round=number, membership=self.membership, changes=changes)]
        ejected = [change for change in changes if change.kind in (ChangeKind.EJECT, ChangeKind.VOID)]
        actions += [Ejected(round=number, peer=change.peer, evidence=change.proof) for change in ejected]
        me = self.membership.members[self._me]
        self.is_ejected |= me in [change.peer for change in ejected]
        return actions

    def _say_leave(self) -> list[Action]:
        if self._leave is None:
            return []
        departure = Departure(round=self._leave.round, signature=self._leave.signature)
        self.pending.leave(self._me, departure)
        return [Publish(body=self._leave)]
