from __future__ import annotations

import errno
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated.errors import StorageError
from federated.journal import HEADER, MAX_JOURNAL, CheckpointStore, Journal, SavedState
from p2p.files import FolderFiles

RECORDS = [b"first", b"second record", b"\x00" * 20, b"the last one"]


def reopen(path):
    journal = Journal(FolderFiles(path.parent), path.name)
    journal.close()
    return journal.records


@pytest.fixture
def path(tmp_path):
    """A journal with RECORDS."""
    journal = Journal(FolderFiles(tmp_path), "journal")
    journal.append(RECORDS[:2])
    journal.append(RECORDS[2:])
    assert journal.records == RECORDS
    journal.close()
    return tmp_path / "journal"


def test_records_come_back_in_order_and_more_can_follow(path):
    assert reopen(path) == RECORDS
    journal = Journal(FolderFiles(path.parent), path.name)
    journal.append([b"more"])
    journal.close()
    assert reopen(path) == [*RECORDS, b"more"]


def test_a_cleared_journal_is_empty(path):
    journal = Journal(FolderFiles(path.parent), path.name)
    journal.clear()
    journal.append([b"next round"])
    journal.close()
    assert reopen(path) == [b"next round"]


def test_an_end_torn_at_any_byte_is_cut_off(path):
    whole = path.read_bytes()
    ends = [0]
    for record in RECORDS:
        ends.append(ends[-1] + HEADER.size + len(record))
    assert ends[-1] == len(whole)
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = sum(end <= size for end in ends) - 1
        assert reopen(path) == RECORDS[:kept]
        assert path.stat().st_size == ends[kept]
        journal = Journal(FolderFiles(path.parent), path.name)
        journal.append([b"after"])
        journal.close()
        assert reopen(path) == [*RECORDS[:kept], b"after"]


def test_a_file_that_grew_without_its_bytes_is_a_torn_end(path):
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert reopen(path) == RECORDS


def test_damage_before_the_end_is_refused_at_every_byte(path):
    whole = path.read_bytes()
    last = len(whole) - HEADER.size - len(RECORDS[-1])
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        if at < last:
            with pytest.raises(StorageError, match="damaged"):
                Journal(FolderFiles(path.parent), path.name)
        else:
            assert reopen(path) == RECORDS[:-1]


def test_a_write_that_fails_leaves_nothing_of_itself(path, monkeypatch):
    journal = Journal(FolderFiles(path.parent), path.name)

    def half(file, pieces, offset):
        os.pwrite(file, b"".join(pieces)[:5], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", half)
    with pytest.raises(StorageError, match="No space left"):
        journal.append([b"lost"])
    monkeypatch.undo()
    assert reopen(path) == RECORDS
    journal.append([b"after"])
    journal.close()
    assert reopen(path) == [*RECORDS, b"after"]


def test_short_writes_are_continued(path, monkeypatch):
    real = os.pwrite

    def some(file, pieces, offset):
        return real(file, b"".join(pieces)[:3], offset)

    monkeypatch.setattr(os, "pwritev", some)
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, bytes(data)[:3], offset))
    journal = Journal(FolderFiles(path.parent), path.name)
    journal.append([b"in many pieces"])
    journal.close()
    assert reopen(path)[-1] == b"in many pieces"


def test_a_journal_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(StorageError, match="missing"):
        Journal(FolderFiles(tmp_path / "missing"), "journal")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", MAX_JOURNAL + 1)
    with pytest.raises(StorageError, match="over the limit"):
        Journal(FolderFiles(tmp_path), "huge")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=st.lists(st.lists(st.binary(min_size=1, max_size=50), max_size=4), max_size=6))
def test_whatever_is_appended_comes_back(tmp_path, batches):
    path = tmp_path / "any"
    path.unlink(missing_ok=True)
    for batch in batches:
        journal = Journal(FolderFiles(path.parent), path.name)
        journal.append(batch)
        journal.close()
    assert reopen(path) == [record for batch in batches for record in batch]


def state(number):
    return SavedState(certificate=b"certificate %d" % number, model=bytes([number]) * 1000)


def test_the_newest_checkpoint_is_loaded_and_old_ones_go(tmp_path):
    store = CheckpointStore(FolderFiles(tmp_path), 2000)
    assert store.load() is None
    for number in range(1, 6):
        store.save(number, state(number))
        assert store.load() == state(number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-00000004", "checkpoint-00000005"]


def test_a_checkpoint_damaged_at_any_byte_gives_way_to_the_one_before(tmp_path, caplog):
    store = CheckpointStore(FolderFiles(tmp_path), 2000)
    store.save(1, state(1))
    store.save(2, state(2))
    newest = tmp_path / "checkpoint-00000002"
    whole = newest.read_bytes()
    for at in range(0, len(whole), 7):
        newest.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert store.load() == state(1)
        newest.write_bytes(whole[:at])
        assert store.load() == state(1)
    assert "damaged" in caplog.text
    (tmp_path / "checkpoint-00000001").write_bytes(b"")
    with pytest.raises(StorageError, match="no checkpoint"):
        store.load()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    store = CheckpointStore(FolderFiles(tmp_path), 2000)
    store.save(1, state(1))

    def full(file):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="Input/output error"):
        store.save(2, state(2))
    monkeypatch.undo()
    assert store.load() == state(1)
    store.save(2, state(2))
    assert store.load() == state(2)


def test_a_checkpoint_over_the_models_limit_is_refused(tmp_path):
    CheckpointStore(FolderFiles(tmp_path), 2000).save(1, SavedState(certificate=b"c", model=bytes(100_000)))
    with pytest.raises(StorageError):
        CheckpointStore(FolderFiles(tmp_path), 1000).load()
