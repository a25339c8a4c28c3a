"""The blobs this peer holds: in a folder, or in memory without one.

A file is named by its root in hexadecimal. It is not synced: after a crash it is whole, absent or torn,
and a torn one is found when it is read, since nothing leaves the store without having been hashed.
Over its capacity the store forgets what was used least recently. Calls may come from several threads;
an event loop makes those that read and write files in a worker thread (see `blocking`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2p.blobs.merkle import CHUNK_SIZE, HASH_SIZE, MerkleTree, chunk_count, chunk_length, leaf_hash, split
from p2p.blobs.wire import MAX_BLOB, Chunk
from p2p.errors import InvalidInput, LocalProtocolError

if TYPE_CHECKING:
    from p2p.files import Files

MAX_BLOBS = 4096  # blobs in one store, whatever their sizes; bounds the index, and the files of a folder


@dataclass(slots=True)
class _Entry:
    size: int  # bytes
    data: bytes | None  # None: in a file
    tree: MerkleTree | None = None  # None: not needed yet


class BlobStore:
    """At most `capacity` bytes of blobs by their roots, in `files` or in memory.

    Raises `InvalidInput` when the files cannot be used. The calls that touch files raise `OSError`.
    """

    def __init__(self, files: Files | None, capacity: int) -> None:
        self.capacity = capacity  # bytes of content
        self._files = files
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # least recently used first
        self._used = 0  # bytes
        self._lock = threading.Lock()
        if files is not None:
            try:
                files.make()
                self._take_over(files)
            except OSError as exc:
                raise InvalidInput(f"cannot use the folder {files}: {exc.strerror}") from exc

    @property
    def blocking(self) -> bool:
        """Whether calls take time, since they read and write files of the system."""
        return self._files is not None and self._files.blocking

    def __contains__(self, root: bytes) -> bool:
        return root in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, data: bytes) -> bytes:
        """Keeps `data` and returns its root. Raises `LocalProtocolError` when it is too large to hold."""
        if len(data) > min(self.capacity, MAX_BLOB):
            limit = min(self.capacity, MAX_BLOB)
            raise LocalProtocolError(f"blob of {len(data)} bytes is over the store's limit of {limit}")
        tree = MerkleTree([leaf_hash(chunk) for chunk in split(data)])
        root = tree.root
        with self._lock:
            entry = self._entries.get(root)
            if entry is None or entry.tree is None:  # what an earlier process left may be torn: replaced
                self._discard(root)
                self._make_room(len(data))
                if self._files is not None:
                    self._files.write(root.hex(), data)
                kept = data if self._files is None else None
                self._entries[root] = _Entry(size=len(data), data=kept, tree=tree)
                self._used += len(data)
            self._entries.move_to_end(root)
        return root

    def get(self, root: bytes) -> bytes | None:
        """The blob, verified; None when it is not here, or was found damaged and dropped."""
        with self._open(root) as entry:
            if entry is None or entry.data is not None:
                return entry.data if entry is not None else None
            data = self._read(root, 0, entry.size + 1)
            if (
                len(data) != entry.size
                or MerkleTree([leaf_hash(chunk) for chunk in split(data)]).root != root
            ):
                raise _DamagedError
            return data
        return None

    def chunk(self, root: bytes, size: int, index: int) -> Chunk | None:
        """Chunk `index` with its proof, verified; None when no such blob of `size` bytes is here."""
        with self._open(root) as entry:
            if entry is None or entry.size != size or not 0 <= index < chunk_count(size):
                return None
            if entry.tree is None:
                entry.tree = self._read_tree(root)  # of a file; what was put has its tree
            data = self._read_chunk(root, entry, index, entry.tree.leaf(index))
            return Chunk(index=index, proof=entry.tree.proof(index), data=data)
        return None

    def discard(self, root: bytes) -> None:
        """Forgets the blob, if it is here."""
        with self._lock:
            self._discard(root)

    @contextmanager
    def _open(self, root: bytes) -> Iterator[_Entry | None]:
        """The entry, as the most recently used; a file found damaged or gone is forgotten."""
        with self._lock:
            entry = self._entries.get(root)
            if entry is not None:
                self._entries.move_to_end(root)
            try:
                yield entry
            except (_DamagedError, FileNotFoundError):
                self._discard(root)

    def _read_chunk(self, root: bytes, entry: _Entry, index: int, leaf: bytes) -> bytes:
        start, length = index * CHUNK_SIZE, chunk_length(entry.size, index)
        if entry.data is not None:
            return entry.data[start : start + length]
        data = self._read(root, start, length)
        if leaf_hash(data) != leaf:
            raise _DamagedError
        return data

    def _read_tree(self, root: bytes) -> MerkleTree:
        """The tree of a file that was here before this process, one chunk in memory at a time."""
        leaves: list[bytes] = []
        while chunk := self._read(root, len(leaves) * CHUNK_SIZE, CHUNK_SIZE):
            leaves.append(leaf_hash(chunk))
        tree = MerkleTree(leaves)
        if tree.root != root:
            raise _DamagedError
        return tree

    def _read(self, root: bytes, offset: int, length: int) -> bytes:
        assert self._files is not None
        return self._files.read(root.hex(), offset, length)

    def _make_room(self, size: int) -> None:
        while self._entries and (self._used + size > self.capacity or len(self._entries) >= MAX_BLOBS):
            self._discard(next(iter(self._entries)))

    def _discard(self, root: bytes) -> None:
        entry = self._entries.pop(root, None)
        if entry is None:
            return
        self._used -= entry.size
        if self._files is not None:
            self._files.remove(root.hex())

    def _take_over(self, files: Files) -> None:
        """Takes over what an earlier process left, oldest first."""
        for name, size in files.entries():
            if _is_root(name):
                self._entries[bytes.fromhex(name)] = _Entry(size=size, data=None)
                self._used += size
        self._make_room(0)


class _DamagedError(Exception):
    """A file is not what its name says."""


def _is_root(name: str) -> bool:
    return len(name) == 2 * HASH_SIZE and all(letter in "0123456789abcdef" for letter in name)
