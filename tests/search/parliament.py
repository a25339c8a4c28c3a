"""One agreement of real machines on a heap of events, as fast as Python goes: thousands of seeds of it.

A plan, drawn from the seed, has the members, who of them lies and how, and what the network and the
machines suffer until a moment at which all is healed: loss, delays, duplicates, links that are cut in one
direction or both, crashes at any journal write or message, with the journal kept.

    liars, at most floor((n-1)/3)   TWINS: one key, two states, each with its own part of the others
                                    LATE: honest, but late. AMNESIA: crashes, and forgets its journal
                                    SILENT: nothing. PUPPET: of a cabal that sees all (tests.search.cabal)

What must never happen is looked at with each vote of an honest member: all the quorums that these votes
and those of all liars can ever make, whoever gets them. After the healing every honest member must decide.
Signatures are stand-ins, as easy to make as to forge: here nobody signs for another but liars for liars.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, partial
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING

from federated.rounds.actions import Publish, WriteJournal
from federated.rounds.agreement import (
    Agreement,
    AgreementAction,
    CheckProposal,
    Decided,
    Offence,
    ProposalWanted,
)
from federated.rounds.committee import Committee
from federated.rounds.messages import Block, Body, Certificate, Choice, Model, Proof, Vote
from p2p.peer_id import PeerId
from tests.federated.samples import peer

if TYPE_CHECKING:
    from collections.abc import Sequence

TASK = sha256(b"task").digest()
PARENT = sha256(b"parent").digest()
BASE = sha256(b"base").digest()
ROUND = 7
TIMEOUT = 2.0  # seconds that a leader has, in the first views
PERIOD = 0.5  # seconds between repetitions
LIMIT = 300.0  # timeouts after the healing in which every honest member must have decided
ANSWER_GAP = 1.0  # seconds between two certificates for members that are behind
TWIN = 32  # the label of a twin's own block is by so much above its member's number
WRONG = 64  # labels from here on are of blocks that no honest member accepts
MAX_EVENTS = 400_000  # of one seed; more is a machine that never comes to rest

DELIVER, TICK, PROPOSE, CHECKED, CRASH, SKIP, CABAL, CUT, HEAL = range(9)


class Violation(AssertionError):
    """Something happened that never may; with the name of what was broken in front."""


class Kind(Enum):
    """How a member behaves."""

    HONEST = "honest"
    TWINS = "twins"
    LATE = "late"
    AMNESIA = "amnesia"
    SILENT = "silent"
    PUPPET = "puppet"


def sign(member: PeerId, data: bytes) -> bytes:
    """A stand-in for a signature: who made it, and over what."""
    return member.raw + data


def verify(member: PeerId, data: bytes, signature: bytes) -> bool:
    """Whether `sign` made it."""
    return signature == member.raw + data


def quorum_of(count: int) -> int:
    """The votes that decide, counted apart from the code that is searched."""
    return -(-(count + (count - 1) // 3 + 1) // 2)


@cache
def members_of(count: int) -> tuple[PeerId, ...]:
    return tuple(sorted(peer(number) for number in range(count)))


@cache
def block(label: int) -> Block:
    """The block with this label, another one for each."""
    model = Model(digest=sha256(b"model" + bytes([label])).digest(), root=sha256(b"root").digest(), size=9)
    return Block(
        task=TASK,
        parent=PARENT,
        round=ROUND,
        base=BASE,
        inputs=sha256(bytes([label])).digest(),
        participants=1,
        examples=label,
        model=model,
    )


@cache
def hash_of(label: int) -> bytes:
    """What votes for the block with this label name."""
    return block(label).hash


@dataclass(slots=True)
class Chair:
    """One machine with its journal; a liar's twin sits on a second chair with the same number."""

    at: int
    number: int
    label: int  # of the block that it proposes
    kind: Kind
    machine: Agreement | None = None
    journal: list[Body] = field(default_factory=list)
    written: set[tuple[int, Choice, bytes]] = field(default_factory=set)  # votes in the journal
    certificate: Certificate | None = None
    decided_at: float = 0.0
    answered_at: float = -ANSWER_GAP
    operations: int = 0
    kill_after: int | None = None
    life: int = 0
    tick_at: float | None = None

    @property
    def honest(self) -> bool:
        return self.kind is Kind.HONEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a seed stands for."""

    seed: int
    count: int
    liars: dict[int, Kind]
    loss: float
    repeats: float  # share of messages that come twice
    delay: float  # seconds, of most messages
    long_delay: float  # seconds, of one message in ten
    heals_at: float  # seconds
    cuts: tuple[tuple[float, tuple[int, ...], bool], ...]  # (from when, group of each chair, one way only)
    crashes: tuple[tuple[float, int, int, float], ...]  # (when, chair, operations until then, seconds down)
    skips: tuple[tuple[float, int], ...]  # (when, chair): its owner believes that the leader is gone
    slow_checks: float  # share of proposals whose check takes longer than a timeout
    deaf: float  # share of votes to finalize and of certificates that are lost: nearly decided is hardest
    attack_gap: float  # seconds between two attacks of the cabal


def draw_plan(seed: int, count: int | None = None) -> Plan:
    """The plan of a seed; most are of four members, few of up to sixteen."""
    rng = Random(seed)
    if count is None:
        count = rng.choices((4, 5, 6, 7, 8, 10, 13, 16), (60, 6, 5, 14, 4, 5, 4, 2))[0]
    faults = (count - 1) // 3
    lying = rng.choices((faults, rng.randint(0, faults)), (3, 1))[0]
    kinds = [Kind.PUPPET, Kind.PUPPET, Kind.TWINS, Kind.TWINS, Kind.LATE, Kind.AMNESIA, Kind.SILENT]
    liars = {number: rng.choice(kinds) for number in sorted(rng.sample(range(count), lying))}
    chairs = count + sum(kind is Kind.TWINS for kind in liars.values())
    hostile = rng.random() < 0.4
    heals_at = (rng.uniform(3.0, 12.0) if hostile else rng.uniform(0.5, 6.0)) * TIMEOUT
    cuts = []
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        cuts.append(
            (
                rng.uniform(0.0, heals_at),
                tuple(rng.randrange(2) for _ in range(chairs)),
                rng.random() < 0.3,
            )
        )
    crashes = []
    mortal = [number for number in range(count) if liars.get(number, Kind.AMNESIA) is Kind.AMNESIA]
    for _ in range(rng.choice((0, 4, 8, 12) if hostile else (0, 0, 1, 3)) if mortal else 0):
        down = rng.choice((0.0, rng.uniform(0.0, 2.0) * TIMEOUT))
        crashes.append((rng.uniform(0.0, heals_at), rng.choice(mortal), rng.randrange(5), down))
    skips = [(rng.uniform(0.0, heals_at), rng.randrange(count)) for _ in range(rng.choice((0, 0, 3)))]
    return Plan(
        seed=seed,
        count=count,
        liars=liars,
        loss=rng.choice((0.2, 0.4, 0.6)) if hostile else rng.choice((0.0, 0.0, 0.1, 0.3)),
        repeats=rng.choice((0.0, 0.05, 0.2)),
        delay=rng.choice((0.05, 0.2, 1.0)),
        long_delay=rng.choice((0.2, 2.0, 3 * TIMEOUT)),
        heals_at=heals_at,
        cuts=tuple(sorted(cuts)),
        crashes=tuple(sorted(crashes)),
        skips=tuple(sorted(skips)),
        slow_checks=rng.choice((0.0, 0.0, 0.1)),
        deaf=rng.choice((0.0, 0.8, 0.95)) if hostile else 0.0,
        attack_gap=rng.choice((0.1, 0.3, 1.0)),
    )


class Book:
    """The votes of honest members, and all that can be made of them with the help of all liars."""

    def __init__(self, count: int, liars: int) -> None:
        self._enough = quorum_of(count) - liars
        self._votes: dict[tuple[int, Choice, bytes], int] = {}  # sets of honest members
        self._cast: dict[tuple[int, int, Choice], bytes] = {}
        self._notarized: dict[int, bytes] = {}
        self._nullified: set[int] = set()
        self._final: dict[int, bytes] = {}

    def supports(self, view: int, choice: Choice, what: bytes) -> bool:
        """Whether there are votes for a quorum, when all liars vote for it."""
        return self._votes.get((view, choice, what), 0).bit_count() >= self._enough

    def add(self, member: int, vote: Vote) -> None:
        """One more vote; raises `Violation` when it breaks a rule."""
        view, choice, what = vote.view, vote.choice, vote.block
        known = self._cast.setdefault((member, view, choice), what)
        if known != what:
            raise Violation(f"one vote: member {member} voted twice to {choice.name} in view {view}")
        if choice is not Choice.NOTARIZE:
            other = Choice.FINALIZE if choice is Choice.NULLIFY else Choice.NULLIFY
            if (member, view, other) in self._cast:
                raise Violation(f"nullify or finalize: member {member} did both in view {view}")
        voters = self._votes.get((view, choice, what), 0) | 1 << member
        self._votes[view, choice, what] = voters
        if voters.bit_count() < self._enough:
            return
        if choice is Choice.NOTARIZE:
            if self._notarized.setdefault(view, what) != what:
                raise Violation(f"one block: two blocks can be notarized in view {view}")
        elif choice is Choice.NULLIFY:
            self._nullified.add(view)
        else:
            self._final[view] = what
            if len(set(self._final.values())) > 1:
                raise Violation("agreement: two blocks can be certified")
        if view in self._nullified and view in self._final:
            raise Violation(f"nullify or finalize: view {view} can be both")


class Parliament:
    """The members of one plan; `run` lets it happen. `said` has what honest members published, if wanted."""

    def __init__(self, plan: Plan, *, trace: list[tuple[float, int, bool, object]] | None = None) -> None:
        from tests.search.cabal import Cabal

        self.plan = plan
        self.rng = Random(plan.seed ^ 0x5EED)
        self.now = 0.0
        self.committee = Committee(TASK, members_of(plan.count), verify)
        self.book = Book(plan.count, len(plan.liars))
        self.trace = trace
        kinds = [plan.liars.get(number, Kind.HONEST) for number in range(plan.count)]
        self.chairs = [Chair(number, number, number, kind) for number, kind in enumerate(kinds)]
        for number, kind in plan.liars.items():
            if kind is Kind.TWINS:
                self.chairs.append(Chair(len(self.chairs), number, TWIN + number, kind))
        self.honest = [chair for chair in self.chairs if chair.honest]
        self.healed = False
        self.cabal = Cabal(self, [number for number, kind in plan.liars.items() if kind is Kind.PUPPET])
        self._group: tuple[int, ...] = ()
        self._one_way = False
        self._heap: list[tuple[float, int, int, int, int, object]] = []
        self._serial = 0
        # a twin is heard by its own part of the members only
        self._audience = {
            (chair.at, other.at): chair.kind is not Kind.TWINS or self.rng.random() < 0.6
            for chair in self.chairs
            for other in self.chairs
        }

    # time

    def at(self, when: float, what: int, chair: int, life: int, item: object) -> None:
        """Something that will happen."""
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, what, chair, life, item))

    def run(self) -> float | None:
        """Until all is decided; timeouts from the healing to the last decision, None if it came before."""
        plan = self.plan
        for chair in self.chairs:
            if chair.kind not in (Kind.SILENT, Kind.PUPPET):
                self.at(self.rng.random() * PERIOD, CRASH, chair.at, 0, None)
        for when, number, _, _ in plan.crashes:
            self.at(when, CRASH, number, -1, None)
        for when, number in plan.skips:
            self.at(when, SKIP, number, 0, None)
        for number, (when, _, _) in enumerate(plan.cuts):
            self.at(when, CUT, 0, 0, number)
        if self.cabal.members:
            self.at(plan.attack_gap, CABAL, 0, 0, None)
        self.at(plan.heals_at, HEAL, 0, 0, None)
        limit, heap = plan.heals_at + LIMIT * TIMEOUT, self._heap
        waiting, events = list(self.honest), 0
        while waiting or not self.healed:
            if not heap:
                raise Violation("liveness: nothing will ever happen again")
            self.now, _, what, chair, life, item = heapq.heappop(heap)
            events += 1
            if self.now > limit or events > MAX_EVENTS:
                left = {seat.number: seat.machine.view if seat.machine else None for seat in waiting}
                raise Violation(f"liveness: no decision within {LIMIT:.0f} timeouts; views: {left}")
            self._happen(what, self.chairs[chair], life, item)
            while waiting and waiting[-1].certificate is not None:
                waiting.pop()
        blocks = {seat.certificate.block.hash for seat in self.honest if seat.certificate}
        if len(blocks) > 1:
            raise Violation("agreement: two blocks are certified")
        if not blocks <= {hash_of(label) for label in range(WRONG)}:
            raise Violation("validity: a block is certified that no honest member would vote for")
        last = max(seat.decided_at for seat in self.honest)
        return None if last <= plan.heals_at else (last - plan.heals_at) / TIMEOUT

    def _happen(self, what: int, chair: Chair, life: int, item: object) -> None:
        machine = chair.machine
        if what == DELIVER:
            if machine is not None and chair.life == life:
                sender, body = item  # type: ignore[misc]
                self._receive(chair, machine, sender, body)
        elif what == TICK:
            if chair.tick_at == item:
                chair.tick_at = None
            if machine is not None and chair.life == life and machine.next_deadline() == item:
                self._do(chair, machine.handle_timer(self.now))
        elif what == PROPOSE:
            if machine is not None and chair.life == life:
                made = block(chair.label)
                self._do(chair, machine.propose(item, made, self.now))  # type: ignore[arg-type]
        elif what == CHECKED:
            if machine is not None and chair.life == life:
                what_block, fine = item  # type: ignore[misc]
                self._do(chair, machine.handle_checked(what_block, fine, self.now))
        elif what == CRASH:
            self._crash_or_start(chair, life)
        elif what == SKIP:
            if machine is not None and chair.certificate is None:
                self._do(chair, machine.skip_leader(self.now))
        elif what == CABAL:
            self.cabal.attack()
            self.at(self.now + self.plan.attack_gap * (0.5 + self.rng.random()), CABAL, 0, 0, None)
        elif what == CUT:
            _, self._group, self._one_way = self.plan.cuts[item]  # type: ignore[index]
        else:
            self._heal()

    # faults

    def _crash_or_start(self, chair: Chair, life: int) -> None:
        if life >= 0:
            if chair.machine is None:
                self.start(chair)
        elif not self.healed and chair.kill_after is None and chair.machine is not None:
            plan = next(crash for crash in self.plan.crashes if crash[0] == self.now)
            chair.kill_after = chair.operations + plan[2]
            if plan[2] == 0:
                self.kill(chair)

    def start(self, chair: Chair) -> None:
        """A process for this chair, from its journal."""
        chair.life += 1
        chair.tick_at = None
        chair.machine = machine = Agreement(
            committee=self.committee,
            me=chair.number,
            round_number=ROUND,
            base=BASE,
            sign=partial(sign, self.committee.members[chair.number]),
            timeout=TIMEOUT,
            period=PERIOD,
        )
        machine.restore(chair.journal)
        self._do(chair, machine.start(self.now))

    def kill(self, chair: Chair) -> None:
        """The end of a process; what it wrote is kept, but for those who forget."""
        chair.machine = chair.kill_after = None
        if chair.kind is Kind.AMNESIA:
            chair.journal, chair.written = [], set()
        if chair.certificate is not None and chair.kind is not Kind.HONEST:
            chair.certificate = None
        down = max((crash[3] for crash in self.plan.crashes if crash[1] == chair.number), default=0.0)
        self.at(min(self.now + down, max(self.plan.heals_at, self.now)), CRASH, chair.at, 0, None)

    def _heal(self) -> None:
        self.healed, self._group = True, ()
        for chair in self.chairs:
            chair.kill_after = None
            if chair.machine is None and chair.kind not in (Kind.SILENT, Kind.PUPPET):
                self.start(chair)

    # messages

    def _receive(self, chair: Chair, machine: Agreement, sender: int, body: Body) -> None:
        if chair.certificate is not None:  # its owner answers whoever is behind
            if not isinstance(body, Certificate) and self.now >= chair.answered_at + ANSWER_GAP:
                chair.answered_at = self.now
                self.publish(chair, chair.certificate)
        elif isinstance(body, Certificate):
            if self.committee.accepts_certificate(body):
                self._decide(chair, body)
        elif body.round == ROUND:  # others are for other rounds
            self._do(chair, machine.handle_message(sender, body, self.now))

    def publish(self, chair: Chair, body: Body) -> None:
        """Sends a message to all that can hear this chair."""
        rng, lossy, group = self.rng, not self.healed, self._group
        loss, repeats = (self.plan.loss, self.plan.repeats) if lossy else (0.0, 0.0)
        if lossy and self.plan.deaf and _decides(body):
            loss = self.plan.deaf
        late = chair.kind is Kind.LATE
        for other in self.chairs:
            if other.number == chair.number or not self._audience[chair.at, other.at]:
                continue
            if group and group[chair.at] != group[other.at] and not (self._one_way and group[chair.at]):
                continue
            if loss and rng.random() < loss:
                continue
            delay = self._delay() + (rng.random() * 3 * TIMEOUT if late else 0.0)
            self.at(self.now + delay, DELIVER, other.at, other.life, (chair.number, body))
            if repeats and rng.random() < repeats:
                delay = self._delay() * 3
                self.at(self.now + delay, DELIVER, other.at, other.life, (chair.number, body))

    def send(self, number: int, other: Chair, body: Body) -> None:
        """Sends a message of a puppet to one chair, soon."""
        self.at(self.now + self._delay() * 0.3, DELIVER, other.at, other.life, (number, body))

    def _delay(self) -> float:
        if self.healed:
            return 0.02 + 0.08 * self.rng.random()
        return 0.01 + self.rng.random() * (
            self.plan.delay if self.rng.random() < 0.9 else self.plan.long_delay
        )

    # what machines ask for

    def _do(self, chair: Chair, actions: Sequence[AgreementAction]) -> None:
        machine = chair.machine
        for action in actions:
            if isinstance(action, WriteJournal | Publish):
                if chair.kill_after is not None and chair.operations >= chair.kill_after:
                    self.kill(chair)
                    return
                chair.operations += 1
            self._carry_out(chair, action)
        if machine is not None and machine is chair.machine and chair.certificate is None:
            when = machine.next_deadline()
            if when is not None and when != chair.tick_at:
                chair.tick_at = when
                self.at(max(when, self.now), TICK, chair.at, chair.life, when)

    def _carry_out(self, chair: Chair, action: AgreementAction) -> None:
        match action:
            case Publish(body=body):
                if chair.honest:
                    self._look_at(chair, body)
                self.publish(chair, body)
            case WriteJournal(entries=entries):
                chair.journal.extend(entries)
                if chair.honest:
                    self._look_at_entries(chair, entries)
            case ProposalWanted(view=view):
                self.at(self.now + 0.05 * self.rng.random(), PROPOSE, chair.at, chair.life, view)
            case CheckProposal(proposal=proposal):
                slow = not self.healed and self.rng.random() < self.plan.slow_checks
                delay = 0.05 * self.rng.random() + (3 * TIMEOUT * self.rng.random() if slow else 0.0)
                fine = proposal.block.examples < WRONG
                item = (proposal.block.hash, fine)
                self.at(self.now + delay, CHECKED, chair.at, chair.life, item)
            case Decided(certificate=certificate):
                self._decide(chair, certificate)
            case Offence(member=member, rule=rule):
                if chair.honest and member not in self.plan.liars:
                    raise Violation(f"no false charge: member {member} is said to break the rule {rule}")

    def _look_at_entries(self, chair: Chair, entries: Sequence[Body]) -> None:
        for entry in entries:
            self._note(chair, entry)
            if isinstance(entry, Vote):
                chair.written.add((entry.view, entry.choice, entry.block))
            elif isinstance(entry, Proof) and not self.book.supports(entry.view, entry.choice, entry.block):
                raise Violation(f"true proofs: member {chair.number} believes a proof that nobody can make")

    def _look_at(self, chair: Chair, body: Body) -> None:
        self._note(chair, body, said=True)
        if isinstance(body, Vote):
            if (body.view, body.choice, body.block) not in chair.written:
                raise Violation(
                    f"journal first: member {chair.number} published a vote before it was written"
                )
            self.book.add(chair.number, body)
        self.cabal.overhear(chair.number, body)

    def _note(self, chair: Chair, what: object, *, said: bool = False) -> None:
        if self.trace is not None:
            self.trace.append((self.now, chair.number, said, what))

    def _decide(self, chair: Chair, certificate: Certificate) -> None:
        if chair.certificate is not None:
            return
        chair.certificate, chair.decided_at = certificate, self.now
        if not chair.honest:
            return
        self._note(chair, certificate)
        voters = {number for number, _ in certificate.votes}
        true = self.book.supports(certificate.view, Choice.FINALIZE, certificate.block.hash)
        if not true or len(voters) < quorum_of(self.plan.count):
            raise Violation(f"true proofs: member {chair.number} believes a certificate that nobody can make")
        for other in self.honest:
            if other.certificate is not None and other.certificate.block != certificate.block:
                raise Violation("agreement: two blocks are certified")
        if min(voters) == chair.number:
            self.publish(chair, certificate)


def _decides(body: Body) -> bool:
    return isinstance(body, Certificate) or (isinstance(body, Vote) and body.choice is Choice.FINALIZE)


def run_seed(seed: int, count: int | None = None) -> float | None:
    """Runs one seed; timeouts from the healing to the last decision. Raises `Violation`."""
    return Parliament(draw_plan(seed, count)).run()
