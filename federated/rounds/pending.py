"""Changes of the membership that are asked for and not certified yet; the next leader proposes them.

    Accuse ──→ evidence that is true ──┐
    Leave ───→ a signature that is ────┼──→ in the block of a leader that knows of them, with their proofs
    Join ────→ a credential that is ───┘    ──→ certified: forgotten here

Evidence against each member is kept once, so there is a bound on it; joins are kept up to a number.
"""

from __future__ import annotations

from federated.rounds.changes import (
    Admission,
    Departure,
    is_true,
    judge_changes,
    pack_departure,
    pack_evidence,
    proof_hash,
)
from federated.rounds.committee import Membership, Verify
from federated.rounds.messages import (
    MAX_CHANGES,
    MAX_PROOFS,
    Change,
    ChangeKind,
    Evidence,
    Propose,
    leave_bytes,
)
from p2p.peer_id import PeerId

MAX_JOINS = 64  # peers that wait to be admitted, with up to 512 bytes each


class Pending:
    """What members and strangers ask for, in the task of `membership`."""

    def __init__(self, membership: Membership, verify: Verify, admission: Admission | None) -> None:
        self.membership = membership
        self._verify = verify
        self._admission = admission
        self._evidence: dict[int, bytes] = {}  # by member
        self._departures: dict[int, bytes] = {}  # by member
        self._joins: dict[PeerId, bytes] = {}  # in the order in which they came

    def accuse(self, evidence: Evidence) -> bool | None:
        """Whether this is the first evidence against an active member; None when it is false."""
        number = self.membership.number(evidence.peer)
        if number is None or not self.membership.active >> number & 1 or number in self._evidence:
            return False
        if not is_true(self.membership.task, evidence, self._verify):
            return None
        self._evidence[number] = pack_evidence(evidence)
        return True

    def leave(self, member: int, departure: Departure) -> bool:
        """Member number `member` wants to leave; whether it is true that it said so."""
        if member in self._departures:
            return True
        data = leave_bytes(self.membership.task, departure.round)
        if not self._verify(self.membership.members[member], data, departure.signature):
            return False
        self._departures[member] = pack_departure(departure)
        return True

    def join(self, peer: PeerId, credential: bytes, round_number: int) -> None:
        """A stranger wants to join; remembered if it may, by the block of `round_number`."""
        if self._admission is None or (len(self._joins) >= MAX_JOINS and peer not in self._joins):
            return
        members = self.membership
        if self._admission.judge(credential, peer, round_number, members, members.used) is None:
            self._joins[peer] = credential

    def settle(self, membership: Membership) -> None:
        """A block is certified, after which this is the membership: forgets what is done."""
        self.membership = membership
        active = membership.active
        self._evidence = {member: item for member, item in self._evidence.items() if active >> member & 1}
        self._departures = {member: item for member, item in self._departures.items() if active >> member & 1}
        self._joins = {peer: item for peer, item in self._joins.items() if membership.number(peer) is None}

    def propose(self, round_number: int) -> tuple[tuple[Change, ...], tuple[bytes, ...]]:
        """The changes for the block of a round and their proofs: as many as fit, ejections first.

        What may not be certified any more is left out, and a join that may not is forgotten.
        """
        changes, proofs = tuple[Change, ...](), tuple[bytes, ...]()
        for change, proof in self._wanted():
            if len(changes) >= MAX_CHANGES or sum(map(len, proofs)) + len(proof) > MAX_PROOFS:
                continue
            more = ((*changes, change), (*proofs, proof))
            if self.judge(*more, round_number) is None:
                changes, proofs = more
            else:
                self._joins.pop(change.peer, None)
        return changes, proofs

    def judge(self, changes: tuple[Change, ...], proofs: tuple[bytes, ...], round_number: int) -> str | None:
        """The rule that changes break in the block of a round, the one that is voted on next."""
        return judge_changes(changes, proofs, self.membership, round_number, self._verify, self._admission)

    def accepts(self, proposal: Propose) -> bool:
        """Whether what the proposal changes is proved."""
        changes = proposal.block.changes
        return not changes or self.judge(changes, proposal.proofs, proposal.round) is None

    def _wanted(self) -> list[tuple[Change, bytes]]:
        """All that is asked for: ejections, departures, joins."""
        members = self.membership.members
        found = []
        for kind, proofs in ((ChangeKind.EJECT, self._evidence), (ChangeKind.LEAVE, self._departures)):
            for number, proof in sorted(proofs.items()):
                if kind is ChangeKind.EJECT or number not in self._evidence:
                    found.append((Change(kind=kind, peer=members[number], proof=proof_hash(proof)), proof))
        if self._admission is not None:
            for peer, proof in self._joins.items():
                named = self._admission.proof_of(proof)
                found.append((Change(kind=ChangeKind.JOIN, peer=peer, proof=named), proof))
        return found
