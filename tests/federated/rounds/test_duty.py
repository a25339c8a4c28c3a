"""Who aggregates: the pure share-out, and voters that are relieved, and take their duty up when they must."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.rounds.actions import Action, Aggregate, DutyChanged, Fetch, PhaseFinished
from federated.rounds.committee import Committee, Panel, numbers_in, set_of, verify_signature
from federated.rounds.duty import duties
from federated.rounds.events import Measured, Phase
from federated.rounds.messages import Capability, Choice, Vote
from federated.rounds.phases import PATIENCE
from tests.federated.rounds.network import INITIAL, MODEL_SIZE, Network, Node, verify
from tests.federated.samples import peer

FAST = Capability(
    round=1,
    steps_per_second=5.0,
    bytes_down=1e9,
    bytes_up=1e9,
    aggregate_bytes_per_second=1e9,
    memory=1 << 30,
    cores=2,
)
SLOW = replace(FAST, aggregate_bytes_per_second=1.0)
TASK = bytes(32)
DEADLINE = 2.0  # seconds, of a phase in the networks here


def panel(voters: int) -> Panel:
    """A committee of the members in the set, all of them voters."""
    numbers = numbers_in(voters)
    committee = Committee(TASK, [peer(number) for number in numbers], verify_signature)
    return Panel(committee=committee, members=tuple(numbers), voters=voters)


RATES = st.sampled_from([0.0, 1.0, 10.0, 1e3, 1e6, 1e9])
CAPABILITIES = st.builds(
    lambda down, rate: replace(FAST, bytes_down=down, aggregate_bytes_per_second=rate), RATES, RATES
)


def is_slow(known: Capability, updates: int, size: int) -> bool:
    """By the definition: one of the two phases takes longer than its deadline."""
    return bool(
        (known.bytes_down and (updates - 1) * size / known.bytes_down > DEADLINE)
        or (known.aggregate_bytes_per_second and updates * size / known.aggregate_bytes_per_second > DEADLINE)
    )


@given(
    voters=st.sets(st.integers(0, 30), min_size=1).map(set_of),
    live=st.integers(0, (1 << 31) - 1),
    capabilities=st.dictionaries(st.integers(0, 30), CAPABILITIES),
    updates=st.integers(1, 31),
    size=st.sampled_from([1, 1000, 1 << 20]),
)
def test_only_who_is_too_slow_is_relieved_and_never_too_many(
    voters: int, live: int, capabilities: dict[int, Capability], updates: int, size: int
) -> None:
    group = panel(voters)
    found = duties(group, capabilities, live, updates=updates, size=size, deadline=DEADLINE)
    shuffled = dict(reversed(capabilities.items()))
    assert found == duties(group, shuffled, live, updates=updates, size=size, deadline=DEADLINE)
    relieved = voters & ~found
    assert found & ~voters == 0
    assert relieved & ~live == 0
    least = group.committee.quorum + group.committee.faults // 2
    if relieved:
        assert (found & live).bit_count() >= least
    slow = {
        number
        for number in numbers_in(voters & live)
        if number in capabilities and is_slow(capabilities[number], updates, size)
    }
    assert set(numbers_in(relieved)) <= slow
    if len(slow) > relieved.bit_count():  # another one could not have been spared
        assert relieved.bit_count() == max(0, (voters & live).bit_count() - least)


def test_the_slowest_is_relieved_first_and_of_equals_the_first() -> None:
    group, everybody = panel(0b111111), 0b111111
    capabilities = dict.fromkeys((1, 2, 3), replace(FAST, bytes_down=10.0))

    def relieved() -> int:
        found = duties(group, capabilities, everybody, updates=6, size=1000, deadline=DEADLINE)
        return everybody & ~found

    assert relieved() == 0b110
    capabilities[3] = replace(FAST, bytes_down=5.0)
    assert relieved() == 0b1010
    capabilities[2] = replace(FAST, bytes_down=10.0, aggregate_bytes_per_second=1.0)
    assert relieved() == 0b1100


@pytest.mark.parametrize(
    ("count", "spared"), [(1, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 1), (9, 2), (64, 11)]
)
def test_a_quorum_and_half_as_many_as_may_fail_are_left(count: int, spared: int) -> None:
    everybody = (1 << count) - 1
    capabilities = dict.fromkeys(range(count), SLOW)
    found = duties(panel(everybody), capabilities, everybody, updates=count, size=1000, deadline=DEADLINE)
    assert count - found.bit_count() == spared


@pytest.mark.parametrize(
    ("bytes_down", "rate", "is_relieved"),
    [
        (5.0, 0.0, False),  # 10 bytes of the two others are here in two seconds
        (4.9, 0.0, True),
        (0.0, 7.5, False),  # 15 bytes are averaged in two seconds
        (0.0, 7.4, True),
        (0.0, 0.0, False),
    ],
)
def test_fetching_and_averaging_have_a_deadline_each(
    bytes_down: float, rate: float, is_relieved: bool
) -> None:
    capability = replace(FAST, bytes_down=bytes_down, aggregate_bytes_per_second=rate)
    found = duties(panel(0b111), {1: capability}, 0b111, updates=3, size=5, deadline=DEADLINE)
    assert found == (0b101 if is_relieved else 0b111)


class Watched(Network):
    """A network that keeps the actions of its members."""

    def __init__(self, count: int, **options: int) -> None:
        super().__init__(count, training=(0.1, 0.3), phase_deadline_s=DEADLINE, **options)
        self.actions: dict[int, list[Action]] = {number: [] for number in range(count)}
        self.lag = self.keep

    def keep(self, node: Node, action: Action) -> float:
        self.actions[node.number].append(action)
        return 0.0

    def measure(self, node: Node, capability: Capability) -> None:
        self.tell(node, node.life, Measured(capability=replace(capability, round=0)))

    def begin(self, *slow: int) -> list[Node]:
        """Starts all; those in `slow` are too slow to aggregate."""
        self.start()
        for node in self.nodes:
            self.measure(node, SLOW if node.number in slow else FAST)
        return self.nodes

    def fetched(self, node: Node, round_number: int | None = None) -> int:
        """How many updates the member asked for."""
        actions = self.actions[node.number]
        return sum(isinstance(item, Fetch) and round_number in (None, item.round) for item in actions)

    def duties(self, node: Node) -> list[tuple[int, bool]]:
        return [
            (item.round, item.relieved) for item in self.actions[node.number] if isinstance(item, DutyChanged)
        ]

    def until_phase(self, node: Node, phase: Phase) -> None:
        machine = node.machine
        assert machine is not None
        self.run(lambda: machine.phase is phase, self.now + 30)


def test_a_slow_voter_adopts_what_the_others_make_of_its_update_too() -> None:
    network = Watched(6, rounds=4)
    *others, slow = network.begin(5)
    network.finish(within=30.0)
    assert network.fetched(slow) == 0
    assert not any(isinstance(item, Aggregate) for item in network.actions[5])
    assert network.duties(slow) == [(number, True) for number in range(1, 5)]
    assert [(item.round, len(item.participants), item.catch_up) for item in slow.finished] == [
        (number, 6, True) for number in range(1, 5)
    ]
    for node in others:
        for action in network.actions[node.number]:
            if isinstance(action, Fetch):  # the slow one has nothing but its own
                assert action.holders.count(slow.peer) == (action.holders[0] == slow.peer)
        assert network.fetched(node) >= 6 * 4
        assert network.duties(node) == []
        assert not any(item.catch_up for item in node.finished)


def test_nobody_waits_for_a_leader_that_is_relieved() -> None:
    network = Watched(6, rounds=1)
    group = Committee(network.manifest.task_id, network.manifest.peer_ids, verify)
    leader = group.leader(1, INITIAL.digest, 1)
    network.begin(leader)
    network.finish(within=60.0)
    assert network.duties(network.nodes[leader]) == [(1, True)]
    assert max(item.seconds for node in network.nodes for item in node.finished) < DEADLINE


def test_no_more_slow_voters_are_relieved_than_can_be_spared() -> None:
    network = Watched(6, rounds=2)
    nodes = network.begin(1, 3, 4)
    network.finish(within=30.0)
    assert network.duties(nodes[1]) == network.duties(nodes[3]) == [(1, True), (2, True)]
    assert network.duties(nodes[4]) == []


def test_a_slow_voter_that_is_needed_for_a_quorum_does_its_duty() -> None:
    network = Watched(6, rounds=3)
    nodes = network.begin(5)
    network.kill(nodes[0])
    network.kill(nodes[1])
    network.finish(within=60.0)
    assert network.duties(nodes[5]) == []
    assert {len(item.participants) for item in nodes[5].finished} == {4}


def test_a_relieved_voter_takes_its_duty_up_when_the_others_decide_nothing() -> None:
    network = Watched(3, rounds=2)
    gone, left, slow = network.begin(2)
    network.until_phase(slow, Phase.AWAIT)
    began = network.now
    network.kill(gone)
    network.run(lambda: len(network.duties(slow)) == 2, began + PATIENCE * DEADLINE + 0.1)
    assert network.now >= began + PATIENCE * DEADLINE
    actions = [item for item in network.actions[2] if isinstance(item, DutyChanged | Fetch)]
    assert isinstance(actions[1], DutyChanged)
    assert all(isinstance(item, Fetch) for item in actions[2:])
    network.finish(within=30.0)
    assert network.fetched(slow, 1) > 0
    assert network.duties(slow)[:2] == [(1, True), (1, False)]
    assert [item.catch_up for item in slow.finished] == [False, False]
    phases = [
        item.phase for item in network.actions[2] if isinstance(item, PhaseFinished) and item.round == 1
    ]
    assert phases[2:5] == [Phase.AWAIT, Phase.FETCH, Phase.VALIDATE]
    assert left.finished[0].model == slow.finished[0].model


def test_too_many_that_think_they_are_relieved_only_cost_time() -> None:
    network = Watched(3, rounds=1)
    network.tamper = lambda sender, to, body: None if isinstance(body, Capability) else body
    network.begin(0, 1, 2)
    network.finish(within=PATIENCE * DEADLINE + 20.0)
    assert all(network.duties(node) == [(1, True), (1, False)] for node in network.nodes)
    assert {len(node.finished[0].participants) for node in network.nodes} == {3}


def test_without_a_quorum_a_relieved_voter_waits_on() -> None:
    network = Watched(3, rounds=1)
    first, second, slow = network.begin(2)
    network.until_phase(slow, Phase.AWAIT)
    network.kill(first)
    network.kill(second)
    network.run_for(10 * PATIENCE * DEADLINE)
    assert network.duties(slow) == [(1, True)]
    network.start(first, second)
    network.finish(within=PATIENCE * DEADLINE + 20.0)


def test_a_voter_that_has_voted_before_its_restart_is_not_relieved() -> None:
    network = Watched(3, rounds=1)
    gone, left, slow = network.begin(2)
    network.until_phase(slow, Phase.AWAIT)
    network.kill(gone)

    def has_voted() -> bool:
        return any(isinstance(item, Vote) and item.choice is Choice.NOTARIZE for item in slow.disk.journal)

    network.run(has_voted, network.now + 40)
    network.kill(slow)
    assert slow.disk.certificate is None
    network.actions[2].clear()
    network.start(slow)
    network.measure(slow, SLOW)
    network.start(gone)
    network.finish(within=30.0)
    assert network.duties(slow) == []
    assert left.finished[0].model == slow.finished[0].model


def test_a_model_that_is_small_relieves_nobody() -> None:
    network = Watched(3, rounds=1)
    network.start()
    for node in network.nodes:
        network.measure(node, replace(FAST, aggregate_bytes_per_second=3 * MODEL_SIZE / DEADLINE))
    network.finish(within=10.0)
    assert not any(network.duties(node) for node in network.nodes)
