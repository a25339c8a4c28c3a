"""All that four members can do in the first views: `python -m tests.search.exhaustive --views 2`.

Three members are real machines, the fourth may say anything that has the form of a message, to each
of them something else. Every interleaving is followed to the end, with messages lost, late, repeated
and out of order, deadlines that pass at any time, verdicts of the owners either way, and crashes between
any two actions, with the journal kept. What may never happen is looked at in each state.

Why that is a number of states that a computer can go through, without leaving any out:

- What was said can be heard at any time, many times, or never, so a state needs the set of what each
  member said and no queues. Time is left out: a deadline passes, or does not.
- The liar may hand on a quorum's votes as a proof. So whoever gets single votes learns nothing that it
  cannot learn from a proof, and what it does at too many votes to nullify it may do at its deadline.
  Votes to finalize change nobody's mind, so who could be certified is read off what was said.
  `Model.wander` delivers them one by one all the same: what is said then must be among what was found.
- A step of a member that says nothing new concerns nobody else: it is taken just before the member says
  something new (a partial-order reduction; what can be heard only grows, so nothing is missed by that).
- Members that never lead in these views are alike: their order does not count.
- A machine's state is what its next steps depend on: not the times, nor whose signatures are in a proof.

A step of a machine is taken once for each state of it; the states of all three together are numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from federated.rounds.actions import Publish, WriteJournal
from federated.rounds.agreement import Agreement, AgreementAction
from federated.rounds.ballots import Ballots, ViewRecord
from federated.rounds.committee import Committee
from federated.rounds.messages import NO_BLOCK, Block, Body, Choice, Proof, Propose, Vote, vote_bytes
from tests.search.parliament import (
    BASE,
    PERIOD,
    ROUND,
    TASK,
    TIMEOUT,
    Violation,
    block,
    hash_of,
    members_of,
    sign,
    verify,
)

COUNT = 4
QUORUM = 3
LABELS = (0, 1)  # of the two blocks there are
LIAR_FINDS = QUORUM - 1  # votes of honest members that make a quorum with the liar's
MAX_STATES = 20_000_000
WALK = 400  # steps of a random walk
CALM = 0.98  # of the steps of a random walk that are neither crashes nor deadlines

# what a machine is made of: what its state here tells, and what no step of this model depends on
SEEN = {
    "view",
    "certificate",
    "_started",
    "_muted",
    "_asked",
    "_deadline",
    "_verdicts",
    "_checked",
    "_ballots",
}
SKIPPED = {
    "_committee",
    "_me",
    "_round",
    "_base",
    "_sign",
    "_timeout",
    "_period",
    "_signs_unchecked",
}  # the same
SKIPPED |= {"_behind", "_entered", "_repeat_at"}  # when, and to whom, old words are said again
SKIPPED |= {"_actions", "_cast"}  # empty between two steps; what is in the ballots too

Step = Callable[[Agreement], Sequence[AgreementAction]]


def committee() -> Committee:
    return Committee(TASK, members_of(COUNT), verify)


def leaders() -> list[int]:
    """The members in the order in which they lead."""
    everybody = committee()
    return [everybody.leader(ROUND, BASE, view) for view in range(1, COUNT + 1)]


def clone(value: Any) -> Any:
    """A copy of a machine that shares with it only what cannot change."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    if isinstance(value, Agreement | Ballots):
        made = object.__new__(type(value))
        made.__dict__.update({key: clone(item) for key, item in vars(value).items()})
        return made
    if isinstance(value, ViewRecord):
        return ViewRecord(**{name: clone(getattr(value, name)) for name in value.__slots__})
    return value


def state_of(machine: Agreement, me: int) -> tuple[Any, ...]:
    """All that the machine's next steps depend on."""
    unknown = vars(machine).keys() - SEEN - SKIPPED
    assert not unknown, f"the machine has more state than this search tells apart: {sorted(unknown)}"
    ballots = machine._ballots
    views = []
    for view, record in sorted(ballots._views.items()):
        cast = tuple(
            (choice, -1 if member == me else member, ballot[0])
            for choice, votes in record.ballots.items()
            for member, ballot in sorted(votes.items())
        )
        proposal = record.proposal and (record.proposal.block.hash, record.proposal.parent)
        if cast or proposal or record.nullification:
            views.append((view, proposal, record.nullification is not None, cast))
    return (
        machine.view,
        machine._started,
        machine.certificate is not None,
        machine._muted,
        machine._asked,
        machine._deadline is None,
        tuple(sorted(machine._verdicts.items())),
        tuple(sorted(machine._checked)),
        ballots.parent and (ballots.parent.view, ballots.parent.block),
        tuple(sorted(ballots.blocks)),
        ballots._final,
        tuple(views),
    )


@dataclass(frozen=True, slots=True)
class Local:
    """One member: its machine (None while it is down), its journal, and the set of what it has said."""

    machine: Agreement | None
    journal: tuple[Body, ...]
    said: int


@dataclass(slots=True)
class Alphabet:
    """What can be said in the first `views` views, as bits."""

    views: int
    bits: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for view in range(1, self.views + 1):
            self._add(("vote", view, Choice.NULLIFY, NO_BLOCK))
            for label in LABELS:
                self._add(("vote", view, Choice.NOTARIZE, hash_of(label)))
                self._add(("vote", view, Choice.FINALIZE, hash_of(label)))
                for parent in range(view):
                    self._add(("propose", view, parent, hash_of(label)))

    def _add(self, word: tuple[Any, ...]) -> None:
        self.bits[word] = 1 << len(self.bits)

    def bit(self, body: Body) -> int:
        """The bit of a message; none for what says nothing new: proofs, and blocks that are handed on."""
        if isinstance(body, Vote):
            return self.bits.get(("vote", body.view, body.choice, body.block), 0)
        if isinstance(body, Propose):
            return self.bits.get(("propose", body.view, body.parent, body.block.hash), 0)
        return 0

    def vote(self, view: int, choice: Choice, what: bytes) -> int:
        """The bit of a vote."""
        return self.bits["vote", view, choice, what]


class Member:
    """All states of one member, each with what it can do: steps that need something said by others first.

    A step is (what must have been said: a key of `Model.heard`, or None), and a number in `names`.
    """

    def __init__(self, number: int, liar: int, alphabet: Alphabet, *, single_votes: bool) -> None:
        self.number = number
        self.transitions = 0
        self._liar = liar
        self._alphabet = alphabet
        self._committee = committee()
        self._numbers: dict[tuple[Any, ...], int] = {}
        self.states: list[Local] = []
        self._next: dict[tuple[int, int], tuple[int, ...]] = {}
        self.steps: list[tuple[tuple[Any, ...] | None, Step | None]] = list(self._all_steps(single_votes))
        self.first = self._number(Local(None, (), 0))

    def _restored(self, journal: tuple[Body, ...]) -> Agreement:
        machine = Agreement(
            committee=self._committee,
            me=self.number,
            round_number=ROUND,
            base=BASE,
            sign=partial(sign, self._committee.members[self.number]),
            timeout=TIMEOUT,
            period=PERIOD,
        )
        machine.restore(journal)
        return machine

    def _number(self, local: Local) -> int:
        machine = None if local.machine is None else state_of(local.machine, self.number)
        key = (machine, state_of(self._restored(local.journal), self.number), local.said)
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.states)
            self.states.append(local)
        return found

    # what can happen

    def _all_steps(self, single_votes: bool) -> Iterator[tuple[tuple[Any, ...] | None, Step | None]]:
        views, me = self._alphabet.views, self.number
        yield None, None  # a crash, or the start after it; it and the deadline come first
        yield None, _let_deadline_pass
        order = [self._committee.leader(ROUND, BASE, view) for view in range(1, views + 1)]
        for label in LABELS:
            for verdict in (True, False):
                yield None, partial(_check, hash_of(label), verdict)
            stranger = next(number for number in range(COUNT) if number != order[0])
            yield None, self._hears(stranger, propose(label, 1, 0))  # hands the block on
        for view, leader in enumerate(order, 1):
            for label in LABELS:
                if leader == me:
                    yield None, partial(_propose, view, block(label))
                for parent in range(view):
                    word = ("propose", view, parent, hash_of(label))
                    if leader != me:
                        said = None if leader == self._liar else ("one", leader, self._alphabet.bits[word])
                        yield said, self._hears(leader, propose(label, view, parent))
                what = hash_of(label)
                yield (
                    ("two", self._alphabet.vote(view, Choice.NOTARIZE, what)),
                    self._hears(self._liar, self._proof(view, Choice.NOTARIZE, what)),
                )
            yield (
                ("two", self._alphabet.vote(view, Choice.NULLIFY, NO_BLOCK)),
                self._hears(self._liar, self._proof(view, Choice.NULLIFY, NO_BLOCK)),
            )
            if single_votes:
                yield from self._vote_steps(view)

    def _vote_steps(self, view: int) -> Iterator[tuple[tuple[Any, ...] | None, Step]]:
        for choice in Choice:
            for what in [NO_BLOCK] if choice is Choice.NULLIFY else [hash_of(label) for label in LABELS]:
                for sender in range(COUNT):
                    if sender != self.number:
                        bit = self._alphabet.vote(view, choice, what)
                        said = None if sender == self._liar else ("one", sender, bit)
                        yield said, self._hears(sender, self._vote(sender, view, choice, what))

    def _hears(self, sender: int, body: Body) -> Step:
        return lambda machine: machine.handle_message(sender, body, 0.0)

    def _vote(self, member: int, view: int, choice: Choice, what: bytes) -> Vote:
        data = vote_bytes(TASK, ROUND, view, choice, what)
        signature = sign(self._committee.members[member], data)
        return Vote(round=ROUND, view=view, choice=choice, block=what, signature=signature)

    def _proof(self, view: int, choice: Choice, what: bytes) -> Proof:
        votes = tuple((m, self._vote(m, view, choice, what).signature) for m in range(QUORUM))
        return Proof(round=ROUND, view=view, choice=choice, block=what, votes=votes)

    # what comes of it

    def after(self, state: int, step: int) -> tuple[int, ...]:
        """The states after a step, one for each moment of it at which the process may end, and for none."""
        found = self._next.get((state, step))
        if found is None:
            self.transitions += 1
            found = self._next[state, step] = tuple(dict.fromkeys(self._take(self.states[state], step)))
        return found

    def _take(self, local: Local, step: int) -> Iterator[int]:
        machine, do = local.machine, self.steps[step][1]
        if do is None:
            if machine is not None:
                yield self._number(Local(None, local.journal, local.said))
                return
            machine = self._restored(local.journal)
            actions = list(machine.start(0.0))
        else:
            if machine is None or machine.view > self._alphabet.views:
                return
            machine = clone(machine)
            actions = list(do(machine))
        journal, said = local.journal, local.said
        for action in actions:
            match action:
                case WriteJournal(entries=entries):
                    yield self._number(Local(None, journal, said))
                    journal += entries
                case Publish(body=body) if (bit := self._alphabet.bit(body)) & ~said:
                    yield self._number(Local(None, journal, said))
                    said |= bit
        yield self._number(Local(machine, journal, said))


def propose(label: int, view: int, parent: int) -> Propose:
    return Propose(view=view, parent=parent, block=block(label))


def _let_deadline_pass(machine: Agreement) -> Sequence[AgreementAction]:
    if machine._deadline is None:
        return ()
    machine._deadline = 0.0
    return machine.handle_timer(0.0)


def _check(what: bytes, fine: bool, machine: Agreement) -> Sequence[AgreementAction]:
    asked = machine._ballots.at(machine.view).proposal
    if what in machine._verdicts or asked is None or asked.block.hash != what:
        return ()
    return machine.handle_checked(what, fine, 0.0)


def _propose(view: int, made: Block, machine: Agreement) -> Sequence[AgreementAction]:
    return machine.propose(view, made, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """How much there was."""

    liar_leads: int  # the view, 0 if none of them
    states: int  # of all three together
    local_states: int
    transitions: int  # of real machines
    said: frozenset[tuple[int, ...]]  # what the three have said, all that is possible
    seconds: float


class Model:
    """Four members of which the one that leads in view `liar_leads` lies."""

    def __init__(self, views: int, liar_leads: int, *, single_votes: bool = False) -> None:
        order = leaders()
        self._liar = order[liar_leads - 1]
        self._liar_leads = liar_leads
        self._alphabet = Alphabet(views)
        honest = [number for number in order if number != self._liar]
        self._leading = [number for number in honest if number in order[:views]]
        idle = [number for number in honest if number not in self._leading]
        shared = idle if single_votes else idle[:1]  # single votes name their senders
        made = {
            number: Member(number, self._liar, self._alphabet, single_votes=single_votes)
            for number in [*self._leading, *shared]
        }
        self._members = [made.get(number) or made[idle[0]] for number in [*self._leading, *idle]]
        self._numbers = [*self._leading, *idle]
        self._alike = len(idle)
        self._spoken: dict[tuple[int, int, int], tuple[int, ...]] = {}
        self._reached: dict[tuple[int, int, int], tuple[frozenset[int], tuple[int, ...]]] = {}
        self._guards: dict[tuple[int, ...], int] = {}
        words = [step[0] for member in made.values() for step in member.steps if step[0] is not None]
        self._words = {word: 1 << at for at, word in enumerate(dict.fromkeys(words))}

    def explore(self) -> Explored:
        """Goes through all states; raises `Violation` at one that may not be."""
        started = time.perf_counter()
        first = tuple(member.first for member in self._members)
        seen, waiting, said = {first}, [first], set[tuple[int, ...]]()
        while waiting:
            state = waiting.pop()
            sets = tuple(
                member.states[local].said for member, local in zip(self._members, state, strict=True)
            )
            if (words := self._unordered(sets)) not in said:
                said.add(words)
                self._look_at(sets)
            heard = self._heard(sets)
            for at, local in enumerate(state):
                for after in self._speak(at, local, heard):
                    following = self._unordered((*state[:at], after, *state[at + 1 :]))
                    if following not in seen:
                        seen.add(following)
                        waiting.append(following)
            assert len(seen) < MAX_STATES, "too many states for this computer"
        members = {id(member): member for member in self._members}.values()
        return Explored(
            liar_leads=self._liar_leads if self._liar_leads <= self._alphabet.views else 0,
            states=len(seen),
            local_states=sum(len(member.states) for member in members),
            transitions=sum(member.transitions for member in members),
            said=frozenset(said),
            seconds=round(time.perf_counter() - started, 1),
        )

    def wander(self, rng: Random, steps: int) -> Iterator[tuple[int, ...]]:
        """What the three have said, after each step of a random walk; with single votes where there are."""
        state = [member.first for member in self._members]
        for _ in range(steps):
            pairs = zip(self._members, state, strict=True)
            sets = tuple(member.states[local].said for member, local in pairs)
            yield self._unordered(sets)
            heard = self._heard(sets)
            at = rng.randrange(len(state))
            member = self._members[at]
            enabled = [
                step
                for step, (word, _) in enumerate(member.steps)
                if word is None or heard & self._words[word]
            ]
            if member.states[state[at]].machine is None:
                step = enabled[0]
            else:
                step = rng.choice(enabled[2:] if rng.random() < CALM else enabled[:2])
            state[at] = rng.choice(member.after(state[at], step) or (state[at],))

    def _unordered(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """Without the order of those that are alike."""
        first = len(values) - self._alike
        return (*values[:first], *sorted(values[first:]))

    def _heard(self, sets: tuple[int, ...]) -> int:
        """Which of the words that steps wait for have been said."""
        found = self._guards.get(sets)
        if found is None:
            found = 0
            for word, bit in self._words.items():
                if word[0] == "one":
                    enough = sets[self._numbers.index(word[1])] & word[2]
                else:
                    enough = sum(bool(said & word[1]) for said in sets) >= LIAR_FINDS
                found |= bit if enough else 0
            self._guards[sets] = found
        return found

    def _speak(self, at: int, local: int, heard: int) -> tuple[int, ...]:
        """The states in which a member has just said something new, after any steps without a word."""
        member = self._members[at]
        key = (id(member), local, heard)
        found = self._spoken.get(key)
        if found is None:
            found = self._spoken[key] = self._widest(member, self._reach(member, local, heard)[1], heard)
        return found

    def _reach(self, member: Member, local: int, heard: int) -> tuple[frozenset[int], tuple[int, ...]]:
        """What a member can come to without a word, and then with one."""
        key = (id(member), local, heard)
        found = self._reached.get(key)
        if found is None:
            states, said, spoken = member.states, member.states[local].said, dict[int, None]()
            silent, waiting = {local}, [local]
            steps = [
                step
                for step, (word, _) in enumerate(member.steps)
                if word is None or heard & self._words[word]
            ]
            while waiting:
                state = waiting.pop()
                for step in steps:
                    for after in member.after(state, step):
                        if states[after].said != said:
                            spoken[after] = None
                        elif after not in silent:
                            silent.add(after)
                            waiting.append(after)
            found = self._reached[key] = (frozenset(silent), tuple(spoken))
        return found

    def _widest(self, member: Member, spoken: Sequence[int], heard: int) -> tuple[int, ...]:
        """Without those that another one of them comes to in silence: it can do all that they can."""
        kept: list[int] = []
        for state in spoken:
            if any(state in self._reach(member, other, heard)[0] for other in kept):
                continue
            reached = self._reach(member, state, heard)[0]
            kept = [other for other in kept if other not in reached]
            kept.append(state)
        return tuple(kept)

    # what may never be

    def _look_at(self, sets: tuple[int, ...]) -> None:
        final = dict[bytes, int]()
        for view in range(1, self._alphabet.views + 1):
            for said in sets:
                self._look_at_member(said, view)
            notarized = [
                label for label in LABELS if self._is_made(sets, view, Choice.NOTARIZE, hash_of(label))
            ]
            if len(notarized) > 1:
                raise Violation(f"one block: two blocks can be notarized in view {view}")
            for label in LABELS:
                if self._is_made(sets, view, Choice.FINALIZE, hash_of(label)):
                    final[hash_of(label)] = view
                    if self._is_made(sets, view, Choice.NULLIFY, NO_BLOCK):
                        raise Violation(f"nullify or finalize: view {view} can be both")
        if len(final) > 1:
            raise Violation("agreement: two blocks can be certified")

    def _is_made(self, sets: tuple[int, ...], view: int, choice: Choice, what: bytes) -> bool:
        """Whether a quorum can be made of what was said and the liar's vote."""
        bit = self._alphabet.vote(view, choice, what)
        return sum(bool(said & bit) for said in sets) >= LIAR_FINDS

    def _look_at_member(self, said: int, view: int) -> None:
        bits = {
            choice: [bool(said & self._alphabet.vote(view, choice, hash_of(label))) for label in LABELS]
            for choice in (Choice.NOTARIZE, Choice.FINALIZE)
        }
        if any(sum(votes) > 1 for votes in bits.values()):
            raise Violation(f"one vote: a member voted twice in view {view}")
        if any(bits[Choice.FINALIZE]) and said & self._alphabet.vote(view, Choice.NULLIFY, NO_BLOCK):
            raise Violation(f"nullify or finalize: a member did both in view {view}")


def places(views: int) -> range:
    """The views in which the liar may lead, and one behind them."""
    return range(1, min(views + 1, COUNT) + 1)


def main(words: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.search.exhaustive", description=__doc__)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--liar-leads", type=int, help="only the model in which the liar leads in this view")
    parser.add_argument("--walks", type=int, default=0, help="random walks with single votes, in each model")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each model")
    options = parser.parse_args(words)
    for place in [options.liar_leads] if options.liar_leads else places(options.views):
        try:
            found = Model(options.views, place).explore()
        except Violation as violation:
            print(f"the liar leads in view {place}: {violation}")
            return 1
        figures = {
            "views": options.views,
            "liar_leads": found.liar_leads,
            "states": found.states,
            "said": len(found.said),
            "local_states": found.local_states,
            "transitions": found.transitions,
            "seconds": found.seconds,
        }
        print(json.dumps(figures) if options.json else figures, flush=True)
        walked = Model(options.views, place, single_votes=True)
        for seed in range(options.walks):
            if not found.said.issuperset(walked.wander(Random(seed), WALK)):
                print(f"the liar leads in view {place}: walk {seed} leads out of the model")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
