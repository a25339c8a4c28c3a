"""The rounds of one task, as one member goes through them. Without I/O: the driver carries out actions.

    IDLE ──Started──→ SYNC ──enough listen──→ TRAIN → COMMIT → REVEAL → FETCH → VALIDATE → AGGREGATE → VOTE
                       │                        ↑                                                       │
                       │ catching up: from here │ next round                                    decided │
                       │ or any phase, by a     │                                                       │
                       └────────────────────→ CERTIFIED, once the model is at hand ←────────────────────┘
                         certificate of others  │
                                                └ after the last round ──→ FINISHED

SYNC waits until a quorum of the members was heard, then for the others until a deadline: fast members
do not begin before slow ones listen. The phases are in `federated.rounds.phases`, the votes in
`federated.rounds.agreement`; what goes in and comes out is in
`federated.rounds.events` and `federated.rounds.actions`.

How to drive it: `handle(event, now)` and `handle_timer(now)`, which is due at `next_deadline()`, return
actions; carry them out in order. Events that wait are better handled together: `handle_all`. The first is
`Started`. `now` is a monotonic clock in seconds; no wall clock decides anything. After `TaskFinished`, keep
it going for the members that are behind.

Members that are behind say so whenever they repeat themselves, every few seconds: who is ahead answers
any message of an older round with its certificate and those after it (`federated.rounds.answering`), since
each counts only after the one before it (`federated.rounds.chain`). Who is far behind fetches them
(`federated.rounds.catching_up`).

A certificate may change who the members are (`federated.rounds.register`), from the next round on. It may
undo what an earlier one certified: that was computed again, and was a fraud (`federated.rounds.fraud`). Who
is none any more, because it left or was ejected, gets `TaskLeft`, and nothing follows.

Where a committee is drawn for each round (`federated.rounds.committee`), only its members vote; the others
train, reveal their updates, and adopt what is certified. Nobody repeats himself as long as all goes well:
with hundreds of members each message is one too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from federated.manifest import TaskManifest
from federated.rounds.actions import (
    Action,
    CapabilityAnnounced,
    Checkpoint,
    Misbehaved,
    Publish,
    RoundFinished,
    TaskFinished,
    TaskLeft,
    merged,
)
from federated.rounds.answering import Answers
from federated.rounds.capabilities import Capabilities
from federated.rounds.catching_up import CatchUp
from federated.rounds.chain import Followed, Links, genesis
from federated.rounds.changes import Admission
from federated.rounds.committee import Electorate, Membership, Panel, Verify, numbers_in, verify_signature
from federated.rounds.early import Early
from federated.rounds.events import (
    AdoptFailed,
    Aggregated,
    Event,
    HistoryFailed,
    HistoryFetched,
    LeaveWanted,
    Measured,
    MessageReceived,
    ModelAdopted,
    PeerConnected,
    PeerLost,
    Phase,
    Recomputed,
    Started,
    Trained,
    TrainFailed,
)
from federated.rounds.fraud import Frauds
from federated.rounds.messages import (
    NO_BLOCK,
    Accuse,
    Body,
    Capability,
    Certificate,
    Commit,
    Fraud,
    Hello,
    Join,
    Leave,
    Model,
    Proof,
    Reveal,
    Vote,
)
from federated.rounds.own import Carried, stop
from federated.rounds.past import Past
from federated.rounds.phases import RoundInProgress
from federated.rounds.recent import Decided
from federated.rounds.register import Register
from federated.rounds.repeats import Repeats, period_of
from federated.rounds.roster import Roster, Seat
from p2p.errors import InvalidInput, LocalProtocolError
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

LIVE_PERIODS = 4  # silent periods after which a member that is not connected no longer counts as live
RESTING = (Phase.IDLE, Phase.FINISHED, Phase.LEFT)


class RoundMachine:
    """The rounds of the task in `manifest`, for the member `peer`.

    `sign` makes the Ed25519 signature of that peer. `rng` hides updates until they are revealed: in
    production it must be unpredictable. `membership` is the one after the last certificate that `Started`
    comes with; the manifest's, when it is left out. `admission` judges who wants to join; without it
    nobody may. Raises `InvalidInput` when `peer` is not a member.
    """

    def __init__(
        self,
        *,
        manifest: TaskManifest,
        peer: PeerId,
        sign: Callable[[bytes], bytes],
        rng: Random,
        verify: Verify = verify_signature,
        membership: Membership | None = None,
        admission: Admission | None = None,
    ) -> None:
        membership = membership or Membership(manifest.task_id, manifest.peer_ids)
        me = membership.number(peer)
        if me is None or not membership.is_active(peer):
            raise InvalidInput(f"{peer} is not a member of the task {manifest.name}")
        period = period_of(manifest.policy.phase_deadline_s)
        self._rounds = manifest.rounds
        drawn = manifest.committee < manifest.most_members
        window = inf if drawn else LIVE_PERIODS * period
        self._roster = Roster(me, window=window, grace=manifest.policy.grace_s)
        self._capabilities = Capabilities(me, is_drawn=drawn)
        self._past = Past(manifest.policy.max_staleness)
        self._links = Links(Electorate(manifest.committee, verify), genesis(membership, NO_BLOCK))
        self._register = Register(membership=membership, me=me, sign=sign, verify=verify, admission=admission)
        self._frauds = Frauds(
            links=self._links,
            me=me,
            policy=manifest.policy,
            max_update=manifest.max_update_bytes,
            is_drawn=drawn,
        )
        self._seat = Seat(
            membership=membership,
            me=me,
            sign=sign,
            rng=rng,
            policy=manifest.policy,
            max_update=manifest.max_update_bytes,
            roster=self._roster,
            pending=self._register.pending,
            frauds=self._frauds,
            capabilities=self._capabilities,
            period=period,
            is_drawn=drawn,
        )
        self._others = self._find_others()
        self._answers = Answers(links=self._links, seat=self._seat)
        self._catch_up = CatchUp(links=self._links, rounds=manifest.rounds)
        self._phase = Phase.IDLE
        self._done = 0  # the last round that is certified, with its model at hand
        self._model = Model(digest=NO_BLOCK, root=NO_BLOCK, size=0)  # until it is started
        self._chain: list[Certificate] = []  # since the last checkpoint
        self._entries: tuple[Body, ...] = ()
        self._current: RoundInProgress | None = None
        self._carried: Carried | None = None  # our training of the last round, for the next one
        self._adopting: Certificate | None = None
        self._retry_at = inf  # when to ask for the adopted model again
        self._sync_until = inf
        self._early = Early()
        self._is_fresh = True  # no certificate was found on our disk, and no round is done since
        self._repeats = Repeats(period, is_drawn=drawn)
        self._actions: list[Action] = []

    @property
    def phase(self) -> Phase:
        """Where the machine is."""
        return self._phase if self._in_progress is None else self._in_progress.phase

    @property
    def round(self) -> int:
        """The round in progress, or the one to begin; after the last, the number behind it."""
        return self._done + 1

    @property
    def membership(self) -> Membership:
        """The members after the last certificate that we know of."""
        return self._register.membership

    @property
    def panel(self) -> Panel | None:
        """Who votes in the round in progress."""
        return None if self._current is None else self._current.panel

    @property
    def newest(self) -> tuple[Certificate, tuple[PeerId, ...]] | None:
        """The last certificate whose model is at hand, and who voted on it, as far as we remember."""
        return self._answers.newest(self._done)

    def decided(self, number: int) -> Decided | None:
        """The certified block of one of the last rounds, None when it is not known."""
        return self._links.recent.get(number)

    @property
    def _in_progress(self) -> RoundInProgress | None:
        """The round that we take part in; not one whose certificate has overtaken us."""
        return self._current if self._adopting is None else None

    def handle(self, event: Event, now: float) -> list[Action]:
        """What is to be done after `event`; `LocalProtocolError` unless `Started` comes first, once."""
        self._take(event, now)
        return self._settle(now)

    def handle_all(self, events: Iterable[Event], now: float) -> list[Action]:
        """The same for events that came in this order, and are all here: what follows is found out once."""
        for event in events:
            self._take(event, now)
        return self._settle(now)

    def _take(self, event: Event, now: float) -> None:
        """Takes in one event; `_settle` does what follows from it."""
        if isinstance(event, Started) != (self._phase is Phase.IDLE):
            raise LocalProtocolError("Started is the first event, and comes once")
        match event:
            case _ if self._phase is Phase.LEFT:
                pass
            case MessageReceived(sender=peer, body=body):
                number = self._others.get(peer)
                if number is not None:
                    self._receive(number, body, now)
                elif isinstance(body, Join) and self.membership.number(peer) is None:
                    self._register.handle_join(peer, body, self._links.head.round + 1)
            case PeerConnected(peer=peer) | PeerLost(peer=peer):
                number = self._others.get(peer)
                if number is not None:
                    self._handle_connection(number, event, now)
            case Started():
                self._start(event, now)
            case HistoryFetched() | HistoryFailed():
                self._handle_history(event, now)
            case LeaveWanted():
                self._leave(now)
            case Measured(capability=capability):
                self._capabilities.measure(capability)
                self._announce(now)
            case ModelAdopted() | AdoptFailed():
                self._handle_adoption(event, now)
            case Recomputed():
                self._actions += self._frauds.handle(event)
            case Trained() | TrainFailed():
                if self._current is not None:  # of this round, or of an earlier one that still counts
                    self._current.handle(event, now)
            case _:
                expected = self._adopting is None or isinstance(event, Aggregated)
                if expected and self._current is not None and self._current.number == event.round:
                    self._current.handle(event, now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due."""
        if self._phase is Phase.LEFT:
            return None
        due = self._answers.next_deadline()
        if self._phase not in RESTING:
            due = min(due, self._repeat_at(), self._sync_until, self._retry_at)
            if (current := self._in_progress) is not None:
                due = min(due, current.next_deadline())
        return None if due == inf else due

    def handle_timer(self, now: float) -> list[Action]:
        """What is to be done now that time has passed."""
        if self._phase is not Phase.LEFT:
            self._actions += self._answers.take_due(now)
        if self._phase in RESTING:
            return self._settle(now)
        if self._adopting is not None and now >= self._retry_at:
            self._adopt(self._adopting, now)
        if self._in_progress is not None:
            self._in_progress.handle_timer(now)
        if now >= self._repeat_at():
            self._repeat(now)
        return self._settle(now)

    # the members

    def _handle_connection(self, number: int, event: PeerConnected | PeerLost, now: float) -> None:
        match event:
            case PeerConnected():
                self._roster.connect(number)
                if self._repeats.may_greet(now) and self._phase not in RESTING:
                    self._greet(now)
            case PeerLost():
                self._capabilities.lose(number)
                self._roster.lose(number, now)
                self._register.lose(number)

    def _receive(self, number: int, body: Body, now: float) -> None:
        """Member `number` said `body`."""
        current = self._current
        if self._roster.hear(number, now) and current is not None:
            current.fetch_again(now)
        match body:
            case Commit() | Reveal():  # most of all messages are
                pass
            case Accuse():
                self._actions += self._register.handle_accusation(self.membership.members[number], body)
                return
            case Fraud():
                self._actions += self._frauds.hear(number, body)
                return
            case Leave():
                self._actions += self._register.handle_leave(number, body)
                return
            case Join():
                return
            case Capability():
                if self._capabilities.hear(number, body):
                    peer = self.membership.members[number]
                    self._actions.append(CapabilityAnnounced(peer=peer, capability=body))
                return
            case Vote() | Proof() | Certificate():
                self._actions += self._register.watch(number, body)
            case Hello() if current is not None and body.round == current.number:
                self._actions += self._register.recall(number, body.round)
            case _:
                pass
        if body.round <= self._done:
            self._answer(number, body, now)
        elif body.round > self._rounds:
            pass
        elif isinstance(body, Certificate):
            self._receive_certificate(number, body, now)
        elif current is not None and body.round == current.number and self._adopting is None:
            current.handle_message(number, body, now)
        else:
            self._keep_early(number, body, now)

    def _keep_early(self, number: int, body: Body, now: float) -> None:
        """A message of a later round: kept if it is the next one, and a sign that others are ahead."""
        reached = self._done if self._current is None else self._current.number
        reached = reached if self._adopting is None else self._adopting.round
        if self._seat.is_drawn and (self._in_progress is not None or body.round > reached + 1):
            self._repeats.hasten(now + self._seat.period)
        self._actions += self._catch_up.hear_of(number, body.round - 1, self._seat, now)
        if not isinstance(body, Hello) and body.round == reached + 1:
            self._early.keep(number, body, self.membership.size)

    def _receive_certificate(self, number: int, certificate: Certificate, now: float) -> None:
        """Decides as many rounds as are known to be certified by now."""
        found = self._links.follow(number, certificate)
        if found.is_ahead or (found.accepted and self._adopting is not None):
            self._repeats.hasten(now)  # it is the second one that we had missed: there may be more
        if found.is_ahead:
            self._actions += self._catch_up.hear_of(number, certificate.round, self._seat, now)
        self._take_in(found, now)

    def _take_in(self, found: Followed, now: float) -> None:
        for accepted in found.accepted:
            self._answers.heard(accepted, now)
        for sender, refused, rule in found.refused:
            peer = self.membership.members[sender]
            self._actions.append(Misbehaved(round=refused.round, peer=peer, rule=rule))
        if found.accepted:
            self._certified(found.accepted, now)

    def _handle_history(self, event: HistoryFetched | HistoryFailed, now: float) -> None:
        """Follows what a holder sent, and goes on fetching as long as that leads further."""
        self._catch_up.end()
        before = self._links.head.round
        number = self.membership.number(event.holder) if isinstance(event, HistoryFetched) else None
        if isinstance(event, HistoryFetched) and number is not None:
            self._take_in(self._links.follow_all(number, event.certificates), now)
        if self._links.head.round == before or number is None:
            self._catch_up.pause(now + self._seat.period)
            self._repeats.hasten(now)
        elif self._phase not in RESTING:
            self._actions += self._catch_up.go_on(number, self._seat, now)

    def _answer(self, number: int, body: Body, now: float) -> None:
        """To a member that is behind: the certificate that it misses, and those after it."""
        if isinstance(body, Certificate):
            self._answers.hear_again(body, now)
        else:
            self._actions += self._answers.answer(number, body.round, self._done, self._seat, now)

    def _greet(self, now: float) -> None:
        self._repeats.said(now)
        head = self._links.head
        if head.round < self._rounds:
            self._actions.append(Publish(body=Hello(round=head.round + 1, base=head.model)))

    def _announce(self, now: float) -> None:
        """Says what we can do, where that is due."""
        if self._phase in RESTING:
            return
        if self._in_progress is None:
            body = self._capabilities.first(min(self._links.head.round + 1, self._rounds))
        else:
            body = self._capabilities.due(self._in_progress.number, self._roster.live(now))
        if body is not None:
            peer = self.membership.members[self._seat.me]
            self._actions += [Publish(body=body), CapabilityAnnounced(peer=peer, capability=body)]

    def _repeat(self, now: float) -> None:
        self._repeats.start(now)
        if self._in_progress is None:
            self._greet(now)
        else:
            self._in_progress.repeat(now)
            self._repeats.said(now)
            self._repeats.begin_round()

    def _repeat_at(self) -> float:
        """When we say again where we are; the round in progress may have such times of its own."""
        if self._in_progress is None or not self._seat.is_drawn:
            return self._repeats.at
        return min(self._repeats.at, self._in_progress.repeat_at)

    # from round to round

    def _start(self, event: Started, now: float) -> None:
        self._phase = Phase.SYNC
        self._model = event.initial if event.certificate is None else event.certificate.block.model
        self._done = 0 if event.certificate is None else event.certificate.round
        self._repeats.start(now)
        found = {item.round: item for item in filter(None, [event.certificate, *event.history])}
        known = [found[number] for number in sorted(found)]
        self._answers.keep(known)
        self._past.add(known)
        self._links.head = genesis(self.membership, event.initial.digest)
        if known:
            self._links.restore(known)
        self._register.restore(event.entries)
        self._actions += self._frauds.start(event.initial, event.entries)
        self._is_fresh = event.certificate is None
        self._entries = tuple(entry for entry in event.entries if entry.round > self._links.head.round)
        if self._links.head.round > self._done:  # we were admitted, or the last checkpoint is damaged
            self._chain = [certificate for certificate in known if certificate.round > self._done]
            self._begin_adoption(self._chain[-1], now)
        elif self._done >= self._rounds:
            self._phase = Phase.FINISHED
            self._actions.append(TaskFinished(model=self._model))
            return
        self._greet(now)

    def _leave(self, now: float) -> None:
        """We are to leave: says so, or just goes when nobody else is left or the task is over."""
        if self._phase in RESTING or self.membership.active == 1 << self._seat.me:
            self._go(now)
        else:
            self._actions += self._register.leave(self._links.head.round + 1)

    def _go(self, now: float) -> None:
        """We are no member any more."""
        if self._current is not None:
            self._carried = self._current.leave(now)
            self._actions += self._current.take_actions()
        self._actions += stop(self._carried)
        self._phase, self._current, self._adopting = Phase.LEFT, None, None
        self._early.clear()
        self._actions.append(TaskLeft(round=self._links.head.round, ejected=self._register.is_ejected))

    def _settle(self, now: float) -> list[Action]:
        """Goes on as far as can be, from phase to phase and from round to round; all actions so far."""
        if (current := self._in_progress) is not None:
            current.advance(now)
        while self._step(now):
            pass
        actions, self._actions = self._actions, []
        return actions if len(actions) < 2 else merged(actions)

    def _step(self, now: float) -> bool:
        """Goes on by one step where one is due; whether it was."""
        current, adopting = self._current, self._adopting
        if current is None:
            return self._phase is Phase.SYNC and self._is_synced(now) and self._begin(now)
        self._actions += current.take_actions()
        if adopting is not None:
            return current.has_model(adopting.block) and self._finish(adopting, catch_up=False, now=now)
        return current.certificate is not None and self._decide(current.certificate, now)

    def _is_synced(self, now: float) -> bool:
        """Whether enough members listen, and the others had their time or are at work already.

        With committees, that time begins with ours: the rounds wait for the voters later on.
        """
        live, panel = self._roster.live(now), self._links.panel()
        enough = (live & panel.voters).bit_count() >= panel.committee.quorum
        if not enough and not self._seat.is_drawn:
            self._sync_until = inf
            return False
        if self._sync_until == inf:
            self._sync_until = now + self._seat.policy.phase_deadline_s
        everybody = live == self.membership.active
        return everybody or now >= self._sync_until or (enough and bool(self._early))

    def _begin(self, now: float) -> bool:
        """Begins the next round, with what was said about it already."""
        self._phase, self._sync_until = Phase.TRAIN, inf
        number = self.round
        entries = tuple(entry for entry in self._entries if entry.round == number)
        self._entries = tuple(entry for entry in self._entries if entry.round > number)
        panel = self._links.panel()
        self._actions += [*self._register.turn(number, panel), *self._frauds.turn(panel)]
        if self._seat.is_drawn:
            self._roster.turn(now)
        self._repeats.begin_round()
        self._current = RoundInProgress(
            seat=self._seat,
            panel=panel,
            parent=self._links.head.block,
            number=number,
            base=self._model,
            bases=self._past.bases(self._model.digest),
            entries=entries,
            now=now,
            carried=self._carried,
        )
        self._carried = None
        if self._is_fresh and number > 1:  # whoever remembers us tells us
            self._actions.append(Publish(body=self._current.hello()))
        for member, body in self._early.take(number):
            if isinstance(body, Vote | Proof):
                self._actions += self._register.watch(member, body)
            self._current.handle_message(member, body, now)
        self._current.advance(now)
        self._announce(now)
        return True

    def _decide(self, certificate: Certificate, now: float) -> bool:
        """The round in progress is decided."""
        self._links.advance(certificate)
        return self._certified((certificate,), now)

    def _certified(self, accepted: Sequence[Certificate], now: float) -> bool:
        """These are the next certificates of the chain. A round is finished once we have its model."""
        self._answers.keep(accepted)
        self._past.add(accepted)
        self._chain += accepted
        for certificate in accepted:
            self._change(certificate)
        self._actions += self._frauds.certified()
        last, current = accepted[-1], self._current
        if current is not None and current.has_model(last.block):
            return self._finish(last, catch_up=False, now=now)
        if not self._register.is_active:
            self._go(now)
            return True
        if current is not None:
            current.overtake()
            self._actions += current.take_actions()
        self._begin_adoption(last, now)
        return True

    def _find_others(self) -> Mapping[PeerId, int]:
        """The other active members, by their numbers."""
        members = self.membership
        return {
            members.members[number]: number for number in numbers_in(members.active & ~(1 << self._seat.me))
        }

    def _change(self, certificate: Certificate) -> None:
        """Goes over to the members that a certificate leaves."""
        actions = self._register.certified(certificate)
        if actions:
            self._actions += actions
            self._seat = replace(self._seat, membership=self.membership)
            self._others = self._find_others()
            self._roster.retain(self.membership.active | 1 << self._seat.me)
            self._capabilities.retain(self.membership.active)
            self._early.retain(self.membership.active)

    def _begin_adoption(self, certificate: Certificate, now: float) -> None:
        self._adopting = certificate
        self._phase, self._sync_until = Phase.CERTIFIED, inf
        self._repeats.end_round(now + self._seat.policy.phase_deadline_s)
        self._adopt(certificate, now)

    def _adopt(self, certificate: Certificate, now: float) -> None:
        self._retry_at = inf
        self._actions.append(self._catch_up.adopt(certificate, self._seat, now))

    def _handle_adoption(self, event: ModelAdopted | AdoptFailed, now: float) -> None:
        if self._adopting is None or self._adopting.round != event.round:
            return
        if isinstance(event, ModelAdopted):
            self._finish(self._adopting, catch_up=True, now=now)
        else:
            self._retry_at = now + self._seat.period
            self._actions += self._catch_up.look(self._seat, now)  # they may be further by now

    def _finish(self, certificate: Certificate, *, catch_up: bool, now: float) -> bool:
        """The round is certified and its model is here: saves both, and goes on."""
        block, current, self._current = certificate.block, self._current, None
        if current is not None:
            self._carried = current.leave(now, block)
            self._actions += current.take_actions()
        ours = current if current is not None and current.number == certificate.round else None
        self._actions.append(Checkpoint(certificate=certificate, chain=tuple(self._chain)))
        self._chain = []
        self._answers.rest(now)
        if not catch_up:
            self._actions += self._answers.spread(certificate, self._seat, now)
        refused = [] if ours is None else ours.refused()
        late = [] if ours is None else ours.late(block.participants)
        finished = RoundFinished(
            round=certificate.round,
            model=block.model,
            skipped=block.skipped,
            participants=self.membership.peers(block.participants),
            refused=tuple((self.membership.members[number], rule) for number, rule in refused),
            seconds=0.0 if ours is None else now - ours.started,
            phases={} if ours is None else ours.seconds,
            catch_up=catch_up,
            late=tuple((self.membership.members[number], rounds) for number, rounds in late),
        )
        self._actions.append(finished)
        self._adopting, self._retry_at = None, inf
        self._done, self._model = certificate.round, block.model
        if ours is not None:
            self._is_fresh = False
        if not self._register.is_active:
            self._go(now)
            return True
        if self._done < self._rounds:
            return self._begin(now)
        self._phase = Phase.FINISHED
        self._early.clear()
        self._actions += stop(self._carried)
        self._actions.append(TaskFinished(model=block.model))
        return True
