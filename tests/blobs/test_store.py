from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2p.blobs import index as index_module
from p2p.blobs import store as store_module
from p2p.blobs.errors import BlobUnavailable, StoreFull
from p2p.blobs.merkle import CHUNK_SIZE, blob_root, chunk_count
from p2p.blobs.partial import Partial, log_name
from p2p.blobs.store import BlobStore
from p2p.errors import InvalidInput, LocalProtocolError
from p2p.files import FolderFiles
from tests.blobs.support import THREE, blob, chunk_of, verify_chunk

CAPACITY = 4 * CHUNK_SIZE


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return BlobStore(None if request.param == "memory" else FolderFiles(tmp_path / "blobs"), CAPACITY)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_is_put_can_be_read_by_its_root(store: BlobStore) -> None:
    root = store.put(THREE)
    assert root == blob_root(THREE)
    assert root in store
    assert store.get(root) == THREE
    assert store.get(bytes(32)) is None


def test_the_same_content_is_held_once(store: BlobStore) -> None:
    for _ in range(10):
        root = store.put(THREE)
    assert len(store) == 1
    store.discard(root)
    assert len(store) == 0
    assert store.put(blob(CAPACITY)) in store


def test_every_chunk_comes_with_its_proof(store: BlobStore) -> None:
    root, size = store.put(THREE), len(THREE)
    for index in range(3):
        chunk = store.chunk(root, size, index)
        assert chunk is not None
        assert chunk.pieces == (THREE[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE],)
        assert verify_chunk(root, chunk_count(size), index, b"".join(chunk.pieces), chunk.proof)


@pytest.mark.parametrize("indexes", [[0, 1, 2], [2, 0, 1], [1, 2], [1, 7, 0], [0, 1, 0, 2], [3], [2, -1], []])
def test_chunks_side_by_side_are_read_at_once_in_any_order(
    store: BlobStore, indexes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, reads = store.put(THREE), 0

    def count(files: FolderFiles, name: str, offset: int, buffer: memoryview) -> int:
        nonlocal reads
        reads += 1
        return read_into(files, name, offset, buffer)

    read_into = FolderFiles.read_into
    monkeypatch.setattr(FolderFiles, "read_into", count)
    chunks = store.chunks_at(root, len(THREE), indexes, memoryview(bytearray(len(indexes) * CHUNK_SIZE)))
    assert chunks == [chunk_of(THREE, index) if 0 <= index < 3 else None for index in indexes]
    assert reads <= 1 or indexes in ([2, 0, 1], [1, 7, 0], [0, 1, 0, 2])


def test_a_chunk_that_does_not_exist_is_none(store: BlobStore) -> None:
    root, size = store.put(THREE), len(THREE)
    assert store.chunk(root, size, 3) is None
    assert store.chunk(root, size, -1) is None
    assert store.chunk(root, size + 1, 0) is None
    assert store.chunk(bytes(32), size, 0) is None


def test_what_was_not_used_for_longest_is_forgotten_first(store: BlobStore) -> None:
    first, second = store.put(blob(2 * CHUNK_SIZE, 1)), store.put(blob(CHUNK_SIZE, 2))
    assert store.get(first) is not None
    third = store.put(blob(2 * CHUNK_SIZE, 3))
    assert first in store
    assert second not in store
    assert store.get(third) is not None


def test_the_number_of_blobs_is_bounded_too(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_BLOBS", 3)
    roots = [store.put(bytes([number])) for number in range(5)]
    assert [root in store for root in roots] == [False, False, True, True, True]


def test_a_blob_over_the_capacity_is_refused_and_nothing_is_lost(store: BlobStore) -> None:
    root = store.put(THREE)
    with pytest.raises(LocalProtocolError, match="over the store's limit"):
        store.put(blob(CAPACITY + 1))
    assert store.get(root) == THREE


def test_discarding_what_is_not_here_does_nothing(store: BlobStore) -> None:
    store.discard(bytes(32))
    assert len(store) == 0


def test_the_empty_blob_can_be_held(store: BlobStore) -> None:
    assert store.get(store.put(b"")) == b""


def test_a_folder_is_found_again_by_the_next_process(tmp_path: Path) -> None:
    root = BlobStore(FolderFiles(tmp_path), CAPACITY).put(THREE)
    again = BlobStore(FolderFiles(tmp_path), CAPACITY)
    chunk = again.chunk(root, len(THREE), 2)
    assert chunk is not None
    assert verify_chunk(root, 3, 2, b"".join(chunk.pieces), chunk.proof)
    assert again.get(root) == THREE
    assert again.blocking


def test_the_oldest_files_go_first_when_a_folder_is_over_its_capacity(tmp_path: Path) -> None:
    before = BlobStore(FolderFiles(tmp_path), CAPACITY)
    roots = [before.put(blob(CHUNK_SIZE, seed)) for seed in range(4)]
    for age, root in enumerate(reversed(roots)):
        os.utime(tmp_path / root.hex(), (1000 + age, 1000 + age))
    again = BlobStore(FolderFiles(tmp_path), 2 * CHUNK_SIZE)
    assert [root in again for root in roots] == [True, True, False, False]
    assert files(tmp_path) == sorted(root.hex() for root in roots[:2])


def test_other_files_in_the_folder_are_left_alone_and_unfinished_ones_removed(tmp_path: Path) -> None:
    for name in ("notes.txt", "ab", "z" * 64, "0" * 64 + ".partial"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ("a" * 64)).mkdir()
    assert len(BlobStore(FolderFiles(tmp_path), CAPACITY)) == 0
    assert files(tmp_path) == sorted(["notes.txt", "ab", "z" * 64, "a" * 64])


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove"])
def test_a_damaged_file_is_found_when_it_is_read_as_a_whole_or_first_served(
    tmp_path: Path, damage: str, reopened: bool
) -> None:
    store = BlobStore(FolderFiles(tmp_path), 2 * CAPACITY)
    for read in ("get", "chunks", "chunk"):
        root = store.put(THREE)
        path = tmp_path / root.hex()
        match damage:
            case "flip":
                path.write_bytes(THREE[:-1] + bytes([THREE[-1] ^ 1]))
            case "cut":
                path.write_bytes(THREE[:-1])
            case "grow":
                path.write_bytes(THREE + b"x")
            case "remove":
                path.unlink()
        if reopened:
            store = BlobStore(FolderFiles(tmp_path), 2 * CAPACITY)
        match read:
            case "get":
                assert store.get(root) is None
            case "chunks" if damage != "grow" or reopened:
                with pytest.raises(BlobUnavailable, match=r"damaged|not here"):
                    list(store.chunks(root))
            case "chunk" if damage in ("cut", "remove") or reopened:
                assert store.chunk(root, len(THREE), 2) is None
            case _:  # this process wrote the file: what it serves, who asked verifies
                assert root in store
                store.discard(root)
        assert root not in store or read == "chunk"  # of another size: nobody else is served either
        assert not store.check(root, len(THREE))
        assert root not in store
        assert store.put(THREE) == root
        assert store.check(root, len(THREE))
        store.discard(root)


def test_a_blob_is_read_chunk_by_chunk(store: BlobStore) -> None:
    root = store.put(THREE)
    assert [len(chunk) for chunk in store.chunks(root)] == [CHUNK_SIZE, CHUNK_SIZE, 1000]
    assert b"".join(store.chunks(root)) == THREE
    assert list(store.chunks(store.put(b""))) == []
    with pytest.raises(BlobUnavailable, match="not here"):
        next(store.chunks(bytes(32)))
    with pytest.raises(BlobUnavailable, match=r"does not have 1 bytes"):
        store.check(root, 1)
    assert not store.check(bytes(32), 1)


@pytest.mark.parametrize("left", [b"", THREE[:1000], bytes(len(THREE))])
def test_what_a_crash_has_torn_is_put_again(tmp_path: Path, left: bytes) -> None:
    (tmp_path / blob_root(THREE).hex()).write_bytes(left)
    store = BlobStore(FolderFiles(tmp_path), CAPACITY)
    assert store.get(store.put(THREE)) == THREE
    store.put(blob(CHUNK_SIZE))
    assert len(store) == 2  # nothing is counted twice


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(FolderFiles(tmp_path), CAPACITY)

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            store.put(THREE)
    assert files(tmp_path) == []
    assert len(store) == 0
    assert store.get(store.put(THREE)) == THREE


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"cannot use the folder .*/file/blobs: Not a directory"):
        BlobStore(FolderFiles(tmp_path / "file" / "blobs"), CAPACITY)


# What is needed


def test_what_is_retained_does_not_go(store: BlobStore) -> None:
    first, second = store.put(blob(2 * CHUNK_SIZE, 1)), store.put(blob(CHUNK_SIZE, 2))
    store.retain("a task", [first])
    third = store.put(blob(2 * CHUNK_SIZE, 3))
    assert [root in store for root in (first, second, third)] == [True, False, True]
    with pytest.raises(StoreFull, match="over the store's limit") as caught:
        store.put(blob(3 * CHUNK_SIZE, 4))
    assert (caught.value.size, caught.value.room) == (3 * CHUNK_SIZE, 2 * CHUNK_SIZE)
    assert third in store  # nothing went in vain
    with pytest.raises(StoreFull):
        store.begin(bytes(32), 3 * CHUNK_SIZE)
    store.discard(first)
    assert first in store
    store.retain("another task", [first])
    store.retain("a task", [])
    store.discard(first)
    assert first in store  # as long as anybody needs it
    store.retain("another task", [third])
    store.discard(first)
    assert first not in store


def test_the_number_of_blobs_is_bounded_by_what_is_needed(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "MAX_BLOBS", 2)
    roots = [store.put(bytes([number])) for number in range(2)]
    store.retain("a task", roots)
    with pytest.raises(StoreFull):
        store.put(b"one more")
    assert store.roots() == roots


# What is on its way


def arrive(store: BlobStore, *indexes: int, data: bytes = THREE) -> Partial:
    """A partial blob with these chunks, still on its way."""
    partial = store.begin(blob_root(data), len(data))
    add(partial, *indexes, data=data)
    return partial


def add(partial: Partial, *indexes: int, data: bytes = THREE) -> None:
    for index in indexes:
        chunk = chunk_of(data, index)
        assert partial.tree.add(index, chunk.pieces, chunk.proof)
        partial.write([(index, chunk.pieces)])


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three chunks are many, and go to files."""
    monkeypatch.setattr(store_module, "SMALL", 10)


def test_what_is_on_its_way_is_served_and_becomes_whole(store: BlobStore) -> None:
    check_arrival(store)


def test_a_large_blob_on_its_way_is_served_and_becomes_whole(store: BlobStore, large: None) -> None:
    check_arrival(store)


def check_arrival(store: BlobStore) -> None:
    root, size = blob_root(THREE), len(THREE)
    assert store.held(root, size) is None
    partial = arrive(store, 2)
    assert root not in store
    assert store.get(root) is None
    assert len(store) == 0
    assert store.held(root, size) == 0b100
    assert store.held(root, size + 1) is None
    assert store.chunk(root, size, 0) is None
    assert store.chunk(root, size, 2) == chunk_of(THREE, 2)
    store.discard(root)
    assert store.held(root, size) == 0b100
    with pytest.raises(LocalProtocolError, match="on its way"):
        store.begin(root, size)
    with pytest.raises(StoreFull):
        store.put(blob(2 * CHUNK_SIZE))  # its place is taken
    add(partial, 0, 1)
    store.finish(partial)
    store.suspend(partial)  # too late to matter
    assert store.get(root) == THREE
    assert store.held(root, size) == 0b111
    with pytest.raises(LocalProtocolError, match="here"):
        store.begin(root, size)


@pytest.mark.usefixtures("large")
def test_an_unfinished_blob_is_gone_on_with(tmp_path: Path) -> None:
    root, size = blob_root(THREE), len(THREE)
    store = BlobStore(FolderFiles(tmp_path), CAPACITY)
    store.suspend(arrive(store, 2))
    assert store.held(root, size) is None
    partial = store.begin(root, size)
    assert partial.have == 0b100
    add(partial, 0)
    again = BlobStore(FolderFiles(tmp_path), CAPACITY)  # the process was killed
    assert root not in again
    assert again.get(root) is None
    partial = again.begin(root, size)
    assert partial.have == 0b101
    assert again.chunk(root, size, 2) == chunk_of(THREE, 2)
    add(partial, 1)
    again.finish(partial)
    assert files(tmp_path) == [root.hex()]
    assert BlobStore(FolderFiles(tmp_path), CAPACITY).get(root) == THREE


@pytest.mark.usefixtures("large")
def test_an_unfinished_blob_goes_when_there_is_no_room(tmp_path: Path) -> None:
    store = BlobStore(FolderFiles(tmp_path), CAPACITY)
    store.suspend(arrive(store, 0))
    other = store.put(blob(3 * CHUNK_SIZE))
    assert files(tmp_path) == [other.hex()]
    store.suspend(arrive(store, data=THREE[:-1]))  # without a chunk it is not worth keeping
    assert files(tmp_path) == [] or other.hex() in files(tmp_path)
    store.suspend(arrive(store, 0))
    again = BlobStore(FolderFiles(tmp_path), CHUNK_SIZE)
    assert files(tmp_path) == []
    assert again.put(b"x") in again


@pytest.mark.usefixtures("large")
def test_a_wrong_size_is_forgotten_with_what_came_of_it(tmp_path: Path) -> None:
    root = blob_root(THREE)
    store = BlobStore(FolderFiles(tmp_path), 4 * CAPACITY)
    partial = store.begin(root, len(THREE) + CHUNK_SIZE - 5)
    store.suspend(partial)
    store.suspend(arrive(store, 0))
    (tmp_path / f"{root.hex()}-99").write_bytes(b"")
    (tmp_path / f"{root.hex()}-x").write_bytes(b"")
    again = BlobStore(FolderFiles(tmp_path), 4 * CAPACITY)
    partial = again.begin(root, len(THREE))
    add(partial, 0, 1, 2)
    again.finish(partial)
    assert again.get(root) == THREE
    assert files(tmp_path) == [root.hex(), f"{root.hex()}-x"]


@pytest.mark.usefixtures("large")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_in_the_files_of_an_unfinished_blob_is_believed(tmp_path: Path, data: st.DataObject) -> None:
    """Either file cut, changed or gone, as after a crash of the machine: what is found is true."""
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    root, size = blob_root(THREE), len(THREE)
    store = BlobStore(FolderFiles(folder), CAPACITY)
    partial = arrive(store, *data.draw(st.permutations(range(3))))
    partial.close()
    for name in (root.hex(), log_name(root, size)):
        content = bytearray((folder / name).read_bytes())
        at = data.draw(st.integers(0, len(content)))
        match data.draw(st.sampled_from(["keep", "cut", "flip", "remove"])):
            case "cut":
                del content[at:]
            case "flip":
                content[at - 1] ^= 1
            case "remove":
                (folder / name).unlink()
                continue
        (folder / name).write_bytes(content)
    again = BlobStore(FolderFiles(folder), CAPACITY)
    assert again.get(root) in (None, THREE)
    if root not in again:
        partial = again.begin(root, size)
        for index in range(3):
            if partial.have >> index & 1:
                chunk = again.chunk(root, size, index)
                assert chunk is not None
                assert chunk.pieces == chunk_of(THREE, index).pieces
        add(partial, *(index for index in range(3) if not partial.have >> index & 1))
        again.finish(partial)
    assert again.get(root) == THREE
    assert files(folder) == [root.hex()]


@pytest.mark.usefixtures("large")
def test_what_is_put_while_it_is_on_its_way_is_whole(tmp_path: Path) -> None:
    store = BlobStore(FolderFiles(tmp_path), CAPACITY)
    partial = arrive(store, 1)
    root = store.put(THREE)
    assert store.get(root) == THREE
    add(partial, 0, 2)
    store.finish(partial)
    store.suspend(partial)
    assert store.get(root) == THREE
    assert files(tmp_path) == [root.hex()]


def test_a_whole_blob_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FolderFiles(tmp_path)
    store = BlobStore(folder, CAPACITY)
    partial = arrive(store, 0, 1, 2)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write", fails)
        with pytest.raises(OSError, match="No space"):
            store.finish(partial)
    assert store.held(partial.root, len(THREE)) is None
    assert store.put(blob(CAPACITY)) in store
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "SMALL", 10)
        patch.setattr(folder, "open", fails)
        with pytest.raises(OSError, match="No space"):
            store.begin(blob_root(THREE), len(THREE))
    assert store.held(partial.root, len(THREE)) is None
    with monkeypatch.context() as patch:  # the data's file cannot be opened: the log is closed and removed
        patch.setattr(store_module, "SMALL", 10)
        real = folder.open
        patch.setattr(folder, "open", lambda name: real(name) if "-" in name else fails())
        with pytest.raises(OSError, match="No space"):
            store.begin(blob_root(THREE), len(THREE))
    assert files(tmp_path) == []


def test_what_was_written_last_and_is_small_need_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "RECENT", 100)
    monkeypatch.setattr(store_module, "MOST_RECENT", 250)
    store = BlobStore(FolderFiles(tmp_path), CAPACITY)
    small = [blob(100, seed) for seed in range(3)]
    first, *last = [store.put(data) for data in small]
    large = store.put(blob(101))
    assert [store.in_memory(root) for root in last] == small[1:]
    assert store.in_memory(first) is store.in_memory(large) is store.in_memory(bytes(32)) is None
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    assert [store.get(root) for root in (first, *last, large)] == [None, *small[1:], None]
    assert store.chunk(last[0], 100, 0) == chunk_of(small[1], 0)


def test_what_is_in_memory_too_goes_with_its_file(tmp_path: Path) -> None:
    store = BlobStore(FolderFiles(tmp_path), CAPACITY)
    root = store.put(THREE[:100])
    store.discard(root)
    assert store.in_memory(root) is store.get(root) is None
