import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.kad.distance import position
from p2p.kad.lookup import MAX_CANDIDATES, MAX_QUERIES, Lookup
from p2p.kad.query import (
    ALPHA,
    REQUEST_DEADLINE,
    Answered,
    Failed,
    Finished,
    GiveUp,
    Learned,
    Query,
)
from p2p.kad.table import RoutingTable
from p2p.kad.wire import FindNode, K, PeerEntry
from tests.kad.peers import address, by_distance, entry, peer

LOCAL = peer(100_000)
KEY = b"the key"


def entries(peers):
    return [PeerEntry(peer=one, addresses=(address(1),)) for one in peers]


class Network:
    """Peers whose tables know one another; a look-up runs on it in simulated time."""

    def __init__(self, count: int, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.peers = [peer(number) for number in range(count)]
        self.tables = {one: RoutingTable(one) for one in self.peers}
        for one, table in self.tables.items():
            for other in self.rng.sample(self.peers, count):
                if other != one:
                    table.handle_seen(other)
        self.silent: set = set()
        self.dead: set = set()
        self.liars: dict = {}
        self.asked: list = []

    def reply(self, one):
        liar = self.liars.get(one)
        return liar() if liar is not None else entries(self.tables[one].closest(KEY))

    def run(self, lookup: Lookup) -> tuple[tuple, float]:
        """(the result, the seconds it took); checks the bound of concurrent requests."""
        now, pending, order = 0.0, [], 0
        running: set = set()
        actions = lookup.start(now)
        while True:
            for action in actions:
                match action:
                    case Query(peer=one):
                        self.asked.append(one)
                        running.add(one)
                        order += 1
                        if one not in self.silent:
                            heapq.heappush(pending, (now + self.rng.uniform(0.01, 0.2), order, one))
                    case GiveUp(peer=one):
                        running.discard(one)
                    case Finished(closest=closest):
                        return closest, now
                assert len(running) <= ALPHA
            deadline = lookup.next_deadline()
            assert deadline is not None
            if pending and pending[0][0] <= deadline:
                now, _, one = heapq.heappop(pending)
                running.discard(one)
                event = Failed(peer=one) if one in self.dead else Answered(peer=one, closer=self.reply(one))
                actions = lookup.handle(event, now)
            else:
                now = deadline
                actions = lookup.handle_timer(now)


def lookup_from(network: Network, seeds: int = 3) -> Lookup:
    return Lookup(KEY, local=LOCAL, seeds=network.peers[:seeds])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_a_look_up_among_200_peers_finds_the_true_k_closest(seed):
    network = Network(200, seed)
    closest, _ = network.run(lookup_from(network))
    assert list(closest) == by_distance(network.peers, KEY)[:K]
    assert len(network.asked) == len(set(network.asked)) < 100


def test_dead_peers_are_passed_over():
    # A reply has room for 20 peers, dead ones included, so only live ones among those are sure to be found.
    network = Network(200)
    ranked = by_distance(network.peers, KEY)
    network.dead = {one for index, one in enumerate(ranked) if index % 3 == 0} - set(network.peers[:3])
    closest, _ = network.run(lookup_from(network))
    living = [one for one in ranked[:K] if one not in network.dead]
    assert list(closest)[: len(living)] == living
    assert not set(closest) & network.dead


def test_a_silent_peer_costs_one_deadline_and_not_the_look_up():
    network = Network(200)
    ranked = by_distance(network.peers, KEY)
    network.silent = {ranked[0]}
    closest, seconds = network.run(lookup_from(network))
    assert list(closest) == ranked[1 : K + 1]
    assert REQUEST_DEADLINE <= seconds < REQUEST_DEADLINE + 2


def test_silent_peers_cost_their_deadlines_side_by_side():
    network = Network(200)
    ranked = by_distance(network.peers, KEY)
    network.silent = set(ranked[:8])
    closest, seconds = network.run(lookup_from(network))
    assert list(closest)[: K - 8] == ranked[8:K]
    assert seconds < 2 * REQUEST_DEADLINE


def test_a_network_of_one_silent_peer_ends_without_result():
    network = Network(1)
    network.silent = set(network.peers)
    assert network.run(lookup_from(network)) == ((), REQUEST_DEADLINE)


def test_a_look_up_without_seeds_is_finished_at_once():
    lookup = Lookup(KEY, local=LOCAL, seeds=[LOCAL])
    assert lookup.start(0.0) == [Finished(closest=(), queries=0)]
    assert lookup.next_deadline() is None
    assert lookup.handle_timer(99.0) == []


def test_we_never_ask_ourselves():
    network = Network(60)
    network.liars = {one: lambda: entries([LOCAL, *network.peers[:20]]) for one in network.peers}
    network.run(lookup_from(network))
    assert LOCAL not in network.asked


def test_returned_requester_is_neither_learned_nor_asked():
    lookup = Lookup(KEY, local=LOCAL, seeds=[peer(1)])
    lookup.start(0.0)
    answer = Answered(peer=peer(1), closer=entries([LOCAL]))
    assert lookup.handle(answer, 0.1) == [Finished(closest=(peer(1),), queries=1, hops=1)]


def test_entries_without_addresses_and_duplicates_are_dropped():
    lookup = Lookup(KEY, local=LOCAL, seeds=[peer(1)])
    lookup.start(0.0)
    closer = [entry(2, addresses=0), entry(3), entry(3, addresses=2), entry(1)]
    assert lookup.handle(Answered(peer=peer(1), closer=closer), 0.1) == [
        Learned(peer=peer(3), addresses=entry(3).addresses),
        Learned(peer=peer(1), addresses=entry(1).addresses),
        Query(peer=peer(3), request=FindNode(key=KEY)),
    ]


def test_closer_peers_over_twice_k_are_cut():
    lookup = Lookup(KEY, local=LOCAL, seeds=[peer(1)])
    lookup.start(0.0)
    actions = lookup.handle(Answered(peer=peer(1), closer=[entry(n) for n in range(2, 102)]), 0.1)
    assert [action.peer for action in actions if isinstance(action, Learned)] == [
        peer(n) for n in range(2, 42)
    ]


def test_answers_that_nobody_asked_for_are_ignored():
    lookup = Lookup(KEY, local=LOCAL, seeds=[peer(1)])
    lookup.start(0.0)
    assert lookup.handle(Answered(peer=peer(2), closer=[entry(3)]), 0.1) == []
    assert lookup.handle_timer(REQUEST_DEADLINE) == [GiveUp(peer=peer(1)), Finished(closest=(), queries=1)]
    assert lookup.handle(Answered(peer=peer(1), closer=[entry(3)]), 11.0) == []
    assert lookup.finished


def test_a_second_answer_of_one_peer_is_ignored():
    lookup = Lookup(KEY, local=LOCAL, seeds=[peer(1)])
    lookup.start(0.0)
    lookup.handle(Answered(peer=peer(1), closer=[entry(2)]), 0.1)
    assert lookup.handle(Answered(peer=peer(1), closer=[entry(3)]), 0.2) == []


def test_the_timer_does_nothing_before_the_deadline():
    lookup = Lookup(KEY, local=LOCAL, seeds=[peer(1)])
    lookup.start(5.0)
    assert lookup.next_deadline() == 5.0 + REQUEST_DEADLINE
    assert lookup.handle_timer(5.0 + REQUEST_DEADLINE - 0.01) == []


def test_requests_for_peers_that_became_irrelevant_do_not_hold_up_the_end():
    ranked = by_distance([peer(n) for n in range(100)], KEY)
    lookup = Lookup(KEY, local=LOCAL, seeds=[ranked[50], ranked[60]])
    assert {action.peer for action in lookup.start(0.0)} == {ranked[50], ranked[60]}
    lookup.handle(Answered(peer=ranked[50], closer=entries(ranked[:K])), 0.1)
    last: list = []
    for one in ranked[:K]:
        last = lookup.handle(Answered(peer=one, closer=[]), 0.2)
    assert last == [Finished(closest=tuple(ranked[:K]), queries=22, hops=2)]


def test_liars_that_invent_peers_without_end_are_cut_off():
    network = Network(30)
    invented = iter(range(1_000_000, 10_000_000))

    def invent():
        return entries([peer(next(invented)) for _ in range(40)])

    network.liars = dict.fromkeys(network.peers, invent)
    network.reply = lambda one: invent()
    lookup = lookup_from(network)
    closest, _ = network.run(lookup)
    assert len(network.asked) <= MAX_QUERIES
    assert len(lookup._candidates) == len(lookup._nearest) <= MAX_CANDIDATES
    assert len(closest) <= K


def test_liars_that_name_silent_peers_cost_a_bounded_time():
    network = Network(100)
    ghosts = by_distance([peer(n) for n in range(500_000, 503_000)], KEY)[:40]
    network.silent = set(ghosts)
    network.liars = dict.fromkeys(network.peers[:5], lambda: entries(ghosts))
    closest, seconds = network.run(lookup_from(network, seeds=20))
    assert list(closest) == by_distance(network.peers, KEY)[:K]
    assert seconds <= 6 * REQUEST_DEADLINE


def test_when_memory_is_full_the_farthest_unasked_are_forgotten():
    peers = by_distance([peer(n) for n in range(MAX_CANDIDATES + 50)], KEY)
    lookup = Lookup(KEY, local=LOCAL, seeds=reversed(peers))
    assert [one.peer for one in lookup._nearest] == peers[:MAX_CANDIDATES]
    lookup = Lookup(KEY, local=LOCAL, seeds=peers)
    assert [one.peer for one in lookup._nearest] == peers[:MAX_CANDIDATES]


def test_a_peer_forgotten_at_once_is_not_reported_as_learned():
    peers = by_distance([peer(n) for n in range(MAX_CANDIDATES + 1)], KEY)
    lookup = Lookup(KEY, local=LOCAL, seeds=peers[:-1])
    lookup.start(0.0)
    actions = lookup.handle(Answered(peer=peers[0], closer=entries([peers[-1]])), 0.1)
    assert not any(isinstance(action, Learned) for action in actions)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_events_give_the_same_actions(seed):
    first, second = Network(80, seed), Network(80, seed)
    assert first.run(lookup_from(first)) == second.run(lookup_from(second))
    assert first.asked == second.asked


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_look_up_always_ends_with_live_peers_in_order(data):
    network = Network(40, data.draw(st.integers(0, 1000)))
    kinds = data.draw(
        st.lists(st.sampled_from(["live", "live", "dead", "silent", "liar"]), min_size=40, max_size=40)
    )
    for one, kind in zip(network.peers, kinds, strict=True):
        if kind == "dead":
            network.dead.add(one)
        elif kind == "silent":
            network.silent.add(one)
        elif kind == "liar":
            network.liars[one] = lambda: entries([LOCAL, *network.rng.sample(network.peers, 20)])
    closest, _ = network.run(lookup_from(network, seeds=5))
    assert not set(closest) & (network.dead | network.silent | {LOCAL})
    assert list(closest) == sorted(closest, key=lambda one: position(one.raw) ^ position(KEY))
