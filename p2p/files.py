"""The files of one folder, as what keeps state sees them; a folder of the system is one kind of them.

    Journal, CheckpointStore, BlobStore ──→ Files ──→ FolderFiles: the system's files
                                                  └─→ a disk in memory, of a simulation

What is durable after a crash: what `write_durably` was given, whole; what an `OpenFile` has synced.
What `write` was given is whole, absent or torn. Every failure is an `OSError`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

MAX_PIECES = 512  # written by one system call; Linux takes 1024, POSIX promises 16
UNFINISHED = ".partial"  # behind the name of a file that is being written


class OpenFile(Protocol):
    """A file that is written piece by piece."""

    def write(self, offset: int, *pieces: bytes | memoryview) -> None:
        """Writes all `pieces`, one behind the other, from `offset` on; a failure leaves any part of them."""

    def truncate(self, size: int) -> None:
        """Cuts the file off at `size` bytes."""

    def sync(self) -> None:
        """Returns once what was written is durable; when it fails, any part of it may be lost."""

    def close(self) -> None:
        """Ends the use of the file, without syncing it."""


class Files(Protocol):
    """The files of one folder, by their names; its `str` tells a person which folder it is."""

    @property
    def blocking(self) -> bool:
        """Whether calls take time, so that an event loop makes them in a worker thread."""

    def sub(self, name: str) -> Files:
        """The folder of that name in this one; it need not exist yet."""

    def make(self) -> None:
        """Makes the folder, with those above it, when there is none; removes what unfinished writes left."""

    def entries(self) -> list[tuple[str, int]]:
        """(name, size in bytes) of each file, the one written longest ago first."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`: fewer at the end. Raises `FileNotFoundError` too."""

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fills the beginning of `buffer` from `offset` on; how many bytes came: fewer at the end.

        Raises `FileNotFoundError` too.
        """

    def write(self, name: str, data: bytes) -> None:
        """Replaces the file by `data`, not synced. After a failure, the file is what it was before."""

    def write_durably(self, name: str, data: bytes) -> None:
        """Replaces the file by `data`, which is durable then. After a failure, it is whole: old or new."""

    def remove(self, name: str) -> None:
        """Removes the file, if it is there; not synced."""

    def open(self, name: str) -> OpenFile:
        """Opens the file, made empty when there is none; its name is durable then."""


class FolderFiles:
    """The files in the folder `path` of the system; what is durable is readable by its owner alone."""

    blocking = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def sub(self, name: str) -> FolderFiles:
        """As `Files.sub`."""
        return FolderFiles(self._path / name)

    def make(self) -> None:
        """As `Files.make`; the names of the folders that it makes are durable."""
        missing = [folder for folder in (self._path, *self._path.parents) if not folder.exists()]
        self._path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)
        for path in self._path.glob(f"*{UNFINISHED}"):
            path.unlink(missing_ok=True)

    def entries(self) -> list[tuple[str, int]]:
        """As `Files.entries`."""
        found = []
        with os.scandir(self._path) as entries:
            for entry in entries:
                try:
                    if entry.is_file():
                        status = entry.stat()
                        found.append((status.st_mtime_ns, entry.name, status.st_size))
                except FileNotFoundError:
                    continue  # somebody else has just finished or removed it
        return [(name, size) for _, name, size in sorted(found)]

    def read(self, name: str, offset: int, length: int) -> bytes:
        """As `Files.read`."""
        descriptor = os.open(self._path / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            end = min(os.fstat(descriptor).st_size, offset + length)
            data = os.pread(descriptor, end - offset, offset) if offset < end else b""
            while data and offset + len(data) < end:  # seldom: one call reads up to 2 GiB
                piece = os.pread(descriptor, end - offset - len(data), offset + len(data))
                if not piece:
                    break
                data += piece
        finally:
            os.close(descriptor)
        return data

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """As `Files.read_into`."""
        descriptor, came = os.open(self._path / name, os.O_RDONLY | os.O_CLOEXEC), 0
        try:
            while came < len(buffer):  # seldom more than once: one call reads up to 2 GiB
                size = os.preadv(descriptor, [buffer[came:]], offset + came)
                if not size:
                    break
                came += size
        finally:
            os.close(descriptor)
        return came

    def write(self, name: str, data: bytes) -> None:
        """As `Files.write`: written under another name, and renamed."""
        unfinished = self._path / (name + UNFINISHED)
        try:
            unfinished.write_bytes(data)
            unfinished.replace(self._path / name)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise

    def write_durably(self, name: str, data: bytes) -> None:
        """As `Files.write_durably`: written under another name, synced, renamed, and the folder synced."""
        unfinished = self._path / (name + UNFINISHED)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path / name)
        _sync_folder(self._path)

    def remove(self, name: str) -> None:
        """As `Files.remove`."""
        (self._path / name).unlink(missing_ok=True)

    def open(self, name: str) -> OpenFile:
        """As `Files.open`."""
        descriptor = os.open(self._path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _sync_folder(self._path)  # also of a file that is there: who made it may have failed at this
        except BaseException:
            os.close(descriptor)
            raise
        return _Descriptor(descriptor)


class _Descriptor:
    """An open file of the system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, offset: int, *pieces: bytes | memoryview) -> None:
        for at in range(0, len(pieces), MAX_PIECES):
            some = pieces[at : at + MAX_PIECES]
            size = sum(map(len, some))
            written = os.pwritev(self._descriptor, some, offset)
            if written < size:  # seldom: a disk that is full
                self._write_rest(memoryview(b"".join(some))[written:], offset + written)
            offset += size

    def _write_rest(self, view: memoryview, offset: int) -> None:
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _sync_folder(folder: Path) -> None:
    """Returns once the names in `folder` are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
