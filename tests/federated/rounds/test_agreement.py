"""Agreement: members around a table, told by hand or left alone under delays, loss, crashes and liars."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

import pytest

from federated.rounds.actions import Publish, WriteJournal
from federated.rounds.agreement import (
    Agreement,
    AgreementAction,
    CheckProposal,
    Decided,
    Offence,
    ProposalWanted,
)
from federated.rounds.ballots import AHEAD, HELP
from federated.rounds.committee import Committee
from federated.rounds.messages import NO_BLOCK, Body, Choice, Proof, Propose, Vote
from tests.federated.rounds.table import (
    BASE,
    PERIOD,
    ROUND,
    TASK,
    TIMEOUT,
    Chair,
    Table,
    agreement,
    block,
    committee,
    propose,
    vote,
)

NOTARIZE, NULLIFY, FINALIZE = Choice
BLOCK = block(1).hash


def published(actions: list[AgreementAction]) -> list[Body]:
    return [action.body for action in actions if isinstance(action, Publish)]


def choices(actions: list[AgreementAction]) -> list[tuple[int, Choice]]:
    return [(body.view, body.choice) for body in published(actions) if isinstance(body, Vote)]


def offences(actions: list[AgreementAction]) -> list[tuple[int, str]]:
    return [(action.member, action.rule) for action in actions if isinstance(action, Offence)]


def leader(everybody: Committee, view: int) -> int:
    return everybody.leader(ROUND, BASE, view)


class Four:
    """A follower among four members; `tell` brings it what others say. A quorum is three."""

    def __init__(self, *, leads: int | None = None, entries: tuple[Body, ...] = ()) -> None:
        self.everybody = committee(4)
        busy = [leader(self.everybody, view) for view in (1, 2)]
        free = [number for number in range(4) if number not in busy]
        self.me = free[0] if leads is None else leader(self.everybody, leads)
        self.others = [number for number in range(4) if number != self.me]
        self.machine: Agreement = agreement(self.everybody, self.me)
        self.machine.restore(entries)

    def tell(self, sender: int, body: Body, now: float = 0.0) -> list[AgreementAction]:
        return self.machine.handle_message(sender, body, now)

    def proposal(self, what: Propose, now: float = 0.0) -> list[AgreementAction]:
        return self.tell(leader(self.everybody, what.view), what, now)

    def votes(
        self, choice: Choice, what: bytes = BLOCK, view: int = 1, count: int = 3, now: float = 0.0
    ) -> list[AgreementAction]:
        """The votes of so many other members."""
        actions = []
        for sender in self.others[:count]:
            actions += self.tell(sender, vote(self.everybody, sender, choice, what, view), now)
        return actions

    def proof(self, choice: Choice, view: int, what: bytes = BLOCK) -> Proof:
        what = NO_BLOCK if choice is NULLIFY else what
        votes = {number: vote(self.everybody, number, choice, what, view) for number in self.others}
        ballots = tuple((number, cast.signature) for number, cast in votes.items())
        return Proof(round=ROUND, view=view, choice=choice, block=what, votes=ballots)


# one member


def test_a_proposal_is_voted_for_once_the_owner_has_checked_it() -> None:
    four = Four()
    four.machine.start(0.0)
    proposal = propose(1)
    assert four.proposal(proposal) == [CheckProposal(proposal=proposal)]
    actions = four.machine.handle_checked(BLOCK, True, 0.1)
    [ballot] = published(actions)
    assert actions == [WriteJournal(entries=(proposal, ballot)), Publish(body=ballot)]
    assert choices(actions) == [(1, NOTARIZE)]
    assert four.machine.handle_checked(BLOCK, True, 0.2) == []


def test_a_proposal_that_the_owner_refuses_is_answered_with_a_vote_to_nullify() -> None:
    four = Four()
    four.machine.start(0.0)
    four.proposal(propose(1))
    assert choices(four.machine.handle_checked(BLOCK, False, 0.1)) == [(1, NULLIFY)]


def test_a_refused_block_gets_no_vote_even_when_a_quorum_notarized_it() -> None:
    four = Four()
    four.machine.start(0.0)
    four.proposal(propose(1))
    four.machine.handle_checked(BLOCK, False, 0.1)
    assert choices(four.votes(NOTARIZE)) == []
    assert four.machine.view == 2
    assert choices(four.proposal(propose(1, view=2, parent=1))) == [(2, NULLIFY)]


def test_a_refused_block_is_not_finalized_in_a_later_view_either() -> None:
    four = Four()
    four.machine.start(0.0)
    four.proposal(propose(1))
    four.machine.handle_checked(BLOCK, False, 0.1)
    four.tell(four.others[0], four.proof(NULLIFY, 1))
    assert choices(four.tell(four.others[0], four.proof(NOTARIZE, 2))) == []
    assert choices(four.tell(four.others[0], four.proof(NOTARIZE, 3, block(2).hash))) == [(3, FINALIZE)]


def test_nothing_is_voted_before_the_start_and_everything_is_remembered() -> None:
    four = Four()
    assert four.proposal(propose(1)) == []
    assert four.machine.next_deadline() is None
    assert four.machine.handle_timer(100.0) == []
    assert published(four.votes(NOTARIZE)) == []
    assert choices(four.machine.start(0.0)) == [(1, FINALIZE)]


def test_a_quorum_to_notarize_finalizes_and_a_quorum_to_finalize_decides() -> None:
    four = Four()
    four.machine.start(0.0)
    four.proposal(propose(1))
    four.machine.handle_checked(BLOCK, True, 0.1)
    actions = four.votes(NOTARIZE, count=2)
    assert choices(actions) == [(1, FINALIZE)]
    assert isinstance(actions[0], WriteJournal)
    assert isinstance(actions[0].entries[0], Proof)
    [decided] = four.votes(FINALIZE, count=2)
    assert isinstance(decided, Decided)
    assert decided.certificate == four.machine.certificate
    assert decided.certificate.block == block(1)
    assert four.everybody.accepts_certificate(decided.certificate)
    assert len(decided.certificate.votes) == 3
    assert four.machine.next_deadline() is None
    assert four.machine.handle_timer(1000.0) == []


def test_a_late_leader_is_given_up_and_a_late_vote_too() -> None:
    four = Four()
    four.machine.start(0.0)
    assert choices(four.machine.handle_timer(TIMEOUT - 0.1)) == []
    assert choices(four.machine.handle_timer(TIMEOUT)) == [(1, NULLIFY)]
    four = Four()
    four.machine.start(0.0)
    four.proposal(propose(1), 1.0)
    assert choices(four.machine.handle_timer(TIMEOUT)) == []
    assert choices(four.machine.handle_timer(1.5 * TIMEOUT)) == [(1, NULLIFY)]


def test_after_a_vote_to_nullify_nothing_is_notarized_or_finalized_in_the_view() -> None:
    four = Four()
    four.machine.start(0.0)
    four.machine.handle_timer(TIMEOUT)
    assert published(four.proposal(propose(1))) == []
    assert published(four.machine.handle_checked(BLOCK, True, 2.0)) == []
    assert choices(four.votes(NOTARIZE)) == []
    assert four.machine.view == 2


def test_after_a_vote_to_finalize_the_view_is_left_without_nullifying() -> None:
    four = Four()
    four.machine.start(0.0)
    four.proposal(propose(1))
    four.votes(NOTARIZE)
    assert choices(four.votes(NULLIFY, NO_BLOCK, count=2)) == []
    assert choices(four.machine.skip_leader(0.1)) == []
    four.machine.handle_timer(TIMEOUT)
    assert four.machine.view == 2


def test_too_many_votes_to_nullify_end_a_view_at_once() -> None:
    four = Four()
    four.machine.start(0.0)
    assert choices(four.votes(NULLIFY, NO_BLOCK, count=1)) == []
    assert choices(four.votes(NULLIFY, NO_BLOCK, count=2)) == [(1, NULLIFY)]
    assert four.machine.view == 2


def test_a_leader_that_is_gone_is_skipped_unless_it_has_proposed() -> None:
    four = Four()
    assert four.machine.skip_leader(0.0) == []
    four.machine.start(0.0)
    assert choices(four.machine.skip_leader(0.0)) == [(1, NULLIFY)]
    four = Four()
    four.machine.start(0.0)
    four.proposal(propose(1))
    assert choices(four.machine.skip_leader(0.0)) == []


def test_a_leader_asks_its_owner_once_and_proposes_what_it_says() -> None:
    four = Four(leads=1)
    assert four.machine.start(0.0) == [ProposalWanted(view=1)]
    assert four.machine.handle_timer(PERIOD) == []
    actions = four.machine.propose(1, block(1), 0.1)
    said = published(actions)
    assert actions == [WriteJournal(entries=tuple(said)), *(Publish(body=body) for body in said)]
    assert said[0] == propose(1)
    assert choices(actions) == [(1, NOTARIZE)]
    assert four.machine.propose(1, block(2), 0.2) == []


def test_an_answer_for_a_view_that_is_over_is_ignored() -> None:
    four = Four(leads=1)
    four.machine.start(0.0)
    four.tell(four.others[0], four.proof(NULLIFY, 1))
    assert published(four.machine.propose(1, block(1), 0.1)) == []


def test_a_leader_that_has_given_its_view_up_does_not_propose_in_it_any_more() -> None:
    four = Four(leads=1)
    four.machine.start(0.0)
    four.machine.handle_timer(TIMEOUT)
    assert four.machine.propose(1, block(1), TIMEOUT) == []


def test_a_leader_proposes_the_notarized_block_again_with_its_proof() -> None:
    four = Four(leads=2)
    four.machine.start(0.0)
    four.proposal(propose(1))
    four.machine.handle_timer(2 * TIMEOUT)
    actions = four.votes(NOTARIZE)
    said = published(actions)
    assert four.machine.view == 2
    assert [type(body) for body in said] == [Proof, Propose, Vote]
    assert said[1] == propose(1, view=2, parent=1)
    assert ProposalWanted(view=2) not in actions


def test_a_leader_waits_for_a_notarized_block_that_it_does_not_know() -> None:
    four = Four(leads=2)
    four.machine.start(0.0)
    four.machine.handle_timer(TIMEOUT)
    assert [type(body) for body in published(four.tell(four.others[0], four.proof(NOTARIZE, 1)))] == []
    assert four.machine.view == 2
    assert published(four.tell(four.others[0], propose(2))) == []
    supplied = published(four.tell(four.others[0], propose(1)))
    assert [type(body) for body in supplied] == [Proof, Propose, Vote]


def test_a_proposal_again_of_a_notarized_block_needs_no_check() -> None:
    four = Four()
    four.machine.start(0.0)
    four.machine.handle_timer(TIMEOUT)
    four.tell(four.others[0], four.proof(NOTARIZE, 1))
    actions = four.proposal(propose(1, view=2, parent=1))
    assert choices(actions) == [(2, NOTARIZE)]


@pytest.mark.parametrize("proposal", [propose(2, view=2, parent=0), propose(1, view=2, parent=0)])
def test_a_proposal_that_ignores_the_notarized_block_gets_no_vote(proposal: Propose) -> None:
    four = Four()
    four.machine.start(0.0)
    four.machine.handle_timer(TIMEOUT)
    four.tell(four.others[0], four.proof(NOTARIZE, 1))
    assert four.proposal(proposal) == []


def test_another_block_under_the_name_of_the_notarized_one_is_nullified() -> None:
    four = Four()
    four.machine.start(0.0)
    four.machine.handle_timer(TIMEOUT)
    four.tell(four.others[0], four.proof(NOTARIZE, 1))
    assert choices(four.proposal(propose(2, view=2, parent=1))) == [(2, NULLIFY)]


def test_a_proposal_on_a_parent_that_we_do_not_know_waits_for_its_proof() -> None:
    four = Four()
    four.machine.start(0.0)
    four.tell(four.others[0], four.proof(NULLIFY, 1))
    assert four.proposal(propose(1, view=2, parent=1)) == []
    assert choices(four.tell(four.others[0], four.proof(NOTARIZE, 1))) == [(2, NOTARIZE)]


def test_a_proof_from_far_ahead_brings_a_member_there() -> None:
    four = Four()
    four.machine.start(0.0)
    assert choices(four.tell(four.others[0], four.proof(NOTARIZE, 40))) == [(40, FINALIZE)]
    assert four.machine.view == 40
    assert four.tell(four.others[0], four.proof(NOTARIZE, 39)) == []


def test_proofs_to_nullify_are_followed_view_by_view_in_any_order() -> None:
    four = Four()
    four.machine.start(0.0)
    for view in (3, 2):
        four.tell(four.others[0], four.proof(NULLIFY, view))
        assert four.machine.view == 1
    four.tell(four.others[0], four.proof(NULLIFY, 1))
    assert four.machine.view == 4
    assert four.tell(four.others[0], four.proof(NULLIFY, 1)) == []
    assert four.tell(four.others[0], four.proof(NULLIFY, 4 + AHEAD + 1)) == []


def test_a_false_proof_or_vote_is_refused() -> None:
    four = Four()
    four.machine.start(0.0)
    sender = four.others[0]
    false = replace(four.proof(NULLIFY, 1), view=2)
    assert offences(four.tell(sender, false)) == [(sender, "signature")]
    few = replace(four.proof(NULLIFY, 1), votes=four.proof(NULLIFY, 1).votes[:2])
    assert offences(four.tell(sender, few)) == [(sender, "signature")]
    stranger = replace(few, votes=(*few.votes, (4, bytes(64))))
    assert offences(four.tell(sender, stranger)) == [(sender, "signature")]
    forged = vote(four.everybody, four.me, NULLIFY, NO_BLOCK)
    assert offences(four.tell(sender, forged)) == [(sender, "signature")]
    assert four.machine.view == 1


def test_whoever_contradicts_itself_is_named_and_its_first_word_counts() -> None:
    four = Four()
    four.machine.start(0.0)
    first, second = four.others[0], four.others[1]
    four.proposal(propose(1))
    assert four.proposal(propose(1)) == []
    assert offences(four.proposal(propose(2))) == [(leader(four.everybody, 1), "equivocation")]
    four.tell(first, vote(four.everybody, first, NOTARIZE, BLOCK))
    assert four.tell(first, vote(four.everybody, first, NOTARIZE, BLOCK)) == []
    other = vote(four.everybody, first, NOTARIZE, block(2).hash)
    assert offences(four.tell(first, other)) == [(first, "equivocation")]
    four.tell(second, vote(four.everybody, second, FINALIZE, BLOCK))
    nullify = vote(four.everybody, second, NULLIFY, NO_BLOCK)
    assert offences(four.tell(second, nullify)) == [(second, "equivocation")]


def test_votes_too_far_ahead_and_blocks_of_another_base_are_not_kept() -> None:
    four = Four()
    four.machine.start(0.0)
    view = AHEAD + 2
    assert four.votes(NULLIFY, NO_BLOCK, view=view) == []
    foreign = propose(1)
    foreign = replace(foreign, block=replace(foreign.block, base=TASK))
    assert four.proposal(foreign) == []
    assert four.machine.view == 1


def test_a_member_that_is_stuck_repeats_its_newest_messages() -> None:
    four = Four()
    four.machine.start(0.0)
    four.proposal(propose(1))
    four.machine.handle_checked(BLOCK, True, 0.0)
    assert published(four.machine.handle_timer(PERIOD - 0.01)) == []
    assert choices(four.machine.handle_timer(PERIOD)) == [(1, NOTARIZE)]
    four.votes(NOTARIZE, now=PERIOD)
    again = published(four.machine.handle_timer(2 * PERIOD))
    assert [type(body) for body in again] == [Proof, Propose, Vote, Vote]
    four.machine.handle_timer(100.0)
    later = published(four.machine.handle_timer(101.0))
    assert four.machine.view == 2
    assert [type(body) for body in later][:2] == [Proof, Propose]
    assert FINALIZE in [body.choice for body in later if isinstance(body, Vote)]


def test_a_leader_that_is_stuck_repeats_its_proposal() -> None:
    four = Four(leads=1)
    four.machine.start(0.0)
    four.machine.propose(1, block(1), 0.0)
    assert [type(body) for body in published(four.machine.handle_timer(PERIOD))] == [Propose, Vote]


def test_a_member_in_an_earlier_view_is_sent_the_way_here() -> None:
    four = Four()
    four.machine.start(0.0)
    for view in range(1, 13):
        four.tell(four.others[0], four.proof(NULLIFY, view))
    assert four.machine.view == 13
    assert published(four.machine.handle_timer(PERIOD)) == []
    four.tell(four.others[0], vote(four.everybody, four.others[0], NULLIFY, NO_BLOCK, 3))
    helped = [body for body in published(four.machine.handle_timer(2 * PERIOD)) if isinstance(body, Proof)]
    assert [body.view for body in helped] == list(range(3, 3 + HELP))
    assert published(four.machine.handle_timer(3 * PERIOD)) == []


def test_deadlines_grow_after_each_rotation_of_the_leaders_up_to_a_limit() -> None:
    spans = []
    for view in (1, 4, 5, 9, 30, 400):
        four = Four()
        four.machine.start(0.0)
        if view > 1:
            four.tell(four.others[0], four.proof(NOTARIZE, view - 1))
            four.tell(four.others[0], four.proof(NULLIFY, view - 1))
        at, nullified = 0.0, False
        while not nullified:
            at = four.machine.next_deadline() or 0.0
            nullified = (view, NULLIFY) in choices(four.machine.handle_timer(at))
        spans.append(at)
    assert spans == [TIMEOUT * factor for factor in (1, 1, 2, 4, 64, 64)]


# a restart


def journal(actions: list[AgreementAction]) -> list[Body]:
    return [entry for action in actions if isinstance(action, WriteJournal) for entry in action.entries]


def test_a_restarted_member_says_the_same_again_and_nothing_against_it() -> None:
    four = Four()
    actions = four.machine.start(0.0)
    actions += four.proposal(propose(1))
    actions += four.machine.handle_checked(BLOCK, True, 0.1)
    back = Four(entries=tuple(journal(actions)))
    assert published(back.machine.start(0.0)) == published(actions)
    assert published(back.proposal(propose(2))) == []
    assert choices(back.machine.handle_timer(2 * TIMEOUT)) == [(1, NULLIFY)]


def test_a_member_that_nullified_does_not_finalize_after_a_restart() -> None:
    four = Four()
    four.machine.start(0.0)
    entries = tuple(journal(four.machine.handle_timer(TIMEOUT)))
    back = Four(entries=entries)
    back.machine.start(0.0)
    assert back.machine.next_deadline() == PERIOD
    back.proposal(propose(1))
    assert choices(back.votes(NOTARIZE)) == []
    assert back.machine.view == 2


def test_a_member_that_finalized_does_not_nullify_after_a_restart() -> None:
    four = Four()
    actions = four.machine.start(0.0)
    actions += four.votes(NOTARIZE)
    assert choices(actions) == [(1, FINALIZE)]
    back = Four(entries=tuple(journal(actions)))
    assert (1, NULLIFY) not in choices(back.machine.start(0.0))
    back.machine.handle_timer(10 * TIMEOUT)
    assert back.machine.view == 2
    assert choices(back.votes(NULLIFY, NO_BLOCK, count=2)) == []


def test_a_restarted_leader_does_not_propose_anything_else() -> None:
    four = Four(leads=1)
    actions = four.machine.start(0.0)
    actions += four.machine.propose(1, block(1), 0.0)
    entries = tuple(journal(actions))
    back = Four(leads=1, entries=entries)
    again = back.machine.start(0.0)
    assert published(again) == published(actions)
    torn = Four(leads=1, entries=entries[:1])  # the crash came between proposal and vote
    assert choices(torn.machine.start(0.0)) == [(1, NOTARIZE)]


def test_a_restarted_member_is_in_the_view_where_it_was() -> None:
    four = Four()
    actions = four.machine.start(0.0)
    for view in (1, 2, 3):
        actions += four.tell(four.others[0], four.proof(NULLIFY, view))
    back = Four(entries=tuple(journal(actions)))
    back.machine.start(0.0)
    assert back.machine.view == four.machine.view == 4
    nullified = vote(four.everybody, four.me, NULLIFY, NO_BLOCK, 7)
    alone = Four(entries=(nullified,))
    alone.machine.start(0.0)
    assert alone.machine.view == 7
    actions = four.tell(four.others[0], four.proof(NOTARIZE, 9))
    back = Four(entries=tuple(journal(actions)))
    back.machine.start(0.0)
    assert back.machine.view == 9


def test_one_member_alone_decides_also_after_a_restart() -> None:
    alone = agreement(committee(1), 0)
    actions = alone.start(0.0)
    actions += alone.propose(1, block(1), 0.0)
    assert isinstance(actions[-1], Decided)
    back = agreement(committee(1), 0)
    back.restore(journal(actions))
    assert isinstance(back.start(0.0)[-1], Decided)


# many members


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 13])
def test_all_members_decide_what_the_first_leader_proposed(count: int) -> None:
    table = Table(count)
    table.start()
    assert table.decide() == block(table.committee.leader(ROUND, BASE, 1))
    assert table.now < TIMEOUT


def crash_at_random(table: Table, until: float) -> None:
    """Kills members again and again, more than may be down for long, and starts them from their journals."""

    def crash() -> None:
        chair = table.rng.choice(table.honest())
        if chair.certificate is None:
            table.kill(chair)
        table.at(min(until, table.now + table.rng.uniform(0.1, 3.0)), partial(revive, chair))
        if table.now < until - 3.0:
            table.at(table.now + table.rng.uniform(0.1, 2.0), crash)

    def revive(chair: Chair) -> None:
        if chair.machine is None and chair.certificate is None:
            table.start(chair)

    table.at(0.1, crash)
    table.at(until, lambda: None)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_members_that_crash_and_come_back_never_disagree_and_decide(count: int) -> None:
    for seed in range(25):
        table = Table(count, seed, delay=(0.01, Random(seed).choice([0.1, 1.0])), loss=0.2)
        crash_at_random(table, 10.0)
        table.start()
        table.run(partial(decided_after, table, 10.0), 500.0)


def decided_after(table: Table, when: float) -> bool:
    return table.now >= when and all(chair.certificate for chair in table.honest())


@pytest.mark.parametrize("count", [3, 4, 6, 7])
def test_as_many_members_may_be_gone_for_ever_as_a_quorum_can_spare(count: int) -> None:
    for seed in range(20):
        table = Table(count, seed, loss=0.2)
        spare = count - table.committee.quorum
        gone = table.rng.sample(table.chairs, spare)
        for chair in gone:
            chair.kill_after = table.rng.randrange(6)
        table.start()
        alive = [chair for chair in table.chairs if chair not in gone]
        table.run(lambda alive=alive: all(chair.certificate for chair in alive), 500.0)


def test_fewer_members_than_a_quorum_decide_nothing_and_go_on_when_one_returns() -> None:
    table = Table(4)
    table.start(*table.chairs[:2])
    table.at(300.0, partial(table.start, table.chairs[2]))
    table.run(lambda: table.now >= 300.0, 301.0)
    assert not any(chair.certificate for chair in table.chairs)
    assert all(chair.machine.view == 1 for chair in table.chairs[:2] if chair.machine)
    table.decide(within=30.0)


def lie(table: Table, count: int, seed: int) -> None:
    """Twins that talk to everybody, to one part each, or now and then; and propose whatever they like."""
    rng = Random(seed)
    side = {(chair.number, other): rng.random() < 0.5 for chair in table.chairs for other in range(count)}

    def hears_its_twin(one: Chair, other: Chair) -> bool:
        for liar, honest in ((one, other), (other, one)):
            if not liar.honest and honest.honest:
                return side[liar.number, honest.number] == (liar.label >= count)
        return True

    def hears_sometimes(one: Chair, other: Chair) -> bool:
        return one.honest or rng.random() < 0.7

    def propose_anything(chair: Chair, body: Body) -> Body:
        if chair.honest or not isinstance(body, Propose):
            return body
        label = rng.choice([chair.label, rng.randrange(count)])
        return propose(label, body.view, rng.choice([body.parent, 0, body.view - 1]))

    table.hears = rng.choice([table.hears, hears_its_twin, hears_sometimes])
    if rng.random() < 0.5:
        table.rewrite = propose_anything
    if rng.random() < 0.5:
        crash_at_random(table, 10.0)
    table.at(10.0, lambda: None)


@pytest.mark.parametrize(("count", "seeds"), [(4, 150), (7, 40), (13, 6)])
def test_liars_with_twins_never_make_honest_members_disagree_nor_stop_them(count: int, seeds: int) -> None:
    found = 0
    for seed in range(seeds):
        rng = Random(seed)
        liars = tuple(rng.sample(range(count), (count - 1) // 3))
        delay = (0.01, rng.choice([0.1, 0.5, 2.0]))
        table = Table(count, seed, delay=delay, loss=rng.choice([0.0, 0.1, 0.3]), liars=liars)
        lie(table, count, seed)
        table.start()
        table.run(partial(decided_after, table, 10.0), 3000.0)
        named = {offence.member for chair in table.honest() for offence in chair.offences}
        assert named <= {*liars}, f"seed {seed}"
        found += len(named)
    assert found > seeds / 10
