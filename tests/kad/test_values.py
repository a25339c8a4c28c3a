"""Values in a network of machines: put, get, correct, and what liars can do about it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.errors import RemoteProtocolError
from p2p.kad.lookup import Lookup
from p2p.kad.namespaces import InvalidRecord, Namespaces, content_key, open_value, sign_value
from p2p.kad.placement import Placement
from p2p.kad.query import (
    ALPHA,
    REQUEST_DEADLINE,
    Answered,
    Failed,
    Finished,
    GiveUp,
    Query,
    read_reply,
)
from p2p.kad.records import Gathered
from p2p.kad.wire import FindNode, GetValue, K, Ping, PutValue, Record
from tests.kad.network import ValueNetwork
from tests.kad.peers import by_distance, entry, peer

VALUE = b"what everybody should know"
KEY = content_key(VALUE)
RECORD = Record(key=KEY, value=VALUE)
PUT = PutValue(key=KEY, record=RECORD)


def gathered(quorum=0, key=KEY):
    return Gathered(key, Namespaces(), quorum)


# In a network


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_a_value_lies_at_the_k_closest_and_everybody_gets_it(seed):
    network = ValueNetwork(seed=seed)
    writer, reader = network.rng.sample(network.peers, 2)
    taken = network.put(KEY, VALUE, writer)
    closest = [one for one in by_distance(network.peers, KEY) if one != writer][:K]
    assert set(taken) == set(closest) == set(network.holders(KEY))
    found = network.get(KEY, reader)
    assert (found.value, found.hops > 0, found.queries >= K) == (VALUE, reader not in taken, True)


def test_a_quorum_ends_the_look_up_early():
    network = ValueNetwork()
    network.put(KEY, VALUE, network.peers[0])
    found = network.get(KEY, network.peers[1], quorum=1)
    assert found.value == VALUE
    assert found.queries < K
    assert found.outdated == ()


def test_what_we_hold_ourselves_can_be_the_quorum():
    network = ValueNetwork()
    holder = network.put(KEY, VALUE, network.peers[0])[0]
    found = network.get(KEY, holder, quorum=1)
    assert found == Finished(closest=(), queries=0, hops=0, value=VALUE)


def test_a_value_that_nobody_has_is_not_found():
    network = ValueNetwork()
    found = network.get(KEY, network.peers[0])
    assert (found.value, found.outdated, len(found.closest)) == (None, (), K)


def test_dead_and_silent_peers_are_passed_over():
    network = ValueNetwork()
    ranked = by_distance(network.peers[1:], KEY)
    network.dead, network.silent = set(ranked[:10:2]), set(ranked[1:10:2])
    taken = set(network.put(KEY, VALUE, network.peers[0]))
    assert set(ranked[10 : K - 1]) <= taken <= set(ranked[10:])
    assert network.get(KEY, network.peers[0]).value == VALUE


def test_a_get_tells_the_closest_that_had_none():
    network = ValueNetwork()
    ranked = by_distance(network.peers[2:], KEY)
    for one in ranked[:3]:
        network.nodes[one].store.put(RECORD, network.peers[0], 0.0, 0.0)
    assert network.get(KEY, network.peers[0]).value == VALUE
    assert set(ranked[:18]) <= set(network.holders(KEY))


def test_a_get_replaces_older_values_at_the_closest():
    network = ValueNetwork()
    identity, reader = network.identities[0], network.peers[1]
    key, old = sign_value(identity, "model", 1, b"old")
    _, new = sign_value(identity, "model", 2, b"new")
    network.put(key, old, network.peers[0])
    one = by_distance(network.peers[2:], key)[5]
    network.nodes[one].store.put(Record(key=key, value=new), network.peers[0], network.now, 0.0)
    assert open_value(key, network.get(key, reader).value).value == b"new"
    holders = network.holders(key)
    assert all(holders[one] == new for one in by_distance(network.peers[2:], key)[: K - 1])


def test_an_old_sequence_number_never_replaces_a_newer_one():
    network = ValueNetwork()
    writer = network.peers[0]
    records = [sign_value(network.identities[0], "model", seq, b"%d" % seq) for seq in range(4)]
    key = records[0][0]
    assert len(network.put(key, records[2][1], writer)) == K
    assert network.put(key, records[1][1], writer) == ()
    assert set(network.holders(key).values()) == {records[2][1]}
    assert len(network.put(key, records[3][1], writer)) == K


def test_a_lying_majority_cannot_poison_a_value():
    network = ValueNetwork()
    network.put(KEY, VALUE, network.peers[0])
    ranked = by_distance(network.peers[2:], KEY)

    def lie(request):
        closer = tuple(entry(n) for n in range(3))
        match request:
            case GetValue():
                return GetValue(key=KEY, record=Record(key=KEY, value=b"poison"), closer=closer)
            case FindNode():
                return FindNode(closer=closer)
            case other:
                return other

    network.liars = dict.fromkeys(ranked[: K - 3], lie)
    assert network.get(KEY, network.peers[1], quorum=2).value == VALUE


def test_a_replayed_old_value_does_not_win_against_the_newest_of_a_few():
    network = ValueNetwork()
    identity = network.identities[0]
    key, old = sign_value(identity, "model", 1, b"old")
    _, new = sign_value(identity, "model", 2, b"new")
    network.put(key, new, network.peers[0])

    def replay(request):
        return GetValue(key=key, record=Record(key=key, value=old))

    ranked = by_distance(network.peers[2:], key)
    network.liars = dict.fromkeys(ranked[: K - 2], replay)
    assert network.get(key, network.peers[1]).value == new


def test_a_value_is_gone_after_two_days_unless_it_is_put_again():
    network = ValueNetwork()
    network.put(KEY, VALUE, network.peers[0])
    network.now += 22 * 3600
    network.put(KEY, VALUE, network.peers[0])
    network.now += 47 * 3600
    assert network.get(KEY, network.peers[1], quorum=1).value == VALUE
    network.now += 49 * 3600
    assert network.get(KEY, network.peers[1]).value is None


def test_the_same_seed_gives_the_same_result():
    results = []
    for _ in range(2):
        network = ValueNetwork(seed=5)
        results.append((network.put(KEY, VALUE, network.peers[0]), network.get(KEY, network.peers[1])))
    assert results[0] == results[1]


# Look-ups of values, one by one


def test_a_chain_of_referrals_is_counted_in_hops():
    lookup = Lookup(KEY, local=peer(0), seeds=[peer(1)], values=gathered(quorum=1))
    assert lookup.start(0.0) == [Query(peer=peer(1), request=GetValue(key=KEY))]
    lookup.handle(Answered(peer=peer(1), closer=[entry(2)]), 0.1)
    lookup.handle(Answered(peer=peer(2), closer=[entry(3)]), 0.2)
    [finished] = lookup.handle(Answered(peer=peer(3), record=RECORD), 0.3)
    assert (finished.hops, finished.queries, finished.value) == (3, 3, VALUE)
    assert set(finished.closest) == {peer(1), peer(2), peer(3)}


def test_after_a_quorum_only_those_with_an_older_value_are_told():
    identity = ValueNetwork(1).identities[0]
    key, old = sign_value(identity, "x", 1, b"old")
    _, new = sign_value(identity, "x", 2, b"new")
    values = gathered(2, key)
    values.take(peer(0), Record(key=key, value=old))
    lookup = Lookup(key, local=peer(0), seeds=[peer(1), peer(2)], values=values)
    lookup.start(0.0)
    assert lookup.handle(Answered(peer=peer(1)), 0.1) == []
    [finished] = lookup.handle(Answered(peer=peer(2), record=Record(key=key, value=new)), 0.2)
    assert (finished.value, finished.outdated) == (new, ())
    values = gathered(2, key)
    lookup = Lookup(key, local=peer(0), seeds=[peer(1), peer(2)], values=values)
    lookup.start(0.0)
    lookup.handle(Answered(peer=peer(1), record=Record(key=key, value=old)), 0.1)
    [finished] = lookup.handle(Answered(peer=peer(2), record=Record(key=key, value=new)), 0.2)
    assert (finished.value, finished.outdated) == (new, (peer(1),))


def test_a_record_of_another_key_or_an_invalid_value_counts_for_nothing():
    values = gathered(quorum=1)
    assert not values.take(peer(1), Record(key=content_key(b"x"), value=b"x"))
    assert not values.take(peer(1), Record(key=KEY, value=b"x"))
    assert not values.take(peer(1), None)
    assert not values.enough
    assert not values.has_best(peer(1))
    assert values.take(peer(2), RECORD)
    assert not values.take(peer(3), RECORD)
    assert values.has_best(peer(3))
    assert values.outdated() == ()


def test_a_key_in_no_namespace_cannot_be_looked_up():
    with pytest.raises(InvalidRecord):
        gathered(key=b"/unknown/x")


# Placements


def test_a_placement_asks_alpha_at_once_and_each_peer_once():
    peers = [peer(n) for n in range(25)]
    placement = Placement(PUT, [*peers, *peers])
    actions = placement.start(0.0)
    assert actions == [Query(peer=one, request=PutValue(key=KEY, record=RECORD)) for one in peers[:ALPHA]]
    assert placement.handle(Answered(peer=peers[0]), 0.1) == [
        Query(peer=peers[ALPHA], request=PutValue(key=KEY, record=RECORD))
    ]


def test_a_placement_ends_with_those_that_took_it_in_time():
    placement = Placement(PUT, [peer(1), peer(2), peer(3)])
    placement.start(5.0)
    assert placement.handle(Answered(peer=peer(2)), 5.1) == []
    assert placement.handle(Failed(peer=peer(3)), 5.2) == []
    assert placement.next_deadline() == 5.0 + REQUEST_DEADLINE
    assert placement.handle_timer(5.0 + REQUEST_DEADLINE) == [
        GiveUp(peer=peer(1)),
        Finished(closest=(peer(2),), queries=3),
    ]
    assert placement.finished
    assert placement.handle(Answered(peer=peer(1)), 16.0) == []


def test_a_placement_at_nobody_is_finished_at_once():
    assert Placement(PUT, []).start(0.0) == [Finished(closest=(), queries=0)]


# Replies


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (FindNode(key=KEY), GetValue(key=KEY)),
        (GetValue(key=KEY), FindNode()),
        (PutValue(key=KEY, record=RECORD), Ping()),
        (PutValue(key=KEY, record=RECORD), PutValue(key=KEY)),
        (PutValue(key=KEY, record=RECORD), PutValue(key=KEY, record=Record(key=KEY, value=b"other"))),
    ],
)
def test_a_reply_that_is_none_is_a_protocol_error(request_, reply):
    with pytest.raises(RemoteProtocolError, match=type(request_).__name__):
        read_reply(peer(1), request_, reply)


def test_the_echo_of_a_put_may_have_a_date():
    echo = PutValue(key=KEY, record=Record(key=KEY, value=VALUE, received=b"2026-01-01T00:00:00Z"))
    assert read_reply(peer(1), PutValue(key=KEY, record=RECORD), echo) == Answered(peer=peer(1))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_get_always_ends_with_a_valid_value_or_none(data):
    network = ValueNetwork(30, data.draw(st.integers(0, 100)))
    network.put(KEY, VALUE, network.peers[0])
    rng = random.Random(data.draw(st.integers(0, 2**32)))

    def lie(request):
        value = rng.choice([b"poison", VALUE])
        closer = tuple(entry(rng.randrange(1000)) for _ in range(3))
        return GetValue(key=KEY, record=Record(key=rng.choice([KEY, b"/v/x"]), value=value), closer=closer)

    kinds = data.draw(st.lists(st.sampled_from(["live", "dead", "silent", "liar"]), min_size=30, max_size=30))
    for one, kind in zip(network.peers, kinds, strict=True):
        if kind == "dead":
            network.dead.add(one)
        elif kind == "silent":
            network.silent.add(one)
        elif kind == "liar":
            network.liars[one] = lie
    found = network.get(KEY, network.peers[0], quorum=data.draw(st.integers(0, 3)))
    assert found.value in (None, VALUE)
