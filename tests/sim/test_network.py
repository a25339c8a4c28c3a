"""Links: what arrives, when, and in which order."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.graph import random_graph
from sim.heap import EventHeap
from sim.network import MAX_LOSSES, RETRANSMIT, LinkModel, Network, Partition

EXACT = LinkModel(latency=0.1, spread=0.0, jitter=0.0)


class Arrivals(list[tuple[float, int, int, bytes]]):
    """A network of which every arrival is written down."""

    def __init__(self, model: LinkModel, partition: Partition | None = None, seed: int = 1) -> None:
        self.heap = EventHeap()
        self.network = Network(self.heap, Random(seed), model, self._deliver, partition)

    def _deliver(self, source: int, target: int, data: bytes) -> None:
        self.append((self.heap.now, source, target, data))


def test_a_message_takes_the_latency_of_its_link() -> None:
    arrivals = Arrivals(EXACT)
    arrivals.network.send(0, 1, b"hello")
    arrivals.heap.run(1.0)
    [(now, *rest)] = arrivals
    assert now == pytest.approx(0.1)
    assert rest == [0, 1, b"hello"]
    assert (arrivals.network.messages_sent, arrivals.network.bytes_sent) == (1, 5)


@given(
    loss=st.floats(0, 0.9),
    jitter=st.floats(0, 2),
    seed=st.integers(0, 1000),
    sent_at=st.lists(st.floats(0, 5), max_size=30),
)
def test_a_link_delivers_everything_once_and_in_order(
    loss: float, jitter: float, seed: int, sent_at: list[float]
) -> None:
    partition = Partition(start=1.0, end=3.0, border=1)
    arrivals = Arrivals(LinkModel(loss=loss, jitter=jitter), partition, seed)
    for index, at in enumerate(sorted(sent_at)):
        arrivals.heap.plan(at, partial(arrivals.network.send, 0, 1, bytes([index])))
    arrivals.heap.run(1000.0)
    assert [data for _, _, _, data in arrivals] == [bytes([index]) for index in range(len(sent_at))]


def test_a_partition_holds_what_crosses_it_until_it_heals_and_nothing_else() -> None:
    arrivals = Arrivals(EXACT, Partition(start=1.0, end=5.0, border=2))
    arrivals.heap.run(1.0)
    for source, target in [(0, 2), (3, 1), (0, 1), (2, 3)]:
        arrivals.network.send(source, target, b"")
    arrivals.heap.run(5.0)
    assert sorted(arrival[1:3] for arrival in arrivals) == [(0, 1), (2, 3)]
    arrivals.network.send(0, 3, b"")
    arrivals.heap.run(6.0)
    assert [arrival[1:3] for arrival in arrivals[2:]] == [(0, 2), (3, 1), (0, 3)]
    assert [arrival[0] for arrival in arrivals[2:]] == pytest.approx([5.1, 5.1, 5.1])


def test_loss_is_a_delay_and_bounded() -> None:
    arrivals = Arrivals(LinkModel(latency=0.1, spread=0.0, jitter=0.0, loss=1.0))
    arrivals.network.send(0, 1, b"")
    arrivals.heap.run(1000.0)
    [(now, *_)] = arrivals
    assert now == pytest.approx(0.1 + RETRANSMIT * (2**MAX_LOSSES - 1))


def test_a_link_has_one_latency_in_both_directions_and_links_differ() -> None:
    network = Arrivals(LinkModel(spread=0.5)).network
    assert network.latency(1, 2) == network.latency(2, 1)
    assert network.latency(1, 2) != network.latency(1, 3)


@given(peers=st.integers(1, 60), seed=st.integers(0, 100))
def test_a_random_graph_is_connected_without_double_links(peers: int, seed: int) -> None:
    links = random_graph(peers, 8, Random(seed))
    assert len({frozenset(link) for link in links}) == len(links)
    assert all(one != other for one, other in links)
    reached, pending = {0}, [0]
    while pending:
        here = pending.pop()
        for link in links:
            if here in link:
                there = link[0] if link[1] == here else link[1]
                if there not in reached:
                    reached.add(there)
                    pending.append(there)
    assert len(reached) == peers
    assert len(links) <= max(peers * 8 // 2, peers)
