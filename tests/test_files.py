from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from p2p.files import FolderFiles


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_folders_are_made_with_those_above_them_and_their_names_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("p2p.files._sync_folder", synced.append)
    files = FolderFiles(tmp_path).sub("tasks").sub("one")
    files.make()
    files.make()
    assert (tmp_path / "tasks" / "one").is_dir()
    assert str(files) == str(tmp_path / "tasks" / "one")
    assert sorted(synced) == [tmp_path, tmp_path / "tasks"]


def test_what_unfinished_writes_left_goes_when_the_folder_is_made(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1.partial").write_bytes(b"half")
    (tmp_path / "notes").write_bytes(b"whole")
    FolderFiles(tmp_path).make()
    assert names(tmp_path) == ["notes"]


@pytest.mark.parametrize("durably", [False, True])
def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, durably: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FolderFiles(tmp_path)
    write = files.write_durably if durably else files.write
    write("name", b"old")

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        with pytest.raises(OSError, match="Input/output"):
            write("name", b"new content")
    assert files.read("name", 0, 100) == b"old"
    write("name", b"new content")
    assert files.entries() == [("name", 11)]
    assert not durably or mode(tmp_path / "name") == 0o600


def test_what_is_durable_is_synced_before_its_name_and_then_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real = Path.replace

    def rename(path: Path, to: Path) -> None:
        steps.append("rename")
        real(path, to)

    def sync(descriptor: int) -> None:
        steps.append(f"sync {os.fstat(descriptor).st_size} bytes")

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    monkeypatch.setattr("p2p.files._sync_folder", lambda folder: steps.append("sync folder"))
    FolderFiles(tmp_path).write_durably("name", bytes(100))
    assert steps == ["sync 100 bytes", "rename", "sync folder"]


def test_parts_of_a_file_are_read_and_less_behind_its_end(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    files.write("name", b"0123456789")
    assert files.read("name", 3, 4) == b"3456"
    assert files.read("name", 8, 1 << 40) == b"89"
    assert files.read("name", 11, 5) == b""
    with pytest.raises(FileNotFoundError):
        files.read("other", 0, 1)


def test_a_buffer_is_filled_and_less_behind_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, buffer = FolderFiles(tmp_path), bytearray(8)
    files.write("name", b"0123456789")
    assert files.read_into("name", 1, memoryview(buffer)) == 8
    assert buffer == b"12345678"
    assert files.read_into("name", 7, memoryview(buffer)) == 3
    assert buffer[:3] == b"789"
    assert (
        files.read_into("name", 10, memoryview(buffer))
        == files.read_into("name", 11, memoryview(buffer))
        == 0
    )
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, views, at: read(file, [views[0][:3]], at))
    assert files.read_into("name", 0, memoryview(buffer)) == 8
    assert buffer == b"01234567"
    with pytest.raises(FileNotFoundError):
        files.read_into("other", 0, memoryview(buffer))


@pytest.mark.parametrize("most", [1, 5, 100_000])
def test_pieces_are_written_one_behind_the_other(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, and however few bytes the disk takes at once."""

    def writev(file: int, pieces: Sequence[bytes | memoryview], at: int) -> int:
        return os.pwrite(file, b"".join(pieces)[:most], at)

    monkeypatch.setattr(os, "pwritev", writev)
    monkeypatch.setattr("p2p.files.MAX_PIECES", 3)
    pieces = [bytes([number]) * number for number in range(8)]
    file = FolderFiles(tmp_path).open("name")
    file.write(2, *pieces[:6], memoryview(pieces[6]), pieces[7])
    file.write(1)
    file.close()
    assert (tmp_path / "name").read_bytes() == bytes(2) + b"".join(pieces)


def test_the_files_are_listed_as_they_were_written_and_folders_are_not(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    for age, name in enumerate(["c", "a", "b"]):
        files.write(name, bytes(age))
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    files.sub("folder").make()
    assert files.entries() == [("c", 0), ("a", 1), ("b", 2)]
    files.remove("a")
    files.remove("a")
    assert [name for name, _ in files.entries()] == ["c", "b"]


def test_an_open_file_is_written_cut_and_found_again(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    file = files.open("log")
    file.write(0, b"first second")
    file.truncate(6)
    file.write(6, b"third")
    file.sync()
    file.close()
    files.open("log").close()
    assert files.read("log", 0, 100) == b"first third"
    assert mode(tmp_path / "log") == 0o600


def test_a_file_whose_name_cannot_be_synced_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not the second time: that it is there says nothing of its name being durable."""
    files, calls = FolderFiles(tmp_path), [0]

    def fails(folder: Path) -> None:
        calls[0] += 1
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("p2p.files._sync_folder", fails)
    for count in (1, 2):
        with pytest.raises(OSError, match="Input/output"):
            files.open("log")
        assert calls[0] == count
