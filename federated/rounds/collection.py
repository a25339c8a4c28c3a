"""What the members committed and revealed in one round, and what became of their updates.

    commit ──→ reveal that matches it ──→ FETCHING ──→ HERE ──→ VALID
                        │                   ↑   │        └────→ REFUSED
                        └─ refused          └──→ FAILED

One commit and one reveal a member, the first; a reveal that overtakes its commit waits for it.
A commit after `close` is late: by then others have revealed, and it could be for a copy. Late updates
never enter a proposal of ours, but those of a leader that got them in time can be checked. Neither do those
of a member that commits itself twice: some may have the one and some the other.
An update of an earlier round may count if its owner took part in none since (`federated.rounds.past`).
Of members with the same update, the first in the order of the ids has it.

Sets of members are integers with bit i set for member number i: whether a phase is over is asked after
each of thousands of messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from federated.rounds.actions import Fetch, Validate
from federated.rounds.committee import Membership, numbers_in, set_of
from federated.rounds.events import Input, Inputs
from federated.rounds.messages import Commit, Reveal, commitment
from federated.rounds.past import Base

MAX_FETCHES = 8  # attempts at one update in a round


class Status(Enum):
    """How far the bytes of an update have come."""

    FETCHING = "fetching"
    FAILED = "failed"
    HERE = "here"
    VALID = "valid"
    REFUSED = "refused"

    __hash__ = object.__hash__  # an enum's own is a function of Python, and sets of members are kept by it


@dataclass(slots=True)
class _Member:
    commit: bytes | None = None
    late: bool = False
    claim: Reveal | None = None  # not yet, or never, matched by a commit
    reveal: Reveal | None = None
    refused: str | None = None


@dataclass(slots=True)
class _Update:
    size: int
    status: Status
    attempts: int = 1
    rule: str | None = None

    @property
    def is_missing(self) -> bool:
        """Whether nobody gave the bytes when they were asked for, so far."""
        again = self.status is Status.FETCHING and self.attempts > 1
        return self.status is Status.FAILED or again


class Collection:
    """The updates of one round. The methods that return a rule name the one that a member broke.

    `bases` are the models that updates may build on, by their staleness. `committed` and `revealed` are the
    sets of members that did so in time, `abstained` those that said they would not, `equivocators` those
    that committed themselves twice, `unasked` those whose updates were never asked for. `changes` goes up
    with whatever is learned that a proposal may be about.
    """

    def __init__(
        self, *, membership: Membership, round_number: int, bases: Sequence[Base], max_update: int
    ) -> None:
        self.committed = 0
        self.abstained = 0
        self.revealed = 0
        self.equivocators = 0
        self.changes = 0
        self.unasked = 0
        self._membership = membership
        self._round = round_number
        self._bases = bases
        self._max_update = max_update
        self._closed = False
        self._members: dict[int, _Member] = {}
        self._updates: dict[bytes, _Update] = {}  # by root
        self._owners: dict[bytes, int] = {}  # by root: the members that revealed it
        self._states = dict.fromkeys(Status, 0)  # the members whose updates are in each state

    # what members say

    def count_commit(self, number: int) -> None:
        """The member committed itself; to what is for others to check."""
        if not self._closed:
            self.committed |= 1 << number

    def add_commit(self, number: int, commit: Commit) -> str | None:
        """Keeps the member's first commit."""
        member = self._member(number)
        if member.commit is not None:
            if member.commit == commit.commitment:
                return None
            self.equivocators |= 1 << number
            return "twice"
        member.commit = commit.commitment
        member.late = self._closed
        self.count_commit(number)
        return None if member.claim is None else self.add_reveal(number, member.claim)

    def abstain(self, number: int) -> None:
        """The member will have no update; one that it commits itself to all the same counts."""
        self.abstained |= 1 << number

    def close(self) -> None:
        """From now on commits are late."""
        self._closed = True

    def add_reveal(self, number: int, reveal: Reveal) -> str | None:
        """Keeps the member's first reveal that matches its commit."""
        member = self._member(number)
        if member.reveal is not None:
            return None if member.reveal == reveal else "twice"
        if member.commit is None:
            member.claim = member.claim or reveal
            return None
        if reveal.staleness >= len(self._bases):
            return "staleness"
        peer, base = self._membership.members[number], self._bases[reveal.staleness]
        if commitment(peer, self._membership.task, base.digest, reveal) != member.commit:
            return "commitment"
        self._keep(number, member, reveal)
        return member.refused

    def _keep(self, number: int, member: _Member, reveal: Reveal) -> None:
        bit = 1 << number
        self.changes += 1
        self.revealed |= 0 if member.late else bit
        member.reveal, member.claim = reveal, None
        self._owners[reveal.root] = self._owners.get(reveal.root, 0) | bit
        if reveal.size > self._max_update:
            self._refuse(number, member, "size")
            return
        if self._bases[reveal.staleness].participants & bit:
            self._refuse(number, member, "staleness")
            return
        self.unasked |= bit
        update = self._updates.get(reveal.root)
        if update is not None:
            self._states[update.status] |= bit

    def _refuse(self, number: int, member: _Member, rule: str) -> None:
        """The update of this member, though not of others with the same, does not count."""
        member.refused = rule
        self.changes += 1
        for status in self._states:
            self._states[status] &= ~(1 << number)
        self._states[Status.REFUSED] |= 1 << number

    def _member(self, number: int) -> _Member:
        member = self._members.get(number)
        if member is None:
            member = self._members[number] = _Member()
        return member

    # what is to be done with their updates, and what came of it

    def fetches(self, live: int, fetchers: int, wanted: int, retry: bool) -> list[Fetch]:
        """Asks for the updates that were revealed in time, and those of the members in `wanted`.

        Our own is among them, it comes from the store. `retry` asks again for those that failed.
        An update's owner is asked first if it is live, and last if not; the other live `fetchers` may
        have it by now.
        """
        todo = self.unasked | (self._states[Status.FAILED] if retry else 0)
        todo &= self.revealed | wanted
        if not todo:
            return []
        actions = []
        peers = self._membership.members
        others = [peers[holder] for holder in numbers_in(live & fetchers)]
        for number in numbers_in(todo):
            member = self._members[number]
            self.unasked &= ~(1 << number)
            if member.reveal is not None and self._wants(number, member, member.reveal, retry):
                owner = peers[number]
                rest = [peer for peer in others if peer != owner]
                order = [owner, *rest] if live >> number & 1 else [*rest, owner]
                root, size = member.reveal.root, member.reveal.size
                actions.append(Fetch(round=self._round, root=root, size=size, holders=tuple(order)))
        return actions

    def _wants(self, number: int, member: _Member, reveal: Reveal, retry: bool) -> bool:
        """Whether to fetch the update now; it counts as asked for then."""
        update = self._updates.get(reveal.root)
        if update is None:
            self._updates[reveal.root] = _Update(size=reveal.size, status=Status.FETCHING)
            self._states[Status.FETCHING] |= self._sharers(reveal.root)
            return True
        if update.size != reveal.size:
            self._refuse(number, member, "size")
        elif retry and update.status is Status.FAILED and update.attempts < MAX_FETCHES:
            self._move(reveal.root, Status.FAILED, Status.FETCHING)
            update.attempts += 1
            return True
        return False

    def fetched(self, root: bytes) -> list[Validate]:
        """The update is here."""
        owners = self._owners.get(root, 0)
        if not owners or not self._move(root, Status.FETCHING, Status.HERE):
            return []
        [item] = self.inputs(numbers_in(owners)[:1])
        return [Validate(round=self._round, input=item)]

    def failed(self, root: bytes) -> None:
        """Nobody has the update."""
        self._move(root, Status.FETCHING, Status.FAILED)

    def validated(self, root: bytes, rule: str | None) -> None:
        """The update is fine, or breaks a rule."""
        if self._move(root, Status.HERE, Status.VALID if rule is None else Status.REFUSED):
            self._updates[root].rule = rule

    def _move(self, root: bytes, before: Status, after: Status) -> bool:
        update = self._updates.get(root)
        if update is None or update.status is not before:
            return False
        self.changes += 1
        update.status = after
        owners = self._sharers(root)
        self._states[before] &= ~owners
        self._states[after] |= owners
        return True

    def _sharers(self, root: bytes) -> int:
        """The members whose update this is, without those that were refused for themselves."""
        owners = self._owners[root]
        return owners if owners & (owners - 1) == 0 else self._without_refused(owners)

    def _without_refused(self, owners: int) -> int:
        refused = [number for number in numbers_in(owners) if self._members[number].refused]
        return owners & ~set_of(refused)

    # how far the members are

    def with_status(self, *statuses: Status) -> int:
        """The members that revealed in time whose update is in one of these states."""
        found = 0
        for status in statuses:
            found |= self._states[status]
        return found & self.revealed

    def status(self, number: int) -> Status | None:
        """How far the member's update has come; None before it was asked for."""
        member = self._member(number)
        if member.refused is not None:
            return Status.REFUSED
        update = self._updates.get(member.reveal.root) if member.reveal else None
        return None if update is None else update.status

    def attempts(self, number: int) -> int:
        """How often the member's update was asked for."""
        reveal = self._member(number).reveal
        update = self._updates.get(reveal.root) if reveal else None
        return 0 if update is None else update.attempts

    def refused(self) -> list[tuple[int, str]]:
        """The members whose updates do not count, and the rules they broke."""
        owners = self._firsts()
        found = []
        for number, member in sorted(self._members.items()):
            if member.reveal is None:
                continue
            root = member.reveal.root
            update = self._updates.get(root)
            rule = member.refused or (None if update is None else update.rule)
            if rule is None and self.equivocators >> number & 1:
                rule = "twice"
            if rule is None and owners.get(root, number) != number:
                rule = "duplicate"
            if rule is None and update is not None and update.is_missing:
                rule = "missing"
            if rule is not None:
                found.append((number, rule))
        return found

    def late(self, numbers: int) -> list[tuple[int, int]]:
        """Those of these members whose updates were late, and by how many rounds."""
        found = [
            (number, self._members[number].reveal)
            for number in numbers_in(numbers)
            if number in self._members
        ]
        return [(number, reveal.staleness) for number, reveal in found if reveal and reveal.staleness]

    # what can be aggregated

    def candidates(self) -> list[int]:
        """The members with a valid update that came in time, each update once."""
        return sorted(self._firsts().values())

    def inputs(self, numbers: Iterable[int]) -> Inputs:
        """The updates of those of these members that have revealed one, late or not."""
        peers = self._membership.members
        found = [
            Input(
                peer=peers[number],
                root=reveal.root,
                size=reveal.size,
                examples=reveal.examples,
                staleness=reveal.staleness,
            )
            for number in numbers
            if (member := self._members.get(number)) is not None and (reveal := member.reveal) is not None
        ]
        return tuple(sorted(found, key=lambda item: item.root))

    def _firsts(self) -> dict[bytes, int]:
        """Whose each valid update is that came in time."""
        owners = dict[bytes, int]()
        for number in numbers_in(self.with_status(Status.VALID) & ~self.equivocators):
            reveal = self._members[number].reveal
            if reveal is not None:
                owners.setdefault(reveal.root, number)
        return owners
