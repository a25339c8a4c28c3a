"""The announcements of a task: what gossip carries between its members, and what the journal keeps.

Who sent a message stands outside of it: the signed origin of the gossip message. Votes carry a
signature of their own, so that a quorum of them convinces anybody, whoever passes it on. How they
travel: `federated.rounds.wire`. What is done with them: `federated.rounds.machine` (Hello, Commit,
Reveal), `federated.rounds.agreement` (Propose, Vote, Proof) and `federated.rounds.pending` (the rest).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256

from federated.errors import FederatedError
from p2p.peer_id import PeerId

LIFETIME = 60.0  # seconds from sending to expiry
CLOCK_SKEW = 30.0  # seconds by which a sender's clock may be ahead of ours
HASH_SIZE = 32  # bytes; SHA-256
SIGNATURE_SIZE = 64  # bytes; Ed25519, RFC 8032
MAX_VIEW = 1 << 16  # views of one round; at one a second that is most of a day
MAX_EXAMPLES = 1 << 40  # of one member in one round; far above any, and a sum is exact in a float64
MAX_COUNT = 1 << 50  # bytes of a model, or examples of all members together
MAX_CHANGES = 8  # of the membership in one block; with 43 votes they fit into a certificate of 4 KiB
MAX_PROOFS = 2048  # bytes of all proofs in one proposal
MAX_CREDENTIAL = 512  # bytes of what admits a new member
MAX_RATE = 1e15  # a second, of steps or bytes; far above any, and a float64 counts it exactly
MAX_CORES = 1 << 16  # of one machine
NO_BLOCK = bytes(HASH_SIZE)  # what a vote to nullify names instead of a block

LOW_BITS = (1 << 64) - 1  # of `participants`; tasks of up to 64 members need no others

_COMMITMENT = b"atcp/commitment/2\n"
_BLOCK = b"atcp/block/3\n"
_VOTE = b"atcp/vote/1\n"
_LEAVE = b"atcp/leave/1\n"


class MessageError(FederatedError, ValueError):
    """Bytes that are no message of ours; the peer that sent them broke the rules."""


class Choice(IntEnum):
    """What a vote is for."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3

    __hash__ = int.__hash__  # an enum's own is a function of Python, and every vote is looked up by it


class ChangeKind(IntEnum):
    """What happens to a member."""

    JOIN = 1
    LEAVE = 2
    EJECT = 3
    VOID = 4  # ejected, for signing a block that is a fraud


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From the round after its block on, `peer` is a member, or none any more.

    `proof` is the hash of what proves it: `proof_hash` of a `Departure` or `Evidence`, of the `Fraud` that it
    signed, and for who joins what its credential may be used only once for (see `federated.rounds.changes`).
    """

    kind: ChangeKind
    peer: PeerId
    proof: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model by its hashes: `digest` over its bytes, `root` and `size` to fetch it by."""

    digest: bytes
    root: bytes
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a round agrees on: `model` comes out of `base` and the updates of `participants`.

    `inputs` is the root of the list of updates (`federated.rounds.inputs`); `participants` has bit i set
    for member i.
    `parent` is the hash of the block of the round before, and the task id in round 1: blocks form a chain.
    One without participants has the model `base`, or restores an earlier one (`federated.rounds.recent`).
    """

    task: bytes
    parent: bytes
    round: int
    base: bytes
    inputs: bytes
    participants: int
    examples: int
    model: Model
    changes: tuple[Change, ...] = ()
    hash: bytes = field(init=False, repr=False, compare=False)
    """What votes name."""

    def __post_init__(self) -> None:
        low, high = self.participants & LOW_BITS, self.participants >> 64
        numbers = struct.pack(">QQQQ", self.round, low, self.examples, self.model.size)
        hashes = self.task + self.parent + self.base + self.inputs + self.model.digest + self.model.root
        hashes += sha256(pack_changes(self.changes)).digest()
        data = _BLOCK + numbers + hashes + high.to_bytes((high.bit_length() + 7) // 8)
        object.__setattr__(self, "hash", sha256(data).digest())

    @property
    def skipped(self) -> bool:
        """Whether the round leaves the model as it is."""
        return self.participants == 0 and self.model.digest == self.base

    @property
    def voids(self) -> tuple[Change, ...]:
        """The changes that eject signers of a fraud."""
        return tuple(change for change in self.changes if change.kind is ChangeKind.VOID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The sender listens, and is in `round` with the model `base`."""

    round: int
    base: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The sender has an update; see `commitment`."""

    round: int
    commitment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstain:
    """The sender will have no update in this round: nobody is to wait for it."""

    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reveal:
    """The update that the sender committed itself to, and how many examples it was trained on.

    It was trained on the model before the round that is `staleness` rounds earlier.
    """

    round: int
    root: bytes
    size: int
    nonce: bytes
    examples: int
    staleness: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """The leader's block for `view`; `parent` is the view in which it was notarized before, or 0.

    `proofs` has what proves each change of the block, in their order.
    """

    view: int
    parent: int
    block: Block
    proofs: tuple[bytes, ...] = ()

    @property
    def round(self) -> int:
        """The round of the block."""
        return self.block.round


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One voter's vote; `signature` is over `vote_bytes`."""

    round: int
    view: int
    choice: Choice
    block: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A quorum's votes to notarize or nullify in a view: (number in the committee, signature), ascending."""

    round: int
    view: int
    choice: Choice
    block: bytes
    votes: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A quorum's votes to finalize `block` in `view`: the round is decided, for ever."""

    view: int
    block: Block
    votes: tuple[tuple[int, bytes], ...]

    @property
    def round(self) -> int:
        """The round that it ends."""
        return self.block.round


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Two votes of `peer` in one view of which a correct member makes at most one; `first` is the lesser.

    Both are for the same round and view: for two blocks alike, or to nullify and to finalize.
    """

    peer: PeerId
    first: Vote
    second: Vote


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """The sender asks to become a member; `credential` says why, see `federated.rounds.admission`."""

    round: int
    credential: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """The sender asks to be a member no more; `signature` is over `leave_bytes`."""

    round: int
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuse:
    """A member broke its word, whoever says so; `round` is that of the evidence."""

    evidence: Evidence

    @property
    def round(self) -> int:
        """The round of the votes."""
        return self.evidence.first.round


@dataclass(frozen=True, slots=True, kw_only=True)
class Fraud:
    """The sender computed the certified `block` of `round` again, and it is not what its updates come to."""

    round: int
    block: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """That some member voted to finalize the block of `fraud` in `view`; the signature is its own."""

    fraud: Fraud
    view: int
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """A vote of `peer`, for a peer that may have forgotten it: its disk could be lost."""

    peer: PeerId
    vote: Vote

    @property
    def round(self) -> int:
        """The round of the vote."""
        return self.vote.round


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What the sender measured of itself by `round`: rates are per second, and 0 while they are not known.

    `bytes_down` and `bytes_up` are of blobs over the network, `aggregate_bytes_per_second` of updates that
    are averaged; `memory` is in bytes. Nobody can check it, so it decides only what may as well be wrong.
    """

    round: int
    steps_per_second: float
    bytes_down: float
    bytes_up: float
    aggregate_bytes_per_second: float
    memory: int
    cores: int


Body = (
    Hello
    | Commit
    | Abstain
    | Reveal
    | Propose
    | Vote
    | Proof
    | Certificate
    | Join
    | Leave
    | Accuse
    | Fraud
    | Recall
    | Capability
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A body in its envelope; the driver counts `seq` up and sets `expiry` from the wall clock."""

    task: bytes
    seq: int
    expiry: int
    body: Body

    def is_fresh(self, wall_time: float) -> bool:
        """Whether the message is neither expired nor from too far in the future (unix seconds)."""
        return wall_time <= self.expiry <= wall_time + LIFETIME + CLOCK_SKEW


def commitment(peer: PeerId, task: bytes, base: bytes, reveal: Reveal) -> bytes:
    """What `peer` publishes before it reveals its update; useless to whoever copies it.

    `base` is the digest of the model that the update was trained on. It holds all that the reveal says, so
    that nobody can tell one member this and the next one that.
    """
    sender = bytes([len(peer.raw)]) + peer.raw
    numbers = struct.pack(">QQQB", reveal.round, reveal.size, reveal.examples, reveal.staleness)
    return sha256(_COMMITMENT + sender + task + numbers + base + reveal.nonce + reveal.root).digest()


def pack_changes(changes: tuple[Change, ...]) -> bytes:
    """The changes one behind the other: kind, length of the id, id, proof."""
    return b"".join(
        bytes([change.kind, len(change.peer.raw)]) + change.peer.raw + change.proof for change in changes
    )


def leave_bytes(task: bytes, round_number: int) -> bytes:
    """What a member signs that wants to leave, in this round or a later one."""
    return _LEAVE + struct.pack(">Q", round_number) + task


def vote_bytes(task: bytes, round_number: int, view: int, choice: Choice, block: bytes) -> bytes:
    """What a vote signs: bound to its task, round and view."""
    return _VOTE + struct.pack(">QQB", round_number, view, choice) + task + block
