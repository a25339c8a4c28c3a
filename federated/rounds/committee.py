"""Who takes part in a task, who votes in a round, how many votes decide, and who leads.

With n voters at most f = floor((n-1)/3) may lie, and floor((n+f)/2)+1 votes are a quorum: any two
quorums share more than f voters, so at least one that tells the truth. For n = 3f+1 that is 2f+1.
Source: Castro and Liskov, "Practical Byzantine Fault Tolerance", 1999, section 4.

In a task of more members than seats, each round has a committee of its own: the active members whose ids
have the lowest hashes under a seed made of the task, the round and the model certified before it.
Nobody can choose an id to suit a seed: the leader of a round picks both who joins in its block and, within
limits, the model that seeds the next draw, so whoever joined in the block of round r is drawn from round
r+2 on, whose seed the model of round r+1 decides. (The exception is a task that hardly anybody else is in.)

What that protects, and what not: a certificate is as good as the draw. It fixes the updates that count
and the digest of what they make, as long as at most f of the committee lie, however many lie outside
of it. A committee that has more liars than that can certify anything for its round. Others compute again
what it certified, and the next committee that tells the truth restores the model before it
(`federated.rounds.fraud`). A leader that lies may leave updates out, and with them has some influence on
the next seed.

A set of members is an integer here, bit i for member number i: as in `Block.participants`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from federated.manifest import MAX_MEMBERS, MIN_COMMITTEE
from federated.rounds.messages import Certificate, Change, ChangeKind, Choice, Proof, Vote, vote_bytes
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId

Verify = Callable[[PeerId, bytes, bytes], bool]  # (member, data, signature) → whether it is the member's

FEW = 8  # members of a set that are faster found one by one than in the text of all its bits
KEPT_DRAWS = 16  # of the same few rounds
KEPT_PANELS = 4  # the round in progress, the next ones while catching up

_LEADER = b"atcp/leader/1\n"
_COMMITTEE = b"atcp/committee/1\n"


def verify_signature(peer: PeerId, data: bytes, signature: bytes) -> bool:
    """Whether `signature` over `data` is by the key in the id of `peer`."""
    key = peer.public_key()
    return key is not None and key.verify(data, signature)


def numbers_in(members: int) -> list[int]:
    """The numbers of the members in a set, ascending."""
    if members.bit_count() > FEW:
        return [number for number, bit in enumerate(bin(members)[:1:-1]) if bit == "1"]
    found = []
    while members:
        lowest = members & -members
        found.append(lowest.bit_length() - 1)
        members ^= lowest
    return found


def set_of(numbers: Iterable[int]) -> int:
    """The set of the members with these numbers, each given once."""
    return sum(1 << number for number in numbers)


@lru_cache(maxsize=64)
def _places(members: tuple[PeerId, ...]) -> Mapping[PeerId, int]:
    """The place of each member, which must have an id that contains its key."""
    for member in members:
        if not member.contains_key:
            raise InvalidInput(f"member {member} cannot vote: its id does not contain its key")
    return {peer: at for at, peer in enumerate(members)}


class Membership:
    """The members of a task by their numbers, and which of them are `active`.

    A member's number never changes: the first ones are numbered in the order of their ids, `later` ones as
    they were admitted. Who left or was ejected keeps its number. `used` has the proofs of all joins.
    Raises `InvalidInput` for a member whose id does not contain its key: nobody could check its votes.
    """

    def __init__(
        self,
        task: bytes,
        members: Iterable[PeerId],
        *,
        later: tuple[PeerId, ...] = (),
        active: int | None = None,
        used: frozenset[bytes] = frozenset(),
    ) -> None:
        self.task = task
        self.members = (*sorted(members), *later)
        self.size = len(self.members)  # numbers given so far
        self.active = (1 << self.size) - 1 if active is None else active
        self.used = used
        self._first = self.size - len(later)
        self._numbers = _places(self.members)
        self._hash: int | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Membership):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self._key())
        return self._hash

    def _key(self) -> tuple[bytes, tuple[PeerId, ...], int, frozenset[bytes]]:
        return self.task, self.members, self.active, self.used

    def number(self, peer: PeerId) -> int | None:
        """The number that `peer` has or had, None for a stranger."""
        return self._numbers.get(peer)

    def is_active(self, peer: PeerId) -> bool:
        """Whether `peer` takes part."""
        number = self.number(peer)
        return number is not None and bool(self.active >> number & 1)

    def peers(self, members: int) -> tuple[PeerId, ...]:
        """The members whose bits are set."""
        known = members & ((1 << self.size) - 1)
        return tuple(self.members[number] for number in numbers_in(known))

    def allows(self, changes: Iterable[Change]) -> bool:
        """Whether `apply` takes all of them: strangers join, active members go, and somebody is left."""
        active, size = self.active, self.size
        for change in changes:
            number = self.number(change.peer)
            if change.kind is ChangeKind.JOIN:
                if number is not None or size >= MAX_MEMBERS or not change.peer.contains_key:
                    return False
                active, size = active | 1 << size, size + 1
            elif number is None or not (change.kind is ChangeKind.VOID or active >> number & 1):
                return False  # but who signed a fraud may be gone by now, and is named all the same
            else:
                active &= ~(1 << number)
        return bool(active)

    def apply(self, changes: Iterable[Change]) -> Membership:
        """The membership after a block with these changes, less those that cannot be."""
        later, active, used = list(self.members[self._first :]), self.active, set(self.used)
        for change in changes:
            number, size = self._numbers.get(change.peer), self._first + len(later)
            if change.kind is ChangeKind.JOIN:
                is_new = number is None and change.peer not in later
                if is_new and size < MAX_MEMBERS and change.peer.contains_key:
                    active |= 1 << size
                    later.append(change.peer)
                    used.add(change.proof)
            elif number is not None and active & ~(1 << number):  # somebody has to be left
                active &= ~(1 << number)
        first = self.members[: self._first]
        return Membership(self.task, first, later=tuple(later), active=active, used=frozenset(used))

    def before(self, changes: Iterable[Change]) -> Membership:
        """The membership from which `apply` led here, by these changes and no others."""
        size, active, used = self.size, self.active, set(self.used)
        for change in changes:
            number = self._numbers.get(change.peer)
            if number is None:
                continue
            if change.kind is ChangeKind.JOIN:
                size -= 1
                active &= ~(1 << number)
                used.discard(change.proof)
            else:
                active |= 1 << number
        first, later = self.members[: self._first], self.members[self._first : size]
        return Membership(self.task, first, later=later, active=active, used=frozenset(used))


@lru_cache(maxsize=KEPT_DRAWS)
def draw(seed: bytes, membership: Membership, pool: int, count: int) -> int:
    """The `count` members of the set `pool` that have the lowest hashes under `seed`; all of a smaller one.

    Whatever is drawn, all members draw it: where many of them share a process, the first one does it.
    """
    start, members = sha256(seed).digest(), membership.members
    hashes = {number: sha256(start + members[number].raw).digest() for number in numbers_in(pool)}
    return set_of(sorted(hashes, key=hashes.__getitem__)[:count])


class Committee:
    """Those who vote in a round, by their numbers: `Proof` and `Certificate` name these numbers."""

    def __init__(self, task: bytes, members: Sequence[PeerId], verify: Verify = verify_signature) -> None:
        self.task = task
        self.members = tuple(members)
        self.size = len(self.members)
        self.faults = (self.size - 1) // 3
        self.quorum = (self.size + self.faults) // 2 + 1
        self._verify = verify
        self._order: tuple[tuple[int, bytes, int], list[int]] = ((0, b"", 0), [])  # the last one asked for

    def leader(self, round_number: int, base: bytes, view: int) -> int:
        """Who leads a view: every voter once in each `size` views, in an order that the base decides."""
        rotation, place = divmod(view - 1, self.size)
        key = (round_number, base, rotation)
        if self._order[0] != key:
            seed = _LEADER + self.task + struct.pack(">QQ", round_number, rotation) + base
            hashes = [sha256(seed + peer.raw).digest() for peer in self.members]
            self._order = (key, sorted(range(self.size), key=lambda number: hashes[number]))
        return self._order[1][place]

    def accepts_vote(self, member: int, vote: Vote) -> bool:
        """Whether the signature is the voter's."""
        data = vote_bytes(self.task, vote.round, vote.view, vote.choice, vote.block)
        return self._verify(self.members[member], data, vote.signature)

    def accepts_proof(self, proof: Proof) -> bool:
        """Whether a quorum signed."""
        data = vote_bytes(self.task, proof.round, proof.view, proof.choice, proof.block)
        return self._accepts(data, proof.votes)

    def accepts_certificate(self, certificate: Certificate) -> bool:
        """Whether a quorum signed."""
        block = certificate.block
        data = vote_bytes(self.task, block.round, certificate.view, Choice.FINALIZE, block.hash)
        return block.task == self.task and self._accepts(data, certificate.votes)

    def _accepts(self, data: bytes, votes: Sequence[tuple[int, bytes]]) -> bool:
        """Whether these are signatures over `data` by a quorum of distinct voters; cheap checks first."""
        numbers = dict(votes)
        if len(numbers) != len(votes) or len(votes) < self.quorum or max(numbers) >= self.size:
            return False
        return all(self._verify(self.members[number], data, signature) for number, signature in votes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The committee of one round, and who its voters are among the members.

    `members` has the member number of each voter; `voters` is the set of them.
    """

    committee: Committee
    members: tuple[int, ...]
    voters: int

    def seat(self, member: int) -> int | None:
        """The number in the committee of member number `member`, None when it does not vote."""
        if not self.voters >> member & 1:
            return None
        return (self.voters & ((1 << member) - 1)).bit_count()


class Electorate:
    """Draws the committee of `seats` voters for each round; of no more active members all of them vote."""

    def __init__(self, seats: int, verify: Verify = verify_signature) -> None:
        self._seats = seats
        self._verify = verify
        self._panels: dict[tuple[int, bytes, int, int], Panel] = {}  # oldest first

    def panel(self, round_number: int, base: bytes, membership: Membership, newest: int = 0) -> Panel:
        """Who votes in a round; `base` is the digest of the model certified in the round before it.

        `membership` is as that round left it. Those in the set `newest`, who joined in it, are not drawn,
        unless the others are fewer than make a committee of which one may lie.
        """
        everybody = membership.active.bit_count() <= self._seats
        older = membership.active & ~newest
        pool = membership.active if everybody or older.bit_count() < MIN_COMMITTEE else older
        key = (0, b"", pool, pool) if everybody else (round_number, base, membership.active, pool)
        known = self._panels.get(key)
        if known is None:
            if len(self._panels) >= KEPT_PANELS:
                del self._panels[next(iter(self._panels))]
            drawn = pool
            if not everybody:
                seed = _COMMITTEE + membership.task + struct.pack(">Q", round_number) + base
                drawn = draw(seed, membership, pool, self._seats)
            known = self._panels[key] = self._panel(membership, drawn)
        return known

    def _panel(self, membership: Membership, voters: int) -> Panel:
        committee = Committee(membership.task, membership.peers(voters), self._verify)
        return Panel(committee=committee, members=tuple(numbers_in(voters)), voters=voters)
