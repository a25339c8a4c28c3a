"""Who votes on a task, how many votes decide, and who leads.

With n members at most f = floor((n-1)/3) may lie, and floor((n+f)/2)+1 votes are a quorum: any two
quorums share more than f members, so at least one that tells the truth. For n = 3f+1 that is 2f+1.
Source: Castro and Liskov, "Practical Byzantine Fault Tolerance", 1999, section 4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from federated.rounds.messages import Certificate, Choice, Proof, Vote, vote_bytes
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId

Verify = Callable[[PeerId, bytes, bytes], bool]  # (member, data, signature) → whether it is the member's

_LEADER = b"atcp/leader/1\n"


def verify_signature(peer: PeerId, data: bytes, signature: bytes) -> bool:
    """Whether `signature` over `data` is by the key in the id of `peer`."""
    key = peer.public_key()
    return key is not None and key.verify(data, signature)


class Committee:
    """The members of a task in the order of their ids; a member's number is its place here.

    Raises `InvalidInput` for a member whose id does not contain its key: nobody could check its votes.
    """

    def __init__(self, task: bytes, members: Sequence[PeerId], verify: Verify = verify_signature) -> None:
        for member in members:
            if member.public_key() is None:
                raise InvalidInput(f"member {member} cannot vote: its id does not contain its key")
        self.task = task
        self.members = tuple(sorted(members))
        self.size = len(self.members)
        self.faults = (self.size - 1) // 3
        self.quorum = (self.size + self.faults) // 2 + 1
        self._numbers: Mapping[PeerId, int] = {peer: at for at, peer in enumerate(self.members)}
        self._verify = verify
        self._order: tuple[tuple[int, bytes, int], list[int]] = ((0, b"", 0), [])  # the last one asked for

    def number(self, peer: PeerId) -> int | None:
        """The member's number, None for a stranger."""
        return self._numbers.get(peer)

    def leader(self, round_number: int, base: bytes, view: int) -> int:
        """Who leads a view: every member once in each `size` views, in an order that the base decides."""
        rotation, place = divmod(view - 1, self.size)
        key = (round_number, base, rotation)
        if self._order[0] != key:
            seed = _LEADER + self.task + struct.pack(">QQ", round_number, rotation) + base
            hashes = [sha256(seed + peer.raw).digest() for peer in self.members]
            self._order = (key, sorted(range(self.size), key=lambda number: hashes[number]))
        return self._order[1][place]

    def accepts_vote(self, member: int, vote: Vote) -> bool:
        """Whether the signature is the member's."""
        data = vote_bytes(self.task, vote.round, vote.view, vote.choice, vote.block)
        return self._verify(self.members[member], data, vote.signature)

    def accepts_proof(self, proof: Proof) -> bool:
        """Whether a quorum of the members signed."""
        data = vote_bytes(self.task, proof.round, proof.view, proof.choice, proof.block)
        return self._accepts(data, proof.votes)

    def accepts_certificate(self, certificate: Certificate) -> bool:
        """Whether a quorum of the members signed."""
        block = certificate.block
        data = vote_bytes(self.task, block.round, certificate.view, Choice.FINALIZE, block.hash)
        return block.task == self.task and self._accepts(data, certificate.votes)

    def peers(self, participants: int) -> tuple[PeerId, ...]:
        """The members whose bits are set."""
        return tuple(peer for number, peer in enumerate(self.members) if participants >> number & 1)

    def _accepts(self, data: bytes, votes: Sequence[tuple[int, bytes]]) -> bool:
        """Whether these are signatures over `data` by a quorum of distinct members; cheap checks first."""
        numbers = dict(votes)
        if len(numbers) != len(votes) or len(votes) < self.quorum or max(numbers) >= self.size:
            return False
        return all(self._verify(self.members[number], data, signature) for number, signature in votes)
