"""The vote phase of a round: answers what the agreement asks, out of the collected updates.

What we propose: in view 1 all updates that came in time; later, since not everybody may have the
updates of members that are gone, those of the live members when they are enough, without those of
members that committed themselves twice: others may have the other one. When each member
has led in vain, leaders propose to skip the round: nothing is missing for that, anywhere.

What we vote for: a model that we made ourselves from the same updates; a skip when we have too few
updates too, or when each member has led in vain.

Where members have a say by their own data (`max_loss_rise`), one that finds a model too bad makes none of
its updates, and proposes a skip. The others leave its view at once, or an odd member would cost a deadline.
When surely a correct member has led in vain, all vote for a skip too: more than f and less than a quorum
may refuse, and nothing else would be decided.

What a bad committee certified earlier comes first, see `federated.rounds.fraud`: the first few leaders that
found it out propose to undo it, and we vote for that if we found it out too, and for nothing else so early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from federated.rounds.actions import Action, DigestMismatch, Misbehaved, Publish, WriteJournal
from federated.rounds.agreement import (
    Agreement,
    AgreementAction,
    CheckProposal,
    Decided,
    Offence,
    ProposalWanted,
)
from federated.rounds.assembly import Assembly
from federated.rounds.collection import Collection, Status
from federated.rounds.committee import Panel, numbers_in
from federated.rounds.events import Aggregated, AggregateFailed, Inputs, Screened
from federated.rounds.fraud import Remedy
from federated.rounds.inputs import inputs_root
from federated.rounds.messages import Block, Body, Certificate, Model, Propose, Recall
from federated.rounds.roster import Seat

MIN_VIEWS = 8  # views before a round is given up, also when a few members have led in fewer


class Voting:
    """Our part in the agreement on one round; `entries` is the round's journal.

    `me` is our number in the committee of `panel`; elsewhere here, numbers are those of members.
    """

    def __init__(
        self,
        *,
        seat: Seat,
        panel: Panel,
        me: int,
        number: int,
        parent: bytes,
        base: Model,
        collection: Collection,
        entries: Sequence[Body],
    ) -> None:
        self.certificate: Certificate | None = None
        self.relieved = 0  # the voters that leave it to others to aggregate, and so do not propose
        self._seat = seat
        self._panel = panel
        self._number = number
        self._collection = collection
        self._me = me
        self._parent = parent
        self._is_muted = False
        self._assembly = Assembly(
            membership=seat.membership,
            parent=parent,
            round_number=number,
            base=base,
            minimum=seat.minimum,
        )
        self._agreement = Agreement(
            committee=panel.committee,
            me=me,
            round_number=number,
            base=base.digest,
            sign=seat.sign,
            timeout=seat.policy.phase_deadline_s,
            period=seat.period,
            signs_unchecked=not seat.is_drawn,  # else who signs a fraud must be a liar
        )
        self._agreement.restore(entries)
        self._last_resort = max(MIN_VIEWS, panel.committee.size) + 1  # from this view on, only a skip
        self._may_differ = seat.policy.max_loss_rise is not None  # correct members may, about a model
        self._started = False
        self._candidates: Inputs = ()
        self._prepared = False
        self._drafted = (0, 0, 0)  # the view and what was known when a proposal was not ready
        self._judged: tuple[Propose, int, int, int, int] | None = None  # what a verdict was sought on in vain
        self._wanted: tuple[int, Inputs] | None = None  # the view that waits for our proposal
        self._check: Propose | None = None  # the proposal that waits for our verdict
        self._actions: list[Action] = []

    @property
    def checking(self) -> int:
        """The set of the members whose updates are needed to check a proposal."""
        return 0 if self._check is None else self._check.block.participants

    def prepare(self) -> None:
        """Settles what we propose: asks for the aggregate of what is valid now."""
        self._candidates = self._collection.inputs(self._collection.candidates())
        self._look()

    def is_prepared(self) -> bool:
        """Whether we know what our candidates come to."""
        return self._prepared

    def _look(self) -> None:
        """Asks for what our candidates come to, as often as screening leaves some out."""
        self._actions += self._assembly.ask(self._candidates)
        self._prepared = self._assembly.draft(self._candidates) is not None

    def start(self, now: float) -> None:
        """Begins to vote."""
        self._started = True
        self._absorb(self._agreement.start(now), now)

    def handle_message(self, sender: int, body: Body, now: float) -> None:
        """A proposal, vote or proof of member number `sender`, also before the start."""
        voter = self._panel.seat(sender)
        if voter is None:
            return
        if isinstance(body, Propose) and not self._is_proved(body):
            peer = self._panel.committee.members[voter]
            self._actions.append(Misbehaved(round=self._number, peer=peer, rule="changes"))
            return
        self._absorb(self._agreement.handle_message(voter, body, now), now)

    def _is_proved(self, proposal: Propose) -> bool:
        """Whether the proposal's changes of the membership are fine; one of which they are not is not heard.

        A refusal of its block would not do: others may have been given the same block with better proofs.
        """
        if proposal.block.parent != self._parent:
            return True
        return self._seat.pending.accepts(proposal) and self._seat.frauds.accepts(proposal.block)

    def handle_recall(self, body: Recall) -> None:
        """Somebody remembers a vote of ours: if we do not, our journal was lost, and we vote no more."""
        is_ours = body.peer == self._seat.membership.members[self._seat.me]
        if not is_ours or self._is_muted or self._agreement.has_cast(body.vote):
            return
        if self._panel.committee.accepts_vote(self._me, body.vote):
            self._is_muted = True
            self._agreement.mute()
            self._actions.append(WriteJournal(entries=(body,)))

    def handle_aggregate(self, event: Aggregated | Screened | AggregateFailed) -> None:
        """What came of an `Aggregate`."""
        self._assembly.handle(event)
        self._look()

    def handle_timer(self, now: float) -> None:
        """Lets the agreement's deadlines pass."""
        self._absorb(self._agreement.handle_timer(now), now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due."""
        return self._agreement.next_deadline()

    def has_model(self, block: Block) -> bool:
        """Whether the block's model is the base or was made here."""
        return self._assembly.has_model(block)

    def screened(self) -> list[tuple[int, str]]:
        """The members whose updates screening refused out of our candidates, and the rules."""
        return self._assembly.refused(self._candidates)

    def advance(self, now: float) -> list[Action]:
        """Answers what can be answered now; all actions since the last call."""
        while self._started and self.certificate is None and self._answer(now):
            pass
        actions, self._actions = self._actions, []
        return actions

    def _answer(self, now: float) -> bool:
        """Answers one question; whether there was one with an answer."""
        if self._is_leader_away(now):
            actions = self._agreement.skip_leader(now)
            self._absorb(actions, now)
            if actions:
                return True
        learned = (self._assembly.changes, self._seat.frauds.changes)
        if self._wanted is not None and self._drafted != (self._wanted[0], *learned):
            self._drafted = (self._wanted[0], *learned)
            if self._propose(*self._wanted, now):
                self._wanted = None
                return True
        if self._check is not None:
            proposal, known = self._check, (self._collection.changes, *learned)
            if self._judged == (proposal, *known, self._agreement.view):
                return False  # nothing was learned since it was looked at
            self._judged = (proposal, *known, self._agreement.view)
            verdict = self._verdict(proposal)
            if verdict is not None:
                self._check = None
                self._absorb(self._agreement.handle_checked(proposal.block.hash, verdict, now), now)
                return True
            if self._may_differ and proposal.block.skipped and self._assembly.draft(self._candidates):
                self._check = None
                self._absorb(self._agreement.leave_view(now), now)
                return True
        return False

    def _is_leader_away(self, now: float) -> bool:
        """Whether the leader is gone, or relieved, or has no update: it is behind, and not yet here to lead.

        Once each member could have led, those that are only late are waited for too.
        """
        leader, me = self._panel.members[self._agreement.leader], self._seat.me
        here = self._collection.revealed & ~self.relieved | 1 << me
        behind = not here >> leader & 1
        first = self._agreement.view <= self._panel.committee.size
        return (behind and first) or not self._seat.roster.is_live(leader, now)

    def _absorb(self, actions: Sequence[AgreementAction], now: float) -> None:
        for action in actions:
            match action:
                case Publish() | WriteJournal():
                    self._actions.append(action)
                case ProposalWanted(view=view):
                    self._wanted = (view, self._selection(view, now))
                case CheckProposal(proposal=proposal):
                    self._check = proposal
                case Decided(certificate=certificate):
                    self.certificate = certificate
                case Offence(member=member, rule=rule):
                    peer = self._panel.committee.members[member]
                    self._actions.append(Misbehaved(round=self._number, peer=peer, rule=rule))

    # what we propose

    def _selection(self, view: int, now: float) -> Inputs:
        good = self._seat.roster.live(now) & ~self._collection.equivocators
        number = self._seat.membership.number
        present = tuple(item for item in self._candidates if good >> (number(item.peer) or 0) & 1)
        return present if view > 1 and len(present) >= self._seat.minimum else self._candidates

    def _draft(self, view: int, inputs: Inputs) -> Block | None:
        if view >= self._last_resort:
            return self._assembly.skip()
        self._actions += self._assembly.ask(inputs)
        return self._assembly.draft(inputs)

    def _propose(self, view: int, inputs: Inputs, now: float) -> bool:
        """Proposes a draft with the changes of the membership that are asked for; whether there was one.

        A fraud is undone first. If that finds no votes, because others cannot see it, later leaders go on.
        """
        remedy = self._remedy(view)
        block = self._restoring(remedy.model) if remedy and remedy.model else self._draft(view, inputs)
        if block is None:
            return False
        if remedy is None:
            changes, proofs = self._seat.pending.propose(self._number)
        else:
            changes, proofs = remedy.changes, remedy.proofs
        if changes:
            block = replace(block, changes=changes)
        self._absorb(self._agreement.propose(view, block, now, proofs), now)
        return True

    def _remedy(self, view: int) -> Remedy | None:
        """What is to be done about frauds: in as many views as surely have a leader that is correct."""
        return self._seat.frauds.remedy() if view <= self._panel.committee.faults + 1 else None

    def _restoring(self, model: Model) -> Block:
        """The block without updates that puts `model` back in its place."""
        return replace(self._assembly.skip(), model=model)

    # what we vote for

    def _verdict(self, proposal: Propose) -> bool | None:
        """Whether to vote for the proposal; None while that is open."""
        block = proposal.block
        is_fraud = self._seat.frauds.judge(block)
        if is_fraud is not True:
            leader = self._panel.members[self._agreement.leader]
            self._actions += self._seat.frauds.consider(block, leader)
            return is_fraud
        restored = self._seat.frauds.restored(block)
        if restored is not None:
            return replace(block, changes=()) == self._restoring(restored)
        if (remedy := self._remedy(self._agreement.view)) is not None and remedy.model is not None:
            return None  # it builds on a fraud; a leader that knows that may follow
        if block.skipped:
            return self._skip_verdict(proposal)
        numbers = numbers_in(block.participants)
        inputs = self._collection.inputs(numbers)
        if len(inputs) < len(numbers):
            return False if block.participants & ~self._seat.membership.active else None
        statuses = [self._collection.status(number) for number in numbers]
        if inputs_root(inputs, self._seat.membership) != block.inputs or Status.REFUSED in statuses:
            return False
        if any(status is not Status.VALID for status in statuses):
            return None
        self._actions += self._assembly.ask(inputs)
        draft = self._assembly.draft(inputs)
        if draft is None:
            return None
        ours, theirs = draft.model.digest, block.model.digest
        if ours != theirs and draft.inputs == block.inputs:
            peer = self._panel.committee.members[self._agreement.leader]
            self._actions.append(DigestMismatch(round=self._number, peer=peer, ours=ours, theirs=theirs))
        return replace(draft, changes=block.changes) == block

    def _skip_verdict(self, proposal: Propose) -> bool | None:
        if replace(proposal.block, changes=()) != self._assembly.skip():
            return False
        ours = self._assembly.draft(self._candidates)
        too_few = ours is not None and ours.skipped
        in_vain = self._panel.committee.faults + 1 if self._may_differ else self._last_resort - 1
        return True if too_few or self._agreement.view > in_vain else None
