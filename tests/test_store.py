from __future__ import annotations

import sqlite3

import pytest

from p2p.address import parse_address
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId
from p2p.peer_record import sign_record
from p2p.peerstore import TTL_CONNECTED, TTL_SAVED, PeerStore
from p2p.store import SCHEMA_VERSION, PeerFile
from tests.support import key_number

ADDRESSES = [parse_address(f"/ip4/127.0.0.1/tcp/{port}") for port in range(1, 10)]
ME = PeerId.from_public_key(key_number(1).public)
OTHER = PeerId.from_public_key(key_number(2).public)

OLD_SCHEMA = """
CREATE TABLE IF NOT EXISTS addresses (
    peer BLOB NOT NULL, address BLOB NOT NULL, expires REAL NOT NULL,  -- unix seconds
    PRIMARY KEY (peer, address)
) WITHOUT ROWID
"""


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "peers.sqlite"


@pytest.fixture
def file(path):
    file = PeerFile(path)
    yield file
    file.close()


def test_addresses_and_records_survive_the_process(path):
    store = PeerStore(Clock(1000.0))
    signed = sign_record(key_number(1), 7, ADDRESSES[:3])
    store.add_record(signed, 100)
    store.add_addresses(OTHER, ADDRESSES[3:4], 10)
    file = PeerFile(path)
    file.save(store.export_addresses(5000.0), store.export_records())
    file.close()

    later = Clock(7.0)  # another process, another monotonic clock, 50 s later
    restored = PeerStore(later)
    file = PeerFile(path)
    restored.import_rows(*file.load(5050.0), 5050.0)
    file.close()
    assert sorted(restored.addresses(ME), key=str) == ADDRESSES[:3]
    assert restored.record(ME) == signed.envelope
    assert not restored.add_record(sign_record(key_number(1), 6, ADDRESSES[4:5]), 100)
    assert restored.addresses(OTHER) == []
    later.now += 51
    assert restored.peers() == []


def test_a_peer_that_was_connected_is_found_a_week_later_and_not_after_that(file):
    store = PeerStore(Clock(0.0))
    store.set_connected(ME, True)
    store.add_addresses(ME, ADDRESSES[:1], TTL_CONNECTED)
    file.save(store.export_addresses(5000.0), [])
    assert len(file.load(5000.0 + TTL_SAVED - 1)[0]) == 1
    assert file.load(5000.0 + TTL_SAVED) == ([], [])


def test_what_has_expired_is_not_written(file):
    clock = Clock(0.0)
    store = PeerStore(clock)
    store.add_record(sign_record(key_number(1), 7, ADDRESSES[:1]), 10)
    clock.now = 10.0
    assert (store.export_addresses(0.0), store.export_records()) == ([], [])


def test_a_purge_deletes_expired_addresses_and_the_records_that_came_with_them(file):
    addresses = [(b"a", b"1", 10.0), (b"a", b"2", 20.0), (b"b", b"1", 10.0)]
    file.save(addresses, [(b"a", b"envelope"), (b"b", b"envelope")])
    file.purge(10.0)
    assert file.load(0.0) == ([(b"a", b"2", 20.0)], [(b"a", b"envelope")])


def test_a_file_of_the_first_version_is_taken_over(path):
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(OLD_SCHEMA)
    db.execute("INSERT INTO addresses VALUES (?, ?, ?)", (ME.raw, ADDRESSES[0].to_bytes(), 100.0))
    db.commit()
    db.close()
    for _ in range(2):
        file = PeerFile(path)
        assert file.load(50.0) == ([(ME.raw, ADDRESSES[0].to_bytes(), 100.0)], [])
        file.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    db.close()


def test_a_file_of_a_newer_version_is_left_alone(path):
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(InvalidInput, match="newer version"):
        PeerFile(path)


def test_a_save_that_fails_keeps_what_was_there(file):
    rows = [(b"a", b"1", 10.0)], [(b"a", b"envelope")]
    file.save(*rows)
    with pytest.raises(sqlite3.IntegrityError):
        file.save([(b"b", b"1", 10.0)], [(b"b", None)])  # type: ignore[list-item]
    assert file.load(0.0) == rows
    file.save(*rows)


def test_a_file_that_is_no_database_is_named(path):
    path.write_bytes(b"certainly not SQLite" * 100)
    with pytest.raises(InvalidInput, match=r"peers\.sqlite"):
        PeerFile(path)
