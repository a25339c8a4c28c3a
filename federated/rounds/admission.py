"""Who may join a task that is under way: the credential of a `Join`, and the rules that judge it.

By invitation, a credential is the invitation and a signature by its key over the joiner's id. By work, it
is a nonce such that SHA-256(domain ‖ task ‖ peer ‖ nonce) begins with enough zero bits: dear to find, cheap
to check, and of no use to another peer or for another task.
Source: Back, "Hashcash: a denial of service counter-measure", 2002.

The rules, by the names under which a join is refused:

    closed        the task admits nobody
    credential    not the canonical bytes of a credential, or not of the kind that the task wants
    key           the peer's id does not contain an Ed25519 key: nobody could check its votes
    issuer        the invitation is by somebody who may not invite
    signature     the invitation is not its issuer's, or was not made out to this peer by its bearer
    work          too few zero bits
    expired       the invitation's last round is over
    member        the peer has a number already; who left or was ejected does not come back
    used          the invitation, or one of the same key, has let somebody in before
    full          as many numbers were handed out as the task has

What a credential says is the same in every round, and is remembered; the last four depend on the round.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgpack

from federated.invitation import Invitation, Ticket
from federated.manifest import MAX_ROUNDS, ByInvitation, ByWork, Closed, TaskManifest, can_vote
from federated.rounds.committee import Membership
from federated.rounds.messages import HASH_SIZE, MAX_CREDENTIAL, SIGNATURE_SIZE, MessageError
from p2p.errors import InvalidKey
from p2p.key_types import ED25519_KEY
from p2p.keys import KeyPair, KeyType, PublicKey
from p2p.peer_id import PeerId

NONCE_SIZE = 8  # bytes; enough for the 2^32 attempts of the most work, many times over
JUDGED = 256  # credentials whose signatures were checked and are remembered: a round's joins, said again

_BEARER = b"atcp/join/1\n"
_WORK = b"atcp/work/1\n"
_PROOF = b"atcp/admission/1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """The invitation, and its bearer's signature that it is for the peer that joins."""

    invitation: Invitation
    signature: bytes

    def proof(self) -> bytes:
        """What the chain remembers of it: the invitation's key, so that one key lets in one member."""
        return sha256(_PROOF + b"invitation" + self.invitation.key).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """A nonce that was searched for."""

    nonce: bytes

    def proof(self) -> bytes:
        """What the chain remembers of it; two peers may well have found the same nonce."""
        return sha256(_PROOF + b"work" + self.nonce).digest()


Credential = Invited | Worked


def accept_invitation(ticket: Ticket, peer: PeerId) -> bytes:
    """The credential by which `peer`, and nobody else, joins with `ticket`."""
    signature = KeyPair.from_seed(ticket.seed).sign(_bearer_bytes(ticket.invitation.task, peer))
    return encode_credential(Invited(invitation=ticket.invitation, signature=signature))


def search_work(task: bytes, peer: PeerId, bits: int, first: int, limit: int) -> bytes | None:
    """The credential of the first nonce from `first` on that is `bits` of work; None if `limit` are not.

    To be called again with `first + limit`: 2^bits attempts are needed on average, of about 1 µs each.
    """
    start = sha256(_work_bytes(task, peer))
    goal = _goal(bits)
    for number in range(first, first + limit):
        nonce = number.to_bytes(NONCE_SIZE)
        attempt = start.copy()
        attempt.update(nonce)
        if int.from_bytes(attempt.digest()) < goal:
            return encode_credential(Worked(nonce=nonce))
    return None


def encode_credential(credential: Credential) -> bytes:
    """The canonical bytes. The task is not among them: each one is for the task on whose topic it came."""
    match credential:
        case Worked(nonce=nonce):
            data: bytes = msgpack.packb({"kind": "work", "nonce": nonce})
        case Invited(invitation=invitation, signature=signature):
            head = {"kind": "invitation", "key": invitation.key, "last": invitation.last_round}
            issued = {"issuer": invitation.issuer.raw, "issued": invitation.signature}
            data = msgpack.packb({**head, **issued, "accepted": signature})
    return data


def decode_credential(task: bytes, data: bytes) -> Credential:
    """The credential for `task` in `data`. Raises `MessageError`, and nothing else, for what is not one."""
    if len(data) > MAX_CREDENTIAL:
        raise MessageError(f"a credential of {len(data)} bytes is over the limit of {MAX_CREDENTIAL}")
    try:
        values = msgpack.unpackb(data, max_array_len=0, max_map_len=8, max_ext_len=0, max_str_len=16)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as exc:
        raise MessageError("not msgpack of a credential") from exc
    credential = _read(task, values) if isinstance(values, dict) else None
    if credential is None or encode_credential(credential) != data:
        raise MessageError("not the fields of a credential in their canonical form")
    return credential


def _read(task: bytes, values: dict[Any, Any]) -> Credential | None:
    """The credential with these fields; more of them, or others, show when it is encoded again."""
    kind, nonce, last = values.get("kind"), values.get("nonce"), values.get("last")
    if kind == "work":
        return Worked(nonce=nonce) if type(nonce) is bytes and len(nonce) == NONCE_SIZE else None
    blobs: list[Any] = [values.get(name) for name in ("key", "issued", "accepted", "issuer")]
    if kind != "invitation" or type(last) is not int or not 1 <= last <= MAX_ROUNDS:
        return None
    if not all(type(blob) is bytes for blob in blobs):
        return None
    key, issued, accepted, raw = blobs
    if (len(key), len(issued), len(accepted)) != (ED25519_KEY, SIGNATURE_SIZE, SIGNATURE_SIZE):
        return None
    try:
        issuer = PeerId(raw)
    except InvalidKey:
        return None
    invitation = Invitation(task=task, key=key, last_round=last, issuer=issuer, signature=issued)
    return Invited(invitation=invitation, signature=accepted)


class Admissions:
    """The rules of one task, by its manifest. What signatures came to is remembered, for the last few."""

    def __init__(self, manifest: TaskManifest) -> None:
        self._task = manifest.task_id
        self._admission = manifest.admission
        self._most = manifest.max_members
        self._issuers = frozenset(manifest.issuer_ids)
        self._judged: dict[tuple[PeerId, bytes], str | None] = {}  # oldest first

    def judge(
        self, credential: bytes, peer: PeerId, round_number: int, members: Membership, used: Container[bytes]
    ) -> str | None:
        """The rule that a join in the block of `round_number` breaks; None when `peer` may be admitted.

        `members` is the membership before the block and the joins before this one in it, `used` are the
        proofs of all joins so far, as `proof_of` makes them.
        """
        if members.number(peer) is not None:
            return "member"
        if members.size >= self._most:
            return "full"
        rule = self.check(credential, peer)
        if rule is not None:
            return rule
        found = decode_credential(self._task, credential)
        if not isinstance(found, Invited):
            return None
        if found.invitation.last_round < round_number:
            return "expired"
        return "used" if found.proof() in used else None

    def check(self, credential: bytes, peer: PeerId) -> str | None:
        """The rule that the credential breaks in any round; cheap checks first, signatures last."""
        key = (peer, credential)
        if key not in self._judged:
            if len(self._judged) >= JUDGED:
                del self._judged[next(iter(self._judged))]
            self._judged[key] = self._check(credential, peer)
        return self._judged[key]

    def proof_of(self, credential: bytes) -> bytes:
        """What the chain remembers of a credential. Raises `MessageError` for what is none."""
        return decode_credential(self._task, credential).proof()

    def _check(self, credential: bytes, peer: PeerId) -> str | None:
        if isinstance(self._admission, Closed):
            return "closed"
        if not can_vote(peer):
            return "key"
        try:
            found = decode_credential(self._task, credential)
        except MessageError:
            return "credential"
        match self._admission, found:
            case ByWork(bits=bits), Worked(nonce=nonce):
                digest = sha256(_work_bytes(self._task, peer) + nonce).digest()
                return None if int.from_bytes(digest) < _goal(bits) else "work"
            case ByInvitation(), Invited():
                return self._check_invitation(found, peer)
            case _:
                return "credential"

    def _check_invitation(self, found: Invited, peer: PeerId) -> str | None:
        invitation = found.invitation
        if invitation.issuer not in self._issuers:
            return "issuer"
        bearer = PublicKey(KeyType.ED25519, invitation.key)
        accepted = bearer.verify(_bearer_bytes(self._task, peer), found.signature)
        return None if accepted and invitation.is_genuine else "signature"


def _goal(bits: int) -> int:
    """Hashes below it begin with `bits` zero bits."""
    return 1 << (8 * HASH_SIZE - bits)


def _work_bytes(task: bytes, peer: PeerId) -> bytes:
    return _WORK + task + bytes([len(peer.raw)]) + peer.raw


def _bearer_bytes(task: bytes, peer: PeerId) -> bytes:
    return _BEARER + task + peer.raw
