from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated import codec
from federated.errors import StorageError
from federated.parameters import Parameters
from federated.snapshots import MODELS, SLACK, Snapshot, Snapshots, max_state
from p2p.files import Files, FolderFiles
from sim.disk import SimDisk
from tests.federated.mortal import Died, Reaper
from tests.search.deadly import DeadlyFiles

TASK = bytes(range(32))
MODEL = 100  # bytes


def state_of(number: int) -> Parameters:
    """What a trainer kept of round `number`."""
    return {"count": np.array(number, np.int64), "moment": np.full(3, number / 7, np.float32)}


def snapshot(number: int) -> Snapshot:
    base, root = bytes([number]) * 32, bytes([255 - number]) * 32
    return Snapshot(round=number, base=base, root=root, state=codec.encode(state_of(number)))


def opened(files: Files | None, *numbers: int) -> Snapshots:
    made = Snapshots(files, TASK, MODEL)
    for number in numbers:
        made.save(snapshot(number))
    return made


def folder(path: Path) -> FolderFiles:
    files = FolderFiles(path / "task")
    files.make()
    return files


def names(files: Files) -> list[str]:
    return sorted(name for name, _ in files.entries())


@pytest.mark.parametrize("kept", [False, True], ids=["memory", "folder"])
def test_a_training_begins_with_the_newest_state_of_an_earlier_round(kept: bool, tmp_path: Path) -> None:
    files = folder(tmp_path) if kept else None
    made = opened(files)
    assert made.before(1) is None
    assert made.state_before(9) == {}
    for number in (1, 2, 5):
        made.save(snapshot(number))
    reader = opened(files) if kept else made
    assert [reader.before(number) for number in (2, 3, 5, 6, 90)] == [
        None,  # only the newest two are kept
        snapshot(2),
        snapshot(2),
        snapshot(5),
        snapshot(5),
    ]
    state = reader.state_before(6)
    assert codec.encode(state) == codec.encode(state_of(5))
    state["moment"] += 1  # a trainer may write into it
    assert codec.encode(reader.state_before(6)) == codec.encode(state_of(5))


def test_a_round_that_is_trained_again_replaces_its_snapshot(tmp_path: Path) -> None:
    files = folder(tmp_path)
    made = opened(files, 1, 2, 2, 2)
    assert made.before(2) == snapshot(1)
    assert names(files) == ["snapshot-00000001", "snapshot-00000002"]


def test_snapshots_of_a_future_that_did_not_come_are_forgotten(tmp_path: Path) -> None:
    files = folder(tmp_path)
    made = opened(files, 7, 8, 3)
    assert names(files) == ["snapshot-00000003"]
    assert made.before(9) == snapshot(3)


def test_other_files_and_high_rounds_are_no_matter(tmp_path: Path) -> None:
    files = folder(tmp_path)
    for name in ("snapshot-1", "snapshot-000000001", "snapshot-00000009.partial", "checkpoint-00000009"):
        files.write(name, b"")
    made = Snapshots(files, TASK, MODEL)
    assert made.before(1 << 60) is None
    for number in (99_999_999, 100_000_000, 1_000_000_000):
        made.save(Snapshot(round=number, base=bytes(32), root=bytes(32), state=b""))
    found = [made.before(number) for number in (1_000_000_000, 1_000_000_001)]
    assert [None if item is None else item.round for item in found] == [100_000_000, 1_000_000_000]


def test_each_damaged_byte_is_refused_with_what_to_do(tmp_path: Path) -> None:
    files = folder(tmp_path)
    made = opened(files, 1, 2)
    whole = files.read("snapshot-00000002", 0, 1 << 20)
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 0x10
        files.write("snapshot-00000002", bytes(broken))
        with pytest.raises(StorageError, match=r"task/snapshot-00000002 is damaged; remove it, and the trai"):
            made.before(3)
    for size in range(len(whole)):
        files.write("snapshot-00000002", whole[:size])
        with pytest.raises(StorageError, match="is damaged"):
            made.before(3)
    files.remove("snapshot-00000002")
    assert made.before(3) == snapshot(1)


@given(st.binary(max_size=400))
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    files = SimDisk(random.Random(1)).mount()
    files.write("snapshot-00000001", data)
    with pytest.raises(StorageError, match="is damaged"):
        Snapshots(files, TASK, MODEL).state_before(2)


def test_a_snapshot_of_something_else_is_refused(tmp_path: Path) -> None:
    files = folder(tmp_path)
    Snapshots(files, bytes(32), MODEL).save(snapshot(1))
    made = Snapshots(files, TASK, MODEL)
    with pytest.raises(StorageError, match="is damaged"):
        made.before(2)
    made.save(snapshot(1))
    files.write("snapshot-00000002", files.read("snapshot-00000001", 0, 1 << 20))
    with pytest.raises(StorageError, match="is damaged"):
        made.before(3)
    made.save(Snapshot(round=2, base=bytes(32), root=bytes(32), state=b"nothing of the kind"))
    with pytest.raises(StorageError, match=r"snapshot-00000002 holds no state: header: .*; remove it, and"):
        made.state_before(3)


def test_a_snapshot_over_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    assert max_state(MODEL) == MODELS * MODEL + SLACK
    made = Snapshots(folder(tmp_path), TASK, MODEL)
    largest = Snapshot(round=1, base=bytes(32), root=bytes(32), state=bytes(max_state(MODEL)))
    made.save(largest)
    assert made.before(2) == largest
    made.save(replace(largest, state=largest.state + b"x"))
    with pytest.raises(StorageError, match="is damaged"):
        made.before(2)


def test_a_disk_that_fails_is_named(tmp_path: Path) -> None:
    disk = SimDisk(random.Random(1))
    made = opened(disk.mount().sub("tasks"), 1)
    disk.full = True
    with pytest.raises(StorageError, match=r"^/tasks/snapshot-00000002: No space left on device$"):
        made.save(snapshot(2))
    assert made.before(3) == snapshot(1)
    disk.error_share = 1.0
    with pytest.raises(StorageError, match="Input/output error"):
        made.before(3)


def test_a_crash_at_any_moment_of_a_save_leaves_what_was_there_before_it() -> None:
    moment, died, ends = 0, True, set[int]()
    while died:
        disk, reaper = SimDisk(random.Random(moment)), Reaper()
        made = opened(DeadlyFiles(disk.mount(), reaper), 1, 2)
        reaper.kill_in(moment)
        died = False
        try:
            made.save(snapshot(3))
        except Died:
            died = True
        disk.crash()
        again = opened(disk.mount())
        assert again.before(3) == snapshot(2)
        newest = again.before(4)
        assert newest is not None
        assert newest == snapshot(newest.round)
        ends.add(newest.round)
        moment += 1
    assert ends == {2, 3}
