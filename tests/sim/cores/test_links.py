"""Connections of the rung `cores`, and what breaks them."""

from __future__ import annotations

from functools import partial

import pytest

from sim.cores.links import DIAL_TIMEOUT
from tests.sim.cores.bench import TOPIC, Bench, ring


def test_a_dial_takes_a_round_trip_and_both_ends_see_the_connection() -> None:
    bench = Bench(2, [(0, 1)], network={"latency": {"kind": "constant", "ms": 100}, "jitter": 0})
    bench.run(0.15)
    assert bench.rung.connected(1) == [0]
    assert bench.rung.connected(0) == []
    bench.run(0.1)
    assert bench.rung.connected(0) == [1]


def test_two_dials_that_cross_make_one_connection() -> None:
    bench = Bench(2, [(0, 1), (1, 0)])
    bench.run(20.0)
    assert bench.rung.connected(0) == [1]
    assert bench.rung.connected(1) == [0]
    assert len(bench.watcher.links) == 2


def test_both_dials_that_cross_end_when_there_is_a_connection() -> None:
    bench = Bench(2)
    answers: list[tuple[float, bool]] = []
    for node in (0, 1):
        life = bench.rung._nodes[node].life
        assert life is not None
        life.links.dial(life, 1 - node, partial(note, bench, answers))
    bench.run(DIAL_TIMEOUT + 1)
    assert [connected for _, connected in answers] == [True, True]
    assert max(at for at, _ in answers) < 1.0


def test_a_reset_is_seen_at_once_and_a_latency_later_and_the_dialer_dials_again() -> None:
    bench = Bench(2, [(0, 1)], network={"latency": {"kind": "constant", "ms": 100}, "jitter": 0})
    bench.run(1.0)
    bench.rung.reset(1, 0)
    bench.rung.reset(1, 0)
    assert bench.rung.connected(1) == []
    assert bench.rung.connected(0) == [1]
    bench.run(0.15)
    assert bench.rung.connected(0) == []
    bench.run(1.5)
    assert bench.rung.connected(0) == [1]
    assert bench.rung.connected(1) == [0]


def test_a_crashed_node_is_missed_and_has_its_place_again_after_a_restart() -> None:
    bench = Bench(20, ring(20))
    bench.subscribe()
    bench.run(4.0)
    bench.rung.crash(5)
    bench.rung.crash(5)
    bench.run(2.0)
    assert 5 not in bench.rung.connected(4)
    assert bench.rung.connected(5) == []
    assert bench.rung.mesh(5, TOPIC) == []
    bench.rung.publish(5, TOPIC, b"nobody hears it")
    bench.rung.start(5)
    bench.rung.start(5)
    bench.run(40.0)
    bench.rung.publish(0, TOPIC, b"x")
    bench.run(3.0)
    [message] = bench.watcher.published_ids
    assert sorted(bench.watcher.receivers[message]) == list(range(1, 20))
    assert [told for told in bench.watcher.told if told[1] == 5].count(("started", 5)) == 2


@pytest.mark.parametrize("silently", [False, True])
def test_a_node_without_power_is_missed_by_the_keepalive_only(silently: bool) -> None:
    bench = Bench(2, [(0, 1)])
    bench.run(5.0)
    bench.rung.crash(1, silently=silently)
    bench.run(5.0)
    assert bench.rung.connected(0) == ([1] if silently else [])
    bench.run(36.0)
    assert bench.rung.connected(0) == []


def test_a_node_that_comes_back_before_the_keepalive_replaces_its_connection() -> None:
    bench = Bench(2, [(0, 1)])
    bench.subscribe()
    bench.run(5.0)
    bench.rung.crash(0, silently=True)
    bench.run(2.0)
    bench.rung.start(0)
    bench.run(3.0)
    bench.rung.publish(0, TOPIC, b"x")
    bench.run(1.0)
    assert bench.watcher.receivers[bench.watcher.published_ids[0]] == [1]


def note(bench: Bench, answers: list[tuple[float, bool]], connected: bool) -> None:
    answers.append((bench.heap.now, connected))


def test_dials_of_the_dead_are_refused_and_of_the_powerless_time_out() -> None:
    for silently in (False, True):
        bench = Bench(2)
        bench.rung.crash(1, silently=silently)
        answers: list[tuple[float, bool]] = []
        life = bench.rung._nodes[0].life
        assert life is not None
        life.links.dial(life, 1, partial(note, bench, answers))
        bench.run(DIAL_TIMEOUT + 1)
        [(at, connected)] = answers
        assert not connected
        assert (at == DIAL_TIMEOUT) is silently


def test_who_is_behind_a_nat_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(2)
    monkeypatch.setattr(bench.network, "reachable", lambda source, target: False)
    bench.rung.connect(0, 1)
    bench.run(DIAL_TIMEOUT + 0.5)
    assert bench.rung.connected(0) == []
    monkeypatch.undo()
    bench.run(2.0)
    assert bench.rung.connected(0) == [1]


def test_a_short_partition_only_delays() -> None:
    bench = Bench(10, ring(10))
    bench.subscribe()
    bench.run(5.0)
    handle = bench.network.begin_partition(range(5))
    bench.rung.publish(0, TOPIC, b"x")
    bench.run(4.0)
    [message] = bench.watcher.published_ids
    assert sorted(bench.watcher.receivers[message]) == [1, 2, 3, 4]
    bench.network.end(handle)
    bench.run(10.0)
    assert sorted(bench.watcher.receivers[message]) == list(range(1, 10))


def test_a_long_partition_breaks_connections_which_come_back_when_it_heals() -> None:
    bench = Bench(10, ring(10))
    bench.subscribe()
    bench.run(5.0)
    handle = bench.network.begin_partition(range(5))
    bench.run(60.0)
    assert all(other < 5 for other in bench.rung.connected(0))
    bench.network.end(handle)
    bench.run(60.0)
    assert bench.rung.connected(0) == [1, 2, 8, 9]
    bench.rung.publish(0, TOPIC, b"x")
    bench.run(5.0)
    [message] = bench.watcher.published_ids
    assert sorted(bench.watcher.receivers[message]) == list(range(1, 10))
    assert not bench.watcher.failures


def test_a_slow_reader_gets_everything_when_it_reads_again() -> None:
    bench = Bench(5, ring(5, 1))
    bench.subscribe()
    bench.run(5.0)
    handle = bench.network.begin_slow_reader([2])
    bench.rung.publish(0, TOPIC, b"x")
    bench.run(3.0)
    [message] = bench.watcher.published_ids
    assert 2 not in bench.watcher.receivers[message]
    bench.network.end(handle)
    assert 2 in bench.watcher.receivers[message]
