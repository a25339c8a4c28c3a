from __future__ import annotations

import errno
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from federated.compute import InlineCompute
from federated.driver import open_task
from federated.errors import StorageError
from federated.journal import CheckpointStore, Journal, SavedState
from federated.reports import Report
from federated.state import Restored, TaskState
from p2p.blobs.merkle import CHUNK_SIZE, blob_root
from p2p.blobs.store import BlobStore
from p2p.errors import InvalidInput
from p2p.files import Files, FolderFiles
from sim.disk import MAX_UNSYNCED, SimDisk, SimFolder
from tests.federated import tiny
from tests.federated.lab import Lab, Member, open_lab, start_idle, tiny_manifest

ATTEMPTS = 400  # of what is repeated on a disk that fails every second time at most


class Place(Protocol):
    """Where files are kept, and what can go wrong there."""

    full: bool
    error_share: float

    def mount(self) -> Files:
        """The files, for a new process."""

    def crash(self) -> None:
        """The process ends."""


class FolderPlace:
    """A folder of the system: a process that is killed loses nothing, and its calls can be made to fail."""

    def __init__(self, path: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.error_share = 0.0
        self._path = path
        self._rng = rng
        self._pwrite = os.pwrite
        patch.setattr(os, "pwrite", self._write)
        patch.setattr(os, "pwritev", self._write_pieces)
        for name in ("fsync", "ftruncate", "pread", "open"):
            patch.setattr(os, name, self._failing(getattr(os, name)))
        patch.setattr(Path, "write_bytes", self._failing(Path.write_bytes, grows=True))

    def mount(self) -> Files:
        return FolderFiles(self._path)

    def crash(self) -> None:
        pass

    def _failing(self, call: Callable[..., Any], grows: bool = False) -> Callable[..., Any]:
        def failing(*arguments: Any, **options: Any) -> Any:
            self._check(grows)
            return call(*arguments, **options)

        return failing

    def _check(self, grows: bool) -> None:
        if self._rng.random() < self.error_share:
            raise OSError(errno.EIO, "Input/output error")
        if grows and self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def _write_pieces(self, file: int, pieces: Sequence[bytes], offset: int) -> int:
        return self._write(file, memoryview(b"".join(pieces)), offset)

    def _write(self, file: int, data: memoryview, offset: int) -> int:
        try:
            self._check(grows=True)
        except OSError:
            self._pwrite(file, data[: self._rng.randrange(len(data) + 1)], offset)
            raise
        return self._pwrite(file, data, offset)


@contextmanager
def place_of(kind: str, seed: int) -> Iterator[Place]:
    rng = random.Random(seed)
    if kind == "disk":
        yield SimDisk(rng)
        return
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        place = FolderPlace(Path(folder), rng, patch)
        yield place
        place.full, place.error_share = False, 0.0


def until_done(place: Place, call: Callable[[], Any]) -> Any:
    """The result of `call`, as the driver repeats it; the disk is well again when nothing else helps."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except (StorageError, OSError, InvalidInput) as exc:
            if not any(reason in str(exc) for reason in ("Input/output error", "No space left")):
                raise
        if attempt == ATTEMPTS // 2:
            place.full, place.error_share = False, 0.0
    raise AssertionError("the disk never lets it succeed")


FAULTS = st.one_of(
    st.tuples(st.just("full"), st.booleans()),
    st.tuples(st.just("errors"), st.sampled_from([0.0, 0.1, 0.5])),
    st.tuples(st.just("crash"), st.none()),
)
RECORDS = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=3)
kinds = pytest.mark.parametrize("kind", ["folder", "disk"])


def change(place: Place, fault: str, value: Any) -> None:
    match fault:
        case "full":
            place.full = value
        case "errors":
            place.error_share = value
        case "crash":
            place.crash()


class JournalUser:
    """Appends and clears, and knows what a restart may find."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.bases: list[list[bytes]] = [[]]  # the records, one of these
        self.failed: list[list[bytes]] = []  # and then the first of one of these
        self.journal = self.open()

    def open(self) -> Journal:
        files = self.place.mount()
        return until_done(self.place, lambda: Journal(files, "journal"))  # type: ignore[no-any-return]

    def append(self, batch: list[bytes]) -> None:
        try:
            self.journal.append(batch)
        except StorageError:
            self.failed.append(batch)
        else:
            self.bases, self.failed = [list(self.journal.records)], []

    def clear(self) -> None:
        try:
            self.journal.clear()
        except StorageError:
            self.bases.append([])
        else:
            self.bases, self.failed = [[]], []

    def restart(self) -> None:
        self.journal.close()
        self.journal = self.open()
        found = self.journal.records
        assert any(
            found == base + rest[: len(found) - len(base)]
            for base in self.bases
            for rest in [[], *self.failed]
            if len(found) >= len(base)
        )
        self.bases, self.failed = [list(found)], []


@kinds
@settings(deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), RECORDS), st.tuples(st.just("clear"), st.none()), FAULTS, FAULTS
        ),
        max_size=25,
    ),
)
def test_a_journal_keeps_what_it_acknowledged_and_never_reads_as_damaged(
    kind: str, seed: int, steps: Sequence[tuple[str, Any]]
) -> None:
    with place_of(kind, seed) as place:
        user = JournalUser(place)
        for step, value in steps:
            match step:
                case "append":
                    user.append(value)
                case "clear":
                    user.clear()
                case _:
                    change(place, step, value)
                    if step == "crash":
                        user.restart()
        place.full, place.error_share = False, 0.0
        user.journal.append([b"the disk works again"])
        assert user.journal.records[-1] == b"the disk works again"
        user.bases, user.failed = [list(user.journal.records)], []
        place.crash()
        user.restart()
        user.journal.close()


def test_what_a_failed_write_left_is_cut_off_before_the_next() -> None:
    """Also when cutting it off failed as well: a whole record behind the end would read as damage."""
    left = 0
    for seed in range(300):
        ours = disk(seed)
        journal = Journal(ours.mount(), "journal")
        journal.append([b"first"])
        ours.error_share = 1.0
        with pytest.raises(StorageError, match="Input/output"):
            journal.append([b"to be lost", b"2", b"3", b"4", b"5"])
        ours.error_share = 0.0
        left += len(content(ours.mount(), "journal") or b"") > 60
        journal.append([b"second"])
        ours.crash()
        assert Journal(ours.mount(), "journal").records == [b"first", b"second"]
    assert left > 20  # times that several whole records were there


def saved(number: int) -> SavedState:
    return SavedState(certificate=b"certificate %d" % number, model=bytes([number]) * 300)


@kinds
@settings(deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    steps=st.lists(st.one_of(st.tuples(st.just("save"), st.none()), FAULTS), max_size=20),
)
def test_the_newest_checkpoint_is_the_last_acknowledged_or_a_later_one(
    kind: str, seed: int, steps: Sequence[tuple[str, Any]]
) -> None:
    with place_of(kind, seed) as place:
        store = CheckpointStore(place.mount(), 300)
        acknowledged = number = 0
        for step, value in [*steps, ("crash", None)]:
            if step == "save":
                number += 1
                try:
                    store.save(number, saved(number))
                except StorageError:
                    continue
                acknowledged = number
                continue
            change(place, step, value)
            if step == "crash":
                store = CheckpointStore(place.mount(), 300)
                state = until_done(place, store.load)
                found = next((n for n in range(1, number + 1) if saved(n) == state), 0)
                assert (state is None) == (found == 0)
                assert found >= acknowledged
                acknowledged = found


BLOBS = [random.Random(size).randbytes(size) for size in (0, 10, 3000, CHUNK_SIZE + 5)]
ROOTS = [blob_root(data) for data in BLOBS]


@kinds
@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1 << 32),
    steps=st.lists(
        st.one_of(st.tuples(st.sampled_from(["put", "get", "chunk", "discard"]), st.integers(0, 3)), FAULTS),
        max_size=25,
    ),
)
def test_a_blob_is_read_whole_or_not_at_all(kind: str, seed: int, steps: Sequence[tuple[str, Any]]) -> None:
    with place_of(kind, seed) as place:
        store = BlobStore(place.mount().sub("blobs"), CHUNK_SIZE + 1000)
        for step, value in steps:
            if step == "crash":
                place.crash()
                files = place.mount().sub("blobs")
                store = until_done(place, partial(BlobStore, files, CHUNK_SIZE + 1000))
            elif step in ("full", "errors"):
                change(place, step, value)
            else:
                use(store, step, value)
        place.full, place.error_share = False, 0.0
        assert store.get(store.put(BLOBS[2])) == BLOBS[2]


def test_a_blob_that_a_crash_has_torn_is_not_handed_out() -> None:
    torn = 0
    for seed in range(100):
        ours = disk(seed)
        BlobStore(ours.mount(), 1000).put(b"a blob")
        ours.crash()
        store = BlobStore(ours.mount(), 1000)
        torn += [size for _, size in ours.mount().entries()] not in ([], [6])
        assert store.get(blob_root(b"a blob")) in (None, b"a blob")
        assert store.chunk(blob_root(b"a blob"), 6, 0) is None or len(store) == 1
        assert store.get(store.put(b"a blob")) == b"a blob"
    assert torn > 10


def use(store: BlobStore, step: str, number: int) -> None:
    """One call, which may fail, and may find nothing, and finds nothing wrong."""
    data, root = BLOBS[number], ROOTS[number]
    try:
        match step:
            case "put":
                assert store.put(data) == root
            case "get":
                assert store.get(root) in (None, data)
            case "chunk":
                chunk = store.chunk(root, len(data), 0)
                assert chunk is None or chunk.pieces == (data[:CHUNK_SIZE],)
            case "discard":
                store.discard(root)
    except OSError as exc:
        if exc.errno not in (errno.EIO, errno.ENOSPC):
            raise


# The disk itself


def disk(seed: int = 1) -> SimDisk:
    return SimDisk(random.Random(seed))


def content(files: SimFolder, name: str) -> bytes | None:
    try:
        return files.read(name, 0, 1 << 20)
    except FileNotFoundError:
        return None


def test_everything_is_gone_with_a_disk_that_is_not_kept() -> None:
    ours = disk()
    ours.mount().write_durably("name", b"content")
    ours.crash(keep=False)
    assert ours.mount().entries() == []


def test_what_is_durable_survives_every_crash() -> None:
    for seed in range(50):
        ours = disk(seed)
        ours.mount().write_durably("name", b"content")
        file = ours.mount().open("log")
        file.write(0, b"synced")
        file.sync()
        ours.crash()
        assert content(ours.mount(), "name") == b"content"
        assert content(ours.mount(), "log") == b"synced"


def test_what_was_not_synced_is_lost_torn_or_whole() -> None:
    logs, files = set(), set()
    for seed in range(200):
        ours = disk(seed)
        file = ours.mount().open("log")
        file.write(0, b"ab")
        file.sync()
        file.write(2, b"cd")
        file.write(1, b"XYZ")
        file.truncate(3)
        ours.mount().write("name", b"12")
        ours.crash()
        logs.add(content(ours.mount(), "log"))
        files.add(content(ours.mount(), "name"))
    assert logs == {b"ab", b"abc", b"abcd", b"aXcd", b"aXYd", b"aXYZ", b"aXY"}
    assert files == {None, b"", b"1", b"12"}


def test_a_replaced_or_removed_file_may_come_back_as_it_was() -> None:
    found = set()
    for seed in range(100):
        ours = disk(seed)
        files = ours.mount()
        files.write_durably("name", b"old")
        files.write("name", b"new")
        files.remove("name")
        ours.crash()
        found.add(content(ours.mount(), "name"))
    assert found >= {b"old", b"new", None}


def test_what_is_never_synced_is_written_back_in_the_end() -> None:
    for seed in range(50):
        ours = disk(seed)
        for number in range(10):
            ours.mount().write(str(number), b"content")
        ours.crash()
        kept = [content(ours.mount(), str(number)) for number in range(10)]
        assert kept[: 10 - MAX_UNSYNCED] == [b"content"] * (10 - MAX_UNSYNCED)


def test_a_sync_that_fails_may_lose_what_was_written() -> None:
    found = set()
    for seed in range(100):
        ours = disk(seed)
        file = ours.mount().open("log")
        file.write(0, b"ab")
        ours.error_share = 1.0
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        ours.error_share = 0.0
        file.sync()
        ours.crash()
        found.add(content(ours.mount(), "log"))
    assert found == {b"", b"a", b"ab"}


def test_a_full_disk_takes_no_byte_and_reads_on() -> None:
    ours = disk()
    files = ours.mount()
    file = files.open("log")
    file.write(0, b"before")
    ours.full = True
    for grow in (
        lambda: file.truncate(100),
        lambda: files.write("name", b"x"),
        lambda: files.write_durably("name", b"x"),
        lambda: files.open("other"),
        lambda: file.write(6, b"more"),
    ):
        with pytest.raises(OSError, match="No space left"):
            grow()
    file.truncate(6)
    file.write(0, b"inside")
    file.sync()
    assert content(files, "log") == b"inside"
    assert files.entries() == [("log", 6)]


def test_a_file_can_be_written_behind_its_end() -> None:
    ours = disk()
    file = ours.mount().open("log")
    file.write(3, b"x")
    file.truncate(6)
    assert content(ours.mount(), "log") == b"\0\0\0x\0\0"


def test_a_process_that_crashed_reaches_its_files_no_more() -> None:
    ours = disk()
    files = ours.mount().sub("folder")
    file = files.open("log")
    ours.crash()
    for call in (
        files.entries,
        files.make,
        file.sync,
        lambda: file.write(0, b"ghost"),
        lambda: file.truncate(0),
        lambda: files.read("log", 0, 1),
        lambda: files.write("log", b"ghost"),
        lambda: files.write_durably("log", b"ghost"),
        lambda: files.remove("log"),
        lambda: files.open("log"),
    ):
        with pytest.raises(OSError, match="Input/output"):
            call()
    file.close()
    assert content(ours.mount().sub("folder"), "log") == b""


def test_folders_are_apart_and_files_are_listed_as_they_were_written() -> None:
    files = disk().mount()
    for name in ("b", "a", "c"):
        files.sub("one").write(name, name.encode())
    files.sub("one").write("b", b"again")
    files.sub("two").sub("three").write("d", b"")
    assert files.sub("one").entries() == [("a", 1), ("c", 1), ("b", 5)]
    assert files.entries() == files.sub("two").entries() == []
    assert str(files) == "/"
    assert str(files.sub("two").sub("three")) == "/two/three"
    assert not files.blocking


def test_the_same_seed_crashes_the_same_way() -> None:
    def kept(seed: int) -> list[tuple[str, int]]:
        ours = disk(seed)
        for number in range(8):
            ours.mount().write(str(number), bytes(50))
        ours.crash()
        return ours.mount().entries()

    assert [kept(seed) for seed in range(20)] == [kept(seed) for seed in range(20)]
    assert len({tuple(kept(seed)) for seed in range(20)}) > 10


def test_the_state_of_a_task_is_kept_on_it() -> None:
    ours = disk()
    state = TaskState(ours.mount().sub("tasks"), bytes(32), 100)
    assert state.restore() == Restored()
    state.write([])
    ours.error_share = 1.0
    with pytest.raises(StorageError, match="/tasks"):
        state.restore()
    ours.crash()
    ours.error_share = 0.0
    assert TaskState(ours.mount().sub("tasks"), bytes(32), 100).restore() == Restored()


async def test_a_task_that_is_handed_its_files_goes_on_from_them(autojump_clock: MockClock) -> None:
    ours, lab = disk(), Lab(tiny_manifest(1, rounds=2))
    for life in (1, 2):
        events: list[Report] = []
        async with open_lab(lab) as nursery:
            member: Member = await nursery.start(start_idle, lab, 1)
            async with open_task(
                member.host,
                member.pubsub,
                member.blobs,
                lab.manifest,
                tiny.registry(),
                None,
                events.append,
                files=ours.mount(),
                compute=InlineCompute,
            ) as task:
                with trio.fail_after(60):
                    await task.wait_finished()
        assert sum(event["event"] == "round" for event in events) == (2 if life == 1 else 0)
        ours.crash()
    folder = ours.mount().sub("tasks").sub(lab.manifest.task_id.hex())
    names = sorted(name for name, _ in folder.entries())
    assert names == ["accusations", "certificates", "checkpoint-00000001", "checkpoint-00000002", "journal"]
