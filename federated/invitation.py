"""Invitations: one line of text that lets whoever has it join a task, once.

An issuer signs the public half of a fresh key; the line carries the seed of that key. Who joins signs its
own peer id with it, so nobody who sees the join can take the invitation over, and a task that has
admitted one member by the key admits no other.

    atcp-invite-<base58 of: version ‖ task id ‖ seed ‖ last round ‖ issuer's key ‖ signature ‖ checksum>

The line is a secret until it is used. The checksum is there for what gets lost in copying.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import sha256

import base58

from federated.errors import InvitationError
from federated.manifest import MAX_ROUNDS
from p2p.errors import InvalidInput
from p2p.key_types import ED25519_KEY
from p2p.keys import KeyPair, KeyType, PublicKey
from p2p.peer_id import PeerId

PREFIX = "atcp-invite-"
MAX_TEXT = 512  # characters; an invitation has about 250
SIGNATURE_SIZE = 64  # bytes; Ed25519, RFC 8032
CHECKSUM = (
    4  # bytes; one damaged line in four thousand million passes for whole, and then its signature fails
)

_VERSION = 1
_LAYOUT = struct.Struct(f">B32s{ED25519_KEY}sI{ED25519_KEY}s{SIGNATURE_SIZE}s")
_INVITATION = b"atcp/invitation/1\n"
_ASK = "ask whoever invited you for a new one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What `issuer` signed: the bearer of the private half of `key` may join `task` up to `last_round`."""

    task: bytes
    key: bytes
    last_round: int
    issuer: PeerId
    signature: bytes

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        return _INVITATION + self.task + self.key + struct.pack(">I", self.last_round)

    @property
    def is_genuine(self) -> bool:
        """Whether the signature is the issuer's; whether that one may invite is the manifest's to say."""
        key = self.issuer.public_key()
        return key is not None and key.verify(self.signed, self.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An invitation with the secret `seed` of its key: what the bearer has."""

    invitation: Invitation
    seed: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The one line to hand over; `parse_invitation` reads it."""
        invitation = self.invitation
        key = _public_data(invitation.issuer)
        payload = _LAYOUT.pack(
            _VERSION, invitation.task, self.seed, invitation.last_round, key, invitation.signature
        )
        return PREFIX + base58.b58encode(payload + _checksum(payload)).decode("ascii")


def make_invitation(issuer: KeyPair, task: bytes, last_round: int, entropy: bytes) -> Ticket:
    """A fresh invitation to `task`, good for joining in a round up to `last_round`.

    `entropy` are 32 bytes that nobody can guess; each invitation needs its own. Raises `InvalidInput` when
    the issuer's key is none that can invite, or the round is out of range.
    """
    if issuer.public.type is not KeyType.ED25519:
        raise InvalidInput("only a peer with an Ed25519 key can invite")
    if not 1 <= last_round <= MAX_ROUNDS:
        raise InvalidInput(f"the last round of an invitation is 1 to {MAX_ROUNDS}, not {last_round}")
    key = KeyPair.from_seed(entropy).public.data
    peer = PeerId.from_public_key(issuer.public)
    unsigned = Invitation(task=task, key=key, last_round=last_round, issuer=peer, signature=b"")
    signature = issuer.sign(unsigned.signed)
    invitation = Invitation(task=task, key=key, last_round=last_round, issuer=peer, signature=signature)
    return Ticket(invitation=invitation, seed=entropy)


def parse_invitation(text: str) -> Ticket:
    """The ticket in a line. Raises `InvitationError` with one line that says what to do."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise InvitationError(f"an invitation begins with {PREFIX}; paste the whole line")
    if len(text) > MAX_TEXT:
        raise InvitationError("the invitation is too long; paste one line and nothing else")
    try:
        data = base58.b58decode(text.removeprefix(PREFIX))
    except ValueError as exc:
        raise InvitationError(
            "the invitation has a character that is none of its own; copy it again"
        ) from exc
    payload, checksum = data[:-CHECKSUM], data[-CHECKSUM:]
    if _checksum(payload) != checksum:
        raise InvitationError("the invitation is not complete; copy the whole line again")
    if payload[:1] != bytes([_VERSION]):
        raise InvitationError("the invitation is of a newer kind; install a newer version of atcp")
    if len(payload) != _LAYOUT.size:
        raise InvitationError(f"the invitation is damaged; {_ASK}")
    _, task, seed, last_round, issuer, signature = _LAYOUT.unpack(payload)
    invitation = Invitation(
        task=task,
        key=KeyPair.from_seed(seed).public.data,
        last_round=last_round,
        issuer=PeerId.from_public_key(PublicKey(KeyType.ED25519, issuer)),
        signature=signature,
    )
    if not 1 <= last_round <= MAX_ROUNDS or not invitation.is_genuine:
        raise InvitationError(f"the invitation is not signed by its issuer; {_ASK}")
    return Ticket(invitation=invitation, seed=seed)


def _public_data(peer: PeerId) -> bytes:
    key = peer.public_key()
    assert key is not None, "an issuer's id contains its key"
    return key.data


def _checksum(payload: bytes) -> bytes:
    return sha256(_INVITATION + payload).digest()[:CHECKSUM]
