from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2p.blobs import store as store_module
from p2p.blobs.merkle import CHUNK_SIZE, blob_root, chunk_count, verify_chunk
from p2p.blobs.store import BlobStore
from p2p.errors import InvalidInput, LocalProtocolError
from p2p.files import FolderFiles
from tests.blobs.support import THREE, blob

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
        assert chunk.data == THREE[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]
        assert verify_chunk(root, chunk_count(size), index, chunk.data, chunk.proof)


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
    monkeypatch.setattr(store_module, "MAX_BLOBS", 3)
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
    assert verify_chunk(root, 3, 2, chunk.data, chunk.proof)
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
def test_a_damaged_file_is_never_handed_out(tmp_path: Path, damage: str, reopened: bool) -> None:
    store = BlobStore(FolderFiles(tmp_path), 2 * CAPACITY)
    for read in ("get", "chunk"):
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
        found = store.get(root) if read == "get" else store.chunk(root, len(THREE), 2)
        if damage == "grow" and read == "chunk" and not reopened:
            assert found is not None  # the chunk itself is true
        else:
            assert found is None
            assert root not in store or reopened
        assert store.put(THREE) == root
        store.discard(root)


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
