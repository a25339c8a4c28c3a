"""A file that is appended to, on a disk that fails at the calls it is told to."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from federated.append import AppendFile, opened, storage_errors
from federated.errors import StorageError
from p2p.files import FolderFiles


class FailingFile:
    """An open file in memory; `fails` names the calls that fail, each once. A write that fails is torn."""

    def __init__(self) -> None:
        self.data = b""
        self.fails: list[str] = []
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            self.fails.remove(name)
            raise OSError(errno.EIO, "Input/output error")

    def write(self, offset: int, data: bytes) -> None:
        self.data = self.data[:offset] + data[: len(data) // 2]
        self._call("write")
        self.data = self.data[:offset] + data

    def truncate(self, size: int) -> None:
        self._call("truncate")
        self.data = self.data[:size]

    def sync(self) -> None:
        self._call("sync")

    def close(self) -> None:
        self._call("close")


@pytest.fixture
def disk() -> FailingFile:
    return FailingFile()


@pytest.fixture
def file(disk: FailingFile) -> AppendFile:
    file = AppendFile(disk, "the place", end=0, torn=False)
    file.append(b"first ")
    return file


def test_what_is_appended_is_synced_behind_what_was_there(disk: FailingFile, file: AppendFile) -> None:
    file.append(b"second")
    assert disk.data == b"first second"
    assert file.end == 12
    assert disk.calls == ["write", "sync"] * 2


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_failed_append_is_cut_off_at_once(disk: FailingFile, file: AppendFile, call: str) -> None:
    disk.fails = [call]
    with pytest.raises(StorageError, match="the place: Input/output error"):
        file.append(b"second")
    assert (disk.data, file.end) == (b"first ", 6)
    disk.calls.clear()
    file.append(b"third")
    assert disk.data == b"first third"
    assert disk.calls == ["write", "sync"]


def test_a_disk_that_fails_at_cutting_is_asked_again_before_the_next_append(
    disk: FailingFile, file: AppendFile
) -> None:
    disk.fails = ["write", "truncate", "truncate"]
    for _ in range(2):
        with pytest.raises(StorageError, match="the place"):
            file.append(b"second")
        assert disk.data == b"first sec"  # the second time nothing is written before it is cut
    file.append(b"third")
    assert disk.data == b"first third"


def test_an_end_that_may_be_torn_is_cut_off_before_the_first_append(disk: FailingFile) -> None:
    disk.data = b"first sec"
    file = AppendFile(disk, "the place", end=6, torn=True)
    file.append(b"x")
    assert disk.data == b"first x"
    assert disk.calls == ["truncate", "sync", "write", "sync"]


def test_repairing_cuts_off_only_what_may_be_torn(disk: FailingFile, file: AppendFile) -> None:
    disk.calls.clear()
    file.repair()
    assert not disk.calls
    AppendFile(disk, "the place", end=2, torn=True).repair()
    assert disk.data == b"fi"


def test_a_cleared_file_begins_anew_also_when_the_disk_fails_at_it(
    disk: FailingFile, file: AppendFile
) -> None:
    disk.fails = ["truncate"]
    with pytest.raises(StorageError, match="the place"):
        file.clear()
    file.append(b"new")
    assert disk.data == b"new"


def test_a_file_stays_open_unless_the_body_fails(disk: FailingFile, tmp_path: Path) -> None:
    class OneFile(FolderFiles):
        def open(self, name: str) -> FailingFile:
            return disk

    files = OneFile(tmp_path)
    with opened(files, "name"):
        pass
    assert not disk.calls
    with pytest.raises(StorageError, match="folder: Is a directory"), storage_errors("folder"):
        with opened(files, "name"):
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
    assert disk.calls == ["close"]
