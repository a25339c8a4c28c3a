"""Failures that ended the runs of other systems, each named after what happened there; here nothing ends."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from hashlib import sha256

import pytest

from federated.rounds.actions import Action, Adopt, RoundFinished
from federated.rounds.committee import Committee
from federated.rounds.messages import NO_BLOCK, Choice, Commit, Proof, Reveal, Vote, commitment, vote_bytes
from tests.federated.rounds.network import Network, Node, bodies
from tests.search.assemblies import OPEN
from tests.search.parliament import ROUND, TASK, Parliament, draw_plan, members_of, sign, verify


def finished(node: Node) -> list[int]:
    return [report.round for report in node.finished]


def took_part(network: Network, node: Node) -> list[int]:
    """The rounds whose block has an update of this node, as the first one tells it."""
    return [report.round for report in network.nodes[0].finished if node.peer in report.participants]


def test_a_run_of_twenty_rounds_does_not_die_when_one_client_drops_in_the_tenth() -> None:
    network = Network(4, rounds=20, training=(0.1, 0.3))
    *others, dropped = network.nodes
    network.start()
    network.run(lambda: 9 in finished(dropped), 200.0)
    network.kill(dropped)
    network.run(lambda: all(node.done for node in others), 400.0)
    assert all(finished(node) == list(range(1, 21)) for node in others)
    assert not any(report.skipped for report in others[0].finished)


def test_one_late_submit_in_each_round_wedges_nothing() -> None:
    network = Network(4, rounds=4, training=(0.1, 0.3), train_deadline_s=2.0, phase_deadline_s=1.0)
    *others, late = network.nodes
    late.trains = False
    submitted: list[int] = []
    network.start()

    def submit() -> None:
        machines = [node.machine for node in others if node.machine]
        number = machines[0].round
        closed = all(machine.round == number and machine.phase not in OPEN for machine in machines)
        if closed and number not in submitted:
            submitted.append(number)
            root = sha256(bytes([number])).digest()
            late.disk.blobs[root] = True
            reveal = Reveal(round=number, root=root, size=9, nonce=bytes(32), examples=5)
            value = commitment(late.peer, network.manifest.task_id, late.base.digest, reveal)
            network._publish(late, Commit(round=number, commitment=value))
            network._publish(late, reveal)
        network.after((0.01, 0.02), submit)

    submit()
    network.finish(within=60.0)
    assert submitted == [1, 2, 3, 4]
    assert all(finished(node) == [1, 2, 3, 4] for node in network.nodes)
    assert took_part(network, late) == []
    assert all(report.seconds < 8.0 for report in network.nodes[0].finished)


def test_a_joiner_that_is_downloading_the_state_deadlocks_nobody_and_gets_there() -> None:
    network = Network(4, rounds=6, training=(0.1, 0.3), train_deadline_s=1.0, phase_deadline_s=1.0)
    *others, joiner = network.nodes
    slow = 20.0  # seconds for the first model

    def lag(node: Node, action: Action) -> float:
        return slow if node is joiner and isinstance(action, Adopt) and not joiner.finished else 0.0

    network.lag = lag
    network.start(*others)
    network.run(lambda: 2 in finished(others[0]), 100.0)
    began = network.now
    network.start(joiner)
    network.run(lambda: 4 in finished(others[0]), began + slow)  # meanwhile they go on
    assert joiner.finished == []
    network.finish(within=60.0)
    assert joiner.done
    assert isinstance(joiner.finished[0], RoundFinished)
    assert joiner.finished[0].catch_up


def test_fast_peers_that_send_before_a_slow_one_listens_lose_nothing_by_it() -> None:
    network = Network(4, rounds=2, training=(0.01, 0.02), phase_deadline_s=2.0)
    *fast, slow = network.nodes
    network.start(*fast)
    network.after((1.5, 1.5), partial(network.start, slow))
    network.finish(within=30.0)
    assert took_part(network, slow) == [1, 2]
    first = min(at for at, _, body in network.sent if isinstance(body, Commit))
    assert first > 1.5


@pytest.mark.parametrize("choice", [Choice.NOTARIZE, Choice.NULLIFY])
def test_votes_of_one_round_are_worth_nothing_in_another(choice: Choice) -> None:
    committee = Committee(TASK, members_of(4), verify)
    block = NO_BLOCK if choice is Choice.NULLIFY else bytes([1]) * 32
    data = vote_bytes(TASK, ROUND, 1, choice, block)
    votes = tuple((number, sign(committee.members[number], data)) for number in range(3))
    earlier = Proof(round=ROUND, view=1, choice=choice, block=block, votes=votes)
    assert committee.accepts_proof(earlier)
    assert not committee.accepts_proof(replace(earlier, round=ROUND + 1))
    assert not committee.accepts_proof(replace(earlier, view=2))
    ballot = Vote(round=ROUND, view=1, choice=choice, block=block, signature=votes[0][1])
    assert committee.accepts_vote(0, ballot)
    assert not committee.accepts_vote(0, replace(ballot, round=ROUND + 1))
    house = Parliament(draw_plan(1, 4))
    chair = house.honest[0]
    house.start(chair)
    assert chair.machine is not None
    for number, _ in votes:
        stolen = replace(earlier, round=ROUND - 1)
        for body in (stolen, replace(stolen, round=ROUND, votes=tuple((n, b"") for n, _ in votes))):
            chair.machine.handle_message(number, body, 0.0)
    assert chair.machine.view == 1


def test_what_is_sent_for_another_round_is_not_taken_for_this_one() -> None:
    network = Network(3, rounds=2)

    def tamper(sender: Node, to: Node, body: object) -> object:
        return replace(body, round=2) if isinstance(body, Vote) and body.round == 1 else body  # type: ignore[arg-type]

    network.tamper = tamper  # type: ignore[assignment]
    network.start()
    network.run_for(30.0)
    assert network.certified == {}
    assert bodies(network, Vote)
