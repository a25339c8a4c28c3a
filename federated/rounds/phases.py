"""One round of one member, from training to a decided block.

    TRAIN ────→ own update, or deadline         then our commit is published
    COMMIT ───→ commits of the live members     then our update is revealed; later commits are late
    REVEAL ───→ reveals of those                 updates are fetched and validated as they come
    FETCH ────→ updates of those
    VALIDATE ─→ verdicts on those
    AGGREGATE → the model of the valid ones      or a skipped round, when they are too few
    VOTE ─────→ decided                          see `federated.rounds.voting`

Where a committee is drawn, a member that does not vote in this round goes from COMMIT to AWAIT, and so does a
voter that is relieved as too slow (`federated.rounds.duty`):

    AWAIT ────→ the certificate comes           its own update is revealed; others check and count it
          └───→ FETCH                           a relieved voter, when the round is not decided in time

From COMMIT to VALIDATE a phase ends when the policy's share of the live members have answered and
there is enough for a round that counts, or at its deadline; a member that is lost is not waited for,
beyond the policy's grace for one that is started again.
While fewer voters are live than a vote needs no phase ends; when they are back it gets its time again.
AGGREGATE waits for our own computing, and goes on without its result at its deadline.

What we said is said again every few seconds in a small task, so that all know who is live. In one
with committees, only when the round takes longer than it should, and then at growing intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf

from federated.rounds.actions import (
    Action,
    DigestMismatch,
    DutyChanged,
    Misbehaved,
    PhaseFinished,
    Publish,
    WriteJournal,
)
from federated.rounds.collection import Collection, Status
from federated.rounds.committee import Panel, numbers_in, set_of
from federated.rounds.duty import duties
from federated.rounds.events import (
    Aggregated,
    AggregateFailed,
    Fetched,
    FetchFailed,
    Phase,
    Screened,
    Trained,
    TrainFailed,
    Validated,
    WorkEvent,
)
from federated.rounds.messages import (
    Abstain,
    Block,
    Body,
    Certificate,
    Commit,
    Hello,
    Model,
    Recall,
    Reveal,
    Vote,
)
from federated.rounds.own import Carried, OwnUpdate
from federated.rounds.past import Base
from federated.rounds.roster import ROUNDING, Seat
from federated.rounds.voting import Voting
from p2p.peer_id import PeerId

ORDER = (
    Phase.TRAIN,
    Phase.COMMIT,
    Phase.REVEAL,
    Phase.FETCH,
    Phase.VALIDATE,
    Phase.AGGREGATE,
    Phase.VOTE,
)
WATCHED = (Phase.TRAIN, Phase.COMMIT, Phase.AWAIT)  # of a member that does not vote, or is relieved
LAST = (Phase.VOTE, Phase.AWAIT)
PATIENCE = 6  # phases' deadlines that a relieved voter waits: four phases and a view of the others
MAX_GAP = 16  # phases' deadlines between two repetitions, where they are rare
SETTLED = (Status.HERE, Status.VALID, Status.REFUSED, Status.FAILED)


class RoundInProgress:
    """The round `number` on the model `base`, decided by `panel`; `entries` is its journal.

    `parent` is the hash of the block of the round before, `bases` the models that updates may build on, by
    their staleness, and `carried` our training of an earlier round.

    Tell it what happens, as much as there is, and then call `advance`, which does what follows from it;
    `take_actions` has it all, in order.
    """

    def __init__(
        self,
        *,
        seat: Seat,
        panel: Panel,
        parent: bytes,
        number: int,
        base: Model,
        bases: Sequence[Base],
        entries: Sequence[Body],
        now: float,
        carried: Carried | None = None,
    ) -> None:
        self.number = number
        self.base = base
        self.phase = Phase.TRAIN
        self.started = now
        self.seconds: dict[Phase, float] = {}  # by phase, of those that are over
        self.panel = panel
        self.repeat_at = inf  # when to say again what we said, where a committee is drawn
        self._seat = seat
        self._collection = Collection(
            membership=seat.membership, round_number=number, bases=bases, max_update=seat.max_update
        )
        self._voting: Voting | None = None  # None when we are not in the committee
        me = panel.seat(seat.me)
        if me is not None:
            self._voting = Voting(
                seat=seat,
                panel=panel,
                me=me,
                number=number,
                parent=parent,
                base=base,
                collection=self._collection,
                entries=entries,
            )
        self._order = WATCHED if me is None else ORDER
        self._relieved = 0  # the voters that do not aggregate, as far as we know
        self._has_voted = any(isinstance(entry, Vote) for entry in entries)
        self._minimum = seat.minimum
        self._gap = 0.0  # until the next repetition
        self._own = OwnUpdate(seat=seat, number=number, bases=bases, entries=entries)
        self._entered = now
        self._deadline = self._end_of(Phase.TRAIN, now)
        self._is_overtaken = False
        self._held = False  # fewer voters are live than a vote needs
        self._tally = (0, 0)  # in the current phase: answers that count, and how many end it
        self._reported: dict[tuple[PeerId, str], bool] = {}
        restored = self._own.reveal
        self._actions: list[Action] = self._own.begin(base, carried)
        if self._own.reveal is not None:
            self._commit(self._own.reveal, now, is_new=restored is None)

    @property
    def certificate(self) -> Certificate | None:
        """The decision, once we have come to one."""
        return None if self._voting is None else self._voting.certificate

    def take_actions(self) -> list[Action]:
        """The actions since the last call."""
        if not self._actions:
            return []
        actions, self._actions = self._actions, []
        return actions

    def handle(self, event: WorkEvent, now: float) -> None:
        """The result of an action of this round."""
        match event:
            case Trained() | TrainFailed():
                if self._own.handle(event):
                    self._answer(self._own.reveal, now)
            case Fetched(root=root):
                self._actions += self._collection.fetched(root)
            case FetchFailed(root=root):
                self._collection.failed(root)
            case Validated(root=root, rule=rule):
                self._collection.validated(root, rule)
            case Aggregated() | Screened() | AggregateFailed() if self._voting is not None:
                self._voting.handle_aggregate(event)

    def handle_message(self, sender: int, body: Body, now: float) -> None:
        """A message of this round by member number `sender`."""
        rule, voting = None, self._voting
        match body:
            case Commit() if voting is None:
                self._collection.count_commit(sender)
            case Commit():
                rule = self._collection.add_commit(sender, body)
            case Abstain():
                self._collection.abstain(sender)
            case Hello(base=base):
                self._compare(sender, base)
            case _ if voting is None:
                pass  # for those that vote
            case Reveal():
                rule = self._collection.add_reveal(sender, body)
            case Recall():
                voting.handle_recall(body)
            case _:
                voting.handle_message(sender, body, now)
        if rule is not None:
            self._report(Misbehaved(round=self.number, peer=self._peer(sender), rule=rule))

    def _compare(self, sender: int, base: bytes) -> None:
        """The sender says that the round builds on `base`."""
        peer, ours = self._peer(sender), self.base.digest
        if base != ours and self._is_new(peer, "base"):
            self._actions.append(DigestMismatch(round=self.number, peer=peer, ours=ours, theirs=base))

    def _peer(self, member: int) -> PeerId:
        return self._seat.membership.members[member]

    def next_deadline(self) -> float:
        """When `handle_timer` is due; infinity while it is not."""
        if self.phase is Phase.VOTE and self._voting is not None:
            due = self._voting.next_deadline()
            return inf if due is None else due
        is_watching = self.phase is Phase.AWAIT and not self._is_relieved
        return inf if self._held or is_watching else self._deadline

    def handle_timer(self, now: float) -> None:
        """Lets the deadlines of the vote pass; `advance` does so with those of the phases."""
        if self._voting is not None:
            self._voting.handle_timer(now)

    def repeat(self, now: float) -> None:
        """Says again where we are, for those that missed it, and tries failed fetches again."""
        bodies: list[Body] = []
        if (own := self._own.reveal) is not None:
            bodies.append(self._own.commit(own))
            if self.phase is not Phase.COMMIT:
                bodies.append(own)
        elif self._collection.abstained >> self._seat.me & 1:
            bodies.append(Abstain(round=self.number))
        self._actions += [Publish(body=body) for body in bodies or [self.hello()]]
        self._gap = min(2 * self._gap, MAX_GAP * self._seat.policy.phase_deadline_s)
        self.repeat_at = now + self._gap if bodies else inf
        self.fetch_again(now)

    def fetch_again(self, now: float) -> None:
        """Tries once more what could not be fetched."""
        self._fetch(now, retry=True)

    def hello(self) -> Hello:
        """What we announce to whoever comes."""
        return Hello(round=self.number, base=self.base.digest)

    def has_model(self, block: Block) -> bool:
        """Whether the block's model is the base or was made here."""
        return block.model == self.base if self._voting is None else self._voting.has_model(block)

    def refused(self) -> list[tuple[int, str]]:
        """The members whose updates we refused, and the rules they broke."""
        if self._voting is None:
            return []
        return sorted(dict.fromkeys([*self._collection.refused(), *self._voting.screened()]))

    def late(self, participants: int) -> list[tuple[int, int]]:
        """Those of the `participants` whose updates were late, and by how many rounds."""
        return self._collection.late(participants)

    def overtake(self) -> None:
        """The round is decided by others: nothing in it goes on but work that is under way."""
        self._is_overtaken = True
        self._actions += self._own.overtake()

    def leave(self, now: float, block: Block | None = None) -> Carried | None:
        """The round is over for us, with `block`: closes the books of the current phase.

        What of our own work goes over to the next round.
        """
        self.overtake()
        self._finish_phase(now)
        me = self._seat.me
        left_out = block is not None and block.round == self.number and not block.participants >> me & 1
        return self._own.carried(is_left_out=left_out and me not in dict(self.refused()))

    def _answer(self, own: Reveal | None, now: float) -> None:
        """Our training came to `own`: commits us to it, or lets nobody wait for us."""
        if own is not None:
            self._commit(own, now, is_new=True)
            return
        self._collection.abstain(self._seat.me)
        self._actions.append(Publish(body=Abstain(round=self.number)))

    def _commit(self, own: Reveal, now: float, *, is_new: bool) -> None:
        commit = self._own.commit(own)
        self._collection.add_commit(self._seat.me, commit)
        if is_new:
            self._actions.append(WriteJournal(entries=(own,)))
        self._actions.append(Publish(body=commit))
        self._gap = max(self._seat.policy.phase_deadline_s, self._seat.policy.train_deadline_s / 2)
        self.repeat_at = now + self._gap

    # the phases

    def advance(self, now: float) -> None:
        """Goes through all phases that are over by what was told, by who is live, and by the time."""
        if self._is_overtaken or (self.phase is Phase.AWAIT and self._voting is None):
            return  # nothing but a certificate is waited for
        voters = self._seat.roster.live(now) & self.panel.voters
        if voters.bit_count() < self.panel.committee.quorum:
            self._held = True
        elif self._held:
            self._held = False
            self._deadline = max(self._deadline, self._end_of(self.phase, now))
        if self.phase is Phase.AWAIT and self._is_relieved and now >= self._deadline and not self._held:
            self._take_up_duty(now)
        while self.phase not in LAST and self._is_over(now):
            if self.phase is Phase.COMMIT:
                self._share_out(now)
            self._enter(self._order[self._order.index(self.phase) + 1], now)
        if self._voting is None:
            return
        self._fetch(now, retry=False)
        for action in self._voting.advance(now):
            if isinstance(action, Misbehaved):
                self._report(action)
            else:
                self._actions.append(action)

    def _is_over(self, now: float) -> bool:
        """Whether the current phase has what it waits for, or its deadline has passed."""
        expired = now >= self._deadline and not self._held
        collection = self._collection
        match self.phase:
            case Phase.TRAIN:
                return expired or not self._own.is_training
            case Phase.AGGREGATE:
                return expired or self._voting is None or self._voting.is_prepared()
            case Phase.COMMIT:
                idle = self._own.reveal is None and not self._own.is_training
                silent = collection.abstained & ~collection.committed | idle << self._seat.me
                waiting = self._seat.roster.awaited(now) & ~silent
                answered = useful = collection.committed
            case Phase.REVEAL:
                waiting = collection.committed & self._seat.roster.awaited(now)
                answered = useful = collection.revealed
            case Phase.FETCH:
                waiting = collection.revealed & self._seat.roster.awaited(now)
                answered = collection.with_status(*SETTLED) & ~self._may_yet_come(now)
                useful = collection.with_status(Status.HERE, Status.VALID)
            case _:
                waiting = collection.with_status(Status.HERE, Status.VALID)
                answered = useful = collection.with_status(Status.VALID)
        if self._held:
            return False
        needed = ceil(self._seat.policy.quorum * waiting.bit_count() - ROUNDING)
        self._tally = ((waiting & answered).bit_count(), needed)
        enough = self._tally[0] >= needed
        return expired or (enough and useful.bit_count() >= self._minimum)

    def _may_yet_come(self, now: float) -> int:
        """The members whose updates could not be fetched for want of them, and who have grace to come back.

        The first failure may be how we learn that the owner is gone, so one is never enough.
        """
        if not self._seat.policy.grace_s:
            return 0
        failed = self._collection.with_status(Status.FAILED)
        once = [member for member in numbers_in(failed) if self._collection.attempts(member) == 1]
        return failed & (set_of(once) | ~self._seat.roster.live(now))

    def _enter(self, phase: Phase, now: float) -> None:
        self._finish_phase(now)
        self.phase = phase
        self._deadline = self._end_of(phase, self.started if phase is Phase.COMMIT else now)
        match phase:
            case Phase.REVEAL | Phase.AWAIT:
                self._collection.close()
                if (own := self._own.reveal) is not None:
                    self._collection.add_reveal(self._seat.me, own)
                    self._actions.append(Publish(body=own))
                    self._gap = self._seat.policy.phase_deadline_s
                    self.repeat_at = now + self._gap
                self._actions += self._own.overtake()
            case Phase.AGGREGATE if self._voting is not None:
                self._voting.prepare()
            case Phase.VOTE if self._voting is not None:
                self._voting.start(now)
            case _:
                pass

    @property
    def _is_relieved(self) -> bool:
        """Whether we vote in this round, but leave it to others to aggregate, so far."""
        return bool(self._relieved >> self._seat.me & 1)

    def _share_out(self, now: float) -> None:
        """Settles who aggregates what was committed. Who has voted before a restart goes on with that."""
        if self._voting is None or self._has_voted:
            return
        voters, seat = self.panel.voters, self._seat
        self._relieved = voters & ~duties(
            self.panel,
            seat.capabilities.known,
            seat.roster.live(now),
            updates=self._collection.committed.bit_count(),
            size=self.base.size,
            deadline=seat.policy.phase_deadline_s,
        )
        self._voting.relieved = self._relieved
        if self._is_relieved:
            self._order = WATCHED
            self._actions.append(DutyChanged(round=self.number, relieved=True))

    def _take_up_duty(self, now: float) -> None:
        """The others do not decide the round: does what every voter does, from where it can."""
        self._relieved &= ~(1 << self._seat.me)
        self._order = ORDER
        self._actions.append(DutyChanged(round=self.number, relieved=False))
        self._enter(Phase.FETCH, now)

    def _finish_phase(self, now: float) -> None:
        self.seconds[self.phase] = seconds = now - self._entered
        (answers, needed), self._tally = self._tally, (0, 0)
        self._actions.append(
            PhaseFinished(
                round=self.number, phase=self.phase, seconds=seconds, answers=answers, needed=needed
            )
        )
        self._entered = now

    def _end_of(self, phase: Phase, start: float) -> float:
        """The deadline of a phase; commits have the time that others may train on top, from the start."""
        policy = self._seat.policy
        training = policy.train_deadline_s if phase in (Phase.TRAIN, Phase.COMMIT) else 0.0
        phases = {Phase.TRAIN: 0, Phase.AWAIT: PATIENCE}.get(phase, 1)
        return start + training + phases * policy.phase_deadline_s

    def _fetch(self, now: float, *, retry: bool) -> None:
        if not (retry or self._collection.unasked) or self.phase in (Phase.TRAIN, Phase.COMMIT):
            return
        if self._voting is None or self._is_relieved:
            return
        live = self._seat.roster.live(now) & ~(1 << self._seat.me)
        fetchers = self.panel.voters & ~self._relieved
        self._actions += self._collection.fetches(live, fetchers, self._voting.checking, retry)

    def _report(self, action: Misbehaved) -> None:
        """Tells of a broken rule once a round, however often it is broken."""
        if self._is_new(action.peer, action.rule):
            self._actions.append(action)

    def _is_new(self, peer: PeerId, rule: str) -> bool:
        known = (peer, rule) in self._reported
        self._reported[peer, rule] = True
        return not known
