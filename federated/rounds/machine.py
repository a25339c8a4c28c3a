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
`federated.rounds.agreement`; what goes in and comes out is in `federated.rounds.events`.

How to drive it: `handle(event, now)` and `handle_timer(now)`, which is due at `next_deadline()`, return
actions; carry them out in order. The first event is `Started`. `now` is a monotonic clock in seconds;
no wall clock decides anything. After `TaskFinished`, keep it going for the members that are behind.

Members that are behind say so whenever they repeat themselves, every few seconds: who is ahead
answers any message of an older round with the newest certificate, at most once a second.

Where a committee is drawn for each round (`federated.rounds.committee`), only its members vote; the others
train, reveal their updates, and adopt what is certified. A certificate counts only after the one before it,
so who is behind is sent those in between (`federated.rounds.archive`). Nobody repeats himself as long
as all goes well: with hundreds of members each message is one too many.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from federated.manifest import TaskManifest
from federated.rounds.archive import Archive, Links
from federated.rounds.committee import Electorate, Membership, Verify, set_of, verify_signature
from federated.rounds.events import (
    Action,
    Adopt,
    AdoptFailed,
    Aggregated,
    Checkpoint,
    Event,
    MessageReceived,
    Misbehaved,
    ModelAdopted,
    PeerConnected,
    PeerLost,
    Phase,
    Publish,
    RoundFinished,
    Started,
    TaskFinished,
)
from federated.rounds.messages import NO_BLOCK, Body, Certificate, Hello, Model
from federated.rounds.phases import RoundInProgress
from federated.rounds.roster import Roster, Seat
from p2p.errors import InvalidInput, LocalProtocolError
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

REPEATS = 4  # repetitions of own messages in the deadline of a phase ...
MIN_PERIOD, MAX_PERIOD = 0.25, 5.0  # ... and their limits, in seconds
LIVE_PERIODS = 4  # silent periods after which a member that is not connected no longer counts as live
ANSWER_GAP = 1.0  # seconds between two certificates sent to members that are behind
MAX_EARLY = 64  # messages of the next round kept of each member, 4 KiB each; of many members fewer, ...
MIN_EARLY = 8  # ... so that they are not more than twice as many in all as those of 64 members
MAX_HOLDERS = 64  # members asked for a model


class RoundMachine:
    """The rounds of the task in `manifest`, for the member `peer`.

    `sign` makes the Ed25519 signature of that peer. `rng` hides updates until they are revealed: in
    production it must be unpredictable. Raises `InvalidInput` when `peer` is not a member.
    """

    def __init__(
        self,
        *,
        manifest: TaskManifest,
        peer: PeerId,
        sign: Callable[[bytes], bytes],
        rng: Random,
        verify: Verify = verify_signature,
    ) -> None:
        membership = Membership(manifest.task_id, manifest.peer_ids)
        me = membership.number(peer)
        if me is None:
            raise InvalidInput(f"{peer} is not a member of the task {manifest.name}")
        period = min(max(manifest.policy.phase_deadline_s / REPEATS, MIN_PERIOD), MAX_PERIOD)
        self._rounds = manifest.rounds
        self._membership = membership
        self._electorate = Electorate(membership, manifest.seats, verify)
        drawn = self._electorate.is_drawn
        window = inf if drawn else LIVE_PERIODS * period
        self._roster = Roster(me, window=window, grace=manifest.policy.grace_s)
        self._archive = Archive(membership.size, me, period) if drawn else None
        self._links = Links(self._electorate)
        self._max_early = min(MAX_EARLY, max(MIN_EARLY, MAX_EARLY * MAX_EARLY // membership.size))
        self._seat = Seat(
            membership=membership,
            me=me,
            sign=sign,
            rng=rng,
            policy=manifest.policy,
            max_update=manifest.max_update_bytes,
            roster=self._roster,
            period=period,
            is_drawn=drawn,
        )
        self._phase = Phase.IDLE
        self._done = 0  # the last round that is certified, with its model at hand
        self._model = Model(digest=NO_BLOCK, root=NO_BLOCK, size=0)  # until it is started
        self._certificate: Certificate | None = None
        self._entries: tuple[Body, ...] = ()
        self._current: RoundInProgress | None = None
        self._adopting: Certificate | None = None
        self._retry_at: float | None = None  # when to ask for the adopted model again
        self._sync_until: float | None = None
        self._early: dict[int, list[Body]] = {}  # what members said about the next round
        self._repeat_at = 0.0
        self._answered_at = self._greeted_at = float("-inf")
        self._actions: list[Action] = []

    @property
    def phase(self) -> Phase:
        """Where the machine is."""
        if self._current is None or self._adopting is not None:
            return self._phase
        return self._current.phase

    @property
    def round(self) -> int:
        """The round in progress, or the one to begin; after the last, the number behind it."""
        return self._done + 1

    def handle(self, event: Event, now: float) -> list[Action]:
        """What is to be done after `event`; `LocalProtocolError` unless `Started` comes first, once."""
        if isinstance(event, Started) != (self._phase is Phase.IDLE):
            raise LocalProtocolError("Started is the first event, and comes once")
        match event:
            case Started():
                self._start(event, now)
            case MessageReceived(sender=peer) | PeerConnected(peer=peer) | PeerLost(peer=peer):
                number = self._membership.number(peer)
                if number is not None and number != self._seat.me:
                    self._handle_member(number, event, now)
            case ModelAdopted() | AdoptFailed():
                self._handle_adoption(event, now)
            case _:
                expected = self._adopting is None or isinstance(event, Aggregated)
                if expected and self._current is not None and self._current.number == event.round:
                    self._current.handle(event, now)
        return self._settle(now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due."""
        answer_at = inf if self._archive is None else self._archive.next_deadline()
        if self._phase in (Phase.IDLE, Phase.FINISHED):
            return None if answer_at == inf else answer_at
        deadlines = [self._repeat_at, self._sync_until, self._retry_at, answer_at]
        if self._current is not None and self._adopting is None:
            deadlines += [self._current.next_deadline(), self._current_repeat_at(self._current)]
        found = min(at for at in deadlines if at is not None)
        return None if found == inf else found

    def handle_timer(self, now: float) -> list[Action]:
        """What is to be done now that time has passed."""
        if self._archive is not None:
            self._actions += [Publish(body=body) for body in self._archive.take_due(now)]
        if self._phase in (Phase.IDLE, Phase.FINISHED):
            return self._settle(now)
        if self._adopting is not None and self._retry_at is not None and now >= self._retry_at:
            self._adopt(self._adopting, now)
        if self._current is not None and self._adopting is None:
            self._current.handle_timer(now)
        if now >= min(self._repeat_at, self._current_repeat_at(self._current)):
            self._repeat(now)
        return self._settle(now)

    # the members

    def _handle_member(
        self, number: int, event: MessageReceived | PeerConnected | PeerLost, now: float
    ) -> None:
        match event:
            case MessageReceived(body=body):
                if self._roster.hear(number, now) and self._current is not None:
                    self._current.fetch_again(now)
                if self._receive(number, body, now):
                    return
            case PeerConnected():
                self._roster.connect(number)
                gap = self._seat.period if self._seat.is_drawn else MIN_PERIOD
                if now >= self._greeted_at + gap and self._phase is not Phase.FINISHED:
                    self._greet(now)
            case PeerLost():
                self._roster.lose(number, now)
        if self._current is not None and self._adopting is None:
            self._current.advance(now)

    def _receive(self, number: int, body: Body, now: float) -> bool:
        """Takes in a message; whether the round in progress got it, and went on from there."""
        if body.round <= self._done:
            self._answer(number, body, now)
        elif body.round > self._rounds:
            pass
        elif isinstance(body, Certificate):
            self._receive_certificate(number, body, now)
        elif self._current is not None and self._adopting is None and body.round == self._current.number:
            self._current.handle_message(number, body, now)
            return True
        else:
            self._keep_early(number, body, now)
        return False

    def _keep_early(self, number: int, body: Body, now: float) -> None:
        """A message of a later round: kept if it is the next one, and a sign that others are ahead."""
        reached = self._done if self._current is None else self._current.number
        reached = reached if self._adopting is None else self._adopting.round
        in_round = self._current is not None and self._adopting is None
        if self._seat.is_drawn and (in_round or body.round > reached + 1):
            self._ask_soon(now + self._seat.period)
        if not isinstance(body, Hello) and body.round == reached + 1:
            kept = self._early.setdefault(number, [])
            if len(kept) < self._max_early and body not in kept:
                kept.append(body)

    def _receive_certificate(self, number: int, certificate: Certificate, now: float) -> None:
        """Decides as many rounds as are known to be certified by now."""
        reached, base = self._head()
        found = self._links.follow(number, certificate, reached, base)
        for accepted in found.accepted:
            if self._archive is not None:
                self._archive.heard(accepted.round, now)
                if self._adopting is not None:  # the second one that we had missed: there may be more
                    self._ask_soon(now)
            self._decide(accepted, now)
        if found.is_ahead:
            self._ask_soon(now)
        for sender, refused, rule in found.refused:
            peer = self._membership.members[sender]
            self._actions.append(Misbehaved(round=refused.round, peer=peer, rule=rule))

    def _head(self) -> tuple[int, bytes]:
        """The last round that we know to be certified, and the digest of its model."""
        if self._adopting is not None:
            return self._adopting.round, self._adopting.block.model.digest
        return self._done, self._model.digest

    def _answer(self, number: int, body: Body, now: float) -> None:
        """To a member that is behind: our newest certificate, unless somebody has just sent it.

        Where committees are drawn: the one that it misses, and those after it.
        """
        if self._archive is not None:
            if isinstance(body, Certificate):
                self._hear_old(self._archive, body, now)
            elif body.round < self._done or now >= self._answered_at + self._seat.period:
                self._archive.ask(number, body.round, now)
                self._actions += [Publish(body=found) for found in self._archive.take_due(now)]
        elif isinstance(body, Certificate) and body.round == self._done:
            self._answered_at = now
        elif self._certificate is not None and now >= self._answered_at + ANSWER_GAP:
            self._answered_at = now
            self._actions.append(Publish(body=self._certificate))

    def _hear_old(self, archive: Archive, certificate: Certificate, now: float) -> None:
        """Somebody sent a certificate that we have: we need not, unless it is a false one."""
        known = archive.certificate(certificate.round)
        if known is None or known.block != certificate.block:
            return
        committee = self._electorate.panel(known.round, known.block.base).committee
        if known == certificate or committee.accepts_certificate(certificate):
            archive.heard(known.round, now)

    def _greet(self, now: float) -> None:
        self._greeted_at = now
        reached, base = self._head() if self._seat.is_drawn else (self._done, self._model.digest)
        if reached < self._rounds:
            self._actions.append(Publish(body=Hello(round=reached + 1, base=base)))

    def _repeat(self, now: float) -> None:
        self._repeat_at = now + self._seat.period
        if self._current is not None and self._adopting is None:
            self._current.repeat(now)
            self._greeted_at = now
            self._repeat_at = inf if self._seat.is_drawn else self._repeat_at
        else:
            self._greet(now)

    def _current_repeat_at(self, current: RoundInProgress | None) -> float:
        """When the round in progress is to repeat itself, if it has such times of its own."""
        if current is None or self._adopting is not None or not self._seat.is_drawn:
            return inf
        return current.repeat_at

    def _ask_soon(self, at: float) -> None:
        """Others are ahead of us: says where we are, though not all the time."""
        self._repeat_at = min(self._repeat_at, max(at, self._greeted_at) + MIN_PERIOD)

    # from round to round

    def _start(self, event: Started, now: float) -> None:
        self._phase = Phase.SYNC
        self._certificate = event.certificate
        self._model = event.initial if event.certificate is None else event.certificate.block.model
        self._done = 0 if event.certificate is None else event.certificate.round
        self._entries = tuple(entry for entry in event.entries if entry.round == self.round)
        self._repeat_at = now + self._seat.period
        if self._archive is not None:
            for known in sorted(
                [*event.history, *filter(None, [event.certificate])], key=lambda item: item.round
            ):
                self._archive.keep(known)
        if self._done >= self._rounds:
            self._phase = Phase.FINISHED
            self._actions.append(TaskFinished(model=self._model))
        else:
            self._greet(now)

    def _settle(self, now: float) -> list[Action]:
        """Begins and ends rounds as far as can be, and returns the actions so far."""
        while self._step(now):
            pass
        if self._current is not None:
            self._actions += self._current.take_actions()
        actions, self._actions = self._actions, []
        return actions

    def _step(self, now: float) -> bool:
        """Goes on by one step where one is due; whether it was."""
        current, adopting = self._current, self._adopting
        if current is not None:
            self._actions += current.take_actions()
            if adopting is not None and current.has_model(adopting.block):
                return self._finish(adopting, catch_up=False, now=now)
            if adopting is None and current.certificate is not None:
                return self._decide(current.certificate, now)
        return self._phase is Phase.SYNC and self._is_synced(now) and self._begin(now)

    def _is_synced(self, now: float) -> bool:
        """Whether enough members listen, and the others had their time or are at work already.

        With committees, that time begins with ours: the rounds wait for the voters later on.
        """
        live, panel = self._roster.live(now), self._electorate.panel(self.round, self._model.digest)
        enough = (live & panel.voters).bit_count() >= panel.committee.quorum
        if not enough and not self._seat.is_drawn:
            self._sync_until = None
            return False
        if self._sync_until is None:
            self._sync_until = now + self._seat.policy.phase_deadline_s
        everybody = live.bit_count() == self._membership.size
        return everybody or now >= self._sync_until or (enough and any(self._early.values()))

    def _begin(self, now: float) -> bool:
        """Begins the next round, with what was said about it already."""
        self._phase, self._sync_until = Phase.TRAIN, None
        number, entries, self._entries = self.round, self._entries, ()
        panel = self._electorate.panel(number, self._model.digest)
        if self._seat.is_drawn:
            self._roster.turn(now)
            self._repeat_at = inf
        self._current = RoundInProgress(
            seat=self._seat, panel=panel, number=number, base=self._model, entries=entries, now=now
        )
        early, self._early = self._early, {}
        for member, bodies in sorted(early.items()):
            for body in bodies:
                if body.round == number:
                    self._current.handle_message(member, body, now)
        return True

    def _decide(self, certificate: Certificate, now: float) -> bool:
        """A round is decided, ours or a later one: it is finished once we have its model."""
        current = self._current
        if self._archive is not None:
            self._archive.keep(certificate)
        if current is not None:
            if current.has_model(certificate.block):
                return self._finish(certificate, catch_up=False, now=now)
            current.stop_training()
            self._actions += current.take_actions()
        self._adopting = certificate
        self._phase, self._sync_until = Phase.CERTIFIED, None
        if self._repeat_at == inf:
            self._repeat_at = now + self._seat.policy.phase_deadline_s
        self._adopt(certificate, now)
        return True

    def _adopt(self, certificate: Certificate, now: float) -> None:
        """Asks for the model: first from live signers, then from whoever else may have it.

        Everybody begins with another one of them, those after it in the order of their numbers.
        """
        self._retry_at = None
        live, me, size = self._roster.live(now), self._seat.me, self._membership.size
        panel = self._electorate.panel(certificate.round, certificate.block.base)
        signers = set_of(panel.members[voter] for voter, _ in certificate.votes)
        others = [number % size for number in range(me + 1, me + size)]
        others.sort(key=lambda number: (not live >> number & 1, not signers >> number & 1))
        holders = tuple(self._membership.members[number] for number in others[:MAX_HOLDERS])
        self._actions.append(Adopt(certificate=certificate, holders=holders))

    def _handle_adoption(self, event: ModelAdopted | AdoptFailed, now: float) -> None:
        if self._adopting is None or self._adopting.round != event.round:
            return
        if isinstance(event, ModelAdopted):
            self._finish(self._adopting, catch_up=True, now=now)
        else:
            self._retry_at = now + self._seat.period

    def _finish(self, certificate: Certificate, *, catch_up: bool, now: float) -> bool:
        """The round is certified and its model is here: saves both, and goes on."""
        block, current, self._current = certificate.block, self._current, None
        if current is not None:
            current.leave(now)
            self._actions += current.take_actions()
        ours = current if current is not None and current.number == certificate.round else None
        self._actions.append(Checkpoint(certificate=certificate))
        self._answered_at = now  # votes still under way are no sign that their sender is behind
        if not catch_up:
            self._spread(certificate, now)
        refused = [] if ours is None else ours.refused()
        finished = RoundFinished(
            round=certificate.round,
            model=block.model,
            skipped=block.skipped,
            participants=self._membership.peers(block.participants),
            refused=tuple((self._membership.members[number], rule) for number, rule in refused),
            seconds=0.0 if ours is None else now - ours.started,
            phases={} if ours is None else ours.seconds,
            catch_up=catch_up,
        )
        self._actions.append(finished)
        self._adopting = self._retry_at = None
        self._done, self._model, self._certificate = certificate.round, block.model, certificate
        self._entries = ()
        if self._done < self._rounds:
            return self._begin(now)
        self._phase, self._early = Phase.FINISHED, {}
        self._actions.append(TaskFinished(model=block.model))
        return True

    def _spread(self, certificate: Certificate, now: float) -> None:
        """Publishes the certificate if its first signer are we: it spares the others to ask for it.

        With committees all the others depend on it, and the next signers make up for one that is gone.
        """
        panel = self._electorate.panel(certificate.round, certificate.block.base)
        seat, signers = panel.seat(self._seat.me), [voter for voter, _ in certificate.votes]
        if self._archive is not None and seat is not None:
            turn = signers.index(seat) if seat in signers else len(signers)
            self._archive.plan(certificate.round, turn, now)
            self._actions += [Publish(body=found) for found in self._archive.take_due(now)]
        elif self._archive is None and signers[0] == seat:
            self._actions.append(Publish(body=certificate))
