"""What members announce of themselves: when they say it, and whose is kept."""

from __future__ import annotations

from dataclasses import replace

from federated.rounds.actions import CapabilityAnnounced
from federated.rounds.capabilities import Capabilities
from federated.rounds.events import LeaveWanted, Measured
from federated.rounds.messages import Capability, Hello
from tests.federated.rounds.network import Network, Node, bodies
from tests.federated.rounds.test_duty import FAST

OURS = replace(FAST, round=0)
FASTER = replace(OURS, bytes_down=2e9)


def test_the_newest_of_each_member_is_kept() -> None:
    known = Capabilities(0, is_drawn=False)
    assert known.hear(1, replace(FAST, round=2))
    assert not known.hear(1, replace(FASTER, round=2))  # one a round
    assert not known.hear(1, replace(FASTER, round=1))
    assert known.hear(1, replace(FASTER, round=3))
    assert known.hear(2, FAST)
    assert known.known == {1: replace(FASTER, round=3), 2: FAST}
    known.retain(0b101)
    assert known.known == {2: FAST}


def test_nothing_is_announced_before_it_is_measured() -> None:
    ours = Capabilities(0, is_drawn=False)
    assert ours.first(1) is None
    assert ours.due(1, 0b11) is None


def test_ours_is_announced_at_first_then_in_a_round_and_then_when_it_changed() -> None:
    ours = Capabilities(0, is_drawn=True)
    ours.measure(OURS)
    assert ours.first(3) == replace(OURS, round=3)
    assert ours.due(3, 0b1) == replace(OURS, round=3)
    assert ours.first(4) is None
    assert ours.due(4, 0b111) is None  # many members: not again for those who come
    ours.measure(FASTER)
    assert ours.due(4, 0b111) == replace(FASTER, round=4)
    ours.measure(OURS)
    assert ours.due(4, 0b111) is None  # once a round
    assert ours.due(5, 0b111) == replace(OURS, round=5)


def test_in_a_small_task_whoever_comes_is_told() -> None:
    ours = Capabilities(0, is_drawn=False)
    ours.measure(OURS)
    assert ours.due(1, 0b011) is not None
    assert ours.due(2, 0b011) is None
    assert ours.due(3, 0b111) == replace(OURS, round=3)
    ours.lose(2)
    assert ours.due(4, 0b011) is None
    assert ours.due(5, 0b111) == replace(OURS, round=5)


def said(network: Network, node: Node) -> list[int]:
    """The rounds of a member's announcements."""
    return [body.round for body in bodies(network, Capability, node.number)]


def known(node: Node, peer: Node) -> Capability | None:
    assert node.machine is not None
    return node.machine._capabilities.known.get(peer.number)


def test_members_know_what_each_of_them_can_do() -> None:
    network = Network(3, rounds=2)
    announced: dict[int, list[CapabilityAnnounced]] = {0: [], 1: [], 2: []}
    network.lag = lambda node, action: (
        announced[node.number].append(action) or 0.0 if isinstance(action, CapabilityAnnounced) else 0.0
    )
    network.start()
    first, second, third = network.nodes
    for node in (first, second):
        network.tell(node, node.life, Measured(capability=OURS))
    network.finish(within=30.0)
    assert known(third, first) == known(second, first) == replace(OURS, round=1)
    assert known(first, third) is None
    assert said(network, first) == [1, 1]  # with the first Hello, and when a round begins
    assert said(network, third) == []
    assert isinstance(bodies(network, Hello, first.number)[0], Hello)
    peers = [action.peer for action in announced[2]]
    assert sorted(peers) == sorted([first.peer, second.peer])
    assert first.peer in [action.peer for action in announced[0]]


def test_who_leaves_is_forgotten_and_who_comes_back_is_told() -> None:
    network = Network(5, rounds=6)
    network.start()
    for node in network.nodes:
        network.tell(node, node.life, Measured(capability=OURS))
    first, leaver, back = network.nodes[0], network.nodes[1], network.nodes[2]
    network.run(lambda: len(first.finished) == 1, 30.0)
    assert said(network, first) == [1, 1]
    network.tell(leaver, leaver.life, LeaveWanted())
    network.kill(back)
    network.run(lambda: len(first.finished) == 3, 60.0)
    assert known(first, leaver) is None
    network.start(back)
    network.finish(within=60.0)
    assert known(back, first) is not None
    assert len(said(network, first)) == 3
