from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from p2p.address import parse_address
from p2p.errors import InvalidKey
from p2p.keys import KeyType, PublicKey
from p2p.peer_id import PeerId
from p2p.peer_record import SignedRecord, sign_record
from p2p.peerstore import (
    MAX_ADDRESSES,
    MAX_PEERS,
    MAX_PROTOCOLS,
    TTL_CONNECTED,
    TTL_RECENTLY_CONNECTED,
    TTL_SAVED,
    PeerStore,
)
from tests.support import key_number

LONG_KEY = PublicKey(KeyType.RSA, bytes(range(200)))
ADDRESSES = [parse_address(f"/ip4/127.0.0.1/tcp/{port}") for port in range(1, 101)]


def peer(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> PeerStore:
    return PeerStore(clock)


def test_the_newest_address_comes_first(store):
    store.add_addresses(peer(1), ADDRESSES[:2], 10)
    store.add_addresses(peer(1), ADDRESSES[2:3], 10)
    assert store.addresses(peer(1)) == [ADDRESSES[2], ADDRESSES[1], ADDRESSES[0]]


def test_an_address_expires_on_its_own(store, clock):
    store.add_addresses(peer(1), ADDRESSES[:1], 10)
    store.add_addresses(peer(1), ADDRESSES[1:2], 20)
    clock.now += 10
    assert store.addresses(peer(1)) == ADDRESSES[1:2]
    clock.now += 10
    assert store.addresses(peer(1)) == []
    assert store.peers() == []


def test_a_shorter_ttl_does_not_shorten_a_longer_one(store, clock):
    store.add_addresses(peer(1), ADDRESSES[:1], 100)
    store.add_addresses(peer(1), ADDRESSES[:1], 1)
    clock.now += 50
    assert store.addresses(peer(1)) == ADDRESSES[:1]


def test_what_the_peer_says_itself_replaces_what_was_heard(store):
    store.add_addresses(peer(1), ADDRESSES[:5], 100)
    store.replace_addresses(peer(1), ADDRESSES[9:10], 100)
    assert store.addresses(peer(1)) == ADDRESSES[9:10]


def test_one_peer_cannot_fill_the_store_with_addresses(store):
    store.add_addresses(peer(1), ADDRESSES, 10)
    assert store.addresses(peer(1)) == ADDRESSES[: -MAX_ADDRESSES - 1 : -1]


def test_the_least_recently_updated_peer_goes_first(store):
    for number in range(MAX_PEERS):
        store.add_addresses(peer(number), ADDRESSES[:1], 10)
    store.add_addresses(peer(0), ADDRESSES[:1], 10)
    store.add_addresses(peer(MAX_PEERS), ADDRESSES[:1], 10)
    assert store.addresses(peer(0))
    assert not store.addresses(peer(1))
    assert len(store.peers()) == MAX_PEERS


def test_protocols_are_bounded_and_replaced(store):
    assert store.protocols(peer(1)) == ()
    store.set_protocols(peer(1), [f"/{number}" for number in range(2 * MAX_PROTOCOLS)])
    assert len(store.protocols(peer(1))) == MAX_PROTOCOLS
    store.set_protocols(peer(1), ["/a"])
    assert store.protocols(peer(1)) == ("/a",)
    for number in range(2, MAX_PEERS + 2):
        store.set_protocols(peer(number), ["/b"])
    assert store.protocols(peer(1)) == ()


def record(number: int, seq: int, *addresses: Multiaddr) -> SignedRecord:
    return sign_record(key_number(number), seq, addresses)


def id_of(number: int) -> PeerId:
    return PeerId.from_public_key(key_number(number).public)


def test_a_signed_record_replaces_what_was_known_and_is_passed_on_as_it_came(store):
    store.add_addresses(id_of(1), ADDRESSES[:5], 100)
    signed = record(1, 7, *ADDRESSES[10:12])
    assert store.add_record(signed, 100)
    assert sorted(store.addresses(id_of(1)), key=str) == sorted(ADDRESSES[10:12], key=str)
    assert store.record(id_of(1)) == signed.envelope
    assert store.signed_record(id_of(1)) == signed
    assert store.record(id_of(2)) is None


def test_only_a_strictly_newer_record_is_taken(store):
    newest = record(1, 7, ADDRESSES[1])
    assert store.add_record(newest, 100)
    assert not store.add_record(record(1, 6, ADDRESSES[2]), 100)
    assert not store.add_record(record(1, 7, ADDRESSES[3]), 100)
    assert store.addresses(id_of(1)) == [ADDRESSES[1]]
    assert store.add_record(record(1, 8, ADDRESSES[4]), 100)
    assert store.addresses(id_of(1)) == [ADDRESSES[4]]


def test_the_same_record_again_lives_longer_and_never_shorter(store, clock):
    signed = record(1, 7, ADDRESSES[1])
    store.add_record(signed, 100)
    assert store.add_record(signed, 10)
    clock.now += 50
    assert store.add_record(signed, 100)
    clock.now += 90
    assert store.addresses(id_of(1)) == [ADDRESSES[1]]


def test_a_record_is_dropped_with_the_last_of_its_addresses(store, clock):
    store.add_record(record(1, 7, *ADDRESSES[:2]), 100)
    store.add_addresses(id_of(1), ADDRESSES[5:6], 1000)
    clock.now += 100
    assert store.addresses(id_of(1)) == ADDRESSES[5:6]
    assert store.record(id_of(1)) is None


def test_a_record_without_a_usable_address_is_not_kept(store):
    assert store.add_record(record(1, 7, ADDRESSES[0]), 100, addresses=())
    assert store.record(id_of(1)) is None
    assert not store.add_record(record(1, 6, ADDRESSES[0]), 100)


def test_what_others_say_stands_behind_what_the_peer_signed_and_never_pushes_it_out(store):
    store.add_record(record(1, 7, ADDRESSES[0]), 100)
    store.add_addresses(id_of(1), ADDRESSES[1:], 100)
    found = store.addresses(id_of(1))
    assert found[0] == ADDRESSES[0]
    assert len(found) == MAX_ADDRESSES
    assert ADDRESSES[-1] in found


def test_what_the_peer_says_itself_without_signing_replaces_its_record(store):
    store.add_record(record(1, 7, ADDRESSES[0]), 100)
    store.replace_addresses(id_of(1), ADDRESSES[1:2], 100)
    assert store.addresses(id_of(1)) == ADDRESSES[1:2]
    assert store.record(id_of(1)) is None
    assert not store.add_record(record(1, 7, ADDRESSES[0]), 100)


def test_records_are_bounded_and_the_oldest_goes_first(store, monkeypatch):
    monkeypatch.setattr("p2p.peerstore.MAX_RECORDS", 3)
    for number in range(1, 6):
        store.add_record(record(number, 1, ADDRESSES[0]), 100)
    kept = [number for number in range(1, 6) if store.record(id_of(number))]
    assert kept == [3, 4, 5]
    assert store.addresses(id_of(1)) == [ADDRESSES[0]]


def test_the_addresses_of_a_connected_peer_do_not_expire_until_it_has_left(store, clock):
    store.set_connected(peer(1), True)
    store.replace_addresses(peer(1), ADDRESSES[:1], TTL_CONNECTED)
    clock.now += 1e6
    assert store.addresses(peer(1)) == ADDRESSES[:1]
    store.set_connected(peer(1), False)
    clock.now += TTL_RECENTLY_CONNECTED - 1
    assert store.addresses(peer(1)) == ADDRESSES[:1]
    clock.now += 1
    assert store.addresses(peer(1)) == []


def test_a_message_that_comes_behind_the_goodbye_makes_nothing_immortal(store, clock):
    store.set_connected(peer(1), False)
    store.add_addresses(peer(1), ADDRESSES[:1], TTL_CONNECTED)
    clock.now += TTL_RECENTLY_CONNECTED
    assert store.addresses(peer(1)) == []


def test_a_record_that_a_stranger_passes_on_does_not_make_a_connected_peer_expire(store, clock):
    store.set_connected(id_of(1), True)
    store.add_record(record(1, 7, ADDRESSES[0]), TTL_CONNECTED)
    store.add_record(record(1, 7, ADDRESSES[0]), 10)
    store.add_record(record(1, 8, ADDRESSES[1]), 10)
    clock.now += 1e6
    assert store.addresses(id_of(1)) == [ADDRESSES[1]]


def test_connected_peers_are_never_evicted(store, monkeypatch):
    monkeypatch.setattr("p2p.peerstore.MAX_PEERS", 3)
    for number in range(3):
        store.set_connected(peer(number), True)
        store.set_protocols(peer(number), ["/a"])
    store.add_record(record(1, 7, ADDRESSES[0]), 100)
    for number in range(10, 20):
        store.add_addresses(peer(number), ADDRESSES[:1], 100)
    assert all(store.protocols(peer(number)) for number in range(3))
    assert store.peers() == [peer(19)]
    assert store.export_records() == []


def test_expired_peers_leave_without_anybody_asking_for_them(store, clock):
    """CVE-2023-40583: records of peers that never came back were kept for good."""
    for number in range(1, 50):
        store.add_record(record(number, 1, ADDRESSES[0]), 100)
        store.set_agent(id_of(number), "x")
    store.set_connected(peer(99), True)
    clock.now += TTL_RECENTLY_CONNECTED - 1
    store.collect()
    assert len(store._entries) == 50
    assert len(store._with_record) == 0
    clock.now += 1
    store.collect()
    assert list(store._entries) == [peer(99)]


def test_nothing_is_remembered_of_no_addresses(store):
    store.add_addresses(peer(1), [], 100)
    assert store._entries == {}


def test_agent_latency_and_key_are_remembered(store):
    assert (store.agent(peer(1)), store.latency(peer(1)), store.public_key(peer(1))) == ("", None, None)
    store.set_agent(peer(1), "atcp")
    store.record_latency(peer(1), 1.0)
    store.record_latency(peer(1), 2.0)
    for nonsense in (-1.0, float("nan"), float("inf")):
        store.record_latency(peer(1), nonsense)
    assert store.agent(peer(1)) == "atcp"
    assert store.latency(peer(1)) == pytest.approx(1.1)


def test_a_key_is_taken_for_its_own_peer_alone(store):
    assert store.public_key(id_of(1)) == key_number(1).public
    store.add_public_key(id_of(1), key_number(1).public)
    with pytest.raises(InvalidKey):
        store.add_public_key(id_of(1), key_number(2).public)
    hashed = PeerId(b"\x12\x20" + hashlib.sha256(LONG_KEY.encode()).digest())
    assert store.public_key(hashed) is None
    store.add_public_key(hashed, LONG_KEY)
    assert store.public_key(hashed) == LONG_KEY


def test_rows_that_do_not_decode_are_dropped(store):
    good = (peer(1).raw, ADDRESSES[0].to_bytes(), 10.0)
    bad = [(b"junk", ADDRESSES[0].to_bytes(), 10.0), (peer(2).raw, b"\x04\x01", 10.0)]
    records = [(peer(1).raw, b"junk"), (b"junk", record(1, 1, ADDRESSES[0]).envelope)]
    store.import_rows([*bad, good], [*records, (peer(1).raw, record(1, 1, ADDRESSES[0]).envelope)], 0.0)
    assert store.peers() == [peer(1)]
    assert store.export_records() == []


def test_a_wrong_clock_in_the_file_makes_nothing_immortal(store, clock):
    store.import_rows([(peer(1).raw, ADDRESSES[0].to_bytes(), 1e18)], [], 0.0)
    clock.now += TTL_SAVED
    assert store.peers() == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60), st.floats(0.1, 50)), max_size=60))
def test_the_store_never_returns_an_expired_address(operations):
    clock = Clock()
    store = PeerStore(clock)
    expires: dict[tuple[int, int], float] = {}
    for who, which, ttl in operations:
        store.add_addresses(peer(who), [ADDRESSES[which]], ttl)
        expires[who, which] = max(expires.get((who, which), 0.0), clock.now + ttl)
        clock.now += 1.0
        for number in range(6):
            for address in store.addresses(peer(number)):
                assert expires[number, ADDRESSES.index(address)] > clock.now
