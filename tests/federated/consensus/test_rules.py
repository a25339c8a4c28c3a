"""Our traces against the published rules, and each rule against a trace that breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federated.rounds.messages import NO_BLOCK, Certificate, Choice, Proof, Propose, Vote
from tests.federated.consensus import rules
from tests.federated.consensus.rules import RULES, Entry, Rule, Trace, breaches
from tests.search.parliament import BASE, ROUND, Parliament, block, draw_plan, hash_of, quorum_of

A, B = hash_of(0), hash_of(1)
NOTARIZE, NULLIFY, FINALIZE = Choice


def trace_of(seed: int, count: int | None = None) -> Trace:
    """What the honest members of a parliament wrote and said."""
    noted: list[tuple[float, int, bool, object]] = []
    plan = draw_plan(seed, count)
    house = Parliament(plan, trace=noted)
    house.run()
    return Trace(
        entries=tuple(Entry(at=at, member=member, said=said, body=body) for at, member, said, body in noted),
        correct=frozenset(range(plan.count)) - plan.liars.keys(),
        leader=lambda view: house.committee.leader(ROUND, BASE, view),
        quorum=quorum_of(plan.count),
    )


def test_what_members_write_and_say_keeps_all_rules() -> None:
    views = 0
    for seed in range(60):
        trace = trace_of(seed)
        assert breaches(trace) == [], f"seed {seed}"
        assert any(isinstance(entry.body, Certificate) for entry in trace.entries)
        views = max([views, *(entry.body.view for entry in trace.entries if isinstance(entry.body, Vote))])
    assert views > 4  # these were no easy runs


def test_without_faults_the_first_leader_is_followed_in_three_delays() -> None:
    """Paper, section 1: a proposal is confirmed after the proposal and two rounds of votes."""
    plan = replace(
        draw_plan(0, 7),
        liars={},
        loss=0.0,
        repeats=0.0,
        deaf=0.0,
        slow_checks=0.0,
        delay=0.05,
        long_delay=0.05,
    )
    plan = replace(plan, cuts=(), crashes=(), skips=(), heals_at=30.0)
    house = Parliament(plan)
    assert house.run() is None
    views = {chair.certificate.view for chair in house.honest if chair.certificate}
    checked, started = 0.1, 0.5  # the owners' answers; the last machine's start
    assert views == {1}
    assert max(chair.decided_at for chair in house.honest) <= started + checked + 3 * 0.06


def vote(choice: Choice, what: bytes, view: int = 1) -> Vote:
    return Vote(round=ROUND, view=view, choice=choice, block=what, signature=b"")


def proof(choice: Choice, what: bytes, view: int = 1, voters: tuple[int, ...] = (1, 2, 3)) -> Proof:
    votes = tuple((number, b"") for number in voters)
    return Proof(round=ROUND, view=view, choice=choice, block=what, votes=votes)


def certificate(label: int, view: int = 1) -> Certificate:
    return Certificate(view=view, block=block(label), votes=((1, b""), (2, b""), (3, b"")))


def propose(label: int) -> Propose:
    return Propose(view=1, parent=0, block=block(label))


SAID, WROTE = True, False
BAD: dict[Rule, list[tuple[int, bool, object]]] = {
    rules.votes_once_and_in_order: [(0, SAID, vote(NULLIFY, NO_BLOCK)), (0, SAID, vote(NOTARIZE, A))],
    rules.finalizes_what_is_notarized: [
        (0, WROTE, proof(NOTARIZE, B)),
        (0, SAID, vote(FINALIZE, A)),
    ],
    rules.enters_a_view_behind_the_last: [
        (0, WROTE, proof(NULLIFY, NO_BLOCK, 2)),
        (0, WROTE, vote(NOTARIZE, A, 3)),
    ],
    rules.never_goes_back: [(0, WROTE, vote(NOTARIZE, A, 3)), (0, WROTE, vote(NULLIFY, NO_BLOCK, 2))],
    rules.proposes_once: [(0, SAID, propose(0)), (0, SAID, propose(1))],
    rules.votes_for_the_parents_block: [(0, WROTE, proof(NOTARIZE, A)), (0, WROTE, vote(NOTARIZE, B, 2))],
    rules.notarizes_one_block_a_view: [(0, WROTE, proof(NOTARIZE, A)), (1, WROTE, certificate(1))],
    rules.nullifies_or_finalizes_a_view: [
        (0, WROTE, proof(NULLIFY, NO_BLOCK)),
        (1, WROTE, certificate(0)),
    ],
    rules.agrees: [(0, WROTE, certificate(0)), (1, WROTE, certificate(1, view=2))],
    rules.proves_with_votes_that_were_cast: [
        (1, SAID, vote(NOTARIZE, A)),
        (2, SAID, vote(NOTARIZE, A, 2)),
        (0, WROTE, proof(NOTARIZE, A)),
    ],
    rules.writes_before_it_speaks: [(0, SAID, vote(NOTARIZE, A)), (0, WROTE, vote(NOTARIZE, A))],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_trace_that_breaks_a_rule_is_found(rule: Rule) -> None:
    entries = tuple(
        Entry(at=float(at), member=member, said=said, body=body)
        for at, (member, said, body) in enumerate(BAD[rule])
    )
    trace = Trace(entries=entries, correct=frozenset({0, 1, 2}), leader=lambda view: 0, quorum=3)
    assert len(rule(trace)) == 1
    assert rule(replace(trace, entries=entries[:1])) == [] or rule is rules.writes_before_it_speaks
