"""A node's disk, in memory: it forgets at a crash what was not synced, gets full, and fails.

    SimDisk ──mount()──→ Files of one process ──→ journal, checkpoints, blobs: the code that is shipped

Each change can be undone until it is synced. A crash undoes them all, and makes a random number of the
first ones again, the last of these torn: so a disk writes what it has, in order, until the power fails.
A sync that fails does the same to its file, as a kernel that drops what it could not write. What is
never synced counts as written back after `MAX_UNSYNCED` further changes of names.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from p2p.files import OpenFile

MAX_UNSYNCED = 4  # changes of names that a crash can undo; each may hold the content of a removed file


class _Content:
    """What is in one file, and how to undo what is not synced."""

    __slots__ = ("changes", "data", "written")

    def __init__(self, data: bytes | bytearray, written: int) -> None:
        self.data = data
        self.written = written  # number of the disk's change that wrote it last
        self.changes: list[tuple[int, bytes]] = []  # (offset, what was behind it before)

    def change(self, offset: int, tail: bytes) -> None:
        """What is behind `offset` becomes `tail`; `offset` is within the file."""
        self.changes.append((offset, bytes(self.data[offset:])))
        if not isinstance(self.data, bytearray):
            self.data = bytearray(self.data)
        self.data[offset:] = tail

    def settle(self, rng: Random) -> None:
        """Loses a random part of what is not synced: all but the first changes, and of one but the start."""
        if not self.changes:
            return
        data, again = bytearray(self.data), []
        for offset, before in reversed(self.changes):
            again.append((offset, before, bytes(data[offset:])))
            data[offset:] = before
        kept = rng.randrange(len(again) + 1)
        for _ in range(kept):
            offset, _, after = again.pop()
            data[offset:] = after
        if again:  # the next one is torn
            offset, before, after = again.pop()
            size = rng.randrange(len(after) + 1)
            data[offset:] = after[:size] + before[size:]
        self.data = data
        self.changes.clear()


class SimDisk:
    """The disk of one node. Faults are set on it: `full` (no byte more fits), `error_share` (EIO)."""

    __slots__ = ("_changes", "_count", "_files", "_mounted", "_rng", "error_share", "full")

    def __init__(self, rng: Random) -> None:
        """An empty disk; `rng` may be shared with other disks."""
        self.full = False  # whether a write that grows fails
        self.error_share = 0.0  # probability that a read, write or sync fails
        self._rng = rng
        self._files: dict[str, _Content] = {}
        self._changes: list[tuple[str, _Content | None]] = []  # (name, what it was before), not synced
        self._count = 0  # changes so far: the disk's clock
        self._mounted = 0  # crashes so far

    def mount(self) -> SimFolder:
        """The files, for one process: after the next crash, every call on them fails."""
        return SimFolder(self, "", self._mounted)

    def crash(self, keep: bool = True) -> None:
        """The process or the machine stops: what was not synced is lost in part, and all unless `keep`."""
        self._mounted += 1
        if not keep:
            self._files, self._changes = {}, []
            return
        again = []
        for name, before in reversed(self._changes):
            again.append((name, self._files.get(name)))
            self._rename(name, before)
        kept = self._rng.randrange(len(again) + 1)
        for name, after in again[len(again) - kept :][::-1]:
            self._rename(name, after)
        self._changes = []
        for content in self._files.values():
            content.settle(self._rng)

    def _check(self, mounted: int) -> None:
        if mounted != self._mounted or (self.error_share and self._rng.random() < self.error_share):
            raise OSError(errno.EIO, "Input/output error")

    def _check_space(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def _new(self, data: bytes) -> _Content:
        self._count += 1
        return _Content(data, self._count)

    def _rename(self, name: str, content: _Content | None) -> None:
        if content is None:
            self._files.pop(name, None)
        else:
            self._files[name] = content

    def _change(self, name: str, content: _Content | None) -> None:
        """The name stands for `content` now, not synced."""
        self._changes.append((name, self._files.get(name)))
        self._rename(name, content)
        if len(self._changes) > MAX_UNSYNCED:
            written, _ = self._changes.pop(0)
            if (old := self._files.get(written)) is not None:
                old.changes.clear()

    def _sync_names(self, folder: str) -> None:
        self._changes = [entry for entry in self._changes if entry[0].rpartition("/")[0] != folder]


class SimFolder:
    """One folder of a `SimDisk`, for one process; it is there without being made. See `p2p.files.Files`."""

    __slots__ = ("_disk", "_mounted", "_prefix")

    blocking = False

    def __init__(self, disk: SimDisk, prefix: str, mounted: int) -> None:
        self._disk = disk
        self._prefix = prefix  # of the names in it: empty, or the folder's and a "/"
        self._mounted = mounted

    def __str__(self) -> str:
        return f"/{self._prefix}".rstrip("/") or "/"

    def sub(self, name: str) -> SimFolder:
        """As `Files.sub`."""
        return SimFolder(self._disk, f"{self._prefix}{name}/", self._mounted)

    def make(self) -> None:
        """As `Files.make`."""
        self._disk._check(self._mounted)

    def entries(self) -> list[tuple[str, int]]:
        """As `Files.entries`."""
        self._disk._check(self._mounted)
        files, start = self._disk._files, len(self._prefix)
        found = [name for name in files if name.startswith(self._prefix) and "/" not in name[start:]]
        found.sort(key=lambda name: files[name].written)
        return [(name[start:], len(files[name].data)) for name in found]

    def read(self, name: str, offset: int, length: int) -> bytes:
        """As `Files.read`."""
        self._disk._check(self._mounted)
        content = self._disk._files.get(self._prefix + name)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return bytes(content.data[offset : offset + length])

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """As `Files.read_into`."""
        data = self.read(name, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, name: str, data: bytes) -> None:
        """As `Files.write`."""
        self._disk._check(self._mounted)
        self._disk._check_space()
        content = self._disk._new(data)
        content.changes.append((0, b""))
        self._disk._change(self._prefix + name, content)

    def write_durably(self, name: str, data: bytes) -> None:
        """As `Files.write_durably`."""
        self._disk._check(self._mounted)
        self._disk._check_space()
        self._disk._change(self._prefix + name, self._disk._new(data))
        self._disk._check(self._mounted)
        self._disk._sync_names(self._prefix[:-1])

    def remove(self, name: str) -> None:
        """As `Files.remove`."""
        self._disk._check(self._mounted)
        if self._prefix + name in self._disk._files:
            self._disk._change(self._prefix + name, None)

    def open(self, name: str) -> OpenFile:
        """As `Files.open`."""
        self._disk._check(self._mounted)
        content = self._disk._files.get(self._prefix + name)
        if content is None:
            self._disk._check_space()
            content = self._disk._new(b"")
            self._disk._change(self._prefix + name, content)
        self._disk._check(self._mounted)
        self._disk._sync_names(self._prefix[:-1])
        return _OpenContent(self._disk, content, self._mounted)


class _OpenContent:
    """An open file of a `SimDisk`."""

    __slots__ = ("_content", "_disk", "_mounted")

    def __init__(self, disk: SimDisk, content: _Content, mounted: int) -> None:
        self._disk = disk
        self._content = content
        self._mounted = mounted

    def write(self, offset: int, *pieces: bytes | memoryview) -> None:
        data, size = b"".join(pieces), len(self._content.data)
        try:
            self._disk._check(self._mounted)
            if offset + len(data) > size:
                self._disk._check_space()
        except OSError:
            if self._mounted == self._disk._mounted:
                self._put(offset, data[: self._disk._rng.randrange(len(data) + 1)])
            raise
        self._put(offset, data)

    def truncate(self, size: int) -> None:
        self._disk._check(self._mounted)
        if size > len(self._content.data):
            self._disk._check_space()
        self._resize(size)

    def sync(self) -> None:
        try:
            self._disk._check(self._mounted)
        except OSError:
            if self._mounted == self._disk._mounted:
                self._content.settle(self._disk._rng)
            raise
        self._content.changes.clear()

    def close(self) -> None:
        """Nothing is held."""

    def _put(self, offset: int, data: bytes) -> None:
        content = self._content
        self._disk._count += 1
        content.written = self._disk._count
        if offset > len(content.data):
            self._resize(offset)
        content.change(offset, data + bytes(content.data[offset + len(data) :]))

    def _resize(self, size: int) -> None:
        content = self._content
        kept = min(size, len(content.data))
        if size != len(content.data):
            content.change(kept, bytes(size - kept))
