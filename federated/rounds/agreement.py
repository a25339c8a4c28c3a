"""Agreement on one block per round: Simplex with a single decision.

Views go up from 1, each with a leader. In a view a member does, with a journal entry before each vote:

    enter ──→ leader: propose the parent's block, or an own one when nothing was notarized before
              others: proposal checked by the owner ──→ NOTARIZE, once
      │
      ├─ a quorum notarized, and we did not nullify ──→ FINALIZE; this block is the parent from here on;
      │                                                 next view when it is not decided after a while
      ├─ leader lost, bad proposal, deadline passed, or too few can still finalize ──→ NULLIFY
      ├─ a quorum nullified ──→ next view
      └─ a quorum finalized ──→ decided; the certificate convinces anybody

Who votes to finalize may not have seen the block's updates, as long as a quorum vouches for them. Where a
quorum may lie, because a committee was drawn, nobody signs unchecked (`signs_unchecked`).

Why it is safe: nobody nullifies and finalizes in one view, so after a block was finalized no quorum
nullified that view, every later leader must name it or a re-proposal of it as parent, and members
vote for no other block. Why it goes on: own newest votes are repeated while nothing moves, members in
an earlier view are sent the proofs (quorums of votes) that lead to ours, and deadlines grow.

A block that a quorum notarized was checked by at least one correct member of it, so its re-proposal
needs no check of our own; one that our check refused never gets our vote.

The owner calls `start` when it is ready to vote (messages are welcome before), answers
`ProposalWanted` with `propose` and `CheckProposal` with `handle_checked`, in its own time.
After a restart, `restore` comes before `start`: no earlier vote is ever contradicted. Who lost its journal
is told so by others, and `mute` ends its voting in this round.
Source: Chan and Pass, "Simplex Consensus: A Simple and Fast Consensus Protocol", 2023, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from federated.rounds.actions import Publish, WriteJournal
from federated.rounds.ballots import Ballots
from federated.rounds.committee import Committee
from federated.rounds.messages import (
    NO_BLOCK,
    Block,
    Body,
    Certificate,
    Choice,
    Proof,
    Propose,
    Recall,
    Vote,
    vote_bytes,
)

MAX_DOUBLINGS = 6  # of the deadline, one for each rotation of the leaders


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalWanted:
    """We lead `view`, and no block was notarized before: the owner calls `propose`."""

    view: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckProposal:
    """The owner finds out whether this is right, and calls `handle_checked`; a later one replaces it."""

    proposal: Propose


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The round has its block. Nothing follows."""

    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """Member number `member` broke `rule`: `signature` or `equivocation`."""

    member: int
    rule: str


AgreementAction = Publish | WriteJournal | ProposalWanted | CheckProposal | Decided | Offence


class Agreement:
    """One member's part in one round; `me` is its number in the committee.

    `timeout` is the time a leader has to propose, in seconds; votes have half of it on top.
    `period` is the time after which own messages are repeated while the view does not change.
    """

    def __init__(
        self,
        *,
        committee: Committee,
        me: int,
        round_number: int,
        base: bytes,
        sign: Callable[[bytes], bytes],
        timeout: float,
        period: float,
        signs_unchecked: bool = True,
    ) -> None:
        self.view = 1
        self.certificate: Certificate | None = None
        self._committee = committee
        self._me = me
        self._round = round_number
        self._base = base
        self._sign = sign
        self._timeout = timeout
        self._period = period
        self._started = False
        self._muted = False
        self._cast: dict[tuple[int, Choice], bytes] = {}  # our votes in this round
        self._ballots = Ballots(committee, round_number)
        self._verdicts: dict[bytes, bool] = {}  # by block
        self._checked: dict[bytes, None] = {}  # blocks that the owner made, or found to be fine
        self._signs_unchecked = signs_unchecked
        self._asked = 0  # the view in which the owner was asked to propose or to check
        self._behind: int | None = None  # the lowest view in which somebody still votes
        self._entered = 0.0
        self._deadline: float | None = None
        self._repeat_at = 0.0
        self._actions: list[AgreementAction] = []

    @property
    def leader(self) -> int:
        """The member that leads the current view."""
        return self._committee.leader(self._round, self._base, self.view)

    def restore(self, entries: Iterable[Body]) -> None:
        """Takes back the round's journal, in the order written; before `start`."""
        for entry in entries:
            match entry:
                case Propose():
                    self._ballots.add_proposal(entry)
                case Vote():
                    self.view = max(self.view, entry.view)
                    self._cast[entry.view, entry.choice] = entry.block
                    if entry.choice is Choice.NOTARIZE:
                        self._verdicts[entry.block] = True
                    self._count(self._me, entry, 0.0)
                case Proof():
                    self._learn(entry, 0.0)
                case Recall():
                    self._muted = True
        self._actions.clear()

    def has_cast(self, vote: Vote) -> bool:
        """Whether this vote is one of those that we made in this round."""
        return self._cast.get((vote.view, vote.choice)) == vote.block

    def mute(self) -> None:
        """We have forgotten how we voted in this round: casts no more votes, but listens to the others'."""
        self._muted = True

    def start(self, now: float) -> list[AgreementAction]:
        """Begins to vote; after a restart, first repeats what was said before it."""
        self._started = True
        self._enter(self.view, now)
        if self._cast:
            self._repeat(now)
        return self._settle(now)

    def handle_message(self, sender: int, body: Body, now: float) -> list[AgreementAction]:
        """A proposal, vote or proof of this round from member number `sender`."""
        match body:
            case Propose() if body.block.base == self._base:
                self._receive_proposal(sender, body)
            case Vote():
                self._receive_vote(sender, body, now)
            case Proof():
                self._receive_proof(sender, body, now)
        return self._settle(now)

    def propose(
        self, view: int, block: Block, now: float, proofs: tuple[bytes, ...] = ()
    ) -> list[AgreementAction]:
        """Our own block, after `ProposalWanted`; ignored when the view has moved on since."""
        record = self._ballots.at(self.view)
        free = self._ballots.parent is None and record.proposal is None
        if view == self.view == self._asked and free and not record.has_voted(self._me, Choice.NULLIFY):
            self._note_checked(block.hash, True)
            self._lead(Propose(view=view, parent=0, block=block, proofs=proofs), now)
        return self._settle(now)

    def handle_checked(self, block: bytes, accepted: bool, now: float) -> list[AgreementAction]:
        """The owner's verdict on the proposed block with this hash."""
        if block in self._ballots.blocks:
            self._verdicts[block] = accepted
            self._note_checked(block, accepted)
        return self._settle(now)

    def _note_checked(self, block: bytes, accepted: bool) -> None:
        if accepted and not self._signs_unchecked:
            self._checked[block] = None

    def skip_leader(self, now: float) -> list[AgreementAction]:
        """The current leader is known to be gone: goes on without it, unless it has proposed."""
        if self._started and self.certificate is None and self._ballots.at(self.view).proposal is None:
            self._vote(Choice.NULLIFY, NO_BLOCK, now)
        return self._settle(now)

    def leave_view(self, now: float) -> list[AgreementAction]:
        """The proposal is not to be decided in this view; in a later one it may be fine."""
        if self._started and self.certificate is None:
            self._vote(Choice.NULLIFY, NO_BLOCK, now)
        return self._settle(now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due."""
        if not self._started or self.certificate is not None:
            return None
        return self._repeat_at if self._deadline is None else min(self._deadline, self._repeat_at)

    def handle_timer(self, now: float) -> list[AgreementAction]:
        """Leaves a view that takes too long, and repeats what others may have missed."""
        if self._started and self.certificate is None:
            if self._deadline is not None and now >= self._deadline:
                self._deadline = None
                if self._ballots.parent_view == self.view:
                    self._enter(self.view + 1, now)
                else:
                    self._vote(Choice.NULLIFY, NO_BLOCK, now)
            if now >= self._repeat_at:
                self._repeat(now)
        return self._settle(now)

    # what others say

    def _receive_proposal(self, sender: int, proposal: Propose) -> None:
        self._ballots.supply(proposal)
        is_kept = self._ballots.is_kept(proposal.view, self.view)
        if not is_kept or sender != self._committee.leader(self._round, self._base, proposal.view):
            return
        if not self._ballots.add_proposal(proposal):
            self._actions.append(Offence(member=sender, rule="equivocation"))
        elif proposal.view == self.view and self._deadline is not None:
            self._deadline = max(self._deadline, self._entered + self._patience() * 1.5)

    def _receive_vote(self, sender: int, vote: Vote, now: float) -> None:
        if vote.view < self.view:
            self._behind = min(vote.view, self._behind or vote.view)
        if not self._ballots.is_kept(vote.view, self.view):
            return
        record = self._ballots.at(vote.view)
        known = record.ballots[vote.choice].get(sender)
        if known is not None and known[0] == vote.block:
            return
        if not self._committee.accepts_vote(sender, vote):
            self._actions.append(Offence(member=sender, rule="signature"))
        elif record.excludes(sender, vote.choice):
            self._actions.append(Offence(member=sender, rule="equivocation"))
        else:
            self._count(sender, vote, now)

    def _receive_proof(self, sender: int, proof: Proof, now: float) -> None:
        if not self._ballots.is_news(proof, self.view):
            return
        if self._committee.accepts_proof(proof):
            self._learn(proof, now)
        else:
            self._actions.append(Offence(member=sender, rule="signature"))

    # what follows from it

    def _count(self, member: int, vote: Vote, now: float) -> None:
        proof = self._ballots.add_vote(member, vote)
        if proof is not None:
            self._learn(proof, now)

    def _learn(self, proof: Proof, now: float) -> None:
        """Keeps a true proof, in the journal too: after a restart it is the way back to this view."""
        if not self._ballots.is_news(proof, self.view):
            return
        self._ballots.add_proof(proof)
        self._actions.append(WriteJournal(entries=(proof,)))
        if proof.choice is Choice.NOTARIZE:
            blocks = self._ballots.blocks
            self._verdicts = {block: fine for block, fine in self._verdicts.items() if block in blocks}
            if proof.view > self.view:
                self._enter(proof.view, now)
            if proof.view == self.view:
                self._deadline = now + self._patience() / 2

    def _settle(self, now: float) -> list[AgreementAction]:
        """Does everything that what we know calls for, and returns the actions so far."""
        while self.certificate is None and self._step(now):
            pass
        actions, self._actions = self._actions, []
        return actions

    def _step(self, now: float) -> bool:
        """One thing that is to be done now; whether there was one."""
        self.certificate = self._ballots.certificate()
        if self.certificate is not None:
            self._actions.append(Decided(certificate=self.certificate))
            return False
        record, parent = self._ballots.at(self.view), self._ballots.parent
        if record.nullification is not None:
            return self._enter(self.view + 1, now)
        if not self._started:
            return False
        if parent is not None and parent.view == self.view:
            if record.has_voted(self._me, Choice.NULLIFY):
                return self._enter(self.view + 1, now)
            return self._finalize(parent.block, record.proposal, now)
        if len(record.ballots[Choice.NULLIFY]) > self._committee.size - self._committee.quorum:
            return self._vote(Choice.NULLIFY, NO_BLOCK, now)  # too few are left to finalize
        if record.has_voted(self._me, Choice.NOTARIZE) or record.has_voted(self._me, Choice.NULLIFY):
            return False
        if self.leader == self._me:
            return self._open_view(record.proposal, now)
        return record.proposal is not None and self._consider(record.proposal, now)

    def _finalize(self, block: bytes, proposal: Propose | None, now: float) -> bool:
        """Votes for the block that a quorum notarized; if need be, only once the owner has checked it."""
        if self._verdicts.get(block) is False:
            return False
        if self._signs_unchecked or block in self._checked:
            return self._vote(Choice.FINALIZE, block, now)
        if proposal is not None and proposal.block.hash == block:
            self._ask(CheckProposal(proposal=proposal))
        return False

    def _open_view(self, restored: Propose | None, now: float) -> bool:
        """As leader: re-proposes the parent's block, or asks the owner for one."""
        parent = self._ballots.parent
        if restored is not None:  # in the journal, but the crash came before the vote
            return self._lead(restored, now)
        if parent is None:
            self._ask(ProposalWanted(view=self.view))
            return False
        known = self._ballots.blocks.get(parent.block)
        if known is None or self._verdicts.get(parent.block) is False:
            return False
        self._actions.append(Publish(body=parent))
        return self._lead(replace(known, view=self.view, parent=parent.view), now)

    def _lead(self, proposal: Propose, now: float) -> bool:
        self._ballots.add_proposal(proposal)
        self._verdicts[proposal.block.hash] = True
        return self._vote(Choice.NOTARIZE, proposal.block.hash, now, proposal)

    def _consider(self, proposal: Propose, now: float) -> bool:
        """As follower: votes for a proposal that builds on our parent and that is fine."""
        if proposal.parent != self._ballots.parent_view:
            return False
        block, parent = proposal.block.hash, self._ballots.parent
        verdict = self._verdicts.get(block)
        if verdict is False or (parent is not None and parent.block != block):
            return self._vote(Choice.NULLIFY, NO_BLOCK, now)
        if verdict or parent is not None:
            return self._vote(Choice.NOTARIZE, block, now, proposal)
        self._ask(CheckProposal(proposal=proposal))
        return False

    def _ask(self, question: ProposalWanted | CheckProposal) -> None:
        """Asks the owner, once a view."""
        if self._asked != self.view:
            self._asked = self.view
            self._actions.append(question)

    def _vote(self, choice: Choice, block: bytes, now: float, proposal: Propose | None = None) -> bool:
        """Votes, journal first, unless an earlier vote of ours forbids it. The one place that votes."""
        if self._muted or self._ballots.at(self.view).excludes(self._me, choice):
            return False
        signature = self._sign(vote_bytes(self._committee.task, self._round, self.view, choice, block))
        vote = Vote(round=self._round, view=self.view, choice=choice, block=block, signature=signature)
        self._cast[self.view, choice] = block
        self._actions.append(WriteJournal(entries=(vote,) if proposal is None else (proposal, vote)))
        if proposal is not None and self.leader == self._me:
            self._actions.append(Publish(body=proposal))
        self._actions.append(Publish(body=vote))
        self._repeat_at = now + self._period
        if choice is Choice.NULLIFY:
            self._deadline = None
        self._count(self._me, vote, now)
        return True

    # time

    def _enter(self, view: int, now: float) -> bool:
        self.view = view
        self._entered = now
        nullified = self._ballots.at(view).has_voted(self._me, Choice.NULLIFY)
        self._deadline = None if nullified else now + self._patience()
        self._repeat_at = now + self._period
        return True

    def _patience(self) -> float:
        """How long the leader of the current view has: longer after each rotation without a decision."""
        doublings = min((self.view - 1) // self._committee.size, MAX_DOUBLINGS)
        return self._timeout * float(1 << doublings)

    def _repeat(self, now: float) -> None:
        """Says again what moves the view on, and what brings others here."""
        self._repeat_at = now + self._period
        bodies = self._ballots.summary(self._me, self.view, self._behind, leads=self.leader == self._me)
        self._actions += [Publish(body=body) for body in bodies]
        self._behind = None
