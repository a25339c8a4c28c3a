"""Who provides what: the store of a server, what one look-up seeks, and both in a network of machines."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2p.errors import LocalProtocolError
from p2p.kad import providers
from p2p.kad.lookup import Lookup
from p2p.kad.providers import (
    ADDRESS_AGE,
    MAX_AGE,
    MAX_SILENCE,
    ProviderStore,
    Sought,
    provider_key,
)
from p2p.kad.query import Answered, Finished, Found, Learned
from p2p.kad.wire import MAX_ADDRESSES_SENT, MAX_PROVIDERS, GetProviders, K, PeerEntry
from tests.kad.network import ValueNetwork
from tests.kad.peers import address, by_distance, entry, peer

LOCAL = peer(100_000)
KEY = provider_key(bytes(32))
HOUR = 3600.0


def add(store, number, key=KEY, now=0.0):
    return store.add(key, peer(number), [address(number)], now)


def kept(store, now=0.0, key=KEY):
    return store.providers(key, now)


def test_a_key_is_the_multihash_of_a_digest():
    assert provider_key(b"\x07" * 32) == b"\x12\x20" + b"\x07" * 32
    with pytest.raises(LocalProtocolError, match="32 bytes, not 31"):
        provider_key(bytes(31))


# The store


def test_providers_are_named_the_latest_first():
    store = ProviderStore(LOCAL)
    assert [add(store, number, now=number) for number in range(3)] == [True] * 3
    assert kept(store, 3.0) == [peer(2), peer(1), peer(0)]
    assert add(store, 0, now=4.0)
    assert kept(store, 4.0) == [peer(0), peer(2), peer(1)]
    assert len(store) == 3


def test_a_provider_is_kept_for_48_hours_after_its_last_word():
    store = ProviderStore(LOCAL)
    add(store, 1)
    add(store, 2)
    add(store, 1, now=22 * HOUR)
    assert kept(store, MAX_AGE - 1) == [peer(1), peer(2)]
    assert kept(store, MAX_AGE) == [peer(1)]
    assert kept(store, 22 * HOUR + MAX_AGE) == []
    assert len(store) == 0


def test_addresses_are_kept_for_30_minutes_and_ten_of_them():
    store = ProviderStore(LOCAL)
    many = [address(number) for number in range(30)]
    store.add(KEY, peer(1), many, 0.0)
    assert store.addresses(peer(1), ADDRESS_AGE - 1) == tuple(many[:MAX_ADDRESSES_SENT])
    assert store.addresses(peer(1), ADDRESS_AGE) == ()
    assert kept(store, ADDRESS_AGE) == [peer(1)]
    assert store.addresses(peer(2), 0.0) == ()


def test_addresses_are_kept_of_a_bounded_number_of_peers(monkeypatch):
    monkeypatch.setattr(providers, "MAX_ADDRESSED", 2)
    store = ProviderStore(LOCAL)
    for number in (1, 2, 1, 3):
        add(store, number)
    assert [bool(store.addresses(peer(number), 0.0)) for number in (1, 2, 3)] == [True, False, True]


def test_an_announcement_without_addresses_or_in_our_own_name_is_dropped():
    store = ProviderStore(LOCAL)
    assert not store.add(KEY, peer(1), [], 0.0)
    assert not store.add(KEY, LOCAL, [address(1)], 0.0)
    assert len(store) == 0


def test_what_we_provide_ourselves_comes_first_until_it_is_withdrawn():
    store = ProviderStore(LOCAL)
    for number in range(MAX_PROVIDERS):
        add(store, number)
    store.provide(KEY)
    assert kept(store)[0] == LOCAL
    assert len(kept(store)) == MAX_PROVIDERS
    assert kept(store, 3 * MAX_AGE) == [LOCAL]
    store.withdraw(KEY)
    store.withdraw(KEY)
    assert kept(store, 3 * MAX_AGE) == []


def test_who_floods_a_key_does_not_push_out_who_came_first():
    store = ProviderStore(LOCAL)
    assert [add(store, number) for number in range(100)] == [True] * 20 + [False] * 80
    assert set(kept(store)) == {peer(number) for number in range(20)}
    assert add(store, 50, key=provider_key(b"\x01" * 32))


def test_who_does_not_announce_again_makes_room_for_others_after_26_hours():
    store = ProviderStore(LOCAL)
    for number in range(20):
        add(store, number)
    for number in range(1, 20):
        add(store, number, now=22 * HOUR)
    assert not add(store, 30, now=MAX_SILENCE - 1)
    assert add(store, 30, now=MAX_SILENCE)
    assert not add(store, 31, now=MAX_SILENCE)
    assert set(kept(store, MAX_SILENCE)) == {peer(30), *(peer(number) for number in range(1, 20))}


def test_one_peer_has_a_limited_number_of_records(monkeypatch):
    monkeypatch.setattr(providers, "MAX_PER_PEER", 3)
    store = ProviderStore(LOCAL)
    taken = [add(store, 1, key=bytes([number])) for number in range(5)]
    assert taken == [True] * 3 + [False] * 2
    assert add(store, 1, key=bytes([0]))
    assert add(store, 2, key=bytes([4]))


def test_when_all_is_full_the_greediest_makes_room_and_nobody_gets_greedy(monkeypatch):
    monkeypatch.setattr(providers, "MAX_RECORDS", 10)
    store = ProviderStore(LOCAL)
    for number in range(10):
        assert add(store, 1, key=bytes([number]))
    assert [add(store, 2, key=bytes([100 + number])) for number in range(7)] == [True] * 5 + [False] * 2
    assert [kept(store, key=bytes([number])) for number in range(10)] == [[]] * 5 + [[peer(1)]] * 5
    assert add(store, 3, key=b"\xff")
    assert len(store) == 10


def test_when_everybody_has_one_record_nobody_loses_it(monkeypatch):
    monkeypatch.setattr(providers, "MAX_RECORDS", 10)
    store = ProviderStore(LOCAL)
    assert [add(store, number, key=bytes([number])) for number in range(12)] == [True] * 10 + [False] * 2


KEYS = [b"a", b"b", b"c"]


class StoreUnderFire(RuleBasedStateMachine):
    """Any announcements at any time, against what is simple to say about the result."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, value in {
            "MAX_RECORDS": 12,
            "MAX_PER_PEER": 5,
            "MAX_PROVIDERS": 3,
            "MAX_ADDRESSED": 4,
        }.items():
            self.patch.setattr(providers, name, value)
        self.store = ProviderStore(LOCAL)
        self.now = 0.0
        self.last = {}  # (key, peer): when it was kept last
        self.own = set()

    def teardown(self):
        self.patch.undo()

    @rule(
        key=st.sampled_from([*KEYS, b"d", b"e", b"f"]), number=st.integers(0, 8), addresses=st.integers(0, 2)
    )
    def announce(self, key, number, addresses):
        where = [address(n) for n in range(addresses)]
        if self.store.add(key, peer(number), where, self.now):
            assert addresses
            self.last[key, peer(number)] = self.now
            assert self.store.addresses(peer(number), self.now) == tuple(where)

    @rule(seconds=st.sampled_from([1.0, 1000.0, 11 * HOUR, 25 * HOUR]))
    def wait(self, seconds):
        self.now += seconds

    @rule(key=st.sampled_from(KEYS))
    def provide(self, key):
        self.store.provide(key)
        self.own.add(key)

    @rule(key=st.sampled_from(KEYS))
    def withdraw(self, key):
        self.store.withdraw(key)
        self.own.discard(key)

    @invariant()
    def the_bounds_hold_and_nobody_is_made_up(self):
        assert len(self.store) <= 12
        assert len(self.store._addresses) <= 4
        counts = Counter()
        for key in [*KEYS, b"d", b"e", b"f"]:
            held = self.store.providers(key, self.now)
            assert len(held) == len(set(held)) <= 3
            assert (LOCAL in held) == (key in self.own)
            others = [one for one in held if one != LOCAL]
            times = [self.last[key, one] for one in others]
            assert times == sorted(times, reverse=True)
            assert all(self.now < at + MAX_AGE for at in times)
        for _, one in self.store._announced:
            counts[one] += 1
        assert max(counts.values(), default=0) == self.store._most <= 5
        assert {one: len(keys) for one, keys in self.store._by_peer.items()} == counts
        assert {one for peers in self.store._by_count.values() for one in peers} == set(counts)
        assert sum(len(holders) for holders in self.store._by_key.values()) == len(self.store)


TestStoreUnderFire = StoreUnderFire.TestCase
TestStoreUnderFire.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


# What a look-up seeks


def named(*numbers):
    return [entry(number) for number in numbers]


def test_one_answer_fills_a_quarter_and_the_rest_waits():
    sought = Sought(LOCAL, 8)
    assert sought.take(named(*range(20))) == [peer(0), peer(1)]
    assert sought.take(named(50, 51, 52)) == [peer(50), peer(51)]
    assert not sought.enough
    assert sought.take_waiting() == [peer(number) for number in (2, 3, 4, 5)]
    assert sought.enough
    assert sought.take(named(90)) == []


def test_who_is_named_by_two_waits_no_longer():
    sought = Sought(LOCAL, 4)
    assert sought.take(named(1, 2, 3)) == [peer(1)]
    assert peer(2) in sought
    assert sought.take(named(2)) == [peer(2)]
    assert sought.take(named(1, 2)) == []


def test_those_that_announced_themselves_to_us_need_not_wait():
    sought = Sought(LOCAL, 4)
    assert sought.take_held([LOCAL, *(peer(number) for number in range(9))]) == [peer(n) for n in range(4)]
    assert sought.enough


@given(
    st.integers(1, 12),
    st.lists(st.lists(st.integers(0, 30), max_size=60), max_size=8),
)
def test_whatever_is_claimed_nobody_is_found_twice_and_the_limit_holds(limit, answers):
    local = peer(0)
    sought = Sought(local, limit)
    found = []
    for answer in answers:
        new = sought.take(named(*answer))
        assert len(new) <= max(1, limit // 4)
        assert len(sought._waiting) <= limit
        found += new
    found += sought.take_waiting()
    assert len(found) == len(set(found)) <= limit
    assert local not in found
    claimed = {peer(number) for answer in answers for number in answer[:40]} - {local}
    assert set(found) <= claimed
    assert len(found) >= min(limit, len({peer(n) for answer in answers for n in answer[:limit]} - {local}))


# In a network


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_an_announcement_lies_at_the_k_closest_and_everybody_finds_the_provider(seed):
    network = ValueNetwork(seed=seed)
    provider, reader = network.rng.sample(network.peers, 2)
    told = network.provide(KEY, provider)
    assert set(told) == set([one for one in by_distance(network.peers, KEY) if one != provider][:K])
    holders = {one for one, node in network.nodes.items() if node.providers.providers(KEY, network.now)}
    assert holders == set(told)
    found, result = network.providers(KEY, reader)
    assert found == [provider]
    assert result.queries >= K


def test_a_search_ends_when_there_are_enough():
    network = ValueNetwork()
    for one in network.peers[:6]:
        network.provide(KEY, one)
    found, result = network.providers(KEY, network.peers[-1], limit=3)
    assert len(found) == 3
    assert set(found) <= set(network.peers[:6])
    assert result.queries < K
    found, _ = network.providers(KEY, network.peers[-1])
    assert set(found) == set(network.peers[:6])


def test_content_that_nobody_provides_is_not_found():
    network = ValueNetwork()
    found, result = network.providers(KEY, network.peers[0])
    assert found == []
    assert isinstance(result, Finished)
    assert len(result.closest) == K


def test_dead_silent_and_lying_holders_do_not_hide_a_provider():
    network = ValueNetwork()
    provider, reader, *others = network.peers
    network.provide(KEY, provider)
    ranked = by_distance(others, KEY)
    network.dead, network.silent = set(ranked[:6]), set(ranked[6:10])

    def lie(request):
        return GetProviders(key=KEY, providers=tuple(named(*range(40))), closer=tuple(named(*range(40, 60))))

    network.liars = dict.fromkeys(ranked[10:16], lie)
    found, _ = network.providers(KEY, reader)
    assert provider in found


def test_where_a_provider_is_said_to_be_is_learned_before_it_is_found():
    sought = Sought(LOCAL, 4)
    lookup = Lookup(KEY, local=LOCAL, seeds=[peer(1), peer(2)], sought=sought)
    [first, second] = lookup.start(0.0)
    assert first.request == second.request == GetProviders(key=KEY)
    bare = PeerEntry(peer=peer(8), addresses=())
    answer = Answered(peer=peer(1), providers=[entry(7), bare, entry(9)])
    assert lookup.handle(answer, 1.0) == [
        Learned(peer=peer(7), addresses=(address(7),)),
        Learned(peer=peer(9), addresses=(address(9),)),
        Found(peer=peer(7)),
    ]
    actions = lookup.handle(Answered(peer=peer(2), providers=[entry(8)]), 2.0)
    assert actions == [
        Learned(peer=peer(8), addresses=(address(8),)),
        Found(peer=peer(8)),
        Found(peer=peer(9)),
        Finished(closest=tuple(by_distance([peer(1), peer(2)], KEY)), queries=2, hops=1),
    ]
