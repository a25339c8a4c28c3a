"""Who holds the shares of a step, and how many of them may be bad.

The holders are drawn before anybody deals: the active members whose ids have the lowest hashes under a seed
made of the task, the round and the block before it, as committees are (`federated.rounds.committee`).

Of c holders e = floor((c − 1) / 4) may be bad, be it silent or lying. Polynomials have the degree e, so e
holders together know nothing. c − e of them at least attest, e of those may be silent or lie when sums are
opened: 3e + 1 values of which e are wrong, or 2e + 1 that are right, determine a polynomial of degree e.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256

from federated.manifest import holder_faults
from federated.rounds.committee import Membership
from federated.sums.seal import exchange_key
from p2p.peer_id import PeerId

_HOLDER = b"atcp/sums/holder/1\n"


@dataclass(frozen=True, slots=True)
class Holders:
    """The holders of one step, in the order of their hashes; each has its place, from 0."""

    peers: tuple[PeerId, ...]

    @property
    def faults(self) -> int:
        """How many of them may be bad: the degree of the polynomials too."""
        return holder_faults(len(self.peers))

    @property
    def least(self) -> int:
        """How many have to hold the shares of all dealings that are summed."""
        return len(self.peers) - self.faults

    @property
    def points(self) -> range:
        """Where each one has the value of a polynomial; the secret is at 0."""
        return range(1, len(self.peers) + 1)

    def place(self, peer: PeerId) -> int | None:
        """The place of `peer`, None when it is no holder."""
        return self.peers.index(peer) if peer in self.peers else None


def draw_holders(membership: Membership, round_number: int, parent: bytes, count: int) -> Holders | None:
    """Up to `count` holders for the step that begins with this round, behind the block `parent`.

    None when they are too few for one of them to be bad.
    """
    seed = sha256(_HOLDER + membership.task + struct.pack(">Q", round_number) + parent).digest()
    able = [peer for peer in membership.peers(membership.active) if exchange_key(peer) is not None]
    able.sort(key=lambda peer: sha256(seed + peer.raw).digest())
    holders = Holders(tuple(able[:count]))
    return holders if holders.faults else None
