"""Round machines back to back: whole tasks under faults, and each rule of a round on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest

from federated.manifest import MAX_COMMITTEE
from federated.rounds.actions import (
    Action,
    Adopt,
    Aggregate,
    Checkpoint,
    DigestMismatch,
    Fetch,
    FetchHistory,
    Misbehaved,
    Publish,
    RoundFinished,
    StopTraining,
    TaskFinished,
    TaskLeft,
    Train,
    WriteJournal,
    merged,
)
from federated.rounds.answering import ANSWER_GAP
from federated.rounds.archive import STEP
from federated.rounds.committee import Committee
from federated.rounds.early import MAX_EARLY
from federated.rounds.events import (
    AdoptFailed,
    AggregateFailed,
    Event,
    HistoryFetched,
    LeaveWanted,
    MessageReceived,
    ModelAdopted,
    PeerConnected,
    PeerLost,
    Phase,
    Screened,
    Started,
    Trained,
    TrainFailed,
)
from federated.rounds.machine import RoundMachine
from federated.rounds.messages import (
    NO_BLOCK,
    Abstain,
    Body,
    Certificate,
    Choice,
    Commit,
    Hello,
    Proof,
    Propose,
    Reveal,
    Vote,
    commitment,
    vote_bytes,
)
from federated.rounds.phases import ORDER
from federated.rounds.voting import MIN_VIEWS
from p2p.blobs.merkle import EMPTY_ROOT
from p2p.errors import InvalidInput, LocalProtocolError
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.federated.rounds.network import INITIAL, Network, Node, bodies, sign, updates, verify
from tests.federated.samples import manifest, peer

TRAIN, PHASE = 4.0, 2.0  # seconds; the deadlines of the networks here


def summary(node: Node) -> list[tuple[int, int, bool]]:
    """(round, participants, catch-up) of the rounds that the peer finished."""
    return [(item.round, len(item.participants), item.catch_up) for item in node.finished]


def skipped(network: Network) -> list[int]:
    return sorted({item.round for node in network.nodes for item in node.finished if item.skipped})


# whole tasks


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 13])
def test_all_peers_finish_all_rounds_with_the_same_models(count: int) -> None:
    network = Network(count)
    network.start()
    network.finish(within=30.0)
    for node in network.nodes:
        assert summary(node) == [(number, count, False) for number in (1, 2, 3)]
        assert [item.model.digest for item in node.finished] == list(network.certified.values())
        assert [tuple(item.phases) for item in node.finished] == [ORDER] * 3
        assert all(item.seconds == pytest.approx(sum(item.phases.values())) for item in node.finished)
        assert node.trained == [1, 2, 3]
        assert not node.notes
    assert network.now < 3 * (TRAIN + PHASE)
    assert len(bodies(network, Certificate)) <= 2 * 3  # nobody was behind
    assert len(set(network.certified.values())) == 3


@pytest.mark.parametrize("together", [0.0, 0.05])
@pytest.mark.parametrize("count", [1, 4, 7, 13])
def test_a_round_in_which_all_goes_well_has_no_message_too_many(count: int, together: float) -> None:
    network = Network(count)
    network.together = together
    network.start()
    network.finish(within=30.0)
    repeated = dict.fromkeys((sender, body) for _, sender, body in network.sent)
    sent = Counter(type(body) for _, body in repeated)
    rounds = len(network.certified)
    assert [sent[kind] for kind in (Commit, Reveal, Propose)] == [rounds * count, rounds * count, rounds]
    assert sent[Vote] <= 2 * rounds * count  # who hears of a decision first need not vote for it
    assert sent[Certificate] <= rounds * ((count - 1) // 3 + 1)  # by the first signer that each one sees
    assert not sent[Proof]


def test_entries_that_follow_one_another_are_written_at_once() -> None:
    def vote(view: int) -> Vote:
        return Vote(round=1, view=view, choice=Choice.NULLIFY, block=NO_BLOCK, signature=bytes(64))

    first, second, third = (WriteJournal(entries=(vote(view),)) for view in (1, 2, 3))
    said = Publish(body=vote(1))
    both = WriteJournal(entries=(vote(1), vote(2)))
    assert merged([first, second, said, third]) == [both, said, third]
    assert merged([said, first, said, second, third]) == [
        said,
        first,
        said,
        WriteJournal(entries=(vote(2), vote(3))),
    ]


def test_events_that_come_with_the_end_of_the_task_are_taken_too() -> None:
    network = Network(1, rounds=1)
    [node] = network.nodes
    machine = RoundMachine(
        manifest=network.manifest, peer=node.peer, sign=partial(sign, node.peer), rng=Random(1), verify=verify
    )
    actions = machine.handle_all([Started(initial=INITIAL), LeaveWanted(), LeaveWanted()], 0.0)
    assert actions.count(TaskLeft(round=0, ejected=False)) == 1
    with pytest.raises(LocalProtocolError, match="comes once"):
        machine.handle_all([Started(initial=INITIAL)], 0.0)


def test_the_same_seed_gives_the_same_messages_at_the_same_times() -> None:
    def trace() -> list[tuple[float, int, Body]]:
        network = Network(4, 7, loss=0.1)
        network.start()
        network.finish(within=60.0)
        return network.sent

    assert trace() == trace()


def test_real_signatures_are_made_and_checked() -> None:
    network = Network(4, rounds=1)
    keys = {PeerId.from_public_key(key.public): key for key in map(key_pair, range(4))}
    network.start()
    for node in network.nodes:
        node.machine = RoundMachine(
            manifest=network.manifest, peer=node.peer, sign=keys[node.peer].sign, rng=Random(1)
        )
        network.tell(node, node.life, Started(initial=INITIAL))
    network.finish(within=30.0)
    committee = Committee(network.manifest.task_id, network.manifest.peer_ids)
    certificate = network.nodes[0].disk.certificate
    assert certificate is not None
    assert committee.accepts_certificate(certificate)
    assert len(certificate.votes) == 3


def key_pair(number: int) -> KeyPair:
    return KeyPair.from_seed(bytes([number]) * 32)


class Chaos:
    """Crashes, partitions and blackouts at random until `until`; then everything is well again."""

    def __init__(self, count: int, seed: int, until: float, committee: int = MAX_COMMITTEE) -> None:
        rng = Random(seed)
        least = rng.uniform(0.0, 0.05)
        self.network = Network(
            count,
            seed,
            rounds=4,
            delay=(least, least + rng.choice([0.02, 0.2, 0.8])),
            loss=rng.choice([0.0, 0.0, 0.1, 0.3]),
            duplicates=rng.choice([0.0, 0.3]),
            quorum=rng.choice([1.0, 1.0, 0.7]),
            committee=committee,
        )
        self.until = until
        faults = [fault for fault in (self.crash, self.split, self.blackout) if rng.random() < 0.6]
        self.drawn = [fault.__name__ for fault in faults]
        for fault in faults:
            self.network.after((0.0, 2.0), fault)
        self.network.at(until, self.end)

    def crash(self) -> None:
        network = self.network
        if network.now < self.until:
            node = network.rng.choice(network.nodes)
            node.kill_after = node.operations + network.rng.randrange(6)
            network.after((0.2, 4.0), partial(network.start, node))
            network.after((0.2, 3.0), self.crash)

    def split(self) -> None:
        network = self.network
        if network.now < self.until:
            network.divide([network.rng.randrange(2) for _ in network.nodes])
            network.after((0.5, 5.0), network.heal)
            network.after((5.0, 10.0), self.split)

    def blackout(self) -> None:
        network = self.network
        if network.now < self.until:
            for node in network.nodes:
                network.kill(node)
                network.after((0.1, 3.0), partial(network.start, node))
            network.after((8.0, 20.0), self.blackout)

    def end(self) -> None:
        network = self.network
        for node in network.nodes:
            node.kill_after = None
        network.loss, network.delay = 0.0, (0.01, 0.05)
        network.heal()
        network.start()

    def is_over(self) -> bool:
        network = self.network
        return network.now >= self.until and len(network.alive()) == len(network.nodes) == self._done()

    def _done(self) -> int:
        return sum(node.done for node in self.network.nodes)


@pytest.mark.parametrize(("count", "seeds"), [(1, 10), (2, 70), (3, 70), (4, 30), (6, 8), (7, 5), (13, 1)])
def test_no_two_peers_certify_different_models_and_all_finish_once_the_faults_end(
    count: int, seeds: int
) -> None:
    for seed in range(seeds):
        chaos = Chaos(count, seed, until=15.0)
        chaos.network.together = 0.02 * (seed % 2)  # seconds
        chaos.network.lags = 0.5 * (seed % 3 == 0)
        chaos.network.start()
        try:
            chaos.network.run(chaos.is_over, limit=120.0)
        except AssertionError as exc:
            raise AssertionError(f"{count} peers, seed {seed}, {chaos.drawn}: {exc}") from exc
        for node in chaos.network.nodes:
            rounds = [item.round for item in node.finished]
            assert chaos.network.lags or sorted(set(rounds)) == rounds, f"seed {seed}"


@pytest.mark.parametrize(("count", "seeds"), [(3, 15), (4, 12), (6, 4), (7, 3)])
def test_the_others_go_on_when_as_many_are_gone_as_a_vote_can_spare(count: int, seeds: int) -> None:
    for seed in range(seeds):
        rng = Random(seed)
        # noticed at once, or the connections of the dead look fine for long
        notice = rng.choice([(0.0, 0.5), (30.0, 60.0)])
        network = Network(count, seed, loss=rng.choice([0.0, 0.2]), notice=notice)
        quorum = (count + (count - 1) // 3) // 2 + 1
        gone = rng.sample(network.nodes, count - quorum)
        for node in gone:
            node.kill_after = rng.randrange(12)
        network.start()
        alive = [node for node in network.nodes if node not in gone]
        network.run(lambda alive=alive: all(node.done for node in alive), limit=200.0)
        assert not skipped(network), f"seed {seed}"


def operations_of_one_round(count: int) -> int:
    network = Network(count, rounds=1)
    network.start()
    network.finish(within=30.0)
    return max(node.operations for node in network.nodes)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_peer_killed_at_any_write_or_publication_comes_back_and_finishes_with_the_others(
    count: int,
) -> None:
    for number in range(min(count, 2)):
        for operation in range(operations_of_one_round(count) + 2):
            network = Network(count, rounds=2)
            victim = network.nodes[number]
            victim.kill_after = operation
            network.start()
            network.run(lambda victim=victim: victim.machine is None, limit=60.0)
            network.after((0.5, 2.0), partial(network.start, victim))
            network.run(lambda victim=victim: victim.machine is not None, limit=60.0)
            network.finish(within=60.0)
            assert set(network.certified) == {1, 2}
            assert all(len(roots) == 1 for roots in updates(network, victim).values()), f"after {operation}"
            assert not [note for node in network.nodes for note in node.notes], f"after {operation}"


@pytest.mark.parametrize("count", [2, 3, 4])
def test_all_peers_killed_at_any_write_or_publication_come_back_and_finish(count: int) -> None:
    for operation in range(1, operations_of_one_round(count), 2):
        network = Network(count, operation, rounds=2)
        for node in network.nodes:
            node.kill_after = operation
        network.start()
        network.run(lambda network=network: not network.alive(), limit=100.0)
        for node in network.nodes:
            network.after((0.1, 3.0), partial(network.start, node))
        network.run(lambda network=network: len(network.alive()) == len(network.nodes), limit=120.0)
        network.finish(within=60.0)
        assert set(network.certified) == {1, 2}


# coming back, coming late


def until_phase(network: Network, node: Node, phase: Phase, number: int) -> None:
    def is_there() -> bool:
        machine = node.machine
        return machine is not None and (machine.round, machine.phase) == (number, phase)

    network.run(is_there, limit=network.now + 60.0)


def test_a_restarted_peer_uses_the_update_that_it_has_committed_to() -> None:
    network = Network(2, rounds=1)
    network.start()
    until_phase(network, network.nodes[0], Phase.COMMIT, 1)
    network.kill(network.nodes[0])
    network.run_for(1.0)
    network.start(network.nodes[0])
    network.finish(within=30.0)
    assert network.nodes[0].trained == [1]
    assert summary(network.nodes[0]) == [(1, 2, False)]


def test_a_peer_that_was_away_catches_up_and_trains_in_the_next_round() -> None:
    network = Network(4, rounds=6)
    away = network.nodes[3]
    network.start()
    until_phase(network, away, Phase.TRAIN, 2)
    network.kill(away)
    until_phase(network, network.nodes[0], Phase.TRAIN, 4)
    network.start(away)
    network.finish(within=60.0)
    assert summary(away)[0] == (1, 4, False)
    assert summary(away)[1][2]
    assert summary(away)[-1] == (6, 4, False)
    assert [len(item.participants) for item in network.nodes[0].finished][1:3] == [3, 3]


def test_a_peer_that_starts_late_adopts_the_newest_model() -> None:
    network = Network(4, rounds=5)
    late = network.nodes[0]
    network.start(*network.nodes[1:])
    until_phase(network, network.nodes[1], Phase.TRAIN, 3)
    network.start(late)
    network.finish(within=60.0)
    assert late.finished[0].catch_up
    assert late.finished[0].phases == {} or late.finished[0].round > 1
    assert summary(late)[-1] == (5, 4, False)


def test_a_finished_peer_that_restarts_is_finished_and_helps_those_that_are_behind() -> None:
    network = Network(3, rounds=2)
    network.start(*network.nodes[:2])
    network.finish(within=60.0)
    for node in network.nodes[:2]:
        network.kill(node)
    network.start(network.nodes[0])
    assert network.nodes[0].done
    assert network.nodes[0].machine is not None
    assert network.nodes[0].machine.next_deadline() is None
    assert network.nodes[0].machine.handle_timer(network.now) == []
    network.start(network.nodes[2])
    network.finish(within=10.0)
    assert summary(network.nodes[2]) == [(2, 2, True)]


def leaders(network: Network) -> list[Node]:
    """The peers in the order in which they lead the first views of round 1."""
    committee = Committee(network.manifest.task_id, network.manifest.peer_ids)
    views = range(1, len(network.nodes) + 1)
    return [network.nodes[committee.leader(1, INITIAL.digest, view)] for view in views]


def test_the_round_goes_on_without_a_leader_that_dies_after_its_proposal() -> None:
    network = Network(4, rounds=2)
    network.start()
    network.run(lambda: bool(bodies(network, Propose)), limit=30.0)
    network.kill(leaders(network)[0])
    network.finish(within=30.0)
    assert not skipped(network)


def test_a_leader_that_is_known_to_be_gone_costs_no_deadline() -> None:
    network = Network(4, rounds=1)
    leader = leaders(network)[0]
    network.start()
    until_phase(network, leader, Phase.FETCH, 1)
    network.kill(leader)
    network.finish(within=PHASE)
    assert not skipped(network)


def test_an_update_that_only_some_know_of_is_left_out_when_its_peer_is_gone() -> None:
    network = Network(4, rounds=1, training=(0.5, 0.5))
    one, other, poor, gone = leaders(network)
    network.tamper = lambda sender, to, body: (
        None if (sender, to) == (gone, poor) and isinstance(body, Reveal) else body
    )
    network.start()
    network.run(lambda: all(len(item.disk.blobs) == 4 for item in (one, other)), limit=10.0)
    network.kill(gone)
    network.finish(within=30.0)
    assert {item.participants for node in (one, other, poor) for item in node.finished} == {
        tuple(sorted(node.peer for node in (one, other, poor)))
    }
    assert {body.view for body in bodies(network, Certificate)} == {2}


def test_fewer_peers_than_a_vote_needs_wait_and_go_on_when_the_others_return() -> None:
    network = Network(4, rounds=2)
    network.start()
    until_phase(network, network.nodes[0], Phase.TRAIN, 2)
    for node in network.nodes[2:]:
        network.kill(node)
    network.run_for(200.0)
    assert [network.state(node) for node in network.nodes[:2]] == ["2:commit"] * 2
    network.start(*network.nodes[2:])
    network.finish(within=30.0)
    assert summary(network.nodes[0]) == [(1, 4, False), (2, 4, False)]


def test_a_network_cut_in_halves_stands_still_and_heals() -> None:
    network = Network(6, rounds=2)
    network.start()
    until_phase(network, network.nodes[0], Phase.TRAIN, 1)
    network.divide([0, 0, 0, 1, 1, 1])
    network.run_for(60.0)
    assert not network.certified
    network.heal()
    network.finish(within=60.0)
    assert not skipped(network)


# how a phase ends


def test_the_first_round_begins_when_all_listen_or_a_quorum_has_waited() -> None:
    network = Network(4, rounds=1)
    network.start(*network.nodes[:2])
    network.run_for(100.0)
    assert {network.state(node) for node in network.alive()} == {"1:sync"}
    network.start(network.nodes[2])
    began = network.now
    until_phase(network, network.nodes[0], Phase.TRAIN, 1)
    assert PHASE <= network.now - began < PHASE + 1.5
    together = Network(4, rounds=1, training=(0.5, 0.5))
    together.start()
    together.run(lambda: all("train" in together.state(node) for node in together.nodes), limit=1.0)


def test_a_peer_that_starts_into_a_round_does_not_wait_for_those_that_are_not_there() -> None:
    network = Network(4, rounds=1, training=(1.0, 1.0))
    network.start(*network.nodes[:3])
    until_phase(network, network.nodes[0], Phase.COMMIT, 1)
    network.kill(network.nodes[0])
    network.run_for(0.6)
    network.start(network.nodes[0])
    network.run_for(PHASE / 2)
    assert "sync" not in network.state(network.nodes[0])


def test_a_peer_that_is_lost_is_not_waited_for() -> None:
    network = Network(4, rounds=1, training=(0.5, 0.5))
    network.start()
    until_phase(network, network.nodes[0], Phase.TRAIN, 1)
    network.kill(network.nodes[3])
    network.finish(within=PHASE)
    assert summary(network.nodes[0]) == [(1, 3, False)]


@pytest.mark.parametrize("phase", [Phase.TRAIN, Phase.COMMIT, Phase.REVEAL, Phase.FETCH])
def test_with_grace_a_peer_that_is_started_again_at_once_misses_no_round(phase: Phase) -> None:
    notice = (0.1, 0.5)  # longer than any message of the killed peer is on its way
    network = Network(4, rounds=3, training=(0.5, 0.5), notice=notice, phase_deadline_s=4.0, grace_s=3.0)
    killed = network.nodes[3]
    network.start()
    until_phase(network, killed, phase, 2)
    network.kill(killed)
    network.run_for(1.5)
    network.start(killed)
    network.finish(within=8.0)
    assert summary(network.nodes[0]) == [(1, 4, False), (2, 4, False), (3, 4, False)]


def test_grace_ends_for_a_peer_that_does_not_come_back() -> None:
    network = Network(4, rounds=2, training=(0.5, 0.5), grace_s=3.0)
    network.start()
    until_phase(network, network.nodes[0], Phase.TRAIN, 1)
    network.kill(network.nodes[3])
    network.finish(within=3.0 + PHASE)
    assert summary(network.nodes[0]) == [(1, 3, False), (2, 3, False)]


def test_a_peer_that_hangs_is_waited_for_until_the_deadline_and_no_longer() -> None:
    network = Network(4, rounds=1, training=(0.5, 0.5))
    network.nodes[3].trains = False
    network.start()
    network.finish(within=30.0)
    assert summary(network.nodes[0]) == [(1, 3, False)]
    assert TRAIN + PHASE <= network.now < TRAIN + PHASE + 1.0


def test_a_peer_that_trains_too_long_is_left_out_and_told_to_stop() -> None:
    network = Network(3, rounds=1, training=(0.5, 0.5))
    slow = network.nodes[0]
    slow.trains = False
    network.start()
    network.at(TRAIN + PHASE + 0.5, lambda: network.train(slow, slow.life, 1))
    network.finish(within=30.0)
    assert slow.stopped == [1]
    assert not updates(network, slow)
    assert {summary(node)[0] for node in network.nodes} == {(1, 2, False)}


def test_an_update_that_is_late_for_its_own_deadline_still_counts_while_commits_are_taken() -> None:
    network = Network(3, rounds=1, training=(0.5, 0.5))
    slow = network.nodes[0]
    slow.trains = False
    network.start()
    network.at(TRAIN + PHASE / 2, lambda: network.train(slow, slow.life, 1))
    network.finish(within=30.0)
    assert summary(network.nodes[1]) == [(1, 3, False)]


def test_with_a_smaller_quorum_the_slowest_are_not_waited_for() -> None:
    network = Network(4, rounds=2, training=(0.5, 0.5), quorum=0.75)
    network.nodes[3].trains = False
    network.start()
    network.finish(within=PHASE)
    assert summary(network.nodes[0]) == [(1, 3, False), (2, 3, False)]
    assert summary(network.nodes[3]) == [(1, 3, True), (2, 3, True)]


def test_half_dead_connections_cost_deadlines_but_not_the_round() -> None:
    network = Network(4, rounds=2, notice=(500.0, 500.0))
    network.start()
    until_phase(network, network.nodes[0], Phase.TRAIN, 1)
    network.kill(network.nodes[3])
    network.finish(within=60.0)
    assert not skipped(network)


# what counts


def test_a_round_without_enough_updates_is_skipped_and_takes_its_time() -> None:
    network = Network(4, rounds=2, training=(0.5, 0.5), min_updates=0.75)
    for node in network.nodes[:2]:
        node.trains = False
    network.start()
    network.finish(within=60.0)
    assert skipped(network) == [1, 2]
    assert {item.model for node in network.nodes for item in node.finished} == {INITIAL}
    assert all(item.participants == () for item in network.nodes[0].finished)
    assert network.now >= 2 * (TRAIN + PHASE)


def test_rounds_in_which_all_updates_are_refused_do_not_spin() -> None:
    network = Network(3, rounds=3)
    network.rule = lambda node, item: "norm"
    network.start()
    network.finish(within=60.0)
    assert skipped(network) == [1, 2, 3]
    assert network.now >= 3 * PHASE
    [first, *_] = network.nodes[0].finished
    assert first.refused == tuple((node.peer, "norm") for node in network.nodes)


def test_a_refused_update_is_left_out_by_all_and_named() -> None:
    network = Network(4, rounds=1)
    bad = network.nodes[2]
    network.rule = lambda node, item: "finite" if item.peer == bad.peer else None
    network.start()
    network.finish(within=30.0)
    for node in network.nodes:
        [finished] = node.finished
        assert bad.peer not in finished.participants
        assert finished.refused == ((bad.peer, "finite"),)


def test_a_proposal_with_an_update_that_others_refuse_fails_at_once() -> None:
    network = Network(4, rounds=1)
    lax, bad, *_ = leaders(network)
    network.rule = lambda node, item: "finite" if item.peer == bad.peer and node is not lax else None
    network.start()
    network.finish(within=PHASE)
    assert {len(item.participants) for node in network.nodes for item in node.finished} == {3}


def test_what_screening_refuses_is_left_out_by_all_and_named() -> None:
    network = Network(4, rounds=1)
    bad = network.nodes[1]

    def screen(node: Node, action: Aggregate) -> Event:
        found = tuple((item.root, "norm") for item in action.inputs if item.peer == bad.peer)
        if found:
            return Screened(round=action.round, inputs=action.inputs, refused=found)
        return network.add_up(node, action)

    network.aggregate = screen
    network.start()
    network.finish(within=30.0)
    assert {item.refused for node in network.nodes for item in node.finished} == {((bad.peer, "norm"),)}
    assert summary(network.nodes[0]) == [(1, 3, False)]


def test_updates_that_make_no_model_skip_the_round() -> None:
    network = Network(3, rounds=1)
    network.aggregate = lambda node, action: AggregateFailed(round=action.round, inputs=action.inputs)
    network.start()
    network.finish(within=30.0)
    assert skipped(network) == [1]


def differs(network: Network, *odd: Node) -> Callable[[Node, Aggregate], Event]:
    """An aggregate that comes out differently on some peers."""

    def add_up(node: Node, action: Aggregate) -> Event:
        event = network.add_up(node, action)
        if node not in odd:
            return event
        model = replace(event.model, digest=bytes([node.number]) * 32)
        return replace(event, model=model)

    return add_up


def test_a_peer_with_another_digest_says_so_and_adopts_what_the_others_certify() -> None:
    for seed in range(8):
        network = Network(4, seed, rounds=2)
        odd = network.nodes[1]
        network.aggregate = differs(network, odd)
        network.start()
        network.finish(within=60.0)
        assert not skipped(network)
        assert [item.catch_up for item in odd.finished] == [True, True]
        notes = [note for node in network.nodes for note in node.notes]
        assert notes
        assert all(isinstance(note, DigestMismatch) for note in notes)
        assert not [
            body for body in bodies(network, Vote, 1) if body.choice.name == "FINALIZE" and body.round == 0
        ]


def test_peers_that_all_compute_something_else_skip_the_round_in_the_end() -> None:
    network = Network(3, rounds=1)
    network.aggregate = differs(network, *network.nodes)
    network.start()
    network.finish(within=400.0)
    assert skipped(network) == [1]
    assert {body.view for body in bodies(network, Propose) if body.block.skipped} == {MIN_VIEWS + 1}
    assert {body.view for body in bodies(network, Certificate)} == {MIN_VIEWS + 1}


def test_a_peer_that_cannot_get_an_update_adopts_the_model_that_it_makes() -> None:
    network = Network(4, rounds=2)
    first = Committee(network.manifest.task_id, network.manifest.peer_ids).leader(1, INITIAL.digest, 1)
    poor, rich = [node for node in network.nodes if node.number != first][:2]

    def is_blocked(node: Node, root: bytes) -> bool:
        return node is poor and root in updates(network, rich).get(1, [])

    network.blocked = is_blocked
    network.start()
    network.finish(within=60.0)
    assert [summary(node)[0][1] for node in network.nodes] == [4] * 4
    assert [item.catch_up for item in poor.finished] == [True, False]


def test_an_update_that_failed_is_fetched_again_while_there_is_time() -> None:
    network = Network(2, rounds=1)
    network.blocked = lambda node, root: node.number == 0 and network.now < 2.0
    network.start()
    network.finish(within=30.0)
    assert summary(network.nodes[0]) == [(1, 2, False)]
    assert network.now < TRAIN


def test_a_model_that_is_made_before_it_is_fetched_is_not_waited_for() -> None:
    network = Network(4, rounds=1)
    slow = network.nodes[2]
    lags = {Aggregate: 1.0, Adopt: 50.0}
    network.lag = lambda node, action: lags.get(type(action), 0.0) if node is slow else 0.0
    network.start()
    network.finish(within=30.0)
    assert summary(slow) == [(1, 4, False)]
    network.run_for(60.0)
    assert summary(slow) == [(1, 4, False)]


def test_aggregating_past_the_deadline_does_not_hold_the_others_up() -> None:
    network = Network(3, rounds=1)
    network.lag = lambda node, action: (
        3 * PHASE if isinstance(action, Aggregate) and node.number == 1 else 0.0
    )
    network.start()
    network.run(lambda: network.nodes[0].done, limit=3 * PHASE)
    network.finish(within=30.0)


# liars


def test_a_copied_commit_is_worthless_and_a_reveal_that_does_not_match_is_refused() -> None:
    network = Network(4, rounds=1)
    victim, copier = network.nodes[0], network.nodes[1]
    commits: list[Commit] = []
    reveals: list[Reveal] = []

    def copy(sender: Node, to: Node, body: Body) -> Body | None:
        if sender is victim and isinstance(body, Commit):
            commits.append(body)
        if sender is victim and isinstance(body, Reveal):
            reveals.append(body)
        if sender is copier and isinstance(body, Commit) and to is not victim:
            return commits[0] if commits else None
        if sender is copier and isinstance(body, Reveal) and to is not victim:
            return reveals[0] if reveals else None
        return body

    network.tamper = copy
    network.start()
    network.finish(within=60.0)
    rules = {
        (note.peer, note.rule)
        for node in network.nodes
        for note in node.notes
        if isinstance(note, Misbehaved)
    }
    assert rules == {(copier.peer, "commitment")}
    assert copier.peer not in network.nodes[2].finished[0].participants
    assert victim.peer in network.nodes[2].finished[0].participants


def test_of_two_different_commits_or_reveals_the_first_counts_and_the_second_is_noted_once() -> None:
    network = Network(4, rounds=1)
    liar = network.nodes[2]
    network.start()
    until_phase(network, network.nodes[0], Phase.VOTE, 1)
    changed = replace(bodies(network, Reveal, 2)[0], examples=99)
    for node in network.nodes[:2]:
        for body in (Commit(round=1, commitment=bytes(32)), changed):
            network.tell(node, node.life, MessageReceived(sender=liar.peer, body=body))
    network.finish(within=60.0)
    note = Misbehaved(round=1, peer=liar.peer, rule="twice")
    assert [node.notes for node in network.nodes] == [[note], [note], [], []]
    assert summary(network.nodes[0]) == [(1, 4, False)]


def test_the_same_update_of_two_members_counts_once_for_the_first() -> None:
    network = Network(4, rounds=1)
    one, other = network.nodes[1], network.nodes[3]
    same = Trained(round=1, root=bytes(32), size=10, examples=1)
    for node in (one, other):
        node.trains = False
        node.disk.blobs[same.root] = True
        network.at(0.9, partial(network.tell, node, 1, same))
    network.start()
    network.finish(within=60.0)
    for node in network.nodes:
        [finished] = node.finished
        assert finished.participants == tuple(item.peer for item in network.nodes[:3])
        assert finished.refused == ((other.peer, "duplicate"),)


def test_an_update_over_the_limit_is_never_fetched() -> None:
    network = Network(4, rounds=1)
    fat = network.nodes[1]
    fat.trains = False
    huge = Trained(round=1, root=bytes(32), size=network.manifest.max_update_bytes + 1, examples=1)
    network.at(0.9, partial(network.tell, fat, 1, huge))
    network.start()
    network.finish(within=60.0)
    for node in network.nodes:
        assert node.finished[0].refused == ((fat.peer, "size"),)
        assert huge.root not in node.disk.blobs


def skip_of(proposal: Propose) -> Propose:
    empty = replace(proposal.block, participants=0, examples=0, inputs=EMPTY_ROOT, model=INITIAL)
    return replace(proposal, block=empty)


def with_block(**changes: Any) -> Callable[[Propose], Propose]:
    return lambda proposal: replace(proposal, block=replace(proposal.block, **changes))


LIES: dict[str, Callable[[Propose], Propose]] = {
    "a member that is none": with_block(participants=0b1111 + (1 << 40)),
    "an update that nobody made": with_block(inputs=bytes(32)),
    "more examples": with_block(examples=1 << 20),
    "another task": with_block(task=bytes(32)),
    "another round's base": with_block(base=bytes(32)),
    "another model": with_block(model=replace(INITIAL, digest=bytes(32))),
    "a model elsewhere": with_block(model=replace(INITIAL, root=bytes(32))),
    "too few": with_block(participants=1),
    "a skip though there is enough": skip_of,
    "a skip with another model": lambda proposal: replace(
        skip_of(proposal), block=replace(skip_of(proposal).block, examples=1)
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_leader_that_proposes_anything_but_the_truth_is_passed_over(lie: str) -> None:
    network = Network(4, rounds=1)
    liar = leaders(network)[0]
    network.tamper = lambda sender, to, body: (
        LIES[lie](body) if sender is liar and isinstance(body, Propose) else body
    )
    network.start()
    network.finish(within=30.0)
    assert {len(item.participants) for node in network.nodes for item in node.finished} == {4}
    assert min(body.view for body in bodies(network, Certificate)) == 2


def test_whoever_votes_twice_is_reported_once() -> None:
    network = Network(4, rounds=1)
    liar, victim = network.nodes[1], network.nodes[0]
    network.start()
    until_phase(network, victim, Phase.AGGREGATE, 1)
    for label in range(1, 5):
        data = vote_bytes(network.manifest.task_id, 1, 1, Choice.FINALIZE, bytes([label]) * 32)
        signature = sign(liar.peer, data)
        vote = Vote(round=1, view=1, choice=Choice.FINALIZE, block=bytes([label]) * 32, signature=signature)
        network.tell(victim, 1, MessageReceived(sender=liar.peer, body=vote))
    assert victim.notes == [Misbehaved(round=1, peer=liar.peer, rule="equivocation")]
    network.finish(within=30.0)


def test_a_model_that_other_peers_begin_with_is_reported() -> None:
    network = Network(2, rounds=1)
    network.start()
    until_phase(network, network.nodes[0], Phase.TRAIN, 1)
    for _ in range(2):
        hello = Hello(round=1, base=bytes(32))
        network.tell(network.nodes[0], 1, MessageReceived(sender=network.nodes[1].peer, body=hello))
    [note] = network.nodes[0].notes
    assert note == DigestMismatch(round=1, peer=network.nodes[1].peer, ours=INITIAL.digest, theirs=bytes(32))


# one machine, told by hand


class Solo:
    """One machine among `count` members; the test says what the others do."""

    def __init__(self, count: int = 3, rounds: int = 3) -> None:
        self.network = Network(count, rounds=rounds)
        self.node = self.network.nodes[0]
        self.manifest = self.network.manifest
        self.machine = RoundMachine(
            manifest=self.manifest,
            peer=self.node.peer,
            sign=partial(sign, self.node.peer),
            rng=Random(1),
            verify=verify,
        )

    def start(self, certificate: Certificate | None = None) -> list[Action]:
        return self.machine.handle(Started(initial=INITIAL, certificate=certificate), 0.0)

    def hear(self, number: int, body: Body, now: float = 0.0) -> list[Action]:
        sender = self.network.nodes[number].peer
        return self.machine.handle(MessageReceived(sender=sender, body=body), now)

    def greet(self) -> list[Action]:
        hello = Hello(round=self.machine.round, base=INITIAL.digest)
        others = range(1, len(self.network.nodes))
        return [action for number in others for action in self.hear(number, hello)]


def certified(count: int, rounds: int) -> list[Certificate]:
    """The certificates of a task of so many rounds, all by the peers of that task."""
    network = Network(count, rounds=rounds)
    network.start()
    network.finish(within=200.0)
    found = {body.round: body for body in bodies(network, Certificate)}
    return [found[number] for number in sorted(found)]


def actions_of(actions: list[Action], *kinds: type[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kinds)]


def test_only_a_member_can_take_part() -> None:
    with pytest.raises(InvalidInput, match="not a member"):
        RoundMachine(manifest=manifest(), peer=peer(9), sign=bytes, rng=Random())


def test_started_comes_first_and_once() -> None:
    solo = Solo()
    with pytest.raises(LocalProtocolError):
        solo.machine.handle(PeerLost(peer=peer(1)), 0.0)
    assert solo.machine.phase is Phase.IDLE
    assert solo.machine.next_deadline() is None
    assert solo.machine.handle_timer(5.0) == []
    solo.start()
    with pytest.raises(LocalProtocolError):
        solo.start()


def test_strangers_and_our_own_echo_are_not_heard() -> None:
    solo = Solo(2)
    solo.start()
    hello = Hello(round=1, base=INITIAL.digest)
    for sender in (peer(50), solo.node.peer):
        assert solo.machine.handle(MessageReceived(sender=sender, body=hello), 0.0) == []
        assert solo.machine.handle(PeerConnected(peer=sender), 0.0) == []
    assert solo.machine.phase is Phase.SYNC
    solo.hear(1, hello)
    assert solo.machine.phase is Phase.TRAIN


def test_a_new_connection_is_greeted_now_and_then() -> None:
    solo = Solo()
    hello = Publish(body=Hello(round=1, base=INITIAL.digest))
    assert solo.start() == [hello]
    connected = PeerConnected(peer=solo.network.nodes[1].peer)
    assert solo.machine.handle(connected, 0.1) == []
    assert solo.machine.handle(connected, 1.0) == [hello]
    assert solo.machine.handle(connected, 1.1) == []


def test_training_that_fails_leaves_the_round_to_the_others() -> None:
    solo = Solo()
    solo.start()
    assert actions_of(solo.greet(), Train) == [Train(round=1, base=INITIAL)]
    abstained = solo.machine.handle(TrainFailed(round=1), 1.0)
    assert actions_of(abstained, Publish) == [Publish(body=Abstain(round=1))]
    assert solo.machine.phase is Phase.COMMIT
    solo.hear(1, Commit(round=1, commitment=bytes(32)), 1.1)
    assert solo.machine.phase is Phase.COMMIT
    solo.hear(2, Commit(round=1, commitment=bytes(32)), 1.1)
    assert solo.machine.phase is Phase.REVEAL


def test_who_abstains_is_not_waited_for_and_counts_if_it_commits_itself_all_the_same() -> None:
    solo = Solo(4)
    solo.start()
    solo.greet()
    solo.machine.handle(Trained(round=1, root=bytes(32), size=10, examples=5), 0.1)
    made = [reveal_of(node, bytes([node.number]) * 32) for node in solo.network.nodes]
    solo.hear(1, Abstain(round=1), 0.2)
    solo.hear(1, made[1][0], 0.2)
    solo.hear(2, made[2][0], 0.2)
    assert solo.machine.phase is Phase.COMMIT
    solo.hear(3, Abstain(round=1), 0.3)
    assert solo.machine.phase is Phase.REVEAL
    actions = [action for number in (1, 2, 3) for action in solo.hear(number, made[number][1], 0.4)]
    fetched = {action.root for action in actions if isinstance(action, Fetch)}
    assert {made[1][1].root, made[2][1].root} <= fetched


@pytest.mark.parametrize("committee", [MAX_COMMITTEE, 4])
def test_a_member_whose_training_fails_costs_the_others_no_time(committee: int) -> None:
    network = Network(5, rounds=2, training=(0.5, 0.5), committee=committee)
    broken = network.nodes[3]
    broken.trains = False
    network.start()
    for number in (1, 2):
        network.run(partial(lambda wanted: broken.trained[-1:] == [wanted], number), network.now + PHASE)
        network.tell(broken, broken.life, TrainFailed(round=number))
    network.finish(within=PHASE)
    assert summary(network.nodes[0]) == [(1, 4, False), (2, 4, False)]
    assert network.now < TRAIN


def test_when_all_abstain_the_deadline_passes_before_the_round_is_skipped() -> None:
    network = Network(3, rounds=1)
    for node in network.nodes:
        node.trains = False
    network.start()
    network.at(1.0, lambda: [network.tell(node, node.life, TrainFailed(round=1)) for node in network.nodes])
    network.finish(within=30.0)
    assert skipped(network) == [1]
    assert network.now >= TRAIN + PHASE


def test_an_own_update_is_in_the_journal_before_its_commit_is_published_and_revealed_later() -> None:
    solo = Solo()
    solo.start()
    solo.greet()
    update = Trained(round=1, root=bytes(32), size=10, examples=5)
    written, commit = actions_of(solo.machine.handle(update, 1.0), WriteJournal, Publish)
    assert isinstance(written, WriteJournal)
    [own] = written.entries
    assert isinstance(own, Reveal)
    assert (own.root, own.size, own.examples) == (bytes(32), 10, 5)
    assert isinstance(commit, Publish)
    assert isinstance(commit.body, Commit)
    assert solo.machine.handle(update, 1.0) == []
    for number in (1, 2):
        actions = solo.hear(number, Commit(round=1, commitment=bytes(32)), 1.1)
    assert Publish(body=own) in actions


def test_a_commit_after_commits_were_taken_is_not_waited_for_nor_fetched() -> None:
    solo = Solo(4)
    solo.start()
    solo.greet()
    solo.machine.handle(TrainFailed(round=1), 0.1)
    solo.machine.handle(PeerLost(peer=solo.network.nodes[3].peer), 0.1)
    made = [reveal_of(node, bytes([node.number]) * 32) for node in solo.network.nodes]
    for number in (1, 2):
        solo.hear(number, made[number][0], 0.2)
    assert solo.machine.phase is Phase.REVEAL
    for number in (3, 1):
        late = [*solo.hear(number, made[number][0], 0.3), *solo.hear(number, made[number][1], 0.3)]
        asked = [action.root for action in late if isinstance(action, Fetch)]
        assert asked == ([made[1][1].root] if number == 1 else [])
    solo.hear(2, made[2][1], 0.4)
    assert solo.machine.phase is Phase.FETCH


def reveal_of(node: Node, root: bytes) -> tuple[Commit, Reveal]:
    """What a peer says about an update of round 1, in a network of four."""
    reveal = Reveal(round=1, root=root, size=10, nonce=bytes(32), examples=1)
    value = commitment(node.peer, Solo(4).manifest.task_id, INITIAL.digest, reveal)
    return Commit(round=1, commitment=value), reveal


def test_results_of_another_round_are_ignored() -> None:
    solo = Solo()
    solo.start()
    solo.greet()
    assert solo.machine.handle(Trained(round=2, root=bytes(32), size=1, examples=1), 1.0) == []
    assert solo.machine.handle(ModelAdopted(round=1), 1.0) == []
    assert solo.machine.phase is Phase.TRAIN


def test_a_certificate_of_a_later_round_is_adopted_and_training_stops() -> None:
    first, second, third = certified(3, 3)
    solo = Solo()
    solo.start()
    solo.greet()
    assert solo.hear(1, second) == []  # it builds on one that we do not have
    [stop, adopt] = solo.hear(1, first)
    assert stop == StopTraining(round=1)
    assert isinstance(adopt, Adopt)
    signers = {solo.manifest.peer_ids[number] for number, _ in second.votes}
    assert set(adopt.holders) == set(solo.manifest.peer_ids[1:])
    assert adopt.holders[0] in signers
    assert solo.machine.phase is Phase.CERTIFIED
    assert solo.hear(1, second) == []
    assert solo.hear(1, first) == []
    assert solo.machine.handle(ModelAdopted(round=1), 0.1) == []
    checkpoint, finished, train = actions_of(
        solo.machine.handle(ModelAdopted(round=2), 0.1), Checkpoint, RoundFinished, Train
    )
    assert checkpoint == Checkpoint(certificate=second, chain=(first, second))
    assert isinstance(finished, RoundFinished)
    assert (finished.round, finished.catch_up, finished.phases) == (2, True, {})
    assert train == Train(round=3, base=second.block.model)
    assert solo.machine.round == 3
    solo.hear(2, third, 0.2)
    actions = solo.machine.handle(ModelAdopted(round=3), 0.3)
    assert actions[-1] == TaskFinished(model=third.block.model)
    assert solo.machine.phase is Phase.FINISHED


def test_a_model_that_cannot_be_had_is_asked_for_again_and_a_newer_one_instead() -> None:
    first, second, _ = certified(3, 3)
    solo = Solo()
    solo.start()
    solo.hear(1, first)
    [look] = solo.machine.handle(AdoptFailed(round=1), 1.0)
    assert isinstance(look, FetchHistory)  # the others may be further by now, though we hear nothing
    assert (look.first, set(look.holders)) == (2, {node.peer for node in solo.network.nodes[1:]})
    assert solo.machine.handle(AdoptFailed(round=1), 1.0) == []  # that is under way
    assert solo.machine.handle(AdoptFailed(round=2), 1.0) == []
    deadline = solo.machine.next_deadline()
    assert deadline is not None
    assert not actions_of(solo.machine.handle_timer(1.0), Adopt)
    again = actions_of(solo.machine.handle_timer(1.5), Adopt)
    assert [action.certificate for action in again if isinstance(action, Adopt)] == [first]
    newer = actions_of(solo.hear(2, second, 2.0), Adopt)
    assert [action.certificate for action in newer if isinstance(action, Adopt)] == [second]


def test_who_hears_nothing_and_gets_no_model_still_learns_how_far_the_others_are() -> None:
    first, second, third = certified(3, 3)
    solo = Solo()
    solo.start()
    solo.hear(1, first)
    solo.machine.handle(AdoptFailed(round=1), 1.0)
    found = HistoryFetched(holder=solo.network.nodes[1].peer, certificates=(second, third))
    newer = actions_of(solo.machine.handle(found, 1.5), Adopt)
    assert [action.certificate for action in newer if isinstance(action, Adopt)] == [third]


def test_a_certificate_that_is_false_or_of_no_round_of_ours_is_refused() -> None:
    first, second, third = certified(3, 3)
    solo = Solo(rounds=3)
    solo.start()
    sender = solo.network.nodes[1].peer
    forged = replace(second, block=first.block)
    assert solo.hear(1, forged) == [Misbehaved(round=1, peer=sender, rule="signature")]
    foreign = replace(first, block=replace(first.block, task=bytes(32)))
    assert solo.hear(1, foreign) == [Misbehaved(round=1, peer=sender, rule="signature")]
    beyond = replace(third, block=replace(third.block, round=4))
    assert solo.hear(1, beyond) == []


def test_a_member_that_is_behind_is_answered_at_most_once_a_second_for_all() -> None:
    first, second, third = certified(3, 3)
    solo = Solo()
    started = Started(initial=INITIAL, certificate=third, history=(first, second))
    assert solo.machine.handle(started, 0.0) == [TaskFinished(model=third.block.model)]
    behind = Hello(round=1, base=INITIAL.digest)
    answer = [Publish(body=first), Publish(body=second), Publish(body=third)]
    assert solo.hear(1, behind, 10.0) == answer
    assert solo.hear(2, behind, 10.5) == []
    assert solo.hear(2, behind, 10.0 + ANSWER_GAP) == answer
    assert solo.hear(2, first, 20.0) == []
    assert solo.hear(1, behind, 20.5) == []
    assert solo.hear(1, behind, 21.0) == []  # the second member is there, and answers first
    assert solo.machine.handle_timer(21.0 + STEP) == answer


def test_what_is_said_early_about_the_next_round_is_kept_up_to_a_bound() -> None:
    [first, *_] = certified(3, 3)
    solo = Solo()
    solo.start()
    solo.greet()
    early = Commit(round=2, commitment=bytes(32))
    solo.hear(1, early)
    solo.hear(1, early)
    for number in range(2 * MAX_EARLY):
        solo.hear(2, Commit(round=3, commitment=number.to_bytes(32)))
    for number in range(2 * MAX_EARLY):
        solo.hear(2, Commit(round=2, commitment=number.to_bytes(32)))
    solo.hear(1, first)
    solo.hear(2, Commit(round=2, commitment=bytes(32)))
    actions = solo.machine.handle(ModelAdopted(round=1), 1.0)
    twice = Misbehaved(round=2, peer=solo.network.nodes[2].peer, rule="twice")
    assert actions_of(actions, Misbehaved) == [twice]
    update = Trained(round=2, root=bytes(32), size=10, examples=5)
    solo.machine.handle(update, 1.1)
    assert solo.machine.phase is Phase.REVEAL


def test_a_member_that_is_not_connected_stays_live_for_a_while_after_its_last_word() -> None:
    solo = Solo(2)
    solo.start()
    solo.greet()
    solo.machine.handle(TrainFailed(round=1), 0.1)
    for _ in range(100):
        now = solo.machine.next_deadline() or 0.0
        solo.machine.handle_timer(now)
    assert solo.machine.phase is Phase.COMMIT  # fewer are live than a vote needs
    assert now > TRAIN + PHASE
    solo.hear(1, Hello(round=1, base=INITIAL.digest), now)
    assert solo.machine.phase is Phase.COMMIT  # its time begins again
    solo.machine.handle(PeerConnected(peer=solo.network.nodes[1].peer), now)
    assert actions_of(solo.machine.handle_timer(now + TRAIN + PHASE), Publish)
    assert solo.machine.phase is Phase.REVEAL
