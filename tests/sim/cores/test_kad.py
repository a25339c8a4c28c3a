"""The DHT on the rung `cores`."""

from __future__ import annotations

import pytest

from p2p.kad.distance import common_prefix_length, position
from p2p.kad.namespaces import content_key, sign_value
from p2p.peer_id import PeerId
from sim.heap import SimulationError
from sim.identity import key_of
from sim.scenario.model import Adversary, Selection
from tests.sim.cores.bench import Bench, ring


def dht(peers: int, **more: object) -> Bench:
    bench = Bench(peers, ring(peers), dht=[{}], **more)  # type: ignore[arg-type]
    bench.run(20.0)
    return bench


def closest(bench: Bench, target: int, asker: int) -> bytes:
    """The ids of the 20 peers nearest to the target, by a look at all of them."""
    where = position(bench.peers[target].raw)
    others = [peer for number, peer in enumerate(bench.peers) if number != asker]
    others.sort(key=lambda peer: position(peer.raw) ^ where)
    return b"".join(sorted(peer.raw for peer in others[:20]))


def test_a_look_up_finds_the_peers_that_are_truly_closest() -> None:
    bench = dht(60)
    for operation, (asker, target) in enumerate([(0, 30), (59, 1), (17, 18)]):
        bench.rung.find(asker, target, operation)
        bench.run(30.0)
        found = bench.watcher.operations[operation]
        assert found["ok"]
        assert found["kind"] == "find"
        assert found["result"] == closest(bench, target, asker)
        assert 0.0 < found["seconds"] < 30.0
        assert found["hops"] >= 1


def test_a_value_that_was_put_is_got_by_others() -> None:
    bench = dht(40)
    value = b"some value"
    key = content_key(value)
    bench.rung.put(3, key, value, 1)
    bench.run(20.0)
    assert bench.watcher.operations[1]["ok"]
    bench.rung.get(33, key, 2)
    bench.rung.get(12, content_key(b"never put"), 3)
    bench.rung.put(1, b"no namespace", b"x", 4)
    bench.rung.get(1, b"no namespace", 5)
    bench.run(20.0)
    assert bench.watcher.operations[2]["result"] == value
    assert not bench.watcher.operations[3]["ok"]
    assert not bench.watcher.operations[4]["ok"]
    assert not bench.watcher.operations[5]["ok"]
    assert not bench.watcher.failures


def test_a_look_up_goes_round_the_dead_and_those_that_say_nothing() -> None:
    silent = Adversary(role="dht-silent", who=Selection(nodes=(4,)))
    liar = Adversary(role="dht-liar", who=Selection(nodes=(5,)))
    bench = dht(40, adversaries={4: silent, 5: liar})
    for node in range(10, 16):
        bench.rung.crash(node, silently=node % 2 == 0)
    bench.rung.find(0, 30, 1)
    bench.run(60.0)
    found = bench.watcher.operations[1]
    assert found["ok"]
    assert bench.peers[30].raw in found["result"]
    assert bench.peers[11].raw not in found["result"]


def test_a_query_is_made_again_when_its_connection_breaks() -> None:
    bench = dht(3)
    life = bench.rung._nodes[0].life
    assert life is not None
    assert life.kad is not None
    bench.rung.find(0, 2, 1)
    bench.rung.reset(0, 1)
    bench.rung.reset(0, 2)
    bench.run(20.0)
    assert bench.watcher.operations[1]["ok"]
    assert not life.kad._client.asked


def test_a_scenario_without_a_dht_has_none() -> None:
    bench = Bench(2)
    with pytest.raises(SimulationError, match="no DHT"):
        bench.rung.find(0, 1, 1)
    bench.rung.crash(0)
    bench.rung.find(0, 1, 1)
    bench.rung.put(0, b"", b"", 2)
    bench.rung.get(0, b"", 3)


def test_a_network_that_begins_at_a_few_nodes_connects_everybody() -> None:
    bench = Bench(30, topology={"kind": "join", "degree": 8, "bootstrap": 2})
    bench.run(60.0)
    assert all(len(bench.rung.connected(node)) >= 8 for node in range(30))
    bench.rung.crash(7)
    bench.run(30.0)
    bench.rung.start(7)
    bench.run(30.0)
    assert len(bench.rung.connected(7)) >= 8
    bench.rung.connect(7, 8)
    assert not bench.watcher.failures


def test_members_of_a_full_bucket_that_do_not_answer_make_room() -> None:
    bench = dht(3)
    life = bench.rung._nodes[0].life
    assert life is not None
    assert life.kad is not None
    strangers = [PeerId.from_public_key(key_of(99, number).public) for number in range(60)]
    origin = position(bench.peers[0].raw)
    far = [peer for peer in strangers if common_prefix_length(origin, position(peer.raw)) == 0]
    for peer in far[:22]:
        life.kad.note(peer)
    assert far[0] in life.kad.table
    bench.run(20.0)
    assert far[0] not in life.kad.table
    assert life.kad._probing == {}


def test_an_older_value_is_refused_and_its_sender_learns_the_newer_one() -> None:
    bench = dht(40)
    identity = key_of(1, 7)
    key, new = sign_value(identity, "name", 2, b"new")
    _, old = sign_value(identity, "name", 1, b"old")
    bench.rung.put(7, key, new, 1)
    bench.run(10.0)
    lives = [node.life for node in bench.rung._nodes]
    kads = [life.kad for life in lives if life is not None and life.kad is not None]
    late = next(n for n, kad in enumerate(kads) if kad.store.get(key, bench.heap.now) is None)
    bench.rung.put(late, key, old, 2)
    bench.run(10.0)
    assert not bench.watcher.operations[2]["ok"]
    bench.rung.get(late, key, 3)
    bench.run(10.0)
    assert bench.watcher.operations[3]["result"] == new
    held = kads[late].store.get(key, bench.heap.now)
    assert held is not None
    assert held.value == new
