"""What the members committed and revealed in one round, and what became of their updates.

    commit ──→ reveal that matches it ──→ FETCHING ──→ HERE ──→ VALID
                        │                   ↑   │        └────→ REFUSED
                        └─ refused          └──→ FAILED

One commit and one reveal a member, the first; a reveal that overtakes its commit waits for it.
A commit after `close` is late: by then others have revealed, and it could be for a copy. Late updates
never enter a proposal of ours, but those of a leader that got them in time can be checked.
Of members with the same update, the first in the order of the ids has it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from federated.rounds.committee import Committee
from federated.rounds.events import Fetch, Input, Inputs, Validate
from federated.rounds.messages import Commit, Reveal, commitment

MAX_FETCHES = 8  # attempts at one update in a round


class Status(Enum):
    """How far the bytes of an update have come."""

    FETCHING = "fetching"
    FAILED = "failed"
    HERE = "here"
    VALID = "valid"
    REFUSED = "refused"


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
    """The updates of one round. The methods that return a rule name the one that a member broke."""

    def __init__(self, *, committee: Committee, round_number: int, base: bytes, max_update: int) -> None:
        self._committee = committee
        self._round = round_number
        self._base = base
        self._max_update = max_update
        self._closed = False
        self._members = [_Member() for _ in committee.members]
        self._updates: dict[bytes, _Update] = {}  # by root

    # what members say

    def add_commit(self, number: int, commit: Commit) -> str | None:
        """Keeps the member's first commit."""
        member = self._members[number]
        if member.commit is not None:
            return None if member.commit == commit.commitment else "twice"
        member.commit = commit.commitment
        member.late = self._closed
        return None if member.claim is None else self.add_reveal(number, member.claim)

    def close(self) -> None:
        """From now on commits are late."""
        self._closed = True

    def add_reveal(self, number: int, reveal: Reveal) -> str | None:
        """Keeps the member's first reveal that matches its commit."""
        member = self._members[number]
        if member.reveal is not None:
            return None if member.reveal == reveal else "twice"
        if member.commit is None:
            member.claim = member.claim or reveal
            return None
        peer = self._committee.members[number]
        if commitment(peer, self._committee.task, self._base, reveal) != member.commit:
            return "commitment"
        member.reveal = reveal
        if reveal.size > self._max_update:
            member.refused = "size"
        return member.refused

    # what is to be done with their updates, and what came of it

    def fetches(self, holders: Sequence[int], wanted: Container[int], retry: bool) -> list[Fetch]:
        """Asks for the updates that were revealed in time, and those of the members in `wanted`.

        Our own is among them, it comes from the store. `retry` asks again for those that failed.
        `holders` are the live members; an update's owner is asked first if it is one, and last if not.
        """
        actions = []
        for number, member in enumerate(self._members):
            if member.reveal is None or member.refused or (member.late and number not in wanted):
                continue
            if self._wants(member, member.reveal, retry):
                others = [holder for holder in holders if holder != number]
                order = [number, *others] if number in holders else [*others, number]
                peers = tuple(self._committee.members[holder] for holder in order)
                root, size = member.reveal.root, member.reveal.size
                actions.append(Fetch(round=self._round, root=root, size=size, holders=peers))
        return actions

    def _wants(self, member: _Member, reveal: Reveal, retry: bool) -> bool:
        """Whether to fetch the update now; it counts as asked for then."""
        update = self._updates.get(reveal.root)
        if update is None:
            self._updates[reveal.root] = _Update(size=reveal.size, status=Status.FETCHING)
            return True
        if update.size != reveal.size:
            member.refused = "size"
        elif retry and update.status is Status.FAILED and update.attempts < MAX_FETCHES:
            update.status = Status.FETCHING
            update.attempts += 1
            return True
        return False

    def fetched(self, root: bytes) -> list[Validate]:
        """The update is here."""
        owners = [number for number, reveal in self._reveals() if reveal.root == root]
        if not owners or not self._move(root, Status.FETCHING, Status.HERE):
            return []
        [item] = self.inputs(owners[:1])
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
        update.status = after
        return True

    # how far the members are

    def committed(self) -> list[int]:
        """The members that committed in time."""
        return [number for number, member in enumerate(self._members) if member.commit and not member.late]

    def revealed(self) -> list[int]:
        """Those of them that revealed what they committed to."""
        return [number for number in self.committed() if self._members[number].reveal]

    def with_status(self, *statuses: Status) -> list[int]:
        """Those of them whose update is in one of these states."""
        return [number for number in self.revealed() if self.status(number) in statuses]

    def status(self, number: int) -> Status | None:
        """How far the member's update has come; None before it was asked for."""
        member = self._members[number]
        if member.refused is not None:
            return Status.REFUSED
        update = self._updates.get(member.reveal.root) if member.reveal else None
        return None if update is None else update.status

    def attempts(self, number: int) -> int:
        """How often the member's update was asked for."""
        reveal = self._members[number].reveal
        update = self._updates.get(reveal.root) if reveal else None
        return 0 if update is None else update.attempts

    def refused(self) -> list[tuple[int, str]]:
        """The members whose updates do not count, and the rules they broke."""
        owners = self._owners()
        found = []
        for number, reveal in self._reveals():
            update = self._updates.get(reveal.root)
            rule = self._members[number].refused or (None if update is None else update.rule)
            if rule is None and owners.get(reveal.root, number) != number:
                rule = "duplicate"
            if rule is None and update is not None and update.is_missing:
                rule = "missing"
            if rule is not None:
                found.append((number, rule))
        return found

    # what can be aggregated

    def candidates(self) -> list[int]:
        """The members with a valid update that came in time, each update once."""
        return sorted(self._owners().values())

    def inputs(self, numbers: Iterable[int]) -> Inputs:
        """The updates of those of these members that have revealed one, late or not."""
        known = dict(self._reveals())
        peers = self._committee.members
        found = [
            Input(peer=peers[number], root=reveal.root, size=reveal.size, examples=reveal.examples)
            for number in numbers
            if (reveal := known.get(number)) is not None
        ]
        return tuple(sorted(found, key=lambda item: item.root))

    def _reveals(self) -> list[tuple[int, Reveal]]:
        return [(number, member.reveal) for number, member in enumerate(self._members) if member.reveal]

    def _owners(self) -> dict[bytes, int]:
        """Whose each valid update is that came in time."""
        valid, owners = self.with_status(Status.VALID), dict[bytes, int]()
        for number, reveal in self._reveals():
            if number in valid:
                owners.setdefault(reveal.root, number)
        return owners
