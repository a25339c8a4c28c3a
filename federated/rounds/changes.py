"""Changes of the membership, what proves them, and both as bytes.

    JOIN ───→ a credential, judged by the task's rules of admission     proof: what it may be used once for
    LEAVE ──→ a departure: the member's signature that it leaves        proof: SHA-256 of it
    EJECT ──→ evidence: two votes that exclude each other               proof: SHA-256 of it
    VOID ───→ the member's vote to finalize a block that is a fraud     proof: SHA-256 of its round and hash

A proposal carries the proofs, and voters judge them; whoever reads the certificate later need not, since a
quorum did. Evidence convinces anybody who knows the member's key, which is in its id. Whether a block is a
fraud each voter finds out by itself (`federated.rounds.fraud`); here is only what does not depend on that.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from federated.rounds.committee import Membership, Verify
from federated.rounds.messages import (
    HASH_SIZE,
    MAX_CHANGES,
    MAX_CREDENTIAL,
    MAX_PROOFS,
    MAX_VIEW,
    NO_BLOCK,
    SIGNATURE_SIZE,
    Change,
    ChangeKind,
    Choice,
    Evidence,
    Fraud,
    MessageError,
    Signed,
    Vote,
    leave_bytes,
    pack_changes,
    vote_bytes,
)
from p2p.errors import InvalidKey
from p2p.peer_id import PeerId

_WHERE = struct.Struct(">QI")  # round and view of evidence
_VOTE = struct.Struct(f">B{HASH_SIZE}s{SIGNATURE_SIZE}s")
_ROUND = struct.Struct(">Q")
_LENGTH = struct.Struct(">H")
_FRAUD = struct.Struct(f">Q{HASH_SIZE}s")
_SIGNED = struct.Struct(f">Q{HASH_SIZE}sI{SIGNATURE_SIZE}s")
_OPPOSITE = {Choice.NULLIFY: Choice.FINALIZE, Choice.FINALIZE: Choice.NULLIFY}


class Admission(Protocol):
    """The rules by which a task takes in members; `federated.rounds.admission` has them."""

    def judge(
        self, credential: bytes, peer: PeerId, round_number: int, members: Membership, used: Container[bytes]
    ) -> str | None:
        """The rule that a join in the block of `round_number` breaks."""

    def proof_of(self, credential: bytes) -> bytes:
        """What the credential may be used only once for. Raises `MessageError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A member's word, given in `round`, that it leaves; `signature` is over `leave_bytes`."""

    round: int
    signature: bytes


def excludes(first: Vote, second: Vote) -> bool:
    """Whether no correct member casts both of these votes."""
    if (first.round, first.view) != (second.round, second.view):
        return False
    if first.choice is second.choice:
        return first.block != second.block
    return _OPPOSITE.get(first.choice) is second.choice


def evidence_of(peer: PeerId, one: Vote, other: Vote) -> Evidence:
    """The evidence that two votes of `peer` are, which exclude each other."""
    first, second = sorted((one, other), key=lambda vote: (vote.choice, vote.block))
    return Evidence(peer=peer, first=first, second=second)


def is_true(task: bytes, evidence: Evidence, verify: Verify) -> bool:
    """Whether the votes exclude each other and `evidence.peer` signed both; cheap checks first."""
    votes = (evidence.first, evidence.second)
    return excludes(*votes) and all(
        verify(
            evidence.peer, vote_bytes(task, vote.round, vote.view, vote.choice, vote.block), vote.signature
        )
        for vote in votes
    )


def proof_hash(proof: bytes) -> bytes:
    """What a change names of a departure, of evidence or of a fraud."""
    return sha256(proof).digest()


def judge_changes(
    changes: Sequence[Change],
    proofs: Sequence[bytes],
    membership: Membership,
    round_number: int,
    verify: Verify,
    admission: Admission | None,
) -> str | None:
    """The rule that the changes of a block of `round_number` break; None when they may be certified.

    `membership` is the one before the block. Somebody must be left to go on.
    """
    for change, proof in zip(changes, proofs, strict=True):
        number = membership.number(change.peer)
        if change.kind is ChangeKind.JOIN:
            rule = _judge_join(change, proof, membership, round_number, admission)
        elif number is None or not (change.kind is ChangeKind.VOID or membership.active >> number & 1):
            rule = "member"
        elif change.kind is ChangeKind.VOID:
            rule = _judge_void(change, proof, membership.task, verify)
        elif proof_hash(proof) != change.proof:
            rule = "proof"
        elif change.kind is ChangeKind.LEAVE:
            rule = _judge_leave(change.peer, proof, membership.task, verify)
        else:
            rule = _judge_ejection(change.peer, proof, membership.task, verify)
        if rule is None and number is not None and membership.active == 1 << number:
            rule = "empty"
        if rule is not None:
            return rule
        membership = membership.apply((change,))
    return None


def _judge_join(
    change: Change, proof: bytes, membership: Membership, round_number: int, admission: Admission | None
) -> str | None:
    if admission is None:
        return "closed"
    rule = admission.judge(proof, change.peer, round_number, membership, membership.used)
    if rule is not None:
        return rule
    return None if admission.proof_of(proof) == change.proof else "proof"


def _judge_leave(peer: PeerId, proof: bytes, task: bytes, verify: Verify) -> str | None:
    try:
        departure = unpack_departure(proof)
    except MessageError:
        return "proof"
    return None if verify(peer, leave_bytes(task, departure.round), departure.signature) else "signature"


def _judge_ejection(peer: PeerId, proof: bytes, task: bytes, verify: Verify) -> str | None:
    try:
        evidence = unpack_evidence(proof)
    except MessageError:
        return "proof"
    return None if evidence.peer == peer and is_true(task, evidence, verify) else "evidence"


def _judge_void(change: Change, proof: bytes, task: bytes, verify: Verify) -> str | None:
    try:
        signed = unpack_signed(proof)
    except MessageError:
        return "proof"
    fraud = signed.fraud
    if proof_hash(pack_fraud(fraud)) != change.proof:
        return "proof"
    data = vote_bytes(task, fraud.round, signed.view, Choice.FINALIZE, fraud.block)
    return None if verify(change.peer, data, signed.signature) else "signature"


# as bytes


def unpack_changes(data: bytes) -> tuple[Change, ...]:
    """What `pack_changes` made. Raises `MessageError`, also for two changes of one peer."""
    changes, at = list[Change](), 0
    while at < len(data):
        end = at + 2 + (data[at + 1] if at + 1 < len(data) else 0)
        if end + HASH_SIZE > len(data) or data[at] not in tuple(ChangeKind):
            raise MessageError("not a list of changes")
        proof = data[end : end + HASH_SIZE]
        changes.append(Change(kind=ChangeKind(data[at]), peer=parse_peer(data[at + 2 : end]), proof=proof))
        at = end + HASH_SIZE
    if len(changes) > MAX_CHANGES or len({change.peer for change in changes}) < len(changes):
        raise MessageError(f"more than {MAX_CHANGES} changes, or two of one peer")
    if pack_changes(tuple(changes)) != data:
        raise MessageError("not a list of changes in its canonical form")
    return tuple(changes)


def pack_proofs(proofs: Sequence[bytes]) -> bytes:
    """The proofs one behind the other, each with its length in front."""
    return b"".join(_LENGTH.pack(len(proof)) + proof for proof in proofs)


def unpack_proofs(data: bytes) -> tuple[bytes, ...]:
    """What `pack_proofs` made. Raises `MessageError`."""
    proofs, at = list[bytes](), 0
    while at < len(data):
        size = _LENGTH.unpack_from(data, at)[0] if at + _LENGTH.size <= len(data) else 0
        at += _LENGTH.size
        if not 0 < size <= MAX_CREDENTIAL or at + size > len(data):
            raise MessageError("not a list of proofs")
        proofs.append(data[at : at + size])
        at += size
    if sum(map(len, proofs)) > MAX_PROOFS:
        raise MessageError(f"the proofs are over the limit of {MAX_PROOFS} bytes")
    return tuple(proofs)


def pack_evidence(evidence: Evidence) -> bytes:
    """Where the votes were cast, by whom, and the two votes."""
    head = _WHERE.pack(evidence.first.round, evidence.first.view)
    peer = evidence.peer.raw
    votes = (evidence.first, evidence.second)
    packed = b"".join(_VOTE.pack(vote.choice, vote.block, vote.signature) for vote in votes)
    return head + bytes([len(peer)]) + peer + packed


def unpack_evidence(data: bytes) -> Evidence:
    """What `pack_evidence` made. Raises `MessageError` for what is none, whoever signed it."""
    start = _WHERE.size + 1
    if len(data) < start or len(data) != start + data[start - 1] + 2 * _VOTE.size:
        raise MessageError("not evidence")
    round_number, view = _WHERE.unpack_from(data)
    end = start + data[start - 1]
    votes = []
    for at in (end, end + _VOTE.size):
        choice, block, signature = _VOTE.unpack_from(data, at)
        if choice not in tuple(Choice) or (choice == Choice.NULLIFY) != (block == NO_BLOCK):
            raise MessageError("not evidence: a vote names a block exactly when it is for one")
        votes.append(
            Vote(round=round_number, view=view, choice=Choice(choice), block=block, signature=signature)
        )
    evidence = evidence_of(parse_peer(data[start:end]), *votes)
    if not 1 <= view <= MAX_VIEW or not excludes(*votes) or pack_evidence(evidence) != data:
        raise MessageError("not evidence: a correct member may cast both votes")
    return evidence


def pack_departure(departure: Departure) -> bytes:
    """Round and signature."""
    return _ROUND.pack(departure.round) + departure.signature


def unpack_departure(data: bytes) -> Departure:
    """What `pack_departure` made. Raises `MessageError`."""
    if len(data) != _ROUND.size + SIGNATURE_SIZE:
        raise MessageError("not a departure")
    return Departure(round=_ROUND.unpack_from(data)[0], signature=data[_ROUND.size :])


def pack_fraud(fraud: Fraud) -> bytes:
    """Round and hash of the block."""
    return _FRAUD.pack(fraud.round, fraud.block)


def pack_signed(signed: Signed) -> bytes:
    """The fraud, the view and the signature."""
    return _SIGNED.pack(signed.fraud.round, signed.fraud.block, signed.view, signed.signature)


def unpack_signed(data: bytes) -> Signed:
    """What `pack_signed` made. Raises `MessageError`."""
    if len(data) != _SIGNED.size:
        raise MessageError("not a vote for a fraud")
    round_number, block, view, signature = _SIGNED.unpack(data)
    return Signed(fraud=Fraud(round=round_number, block=block), view=view, signature=signature)


def parse_peer(raw: bytes) -> PeerId:
    """The peer with this id. Raises `MessageError`."""
    try:
        return PeerId(raw)
    except InvalidKey as exc:
        raise MessageError("not the id of a peer") from exc
