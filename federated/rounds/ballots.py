"""What one member knows of the views of a round: proposals, votes, and the quorums they make.

Bounded: views before the last notarized one are forgotten, as no proposal can build on them any more,
and nothing is kept of views too far ahead. At most three votes of each member a view.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from federated.rounds.committee import Committee
from federated.rounds.messages import Body, Certificate, Choice, Proof, Propose, Vote

AHEAD = 16  # views before ours for which votes are kept; members further ahead send proofs
HELP = 8  # proofs in one answer to members in earlier views; 3 KiB each with 64 members


_OPPOSITE = {Choice.NULLIFY: Choice.FINALIZE, Choice.FINALIZE: Choice.NULLIFY}


@dataclass(slots=True)
class ViewRecord:
    """One view: its leader's first proposal, and the ballots, (block, signature) by member."""

    proposal: Propose | None = None
    nullification: Proof | None = None
    ballots: dict[Choice, dict[int, tuple[bytes, bytes]]] = field(
        default_factory=lambda: {choice: {} for choice in Choice}
    )

    def has_voted(self, member: int, choice: Choice) -> bool:
        """Whether the member's vote of this kind is known."""
        return member in self.ballots[choice]

    def excludes(self, member: int, choice: Choice) -> bool:
        """Whether a correct member that voted as this one did can not vote `choice` any more.

        Nobody votes the same way twice, nor both to nullify and to finalize.
        """
        opposite = _OPPOSITE.get(choice)
        return self.has_voted(member, choice) or (opposite is not None and self.has_voted(member, opposite))


class Ballots:
    """The book of one round. `parent` is the notarization of the highest view that has one."""

    def __init__(self, committee: Committee, round_number: int) -> None:
        self.parent: Proof | None = None
        self.blocks: dict[bytes, Propose] = {}
        self._committee = committee
        self._round = round_number
        self._final: tuple[int, bytes] | None = None  # (view, block) that a quorum finalized
        self._views: dict[int, ViewRecord] = {}

    @property
    def parent_view(self) -> int:
        """The highest view that is known to be notarized; 0 when there is none."""
        return 0 if self.parent is None else self.parent.view

    def at(self, view: int) -> ViewRecord:
        """The record of a view."""
        record = self._views.get(view)
        if record is None:
            record = self._views[view] = ViewRecord()
        return record

    def is_kept(self, view: int, current: int) -> bool:
        """Whether votes of `view` are of use to a member in view `current`."""
        return max(1, self.parent_view) <= view <= current + AHEAD

    def add_proposal(self, proposal: Propose) -> bool:
        """Keeps the first proposal of its view. False when the leader has proposed another block."""
        record = self.at(proposal.view)
        if record.proposal is None:
            record.proposal = self.blocks[proposal.block.hash] = proposal
        return record.proposal.block.hash == proposal.block.hash

    def supply(self, proposal: Propose) -> None:
        """Keeps the block, whoever hands it on, when a quorum voted for it and only its hash is known.

        It is kept under the view of that quorum: passed on under a view that the sender chose, perhaps one
        that we lead, it would make us look like a leader of two minds.
        """
        voted = [self._final, None if self.parent is None else (self.parent.view, self.parent.block)]
        for view, block in filter(None, voted):
            if proposal.block.hash == block and block not in self.blocks:
                self.blocks[block] = replace(proposal, view=view, parent=0)

    def add_vote(self, member: int, vote: Vote) -> Proof | None:
        """Counts a vote that `excludes` does not forbid; the proof when there is a quorum for its block."""
        self.at(vote.view).ballots[vote.choice][member] = (vote.block, vote.signature)
        votes = self._quorum(vote.view, vote.choice, vote.block)
        if votes is None:
            return None
        if vote.choice is Choice.FINALIZE:
            self._final = (vote.view, vote.block)
            return None
        return Proof(round=self._round, view=vote.view, choice=vote.choice, block=vote.block, votes=votes)

    def is_news(self, proof: Proof, current: int) -> bool:
        """Whether `proof` says anything new to a member in view `current`."""
        if proof.choice is Choice.NOTARIZE:
            return proof.view > self.parent_view
        return current <= proof.view <= current + AHEAD and self.at(proof.view).nullification is None

    def add_proof(self, proof: Proof) -> None:
        """Keeps a proof that is news; a notarization makes the views before it superfluous."""
        if proof.choice is Choice.NULLIFY:
            self.at(proof.view).nullification = proof
            return
        self.parent = proof
        self._views = {view: record for view, record in self._views.items() if view >= proof.view}
        kept = [record.proposal.block.hash for record in self._views.values() if record.proposal]
        kept += [proof.block, self._final[1] if self._final else proof.block]
        self.blocks = {block: known for block, known in self.blocks.items() if block in kept}

    def certificate(self) -> Certificate | None:
        """The proof of the decision, when a quorum finalized a block that we know."""
        if self._final is None or self._final[1] not in self.blocks:
            return None
        view, block = self._final
        votes = self._quorum(view, Choice.FINALIZE, block)
        return None if votes is None else Certificate(view=view, block=self.blocks[block].block, votes=votes)

    def summary(self, member: int, view: int, behind: int | None, *, leads: bool) -> list[Body]:
        """What a member in `view` says again while nothing moves, in the order in which it is of use.

        The way here for those in view `behind` (None: nobody is), the parent and its block, its own
        proposal when it leads, and its own votes.
        """
        proposal, bodies = self.at(view).proposal, list[Body]()
        if self.parent is not None:
            known = self.blocks.get(self.parent.block)
            bodies += [self.parent] if known is None else [self.parent, known]
            bodies += self._votes_of(member, self.parent.view) if self.parent.view < view else []
        if behind is not None:
            bodies += self._nullifications(behind, view)[:HELP]
        if leads and proposal is not None and proposal not in bodies:
            bodies.append(proposal)
        return bodies + self._votes_of(member, view)

    def _votes_of(self, member: int, view: int) -> list[Body]:
        """The member's votes in a view, as they were sent."""
        ballots = self.at(view).ballots.items()
        cast = [(choice, votes[member]) for choice, votes in ballots if member in votes]
        return [
            Vote(round=self._round, view=view, choice=choice, block=block, signature=signature)
            for choice, (block, signature) in cast
        ]

    def _nullifications(self, start: int, end: int) -> list[Body]:
        """The proofs that lead from view `start` to view `end`, ascending."""
        records = [self._views[view] for view in sorted(self._views) if start <= view < end]
        return [record.nullification for record in records if record.nullification is not None]

    def _quorum(self, view: int, choice: Choice, block: bytes) -> tuple[tuple[int, bytes], ...] | None:
        """The votes of a quorum for `block`, lowest members first."""
        cast = self.at(view).ballots[choice]
        if len(cast) < self._committee.quorum:
            return None
        ballots = sorted(cast.items())
        votes = tuple((member, signature) for member, (voted, signature) in ballots if voted == block)
        return votes[: self._committee.quorum] if len(votes) >= self._committee.quorum else None
