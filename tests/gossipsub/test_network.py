"""Many routers: what they achieve together."""

from __future__ import annotations

import hashlib
import itertools
import random

import pytest

from p2p.gossipsub.events import Join, Leave, SendRpc, StreamLost, StreamOpened
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.wire import Prune, Rpc, Version
from p2p.peer_id import PeerId
from tests.gossipsub.support import Network, receive


def make_network(count: int = 30, seed: int = 1, **settings: object) -> Network:
    """Everybody connected to everybody and subscribed to t, after a few heartbeats."""
    network = Network(count, params=GossipsubParams(**settings), seed=seed)  # type: ignore[arg-type]
    for peer in network.peers:
        network.handle(peer, Join(topic="t"))
    network.link_all()
    network.run(5.0)
    return network


def assert_symmetric(network: Network) -> None:
    for one, other in itertools.permutations(network.peers, 2):
        assert (other in network.routers[one].mesh("t")) == (one in network.routers[other].mesh("t"))


@pytest.mark.parametrize("seed", range(3))
def test_a_mesh_of_30_forms_within_its_bounds(seed: int) -> None:
    network = make_network(seed=seed)
    for router in network.routers.values():
        assert 5 <= len(router.mesh("t")) <= 12
    assert_symmetric(network)


def test_a_mesh_forms_before_the_first_heartbeat() -> None:
    network = Network(6)
    for peer in network.peers:
        network.handle(peer, Join(topic="t"))
    network.link_all()
    network.run(0.05)
    assert network.now < 0.1
    assert all(len(router.mesh("t")) == 5 for router in network.routers.values())


@pytest.mark.parametrize("flood", [True, False])
def test_every_message_reaches_everyone_once(flood: bool) -> None:
    network = make_network(flood_publish=flood)
    expected = []
    for number, peer in enumerate(network.peers):
        expected.append(b"message %d" % number)
        network.publish(peer, "t", expected[-1])
    network.run(1.0)
    for peer, data in zip(network.peers, expected, strict=True):
        assert sorted(network.delivered[peer]) == sorted(other for other in expected if other != data)


def test_messages_cross_a_sparse_network() -> None:
    """30 peers of which each dialed only three others."""
    network = Network(30)
    rng = random.Random(3)
    for peer in network.peers:
        network.handle(peer, Join(topic="t"))
    linked: set[frozenset[PeerId]] = set()
    for dialer in network.peers:
        for listener in rng.sample([peer for peer in network.peers if peer != dialer], 3):
            if frozenset((dialer, listener)) not in linked:
                linked.add(frozenset((dialer, listener)))
                network.link(dialer, listener)
    network.run(3.0)
    network.publish(network.peers[0], "t", b"data")
    network.run(1.0)
    assert all(network.delivered[peer] == [b"data"] for peer in network.peers[1:])


def test_a_message_lost_on_its_direct_way_is_recovered_by_gossip() -> None:
    network = make_network()
    victim = network.peers[7]
    asked = False

    def lose(origin: PeerId, target: PeerId, rpc: Rpc) -> Rpc | None:
        nonlocal asked
        asked = asked or (origin == victim and bool(rpc.iwant))
        return None if target == victim and rpc.messages and not asked else rpc

    network.filter = lose
    network.publish(network.peers[0], "t", b"data")
    network.run(0.05)
    assert network.delivered[victim] == []
    network.run(3.0)
    assert asked
    assert network.delivered[victim] == [b"data"]


def test_a_third_of_all_messages_may_be_lost() -> None:
    network = make_network()
    rng = random.Random(5)
    network.filter = lambda origin, target, rpc: None if rpc.messages and rng.random() < 0.33 else rpc
    for number, peer in enumerate(network.peers):
        network.publish(peer, "t", b"%d" % number)
    network.run(5.0)
    assert all(len(network.delivered[peer]) == 29 for peer in network.peers)


def test_a_peer_that_leaves_is_replaced() -> None:
    network = make_network()
    leaving = network.peers[4]
    network.handle(leaving, Leave(topic="t"))
    network.run(2.0)
    for peer in network.peers:
        assert leaving not in network.routers[peer].mesh("t")
        assert leaving not in network.routers[peer].subscribers("t")
        assert peer == leaving or len(network.routers[peer].mesh("t")) >= 5
    network.publish(network.peers[0], "t", b"data")
    network.run(1.0)
    assert network.delivered[leaving] == []


def test_a_peer_whose_connection_ends_is_replaced() -> None:
    network = make_network()
    gone = network.peers[4]
    for peer in network.peers:
        if peer != gone:
            network.unlink(gone, peer)
    network.run(2.0)
    others = [peer for peer in network.peers if peer != gone]
    assert all(len(network.routers[peer].mesh("t")) >= 5 for peer in others)
    network.publish(others[0], "t", b"data")
    network.run(1.0)
    assert all(network.delivered[peer] == [b"data"] for peer in others[1:])


def test_nobody_is_grafted_within_the_backoff_of_a_prune() -> None:
    network = make_network(count=20)
    one = network.peers[0]
    pruned_at: dict[tuple[PeerId, PeerId], float] = {}
    for _ in range(3):  # prune the whole mesh by hand, as somebody would who has had enough of it
        for peer in network.routers[one].mesh("t"):
            prune = Rpc(prune=(Prune(topic="t", backoff=20),))
            network._perform(one, receive(network.routers[one], peer, prune, network.now))
            pruned_at[one, peer] = network.now
        network.sent.clear()
        network.run(25.0)
        for time, origin, target, rpc in network.sent:
            if "t" in rpc.graft and (origin, target) in pruned_at:
                assert time >= pruned_at[origin, target] + 20 + 2


def test_a_stream_that_is_opened_again_restores_a_symmetric_mesh() -> None:
    network = make_network()
    one = network.peers[0]
    other = network.routers[one].mesh("t")[0]
    network.handle(one, StreamLost(peer=other))
    network.run(3.0)
    network.handle(one, StreamOpened(peer=other, version=Version.V1_2, outbound=True))
    network.run(3.0)
    assert_symmetric(network)


def count_copies(version: Version, size: int) -> int:
    """How often a message of `size` bytes is sent where messages are slow and control is fast."""
    network = Network(20, seed=2)
    for peer in network.peers:
        network.handle(peer, Join(topic="t"))
    network.link_all(version)
    network.run(5.0)
    network.sent.clear()
    rng = random.Random(4)
    network.latency = lambda origin, target, rpc: rng.uniform(0.05, 0.2) if rpc.messages else 0.01
    network.publish(network.peers[0], "t", bytes(size))
    network.run(3.0)
    assert all(network.delivered[peer] == [bytes(size)] for peer in network.peers[1:])
    return sum(len(rpc.messages) for _, _, _, rpc in network.sent)


def test_idontwant_stops_many_duplicates_of_large_messages() -> None:
    small, large = count_copies(Version.V1_2, 100), count_copies(Version.V1_2, 100_000)
    assert count_copies(Version.V1_1, 100_000) == small  # who does not know it cannot stop it
    assert large - 19 < 0.7 * (small - 19)


def run_scenario(seed: int) -> str:
    network = make_network(count=15, seed=seed)
    rng = random.Random(seed)
    network.filter = lambda origin, target, rpc: None if rpc.messages and rng.random() < 0.2 else rpc
    for number, peer in enumerate(network.peers):
        network.publish(peer, "t", bytes(100 * number))
        network.run(0.1)
    network.handle(network.peers[3], Leave(topic="t"))
    network.run(5.0)
    return hashlib.sha256("\n".join(network.trace).encode()).hexdigest()


def test_the_same_seed_gives_the_same_trace() -> None:
    assert run_scenario(1) == run_scenario(1)
    assert run_scenario(1) != run_scenario(2)


def test_control_of_one_call_to_one_peer_shares_an_rpc() -> None:
    network = make_network(count=10)
    router = network.router(1)
    for topic in ("a", "b", "c"):
        for peer in network.peers[1:]:
            network.handle(peer, Join(topic=topic))
        network.handle(network.peers[0], Join(topic=topic))
    network.run(2.0)
    for peer in network.peers[1:]:
        for topic in ("t", "a", "b", "c"):
            router._mesh.remove(peer, topic)
    actions = router.handle_timer(router.next_deadline() or 0.0)
    targets = [action.peer for action in actions if isinstance(action, SendRpc)]
    assert len(targets) == len(set(targets)) > 0
    assert any(len(action.rpc.graft) > 1 for action in actions if isinstance(action, SendRpc))
