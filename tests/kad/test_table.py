import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.kad.distance import common_prefix_length, position, random_key
from p2p.kad.table import MAX_CANDIDATES, RoutingTable
from p2p.kad.wire import K
from tests.kad.peers import by_distance, peer

LOCAL = peer(0)
ORIGIN = position(LOCAL.raw)
FAR = [one for one in map(peer, range(1, 300)) if common_prefix_length(ORIGIN, position(one.raw)) == 0]
operations = st.lists(st.tuples(st.sampled_from(["seen", "failed"]), st.integers(0, 120)), max_size=400)


def filled(peers):
    table = RoutingTable(LOCAL)
    for one in peers:
        table.handle_seen(one)
    return table


@given(operations)
def test_a_live_member_never_leaves_and_no_bucket_grows_over_k(steps):
    table = RoutingTable(LOCAL)
    members: set = set()
    for step, number in steps:
        before = set(table.peers())
        if step == "seen":
            table.handle_seen(peer(number))
            assert before <= set(table.peers())
        else:
            table.remove(peer(number))
            assert before - set(table.peers()) <= {peer(number)}
            assert peer(number) not in table
        members = set(table.peers())
        assert len(members) == len(table.peers()) == len(table)
    buckets: dict[int, int] = {}
    for one in members:
        prefix = common_prefix_length(ORIGIN, position(one.raw))
        buckets[prefix] = buckets.get(prefix, 0) + 1
    assert all(size <= K for size in buckets.values())
    assert LOCAL not in members


@given(st.lists(st.integers(1, 500), max_size=120), st.binary(max_size=40), st.integers(0, 30))
def test_closest_are_the_members_sorted_by_distance(numbers, key, count):
    table = filled(peer(number) for number in numbers)
    excluded = {peer(number) for number in numbers[:3]}
    expected = [one for one in by_distance(table.peers(), key) if one not in excluded]
    assert table.closest(key, count, excluded) == expected[:count]


def test_a_full_bucket_names_its_least_recently_seen_member_for_a_probe():
    table = filled(FAR[:K])
    assert table.handle_seen(FAR[0]) is None
    assert table.handle_seen(FAR[K]) == FAR[1]
    assert FAR[K] not in table


def test_a_member_that_fails_is_followed_by_the_newest_candidate():
    table = filled(FAR[: K + 3])
    table.remove(FAR[4])
    assert table.peers() == [*FAR[:4], *FAR[5:K], FAR[K + 2]]


def test_a_candidate_that_fails_does_not_follow():
    table = filled(FAR[: K + 2])
    table.remove(FAR[K + 1])
    table.remove(FAR[0])
    assert table.peers() == [*FAR[1:K], FAR[K]]


def test_without_candidates_a_failure_leaves_a_gap_for_the_next_peer():
    table = filled(FAR[:K])
    table.remove(FAR[0])
    assert len(table) == K - 1
    assert table.handle_seen(FAR[K]) is None
    assert FAR[K] in table


def test_candidates_are_bounded_and_the_oldest_goes_first():
    table = filled(FAR[: K + MAX_CANDIDATES + 1])
    for one in FAR[:K]:
        table.remove(one)
    assert table.peers() == list(reversed(FAR[K + 1 : K + MAX_CANDIDATES + 1]))


def test_removing_a_stranger_changes_nothing():
    table = filled(FAR[:2])
    table.remove(peer(5000))
    assert table.peers() == FAR[:2]


def test_only_peer_ids_can_be_members():
    assert "12D3KooW" not in filled(FAR[:2])


def test_buckets_to_refresh_are_those_with_members_and_their_neighbours():
    near = next(
        one for one in map(peer, range(1, 5000)) if common_prefix_length(ORIGIN, position(one.raw)) == 5
    )
    assert filled([FAR[0], near]).prefixes_to_refresh() == [0, 1, 4, 5, 6]
    assert RoutingTable(LOCAL).prefixes_to_refresh() == []


def test_buckets_deeper_than_fifteen_bits_are_not_refreshed(monkeypatch):
    monkeypatch.setattr("p2p.kad.table.common_prefix_length", lambda one, other: 15)
    assert filled([FAR[0]]).prefixes_to_refresh() == [14, 15]


@pytest.mark.parametrize("prefix", [0, 1, 5, 10])
def test_a_random_key_lies_exactly_in_its_bucket(prefix):
    key = random_key(ORIGIN, prefix, random.Random(7))
    assert common_prefix_length(ORIGIN, position(key)) == prefix
    assert key == random_key(ORIGIN, prefix, random.Random(7))


@given(st.integers(0, 2**256 - 1), st.integers(0, 255))
def test_the_common_prefix_length_is_where_two_positions_part(one, bit):
    assert common_prefix_length(one, one) == 256
    assert common_prefix_length(one, one ^ (1 << (255 - bit))) == bit
