"""Which blobs there are, whole or not, and which of them go when room is needed: the quota of a store.

    add ──▶ busy: on its way, or being written ──▶ kept ──▶ forgotten, the least recently used first
                                                    └─ retained by somebody: stays

A blob counts with its whole size from the moment it is begun. What is forgotten takes its files with it.
Calls may come from several threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2p.blobs.errors import StoreFull
from p2p.blobs.merkle import HASH_SIZE, MerkleTree
from p2p.blobs.partial import Partial, log_name
from p2p.blobs.wire import MAX_BLOB

if TYPE_CHECKING:
    from p2p.files import Files

MAX_BLOBS = 4096  # blobs in one store, whatever their sizes; bounds the index, and the files of a folder
ROOT_NAME = 2 * HASH_SIZE  # characters of a root in hexadecimal


@dataclass(slots=True, eq=False)
class Entry:
    """One blob."""

    size: int  # bytes
    data: bytes | None = None  # None: in a file
    tree: MerkleTree | None = None  # None: in a file that this process did not write, and not checked yet
    whole: bool = True
    partial: Partial | None = None  # of one on its way
    busy: bool = False  # whether it is on its way, or being written
    logged: bool = False  # whether there is a log: a large one in a folder that is not whole
    lock: threading.Lock = field(default_factory=threading.Lock)  # of who checks the file


class Index:
    """The blobs by their roots, at most `capacity` bytes of them, with the names of their `files`.

    Who does several things that belong together holds `lock`. What removes files raises `OSError`.
    """

    def __init__(self, files: Files | None, capacity: int) -> None:
        self.lock = threading.RLock()
        self._files = files
        self._capacity = capacity  # bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()  # least recently used first
        self._retained: dict[str, frozenset[bytes]] = {}
        self._used = 0  # bytes; one on its way counts as whole

    def get(self, root: bytes) -> Entry | None:
        """The entry; this is no use of it."""
        return self._entries.get(root)

    def touch(self, root: bytes) -> Entry | None:
        """The entry, as the most recently used."""
        with self.lock:
            entry = self._entries.get(root)
            if entry is not None:
                self._entries.move_to_end(root)
            return entry

    def whole(self) -> list[bytes]:
        """Every whole blob, the one used least recently first."""
        with self.lock:
            return [root for root, entry in self._entries.items() if entry.whole]

    def add(self, root: bytes, size: int) -> Entry:
        """A new entry that is busy, once there is room for it. Raises `StoreFull`."""
        with self.lock:
            self._make_room(size)
            entry = self._entries[root] = Entry(size=size, whole=False, busy=True)
            self._used += size
            return entry

    def remove(self, root: bytes) -> None:
        """Forgets the entry, whoever needs it."""
        with self.lock:
            entry = self._entries.pop(root)
            self._used -= entry.size
            if self._files is not None:
                self._files.remove(root.hex())
                if entry.logged:
                    self._files.remove(log_name(root, entry.size))

    def drop(self, root: bytes, entry: Entry) -> None:
        """Forgets what was found damaged or gone, whoever needs it, unless it is on its way."""
        with self.lock:
            if self._entries.get(root) is entry and not entry.busy:
                self.remove(root)

    def discard(self, root: bytes) -> None:
        """Forgets the entry, if it is here, not retained and not on its way."""
        with self.lock:
            entry = self._entries.get(root)
            if entry is not None and not entry.busy and not self._is_retained(root):
                self.remove(root)

    def retain(self, owner: str, roots: Iterable[bytes]) -> None:
        """These do not go, here or still to come, until `owner` names others."""
        needed = frozenset(roots)
        with self.lock:
            self._retained[owner] = needed
            if not needed:
                del self._retained[owner]

    def take_over(self, files: Files) -> None:
        """Takes over what an earlier process left, oldest first."""
        found = files.entries()
        unfinished = {name[:ROOT_NAME]: name for name, _ in found if _is_log(name)}
        for name, size in found:
            root = name[:ROOT_NAME]
            if unfinished.get(root) == name:
                length = int(name[ROOT_NAME + 1 :])
                self._entries[bytes.fromhex(root)] = Entry(size=length, whole=False, logged=True)
            elif _is_log(name):  # of another size: one of the two was wrong
                files.remove(name)
            elif _is_root(name) and root not in unfinished:
                self._entries[bytes.fromhex(root)] = Entry(size=size)
        self._used = sum(entry.size for entry in self._entries.values())
        while self._entries and (self._used > self._capacity or len(self._entries) > MAX_BLOBS):
            self.remove(next(iter(self._entries)))

    def _is_retained(self, root: bytes) -> bool:
        return any(root in roots for roots in self._retained.values())

    def _make_room(self, size: int) -> None:
        """Forgets what is not needed until there is room. Raises `StoreFull`, and forgets nothing then."""
        going = [
            root for root, entry in self._entries.items() if not entry.busy and not self._is_retained(root)
        ]
        free = self._capacity - self._used
        room = min(MAX_BLOB, free + sum(self._entries[root].size for root in going))
        if size > room or len(self._entries) - len(going) >= MAX_BLOBS:
            raise StoreFull(size, self._capacity, max(0, room))
        for root in going:
            if self._used + size <= self._capacity and len(self._entries) < MAX_BLOBS:
                break
            self.remove(root)


def _is_root(name: str) -> bool:
    return len(name) == ROOT_NAME and all(letter in "0123456789abcdef" for letter in name)


def _is_log(name: str) -> bool:
    """Whether this is the name of the log of an unfinished blob."""
    root, dash, size = name.partition("-")
    return bool(_is_root(root) and dash and size.isdecimal() and size.isascii() and 0 < int(size) <= MAX_BLOB)
