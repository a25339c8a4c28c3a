from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.address import parse_address
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId
from p2p.peerstore import MAX_ADDRESSES, MAX_PEERS, MAX_PROTOCOLS, PeerStore
from p2p.store import AddressFile
from tests.support import key_number

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


def test_addresses_survive_the_process_in_the_file(tmp_path, store, clock):
    me = PeerId.from_public_key(key_number(1).public)
    store.add_addresses(me, ADDRESSES[:3], 100)
    store.add_addresses(peer(2), ADDRESSES[3:4], 10)
    file = AddressFile(tmp_path / "peers.sqlite")
    file.save(store.export_rows(wall_time=5000.0))
    file.close()

    later = Clock()
    later.now = 7.0  # another process, another monotonic clock, 50 s later
    restored = PeerStore(later)
    file = AddressFile(tmp_path / "peers.sqlite")
    restored.import_rows(file.load(5050.0), wall_time=5050.0)
    file.close()
    assert sorted(restored.addresses(me), key=str) == sorted(ADDRESSES[:3], key=str)
    assert restored.addresses(peer(2)) == []
    later.now += 51
    assert restored.peers() == []


def test_rows_that_do_not_decode_are_dropped(store):
    good = (peer(1).raw, ADDRESSES[0].to_bytes(), 10.0)
    store.import_rows([(b"junk", ADDRESSES[0].to_bytes(), 10.0), (peer(2).raw, b"\x04\x01", 10.0), good], 0.0)
    assert store.peers() == [peer(1)]


def test_a_save_that_fails_keeps_what_was_there(tmp_path, store):
    store.add_addresses(peer(1), ADDRESSES[:1], 100)
    file = AddressFile(tmp_path / "peers.sqlite")
    rows = store.export_rows(0.0)
    file.save(rows)
    with pytest.raises(Exception, match="NOT NULL"):
        file.save([(b"x", None, 1.0)])  # type: ignore[list-item]
    assert file.load(0.0) == rows
    file.close()


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "peers.sqlite"
    path.write_bytes(b"certainly not SQLite" * 100)
    with pytest.raises(InvalidInput, match=r"peers\.sqlite"):
        AddressFile(path)


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
