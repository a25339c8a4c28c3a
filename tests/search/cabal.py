"""The liars of a parliament that are told what to do: one mind that sees each message of honest members.

It holds the keys of its members only. With them, and the votes that it saw, it sends whatever has the
form of a message, each time to some members and not to others: proposals of any block on any parent,
to each one another, also out of turn; votes of any kind, also against each other and for blocks that
do not exist; true proofs at the worst moment, or to one member alone; proofs and certificates with too
few votes, votes counted twice, votes of another view, round or block; votes of earlier rounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from federated.rounds.messages import (
    NO_BLOCK,
    Body,
    Certificate,
    Choice,
    Proof,
    Propose,
    Vote,
    vote_bytes,
)
from tests.search import parliament as house

if TYPE_CHECKING:
    from tests.search.parliament import Chair, Parliament

MAX_VIEW_AHEAD = 2  # views before the highest one heard of in which the cabal acts
Ballots = dict[int, bytes]  # signatures by member


class Cabal:
    """The puppets of one parliament."""

    def __init__(self, parliament: Parliament, members: list[int]) -> None:
        self.members = members
        self._house = parliament
        self._rng = parliament.rng
        self._seen: dict[tuple[int, Choice, bytes], Ballots] = {}  # true votes of honest members
        self._highest = 1
        self._labels = [*range(parliament.plan.count), house.WRONG, house.WRONG + 1]

    def overhear(self, member: int, body: Body) -> None:
        """What an honest member has said."""
        if self.members and isinstance(body, Vote):
            self._seen.setdefault((body.view, body.choice, body.block), {})[member] = body.signature
            self._highest = max(self._highest, body.view)

    def attack(self) -> None:
        """One deed, to some of the others."""
        rng = self._rng
        deed = rng.choice(
            (
                self._propose,
                self._lead,
                self._lead,
                self._vote,
                self._vote,
                self._vote,
                self._prove,
                self._prove,
                self._forge,
                self._forge,
                self._replay,
                self._conclude,
            )
        )
        others = [chair for chair in self._house.chairs if chair.number not in self.members]
        deed(rng.sample(others, rng.randint(1, len(others))))

    # deeds

    def _propose(self, others: list[Chair]) -> None:
        """Another block, on another parent, to everybody; sometimes where it is not its turn."""
        view = self._view()
        leader = self._house.committee.leader(house.ROUND, house.BASE, view)
        sender = leader if leader in self.members else self._rng.choice(self.members)
        labels = self._rng.sample(self._labels, 2)
        parent = self._rng.choice((0, self._parent(view), self._parent(view), self._rng.randrange(view)))
        for chair in others:
            label = labels[self._rng.random() < 0.3]
            made = house.block(label)
            body = Propose(view=view, parent=parent, block=made)
            self._house.send(sender, chair, body)

    def _lead(self, others: list[Chair]) -> None:
        """The next view that is ours: a block of our choice on the parent that others have, and our votes."""
        for view in range(self._highest, self._highest + 2):
            leader = self._house.committee.leader(house.ROUND, house.BASE, view)
            if leader in self.members:
                label = self._rng.choice(self._labels)
                made, parent = house.block(label), self._parent(view)
                body = Propose(view=view, parent=parent, block=made)
                for chair in others:
                    self._house.send(leader, chair, body)
                    for member in self.members:
                        vote = self._signed(member, view, Choice.NOTARIZE, made.hash)
                        self._house.send(member, chair, vote)
                return

    def _vote(self, others: list[Chair]) -> None:
        """All puppets vote for what others voted for, or for anything."""
        view, choice, what = self._cause()
        for sender in self.members:
            for chair in others:
                self._house.send(sender, chair, self._signed(sender, view, choice, what))

    def _prove(self, others: list[Chair]) -> None:
        """A true proof, if there are enough votes for one."""
        causes = [key for key, ballots in self._seen.items() if self._is_enough(ballots)]
        causes = [key for key in causes if key[1] is not Choice.FINALIZE]
        if causes:
            self._send_proof(self._rng.choice(causes), others)

    def _conclude(self, others: list[Chair]) -> None:
        """A true certificate, if there are enough votes for one."""
        for (view, choice, what), ballots in self._seen.items():
            if choice is Choice.FINALIZE and self._is_enough(ballots):
                for label in self._labels:
                    if house.hash_of(label) == what:
                        votes = self._votes(view, choice, what)
                        body = Certificate(view=view, block=house.block(label), votes=votes)
                        for chair in others[:1]:
                            self._house.send(self.members[0], chair, body)

    def _forge(self, others: list[Chair]) -> None:
        """A proof or a certificate that is none."""
        rng = self._rng
        view, choice, what = self._cause()
        votes = self._votes(view, choice, what)
        deed = rng.randrange(5)
        if deed == 0:  # too few
            votes = votes[: self._quorum - 1]
        elif deed == 1:  # the same again
            votes = (votes * self._quorum)[: self._quorum]
        elif deed == 2:  # not signed
            votes = tuple((number, b"") for number in range(self._quorum))
        elif deed == 3:  # of another view
            view += 1
        else:  # for another block
            what = house.hash_of(rng.choice(self._labels))
        body: Body
        if choice is Choice.FINALIZE or rng.random() < 0.3:
            body = Certificate(view=view, block=house.block(rng.choice(self._labels)), votes=votes)
        else:
            body = Proof(round=house.ROUND, view=view, choice=choice, block=what, votes=votes)
        for chair in others:
            self._house.send(self.members[0], chair, body)

    def _replay(self, others: list[Chair]) -> None:
        """A vote to nullify of an earlier round, where everybody did; or an honest vote in another view."""
        view = self._view()
        member = self._rng.randrange(self._house.plan.count)
        if self._rng.random() < 0.7:
            data = vote_bytes(house.TASK, house.ROUND - 1, view, Choice.NULLIFY, NO_BLOCK)
            votes = tuple(
                (number, house.sign(self._house.committee.members[number], data))
                for number in range(self._quorum)
            )
            choice, what = Choice.NULLIFY, NO_BLOCK
        else:
            (_, choice, what) = self._cause()
            votes = tuple(self._seen.get((self._view(), choice, what), {}).items())
        if choice is Choice.FINALIZE:
            return
        proof = Proof(round=house.ROUND, view=view, choice=choice, block=what, votes=votes)
        for chair in others:
            if votes and self._rng.random() < 0.5:
                self._house.send(self.members[0], chair, proof)
                continue
            for number, signature in votes:
                body = Vote(round=house.ROUND, view=view, choice=choice, block=what, signature=signature)
                if number == member or (number != chair.number and number in self.members):
                    self._house.send(self._rng.choice(self.members), chair, body)

    # what it knows

    @property
    def _quorum(self) -> int:
        return house.quorum_of(self._house.plan.count)

    def _view(self) -> int:
        low = max(1, self._highest - 2)
        return self._rng.randint(low, self._highest + (self._rng.random() < 0.2) * MAX_VIEW_AHEAD)

    def _parent(self, view: int) -> int:
        """The highest view before this one in which a block can be notarized."""
        return max(
            (
                key[0]
                for key, ballots in self._seen.items()
                if key[1] is Choice.NOTARIZE and key[0] < view and self._is_enough(ballots)
            ),
            default=0,
        )

    def _cause(self) -> tuple[int, Choice, bytes]:
        """Something to vote for: mostly what others vote for, and do not have a quorum for."""
        if self._seen and self._rng.random() < 0.8:
            return self._rng.choice(list(self._seen)[-12:])
        choice = self._rng.choice(list(Choice))
        what = NO_BLOCK if choice is Choice.NULLIFY else house.hash_of(self._rng.choice(self._labels))
        return self._view(), choice, what

    def _signed(self, member: int, view: int, choice: Choice, what: bytes) -> Vote:
        data = vote_bytes(house.TASK, house.ROUND, view, choice, what)
        signature = house.sign(self._house.committee.members[member], data)
        return Vote(round=house.ROUND, view=view, choice=choice, block=what, signature=signature)

    def _is_enough(self, ballots: Ballots) -> bool:
        return len(ballots) + len(self.members) >= self._quorum

    def _votes(self, view: int, choice: Choice, what: bytes) -> tuple[tuple[int, bytes], ...]:
        """The votes that there are, with our own, no more than a quorum."""
        ballots = dict(self._seen.get((view, choice, what), {}))
        for member in self.members:
            ballots[member] = self._signed(member, view, choice, what).signature
        return tuple(sorted(ballots.items()))[: self._quorum]

    def _send_proof(self, cause: tuple[int, Choice, bytes], others: list[Chair]) -> None:
        view, choice, what = cause
        votes = self._votes(view, choice, what)
        body = Proof(round=house.ROUND, view=view, choice=choice, block=what, votes=votes)
        for chair in others:
            self._house.send(self.members[0], chair, body)
