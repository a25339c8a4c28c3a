"""Committees with too many liars: what they certify is computed again and undone, its signers are ejected."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from federated.rounds.actions import Aggregate, Ejected, Misbehaved, Publish, Recompute
from federated.rounds.agreement import Agreement, AgreementAction, CheckProposal
from federated.rounds.committee import Electorate, Panel, numbers_in, set_of
from federated.rounds.events import Aggregated, Event, LeaveWanted, Phase, Recomputed, Verdict
from federated.rounds.messages import MAX_CHANGES, ChangeKind, Choice, Fraud, Vote
from p2p.peer_id import PeerId
from tests.federated.rounds import table
from tests.federated.rounds.network import INITIAL, Network, Node, aggregate, bodies, sign, verify
from tests.federated.rounds.test_machine import until_phase

MEMBERS, SEATS = 20, 4


def panel_of(network: Network, number: int) -> Panel:
    """The committee of a round that has begun; nobody joins here."""
    task = network.manifest
    base = INITIAL.digest if number == 1 else network.certified[number - 1]
    return Electorate(task.seats, verify).panel(number, base, network.membership(number - 1))


class Cabal:
    """Members that lie together: a quorum of the committee of each of the `bad` rounds, once it is drawn.

    In such a round they make a poisoned model of the updates, and in later ones say that all is well.
    """

    def __init__(self, network: Network, *bad: int) -> None:
        self.network = network
        self.bad = bad
        self.liars = 0  # set
        self.poison = b"poison"
        network.aggregate = self.aggregate
        network.recompute = self.recompute

    def join(self, number: int) -> None:
        panel = panel_of(self.network, number)
        missing = panel.committee.quorum - (panel.voters & self.liars).bit_count()
        self.liars |= set_of(numbers_in(panel.voters & ~self.liars)[: max(0, missing)])

    def is_liar(self, node: Node) -> bool:
        return bool(self.liars >> node.number & 1)

    def aggregate(self, node: Node, action: Aggregate) -> Event:
        if action.round in self.bad:
            self.join(action.round)
            if self.is_liar(node):
                model = aggregate(self.poison + node.base.digest, action.inputs)
                node.disk.models[model.root] = True
                return Aggregated(round=action.round, inputs=action.inputs, model=model)
        return self.network.add_up(node, action)

    def recompute(self, node: Node, action: Recompute) -> Recomputed:
        for number in self.bad:
            if number <= len(self.network.certified) + 1:
                self.join(number)
        found = self.network.compute_again(node, action)
        return replace(found, verdict=Verdict.AGREES) if self.is_liar(node) else found

    def honest(self) -> list[Node]:
        return [node for node in self.network.nodes if not self.is_liar(node)]


def started(*bad: int, rounds: int = 6, seed: int = 0) -> tuple[Network, Cabal]:
    network = Network(MEMBERS, seed, rounds=rounds, committee=SEATS, training=(0.1, 0.5))
    cabal = Cabal(network, *bad)
    network.start()
    return network, cabal


def until_certified(network: Network, number: int) -> None:
    network.run(lambda: all(len(node.disk.history) >= number for node in network.nodes), limit=60.0)


def restorings(network: Network) -> list[int]:
    """The rounds that put an earlier model back in its place."""
    return [
        number
        for number, block in sorted(network.blocks.items())
        if not block.participants and block.model.digest != block.base
    ]


def assert_undone(network: Network, cabal: Cabal, bad: int, within: int = 3) -> int:
    """The round that undid the bad one, soon, with all its signers ejected by the end."""
    (number,) = restorings(network)
    assert bad < number <= bad + within
    before = INITIAL.digest if bad == 1 else network.certified[bad - 1]
    assert network.certified[number] == before != network.certified[bad]
    ejected = [peer for node in cabal.honest()[:1] for peer in ejected_by(node)]
    assert sorted(ejected) == sorted(network.nodes[liar].peer for liar in numbers_in(cabal.liars))
    assert network.membership(network.manifest.rounds).active == (1 << MEMBERS) - 1 & ~cabal.liars
    for node in cabal.honest():
        assert node.finished[-1].model.digest == network.certified[network.manifest.rounds]
        assert not [note for note in node.notes if isinstance(note, Misbehaved)]
    return number


def ejected_by(node: Node) -> list[PeerId]:
    return [note.peer for note in node.notes if isinstance(note, Ejected)]


@pytest.mark.parametrize("bad", [1, 2])
def test_what_a_lying_committee_certified_is_undone_and_its_signers_are_ejected(bad: int) -> None:
    network, cabal = started(bad)
    network.finish(within=120.0)
    number = assert_undone(network, cabal, bad)
    assert {change.kind for change in network.blocks[number].changes} == {ChangeKind.VOID}
    assert all(network.blocks[later].participants for later in range(number + 1, 7))  # the task goes on


def test_two_bad_committees_in_a_row_cost_their_rounds_and_the_model_is_that_before_both() -> None:
    network, cabal = started(2, 3, rounds=10)
    network.finish(within=120.0)
    (number,) = restorings(network)
    panels = {later: panel_of(network, later) for later in range(4, 11)}
    honest = {later: (panel.voters & ~cabal.liars).bit_count() for later, panel in panels.items()}
    assert number == next(later for later, panel in panels.items() if honest[later] >= panel.committee.quorum)
    assert network.certified[number] == network.certified[1]
    assert network.membership(10).active == (1 << MEMBERS) - 1 & ~cabal.liars
    named = {change.proof for block in network.blocks.values() for change in block.voids}
    assert len(named) == 2


def test_more_signers_than_fit_into_a_block_follow_in_the_next_ones_which_restore_nothing_again() -> None:
    network = Network(30, rounds=6, committee=13, training=(0.1, 0.5))
    cabal = Cabal(network, 2)
    network.start()
    network.finish(within=120.0)
    (number,) = restorings(network)
    assert len(network.blocks[number].voids) == MAX_CHANGES
    rest = network.blocks[number + 1]
    assert (len(rest.voids), rest.participants > 0) == (1, True)
    assert network.membership(6).active == (1 << 30) - 1 & ~cabal.liars
    assert len({digest for at, digest in network.certified.items() if at >= number}) == 7 - number


def test_signers_that_leave_at_once_do_not_keep_their_model() -> None:
    network, cabal = started(2)
    until_certified(network, 2)
    for number in numbers_in(cabal.liars):
        network.tell(network.nodes[number], 1, LeaveWanted())
    network.finish(within=120.0)
    (number,) = restorings(network)
    assert network.certified[number] == network.certified[1]
    assert not network.membership(6).active & cabal.liars


def test_a_false_accusation_costs_the_accuser_its_voice_and_nobody_else_anything() -> None:
    network, _ = started()
    until_certified(network, 2)
    accuser, block = network.nodes[7], network.blocks[2]
    for _ in range(2):
        network._publish(accuser, Fraud(round=2, block=block.hash))
    network._publish(accuser, Fraud(round=1, block=network.blocks[1].hash))
    network.finish(within=60.0)
    blamed = [note for node in network.nodes for note in node.notes if isinstance(note, Misbehaved)]
    assert {(note.peer, note.rule) for note in blamed} == {(accuser.peer, "accusation")}
    assert all(len(node.notes) <= 1 for node in network.nodes)  # once each, and then it is not listened to
    assert {audit.verdict for node in network.nodes for audit in node.audits} == {Verdict.AGREES}
    assert not restorings(network)
    assert network.membership(6).active == (1 << MEMBERS) - 1


def test_an_accusation_of_a_block_that_was_never_certified_is_false() -> None:
    network, _ = started()
    until_certified(network, 2)
    network._publish(network.nodes[7], Fraud(round=2, block=bytes(32)))
    network._publish(network.nodes[8], Fraud(round=5, block=bytes(32)))  # of which nobody can know yet
    network.finish(within=60.0)
    blamed = {note.peer for node in network.nodes for note in node.notes if isinstance(note, Misbehaved)}
    assert blamed == {network.nodes[7].peer}
    assert not {audit.verdict for node in network.nodes for audit in node.audits} - {Verdict.AGREES}


def test_bytes_that_nobody_gives_prove_nothing_and_cost_nobody() -> None:
    network, cabal = started(2)
    network.blocked = lambda node, root: root in network.lists and not cabal.is_liar(node)
    network.finish(within=60.0)
    verdicts = {(audit.round, audit.verdict) for node in cabal.honest() for audit in node.audits}
    assert (2, Verdict.UNAVAILABLE) in verdicts
    assert Verdict.DIFFERS not in {verdict for _, verdict in verdicts}
    assert not bodies(network, Fraud)
    assert not restorings(network)
    assert not [
        note for node in network.nodes for note in node.notes if isinstance(note, Misbehaved | Ejected)
    ]


def test_nobody_votes_for_a_fraud_that_it_did_not_find_itself() -> None:
    network, cabal = started(2)
    finders: list[int] = []

    def recompute(node: Node, action: Recompute) -> Recomputed:
        found = cabal.recompute(node, action)
        if found.verdict is Verdict.DIFFERS and (not finders or node.number in finders):
            finders.append(node.number)
            return found
        return replace(found, verdict=Verdict.UNAVAILABLE, rule=None)

    network.recompute = recompute
    network.finish(within=200.0)
    assert finders
    assert not restorings(network)
    assert network.membership(6).active == (1 << MEMBERS) - 1
    accused = [note for node in cabal.honest() for note in node.notes if isinstance(note, Misbehaved)]
    assert not accused  # neither who says what it found nor who proposes it breaks a rule


def test_what_was_heard_before_a_crash_is_computed_again_after_it() -> None:
    network, cabal = started(2)
    crashed: dict[int, int] = {}

    def recompute(node: Node, action: Recompute) -> Recomputed:
        if not cabal.is_liar(node) and action.round == 2 and crashed.setdefault(node.number, 1) == 1:
            crashed[node.number] = 2
            network.at(network.now, lambda: network.kill(node))
            network.at(network.now + 1.0, lambda: network.start(node))
        return cabal.recompute(node, action)

    network.lag = lambda node, action: 0.2 if isinstance(action, Recompute) else 0.0
    network.recompute = recompute
    network.finish(within=120.0)
    assert len(crashed) >= 3
    (number,) = restorings(network)
    assert network.certified[number] == network.certified[1]


def test_a_member_that_comes_later_follows_a_chain_with_a_model_that_was_restored() -> None:
    network, cabal = started(2)
    until_phase(network, network.nodes[0], Phase.TRAIN, 2)
    away = next(node for node in network.nodes if not panel_of(network, 2).voters >> node.number & 1)
    network.kill(away)
    network.run(lambda: len(network.certified) == 5, limit=120.0)
    network.start(away)
    network.finish(within=60.0)
    assert_undone(network, cabal, 2)
    assert away.finished[-1].model.digest == network.certified[6]


def test_a_model_that_liars_restore_for_no_reason_is_put_back() -> None:
    network, cabal = started(rounds=12)

    def recompute(node: Node, action: Recompute) -> Recomputed:
        found = network.compute_again(node, action)
        return replace(found, verdict=Verdict.DIFFERS) if cabal.is_liar(node) else found

    network.recompute = recompute
    honest = 0  # the round that the next committee will call a fraud, none of its signers among them
    while not cabal.liars:
        honest += 1
        until_certified(network, honest)
        network.run_for(0.1)  # by now its auditors know better
        know = set_of(node.number for node in network.nodes if honest in [item.round for item in node.audits])
        votes = network.nodes[0].disk.history[honest - 1].votes
        signers = set_of(panel_of(network, honest).members[seat] for seat, _ in votes)
        panel = panel_of(network, honest + 1)
        liars = numbers_in(panel.voters & ~signers & ~know)[: panel.committee.quorum]
        leader = panel.members[panel.committee.leader(honest + 1, network.certified[honest], 1)]
        cabal.liars = set_of(liars) if len(liars) == panel.committee.quorum and leader in liars else 0
    for number in liars:
        network._publish(network.nodes[number], Fraud(round=honest, block=network.blocks[honest].hash))
    network.finish(within=120.0)
    false, true = restorings(network)
    before = network.certified.get(honest - 1, INITIAL.digest)
    assert (false, network.certified[false]) == (honest + 1, before)
    assert network.certified[true] == network.certified[honest]
    assert not network.membership(12).active & cabal.liars


# who signs


@pytest.mark.parametrize("unchecked", [True, False])
def test_in_a_drawn_committee_nobody_signs_a_block_that_it_has_not_checked(unchecked: bool) -> None:
    everybody = table.committee(4)
    me = next(number for number in range(4) if number != everybody.leader(table.ROUND, table.BASE, 1))
    machine = Agreement(
        committee=everybody,
        me=me,
        round_number=table.ROUND,
        base=table.BASE,
        sign=partial(sign, everybody.members[me]),
        timeout=table.TIMEOUT,
        period=table.PERIOD,
        signs_unchecked=unchecked,
    )
    machine.start(0.0)
    leader, proposal = everybody.leader(table.ROUND, table.BASE, 1), table.propose(1)
    said = machine.handle_message(leader, proposal, 0.1)
    assert CheckProposal(proposal=proposal) in said
    for number in range(4):
        if number != me:
            cast = table.vote(everybody, number, Choice.NOTARIZE, proposal.block.hash)
            said = machine.handle_message(number, cast, 0.2)
    assert finalized(said) is unchecked
    if not unchecked:
        assert finalized(machine.handle_checked(proposal.block.hash, True, 0.3))
    again = machine.handle_checked(proposal.block.hash, True, 0.4)
    assert not finalized(again)


def test_who_forgot_that_it_checked_a_block_checks_it_again_before_it_signs() -> None:
    everybody = table.committee(4)
    leader, proposal = everybody.leader(table.ROUND, table.BASE, 1), table.propose(1)
    me = (leader + 1) % 4
    machine = Agreement(
        committee=everybody,
        me=me,
        round_number=table.ROUND,
        base=table.BASE,
        sign=partial(sign, everybody.members[me]),
        timeout=table.TIMEOUT,
        period=table.PERIOD,
        signs_unchecked=False,
    )
    machine.restore([proposal, table.vote(everybody, me, Choice.NOTARIZE, proposal.block.hash)])
    said = machine.start(0.0)
    for number in range(4):
        if number != me:
            cast = table.vote(everybody, number, Choice.NOTARIZE, proposal.block.hash)
            said += machine.handle_message(number, cast, 0.2)
    assert CheckProposal(proposal=proposal) in said
    assert not finalized(said)
    assert not finalized(machine.handle_checked(proposal.block.hash, False, 0.3))


def finalized(actions: list[AgreementAction]) -> bool:
    bodies = [action.body for action in actions if isinstance(action, Publish)]
    return any(isinstance(body, Vote) and body.choice is Choice.FINALIZE for body in bodies)


def test_where_everybody_votes_nothing_is_computed_again_and_nobody_accused() -> None:
    network = Network(5, rounds=3)
    network.start()
    until_certified(network, 1)
    network._publish(network.nodes[0], Fraud(round=1, block=network.blocks[1].hash))
    network.finish(within=30.0)
    assert not [node for node in network.nodes if node.audits or node.notes]
