"""Members of one agreement around a table: seeded delays and loss, crashes, and liars with a twin."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from random import Random

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
from federated.rounds.messages import (
    Block,
    Body,
    Certificate,
    Choice,
    Model,
    Propose,
    Vote,
    vote_bytes,
)
from tests.federated.rounds.network import sign, verify
from tests.federated.samples import peer

TASK = sha256(b"task").digest()
BASE = sha256(b"base").digest()
ROUND = 1
TIMEOUT = 2.0
PERIOD = 0.5


def committee(count: int) -> Committee:
    return Committee(TASK, [peer(number) for number in range(count)], verify)


def block(label: int) -> Block:
    """A block that differs from that of every other label."""
    model = Model(digest=sha256(b"model" + bytes([label])).digest(), root=sha256(b"root").digest(), size=9)
    return Block(
        task=TASK,
        parent=TASK,
        round=ROUND,
        base=BASE,
        inputs=sha256(bytes([label])).digest(),
        participants=1,
        examples=label,
        model=model,
    )


def propose(label: int, view: int = 1, parent: int = 0) -> Propose:
    return Propose(view=view, parent=parent, block=block(label))


def agreement(everybody: Committee, number: int, base: bytes = BASE) -> Agreement:
    return Agreement(
        committee=everybody,
        me=number,
        round_number=ROUND,
        base=base,
        sign=partial(sign, everybody.members[number]),
        timeout=TIMEOUT,
        period=PERIOD,
    )


def vote(everybody: Committee, number: int, choice: Choice, what: bytes, view: int = 1) -> Vote:
    """A correctly signed vote of any member."""
    signature = sign(everybody.members[number], vote_bytes(TASK, ROUND, view, choice, what))
    return Vote(round=ROUND, view=view, choice=choice, block=what, signature=signature)


@dataclass
class Chair:
    """One machine; a liar's twin sits on a second chair with the same number."""

    number: int
    label: int  # of the block that it proposes
    honest: bool = True
    machine: Agreement | None = None
    journal: list[Body] = field(default_factory=list)
    certificate: Certificate | None = None
    offences: list[Offence] = field(default_factory=list)
    operations: int = 0
    kill_after: int | None = None
    life: int = 0


class Table:
    """`count` members; those in `liars` have twins, and each twin talks to a part of the others."""

    def __init__(
        self,
        count: int,
        seed: int = 0,
        *,
        delay: tuple[float, float] = (0.01, 0.1),
        loss: float = 0.0,
        liars: tuple[int, ...] = (),
    ) -> None:
        self.committee = committee(count)
        self.rng = Random(seed)
        self.delay, self.loss = delay, loss
        self.now = 0.0
        self.chairs = [Chair(number, number, honest=number not in liars) for number in range(count)]
        self.chairs += [Chair(number, count + number, honest=False) for number in liars]
        self.hears: Callable[[Chair, Chair], bool] = lambda one, other: True
        self.accepts: Callable[[Chair, Propose], bool] = lambda chair, proposal: True
        self.rewrite: Callable[[Chair, Body], Body] = lambda chair, body: body
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._votes: dict[tuple[int, int, Choice], bytes] = {}

    def honest(self) -> list[Chair]:
        return [chair for chair in self.chairs if chair.honest]

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, what))

    def start(self, *chairs: Chair) -> None:
        for chair in chairs or self.chairs:
            chair.life += 1
            chair.machine = agreement(self.committee, chair.number)
            chair.machine.restore(chair.journal)
            self._do(chair, chair.machine.start(self.now))

    def kill(self, chair: Chair) -> None:
        chair.machine = chair.kill_after = None

    def run(self, until: Callable[[], bool], limit: float) -> None:
        while not until():
            assert self._heap, "nothing will ever happen again"
            when, _, what = heapq.heappop(self._heap)
            assert when <= limit, f"not done by {limit}"
            self.now = when
            what()

    def decide(self, within: float = 100.0) -> Block:
        """Runs until every honest member that lives has decided; what they decided."""
        self.run(lambda: all(item.certificate for item in self.honest() if item.machine), self.now + within)
        decided = [item.certificate.block for item in self.honest() if item.certificate]
        assert all(item == decided[0] for item in decided)
        return decided[0]

    def tell(self, chair: Chair, life: int, sender: int, body: Body) -> None:
        if chair.machine is None or chair.life != life:
            return
        if chair.certificate is not None:  # its owner answers whoever is behind
            for other in self.chairs:
                if other.number == sender and other.machine is not None and self.hears(chair, other):
                    other.certificate = other.certificate or chair.certificate
            return
        self._do(chair, chair.machine.handle_message(sender, body, self.now))

    def _tick(self, chair: Chair, life: int, when: float) -> None:
        machine = chair.machine
        if chair.certificate or machine is None or chair.life != life:
            return
        if machine.next_deadline() == when:
            self._do(chair, machine.handle_timer(self.now))

    def _do(self, chair: Chair, actions: list[AgreementAction]) -> None:
        machine = chair.machine
        for action in actions:
            if chair.kill_after == chair.operations:
                self.kill(chair)
            if chair.machine is None or chair.machine is not machine:
                return
            self._carry_out(chair, chair.machine, action)
        if machine is not None and machine is chair.machine:
            when = machine.next_deadline()
            if when is not None:
                self.at(max(when, self.now), partial(self._tick, chair, chair.life, when))

    def _carry_out(self, chair: Chair, machine: Agreement, action: AgreementAction) -> None:
        chair.operations += isinstance(action, Publish | WriteJournal)
        match action:
            case WriteJournal(entries=entries):
                chair.journal.extend(entries)
            case Publish(body=body):
                self._publish(chair, self.rewrite(chair, body))
            case ProposalWanted(view=view):
                mine = block(chair.label)
                self.at(
                    self.now,
                    partial(self._later, chair, machine, lambda: machine.propose(view, mine, self.now)),
                )
            case CheckProposal(proposal=proposal):
                verdict = (proposal.block.hash, self.accepts(chair, proposal))
                self.at(
                    self.now + self.rng.uniform(*self.delay),
                    partial(self._later, chair, machine, lambda: machine.handle_checked(*verdict, self.now)),
                )
            case Decided(certificate=certificate):
                assert self.committee.accepts_certificate(certificate)
                known = [item.certificate.block for item in self.honest() if item.certificate]
                assert not chair.honest or known in ([], [certificate.block] * len(known))
                chair.certificate = certificate
            case Offence():
                chair.offences.append(action)

    def _later(self, chair: Chair, machine: Agreement, call: Callable[[], list[AgreementAction]]) -> None:
        if chair.machine is machine:
            self._do(chair, call())

    def _publish(self, chair: Chair, body: Body) -> None:
        if chair.honest and isinstance(body, Vote):
            assert body in chair.journal
            key = (chair.number, body.view)
            assert self._votes.setdefault((*key, body.choice), body.block) == body.block
            assert not {(*key, Choice.NULLIFY), (*key, Choice.FINALIZE)} <= self._votes.keys()
        for other in self.chairs:
            if other.number != chair.number and self.hears(chair, other) and self.rng.random() >= self.loss:
                delay = self.rng.uniform(*self.delay)
                self.at(self.now + delay, partial(self.tell, other, other.life, chair.number, body))
