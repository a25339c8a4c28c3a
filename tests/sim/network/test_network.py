"""Messages between nodes: what arrives, when, and in which order, whatever goes wrong."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim.network.network
from sim.heap import SimulationError
from sim.scenario.model import Latency
from tests.sim.network.support import Wire

NODES = 4

any_settings = st.fixed_dictionaries(
    {},
    optional={
        "latency": st.sampled_from(
            [Latency(), Latency(kind="constant", ms=0), Latency(kind="uniform", ms=5), Latency(kind="geo")]
        ),
        "jitter": st.floats(0, 2),
        "loss": st.floats(0, 0.9),
        "up_mbit": st.floats(0.001, 10),
        "down_mbit": st.floats(0.001, 10),
        "link_mbit": st.floats(0.001, 10),
        "quantum_ms": st.floats(0.1, 100),
        "message_us": st.floats(1, 1e5),
    },
)
some_nodes = st.lists(st.integers(0, NODES - 1), min_size=1, max_size=NODES)
any_fault = st.one_of(
    st.tuples(st.just("partition"), some_nodes, st.fixed_dictionaries({"one_way": st.booleans()})),
    st.tuples(st.just("hold"), some_nodes, st.just({})),
    st.tuples(st.just("slow_reader"), some_nodes, st.just({})),
    st.tuples(st.just("slow_processor"), some_nodes, st.just({"factor": 10.0})),
    st.tuples(
        st.just("weather"),
        some_nodes,
        st.fixed_dictionaries(
            {"loss": st.floats(0, 0.9), "latency": st.floats(1, 100), "jitter": st.floats(0, 5)},
            optional={"mbit": st.floats(0.001, 1)},
        ),
    ),
)
any_faults = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10), any_fault), max_size=6)
any_messages = st.lists(
    st.tuples(st.floats(0, 15), st.integers(0, NODES - 1), st.integers(0, NODES - 1), st.integers(0, 20_000)),
    max_size=40,
)


def plan_fault(wire: Wire, at: float, seconds: float, fault: tuple[str, list[int], dict[str, Any]]) -> None:
    kind, nodes, how = fault

    def begin() -> None:
        handle = getattr(wire.network, f"begin_{kind}")(nodes, **how)
        wire.heap.plan(wire.heap.now + seconds, wire.network.end, handle)

    wire.heap.plan(at, begin)


def play(
    seed: int,
    settings: dict[str, Any],
    faults: list[tuple[float, float, Any]],
    messages: list[tuple[float, int, int, int]],
) -> Wire:
    wire = Wire(seed, NODES, **settings)
    for at, seconds, fault in faults:
        plan_fault(wire, at, seconds, fault)
    for number, (at, source, target, size) in enumerate(messages):
        wire.heap.plan(at, wire.send, source, target, number, size)
    return wire.run()


@given(seed=st.integers(0, 99), settings=any_settings, faults=any_faults, messages=any_messages)
def test_everything_arrives_once_and_in_order_and_not_before_it_can(
    seed: int, settings: dict[str, Any], faults: list[Any], messages: list[tuple[float, int, int, int]]
) -> None:
    wire = play(seed, settings, faults, messages)
    assert sorted(number for *_, number in wire) == list(range(len(messages)))
    for source in range(NODES):
        for target in range(NODES):
            sent = [
                number
                for number in sorted(range(len(messages)), key=lambda number: messages[number][0])
                if messages[number][1:3] == (source, target)
            ]
            assert wire.of(source, target) == sent
    for at, source, target, number in wire:
        assert at >= messages[number][0] + wire.network.rtt(source, target) / 2 - 2e-9
    assert sum(wire.network.received_by) == sum(wire.network.sent_by) == wire.network.bytes_sent
    assert wire.network.messages_sent == len(messages)


@settings(max_examples=30)
@given(seed=st.integers(0, 99), settings=any_settings, faults=any_faults, messages=any_messages)
def test_one_seed_has_one_course(
    seed: int, settings: dict[str, Any], faults: list[Any], messages: list[tuple[float, int, int, int]]
) -> None:
    assert play(seed, settings, faults, messages) == play(seed, settings, faults, messages)


def test_a_message_takes_the_latency_of_its_link_and_its_bytes_are_counted() -> None:
    wire = Wire()
    wire.send(0, 1, "hello", size=5)
    assert wire.network.sent_by == [5, 0, 0, 0]
    assert wire.network.received_by == [0, 0, 0, 0]
    assert wire.run() == [(pytest.approx(0.1), 0, 1, "hello")]
    assert wire.network.received_by == [0, 5, 0, 0]
    assert (wire.network.bytes_sent, wire.network.messages_sent) == (5, 1)
    assert wire.network.rtt(0, 1) == pytest.approx(0.2)


def test_jitter_is_drawn_for_each_message_and_keeps_their_order() -> None:
    wire = Wire(jitter=0.5)
    for number in range(20):
        wire.heap.plan(float(number), wire.send, 0, 1, number)
    taken = [at - number for at, _, _, number in wire.run(19.9)]
    assert all(0.1 <= seconds <= 0.15 for seconds in taken)
    assert len(set(taken)) == 20
    for number in range(20, 120):
        wire.heap.plan(20 + number / 1000, wire.send, 0, 1, number)
    assert wire.run().of(0, 1) == list(range(120))


def test_a_quantum_makes_arrivals_tie() -> None:
    wire = Wire(quantum_ms=30, jitter=1.0, latency=Latency(kind="constant", ms=60))
    for number in range(100):
        wire.heap.plan(number / 300, wire.send, number % 4, 3 - number % 4, number)
    ticks = [at / 0.03 for at in wire.run().times]
    assert ticks == pytest.approx([round(tick) for tick in ticks])
    assert len(set(wire.times)) <= 16


@given(at=st.floats(0, 1e5), quantum=st.floats(0.001, 1000))
def test_a_quantum_never_leads_into_the_past(at: float, quantum: float) -> None:
    wire = Wire(quantum_ms=quantum, latency=Latency(kind="constant", ms=0))
    arrived: list[float] = []

    def arrive() -> None:
        arrived.append(wire.heap.now)
        if len(arrived) < 2:
            wire.network.send(1, 0, 1, arrive)

    wire.heap.plan(at, wire.network.send, 0, 1, 1, arrive)
    wire.run()
    first, second = arrived
    assert 0 <= first - at <= quantum / 1000 * 1.001 + 1e-9
    assert second == first  # a multiple of the quantum stays one


def test_a_message_costs_its_receiver_processor_time_one_after_the_other() -> None:
    wire = Wire(message_us=10_000)
    for source in (0, 1, 2):
        wire.send(source, 3)
    assert wire.run().times == pytest.approx([0.11, 0.12, 0.13])


def test_a_slow_processor_takes_longer_for_messages_and_for_computing() -> None:
    wire = Wire(message_us=10_000)
    network = wire.network
    one, other = network.begin_slow_processor([3], 10), network.begin_slow_processor([2, 3], 2)
    wire.send(0, 3)
    wire.send(0, 2)
    wire.send(0, 1)
    assert wire.run(1.0).times == pytest.approx([0.11, 0.12, 0.3])
    assert network.processing(3, 1.0) == 20
    network.end(one)
    assert (network.processing(3, 1.0), network.processing(1, 1.0)) == (2, 1)
    network.end(other)
    assert network.processing(3, 1.0) == 1


def test_a_partition_keeps_what_crosses_it_until_it_ends_and_the_sender_tries_again() -> None:
    wire = Wire()
    handle = wire.network.begin_partition([0, 1], one_way=False)
    for source, target in [(0, 2), (3, 1), (0, 1), (2, 3)]:
        wire.send(source, target)
        assert wire.network.held(source, target) == ((source < 2) != (target < 2))
    wire.run(5.0)
    assert [arrival[1:3] for arrival in wire] == [(0, 1), (2, 3)]
    wire.network.end(handle)
    wire.send(0, 2, "later")
    wire.run(6.1)
    assert len(wire) == 2
    assert wire.network.held(0, 2)
    wire.run(7.0)
    assert wire.of(0, 2) == [None, "later"]
    assert wire.times[2:] == pytest.approx([6.3, 6.3, 6.3])  # sent at 0, 0.2, 0.6, 1.4, 3.0 and 6.2
    assert not wire.network.held(0, 2)


def test_a_partition_can_be_one_way() -> None:
    wire = Wire()
    wire.network.begin_partition([0], one_way=True)
    wire.send(0, 1)
    wire.send(1, 0)
    assert [arrival[1:3] for arrival in wire.run(5.0)] == [(1, 0)]
    assert (wire.network.held(0, 1), wire.network.held(1, 0)) == (True, False)


def test_a_partition_lets_through_what_was_sent_before_and_a_hold_does_not() -> None:
    wire = Wire()
    wire.send(0, 1)
    wire.send(0, 2)
    wire.heap.plan(0.05, wire.network.begin_partition, [2])
    wire.heap.plan(0.05, wire.network.begin_hold, [1])
    assert [arrival[1:3] for arrival in wire.run(5.0)] == [(0, 2)]
    assert wire.network.held(0, 1)
    assert wire.network.held(1, 0)


def test_a_hold_releases_in_order_what_was_under_way_then_what_was_sent_meanwhile() -> None:
    wire = Wire()
    wire.send(0, 1, "under way")
    handle = wire.network.begin_hold([1])
    wire.heap.plan(1.0, wire.send, 0, 1, "meanwhile")
    wire.run(2.0)
    assert not wire
    wire.network.end(handle)
    wire.send(0, 1, "after")
    assert wire.network.held(0, 1)
    wire.run(2.15)
    assert not wire
    wire.run(2.25)
    assert [what for *_, what in wire] == ["under way", "meanwhile", "after"]


def test_a_second_fault_keeps_what_the_first_has_let_go() -> None:
    wire = Wire()
    network = wire.network
    first, second = network.begin_partition([0]), network.begin_hold([1])
    wire.send(0, 1)
    wire.send(2, 1)
    wire.run(1.0)
    network.end(first)
    again = network.begin_partition([0])
    wire.run(10.0)
    network.end(second)
    third = network.begin_hold([1])
    wire.run(20.0)
    assert not wire
    network.end(again)
    wire.run(30.0)
    assert not wire
    network.end(third)
    assert sorted(arrival[1:3] for arrival in wire.run(40.0)) == [(0, 1), (2, 1)]


@pytest.mark.parametrize("handle", [0, 1, 2])
def test_a_fault_that_is_not_going_on_cannot_end(handle: int) -> None:
    wire = Wire()
    wire.network.end(wire.network.begin_hold([1]))
    with pytest.raises(SimulationError, match="no fault"):
        wire.network.end(handle)


def test_weather_makes_links_worse_and_overlapping_weathers_add_up() -> None:
    wire = Wire()
    network = wire.network
    one = network.begin_weather([0], latency=2.0)
    other = network.begin_weather([0, 1], latency=3.0, mbit=0.008)
    wire.send(0, 1, size=1000)
    wire.send(2, 3)
    network.end(one)
    network.end(other)
    wire.send(1, 0)
    assert wire.run().times == pytest.approx([0.1, 0.1, 1.6])


def test_loss_is_a_delay_and_bounded() -> None:
    wire = Wire(loss=0.9)
    for number in range(200):
        wire.heap.plan(float(number * 100), wire.send, 0, 1, number)
    waited = [at - number * 100 - 0.1 for at, _, _, number in wire.run()]
    assert min(waited) == pytest.approx(0, abs=1e-6)
    assert max(waited) == pytest.approx(0.2 * (2**6 - 1))


def test_a_slow_reader_reads_on_in_order() -> None:
    wire = Wire()
    network = wire.network
    read: list[str] = []

    def read_and_more(what: str) -> None:
        read.append(what)
        network.when_reading(1, read.append, "new")

    network.when_reading(1, read.append, "at once")
    one, other = network.begin_slow_reader([1]), network.begin_slow_reader([1, 2])
    network.when_reading(1, read_and_more, "first")
    network.when_reading(1, read.append, "second")
    network.when_reading(3, read.append, "somebody else")
    network.end(one)
    assert (network.reading(1), network.reading(3)) == (False, True)
    assert read == ["at once", "somebody else"]
    network.end(other)
    assert network.reading(1)
    assert read[2:] == ["first", "second", "new"]
    network.when_reading(1, read.append, "last")
    assert read[-1] == "last"


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.network.network, "MAX_WAITING", 2)
    wire = Wire()
    wire.network.begin_partition([0])
    wire.send(0, 1)
    wire.send(0, 2)
    with pytest.raises(SimulationError, match="wait for faults"):
        wire.send(0, 3)


def test_links_on_which_nothing_is_under_way_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.network.network, "LINKS_AT_LEAST", 2)
    monkeypatch.setattr(sim.network.network, "LINKS_EACH", 0)
    wire = Wire(nodes=30, jitter=1.0)
    expected: deque[int] = deque()
    for number in range(300):
        expected.append(number)
        wire.heap.plan(number / 20, wire.send, 0, number % 29 + 1, number)
    wire.run()
    assert sorted(number for *_, number in wire) == list(expected)
    assert len(wire.network._links) <= 20
