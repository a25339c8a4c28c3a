"""The announcements of a task: what gossip carries between its members, and what the journal keeps.

Who sent a message stands outside of it: the signed origin of the gossip message. Votes carry a
signature of their own, so that a quorum of them convinces anybody, whoever passes it on. How they
travel: `federated.rounds.wire`. What is done with them: `federated.rounds.machine` (Hello, Commit,
Reveal) and `federated.rounds.agreement` (the rest).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
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
MAX_LISTED = 64  # update roots in a proposal; they take 2 of its 4 KiB
NO_BLOCK = bytes(HASH_SIZE)  # what a vote to nullify names instead of a block

LOW_BITS = (1 << 64) - 1  # of `participants`; tasks of up to 64 members need no others

_COMMITMENT = b"atcp/commitment/1\n"
_INPUTS = b"atcp/inputs/1\n"
_BLOCK = b"atcp/block/1\n"
_VOTE = b"atcp/vote/1\n"


class MessageError(FederatedError, ValueError):
    """Bytes that are no message of ours; the peer that sent them broke the rules."""


class Choice(IntEnum):
    """What a vote is for."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model by its hashes: `digest` over its bytes, `root` and `size` to fetch it by."""

    digest: bytes
    root: bytes
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a round agrees on: `model` comes out of `base` and the updates of `participants`.

    `inputs` is the hash of the updates' roots, ascending; `participants` has bit i set for member i.
    """

    task: bytes
    round: int
    base: bytes
    inputs: bytes
    participants: int
    examples: int
    model: Model

    @property
    def skipped(self) -> bool:
        """Whether the round leaves the model as it is."""
        return self.participants == 0

    @property
    def hash(self) -> bytes:
        """What votes name."""
        low, high = self.participants & LOW_BITS, self.participants >> 64
        numbers = struct.pack(">QQQQ", self.round, low, self.examples, self.model.size)
        hashes = self.task + self.base + self.inputs + self.model.digest + self.model.root
        return sha256(_BLOCK + numbers + hashes + high.to_bytes((high.bit_length() + 7) // 8)).digest()


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
class Reveal:
    """The update that the sender committed itself to, and how many examples it was trained on."""

    round: int
    root: bytes
    size: int
    nonce: bytes
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """The leader's block for `view`; `parent` is the view in which it was notarized before, or 0.

    `inputs` are the updates' roots, for whoever reads along; they are left out when there are more than
    `MAX_LISTED`. Voters need only their hash, which is in the block.
    """

    view: int
    parent: int
    block: Block
    inputs: tuple[bytes, ...]

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


Body = Hello | Commit | Reveal | Propose | Vote | Proof | Certificate


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
    """What `peer` publishes before it reveals its update; useless to whoever copies it."""
    sender = bytes([len(peer.raw)]) + peer.raw
    where = sender + task + struct.pack(">Q", reveal.round) + base
    return sha256(_COMMITMENT + where + reveal.nonce + reveal.root).digest()


def inputs_hash(roots: tuple[bytes, ...]) -> bytes:
    """The hash of an ascending list of update roots."""
    return sha256(_INPUTS + b"".join(roots)).digest()


def vote_bytes(task: bytes, round_number: int, view: int, choice: Choice, block: bytes) -> bytes:
    """What a vote signs: bound to its task, round and view."""
    return _VOTE + struct.pack(">QQB", round_number, view, choice) + task + block
