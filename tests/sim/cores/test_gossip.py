"""Gossip on the rung `cores`."""

from __future__ import annotations

import pytest

from p2p.gossipsub.events import SendRpc
from p2p.gossipsub.wire import IHave, Prune, Rpc, Subscription, encode_rpc
from sim.scenario.model import Adversary, Selection
from tests.sim.cores.bench import TOPIC, Bench, ring


def reached(bench: Bench, message: int = -1) -> list[int]:
    return sorted(bench.watcher.receivers.get(bench.watcher.published_ids[message], []))


def test_a_message_reaches_everybody_once_and_meshes_are_reported_as_they_are() -> None:
    bench = Bench(30, ring(30))
    bench.subscribe()
    bench.run(5.0)
    bench.rung.publish(7, TOPIC, b"hello")
    bench.run(3.0)
    assert reached(bench) == [node for node in range(30) if node != 7]
    assert bench.watcher.duplicates > 0
    for node in range(30):
        assert bench.rung.mesh(node, TOPIC) == sorted(bench.watcher.meshes[node, TOPIC])
        assert bench.rung.connected(node) == sorted(b for a, b in bench.watcher.links if a == node)
        assert bench.rung.alive(node)
    assert not bench.watcher.failures


def test_who_leaves_the_topic_hears_nothing_and_is_in_no_mesh() -> None:
    bench = Bench(12, ring(12))
    bench.subscribe()
    bench.run(3.0)
    bench.rung.unsubscribe(3, TOPIC)
    bench.rung.unsubscribe(3, TOPIC)
    bench.run(1.0)
    bench.rung.publish(0, TOPIC, b"x")
    bench.run(2.0)
    assert reached(bench) == [node for node in range(12) if node not in (0, 3)]
    assert bench.rung.mesh(3, TOPIC) == []
    assert all(3 not in bench.watcher.meshes[node, TOPIC] for node in range(12))
    assert ("left", 3, TOPIC) in bench.watcher.told


def test_who_published_while_alone_meets_others_later() -> None:
    bench = Bench(2, [])
    bench.subscribe()
    bench.rung.publish(0, TOPIC, b"nobody hears this")
    bench.run(10.0)
    bench.rung.connect(0, 1)
    bench.run(5.0)
    bench.rung.publish(0, TOPIC, b"hello")
    bench.run(2.0)
    assert reached(bench) == [1]
    assert not bench.watcher.failures


def test_an_adversary_runs_the_router_of_its_role() -> None:
    forger = Adversary(role="forger", who=Selection(nodes=(2,)))
    bench = Bench(6, ring(6), adversaries={2: forger})
    bench.subscribe()
    bench.run(6.0)
    assert bench.watcher.refused > 0
    assert not bench.watcher.deliveries
    unheard = [call[1:] for call in bench.watcher.told if call[0] == "graylisted"]
    assert sorted(unheard) == [(node, 2) for node in (0, 1, 3, 4)]
    assert bench.rung.scores(0)[2] < -80
    assert bench.rung.scores(0)[1] >= 0


def test_those_who_share_addresses_lose_score_where_many_of_them_meet() -> None:
    colocated = Adversary(role="eclipser", who=Selection(nodes=(1,)), addresses=2)
    sybils = dict.fromkeys(range(1, 19), colocated)
    bench = Bench(20, [(node, 0) for node in range(1, 20)], adversaries=sybils)
    bench.subscribe()
    bench.run(3.0)
    scores = bench.rung.scores(0)
    assert [scores[node] for node in sybils] == [-5.0] * 18
    assert scores[19] >= 0
    assert bench.rung.mesh(0, TOPIC) == [19]
    bench.rung.crash(0)
    assert bench.rung.scores(0) == {}


def test_a_rate_that_is_known_finds_who_withholds() -> None:
    silent = Adversary(role="eclipser", who=Selection(nodes=(2,)))
    bench = Bench(6, ring(6), adversaries={2: silent})
    for node in range(6):
        bench.rung.subscribe(node, TOPIC, 10.0)
    bench.run(2.0)
    for number in range(120):
        bench.rung.publish((0, 1, 3, 4, 5)[number % 5], TOPIC, b"%d" % number)
        bench.run(0.1)
    assert all(2 not in bench.rung.mesh(node, TOPIC) for node in (0, 1, 3, 4))
    assert not [call for call in bench.watcher.told if call[0] == "graylisted"]


def test_a_validator_that_fails_is_told_and_ends_nothing() -> None:
    bench = Bench(3, ring(3, 1))
    bench.subscribe()

    def broken(_: object) -> None:
        raise ZeroDivisionError

    life = bench.rung._nodes[1].life
    assert life is not None
    life.gossip.router.set_validator(TOPIC, broken)  # type: ignore[arg-type]
    bench.run(2.0)
    bench.rung.publish(0, TOPIC, b"x")
    bench.run(1.0)
    assert [type(error) for error in bench.watcher.failures] == [ZeroDivisionError]
    assert bench.rung.alive(1)
    assert reached(bench) == [2]


def test_a_bug_in_a_node_is_told_and_ends_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(3, ring(3, 1))
    bench.subscribe()
    bench.run(2.0)
    life = bench.rung._nodes[1].life
    assert life is not None

    def broken(*_: object) -> list[SendRpc]:
        raise KeyError("bug")

    monkeypatch.setattr(life.gossip.router, "receive_rpc", broken)
    bench.rung.publish(0, TOPIC, b"x")
    bench.run(1.0)
    assert [type(error) for error in bench.watcher.failures] == [KeyError]
    assert not bench.rung.alive(1)
    assert 1 not in bench.rung.connected(0)


def test_sizes_are_close_to_those_on_the_wire() -> None:
    from sim.cores.gossip import FRAME, rpc_size

    ids = tuple(bytes([number]) * 46 for number in range(20))
    for rpc in (
        Rpc(ihave=(IHave(topic="sim", ids=ids),)),
        Rpc(iwant=ids, idontwant=ids[:3]),
        Rpc(graft=("sim",), prune=(Prune(topic="other", backoff=60),)),
        Rpc(subscriptions=(Subscription(topic="sim", subscribe=True),)),
    ):
        assert abs(rpc_size(rpc) - FRAME - len(encode_rpc(rpc))) <= 12
