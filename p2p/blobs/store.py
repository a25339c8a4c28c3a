"""The blobs this peer holds, whole ones and those on their way: in a folder, or in memory without one.

    put ───────────────────────────────▶ whole ──▶ get, chunks, chunk
    begin ──▶ on its way ──▶ finish ───────▲             ▲
                │    └─────── suspend ──▶ to be resumed ─┘ (a large one, in a folder)

A file is named by its root in hexadecimal. It is not synced: after a crash it is whole, absent or torn,
and a torn one is found before it is first handed out: each file is hashed once by every process that did
not write it. Over its capacity the store forgets what was used least recently, but nothing that somebody
retains, and nothing on its way. Calls may come from several threads; an event loop makes those that read
and write files in a worker thread (see `blocking`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2p.blobs.errors import BlobUnavailable, StoreFull
from p2p.blobs.merkle import (
    CHUNK_SIZE,
    HASH_SIZE,
    MerkleTree,
    all_chunks,
    chunk_count,
    chunk_length,
    leaf_hash,
    split,
)
from p2p.blobs.partial import FilePartial, MemoryPartial, Partial, log_name
from p2p.blobs.wire import MAX_BLOB, Chunk, Pieces
from p2p.errors import InvalidInput, LocalProtocolError

if TYPE_CHECKING:
    from p2p.files import Files

MAX_BLOBS = 4096  # blobs in one store, whatever their sizes; bounds the index, and the files of a folder
ROOT_NAME = 2 * HASH_SIZE  # characters of a root in hexadecimal
SMALL = 4 << 20  # bytes; a blob up to this size comes in seconds: kept in memory until it is whole


@dataclass(slots=True, eq=False)
class _Entry:
    size: int  # bytes
    data: bytes | None = None  # None: in a file
    tree: MerkleTree | None = None  # None: in a file that this process did not write, and not checked yet
    whole: bool = True
    partial: Partial | None = None  # of one on its way
    busy: bool = False  # whether it is on its way, or being written
    logged: bool = False  # whether there is a log: a large one in a folder that is not whole
    lock: threading.Lock = field(default_factory=threading.Lock)  # of who checks the file


class BlobStore:
    """At most `capacity` bytes of blobs by their roots, in `files` or in memory.

    Raises `InvalidInput` when the files cannot be used. The calls that touch files raise `OSError`.
    """

    def __init__(self, files: Files | None, capacity: int) -> None:
        self.capacity = capacity  # bytes of content
        self._files = files
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # least recently used first
        self._retained: dict[str, frozenset[bytes]] = {}
        self._used = 0  # bytes; one on its way counts as whole
        self._lock = threading.Lock()  # of the index
        self._writing = threading.Lock()  # of whole files
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
        entry = self._entries.get(root)
        return entry is not None and entry.whole

    def __len__(self) -> int:
        """How many whole blobs there are."""
        with self._lock:
            return sum(entry.whole for entry in self._entries.values())

    def roots(self) -> list[bytes]:
        """Every whole blob, the one used least recently first."""
        with self._lock:
            return [root for root, entry in self._entries.items() if entry.whole]

    # What is whole

    def put(self, data: bytes) -> bytes:
        """Keeps `data` and returns its root. Raises `StoreFull`."""
        tree = MerkleTree([leaf_hash(chunk) for chunk in split(data)])
        root = tree.root
        with self._writing:
            entry = self._entries.get(root)
            if entry is not None and entry.whole and entry.tree is not None:
                self._touch(root)
                return root
            self._keep(root, data, tree)
        return root

    def get(self, root: bytes) -> bytes | None:
        """The blob, verified; None when it is not here, or was found damaged and dropped."""
        entry = self._touch(root)
        if entry is None or not entry.whole or entry.data is not None:
            return entry.data if entry is not None else None
        try:
            data = self._read(root, 0, entry.size + 1)
        except FileNotFoundError:
            data = b""
        tree = MerkleTree([leaf_hash(chunk) for chunk in split(data)])
        if len(data) != entry.size or tree.root != root:
            self._drop(root, entry)
            return None
        entry.tree = tree
        return data

    def chunks(self, root: bytes) -> Iterator[bytes]:
        """The chunks of a whole blob in order, verified: one in memory at a time.

        Raises `BlobUnavailable` when the blob is not here, or is found damaged on the way.
        """
        entry = self._touch(root)
        if entry is None or not entry.whole:
            raise BlobUnavailable(root, ["it is not here"])
        try:
            tree = self._checked_tree(root, entry)
            for index in range(chunk_count(entry.size)):
                data = self._read_chunk(root, entry, index)
                if leaf_hash(data) != tree.leaf(index):
                    raise _DamagedError
                yield data
        except (_DamagedError, FileNotFoundError) as exc:
            self._drop(root, entry)
            raise BlobUnavailable(root, ["it is damaged"]) from exc

    def check(self, root: bytes, size: int) -> bool:
        """Whether the blob is here, and not damaged before this process: then its file is read once.

        Raises `BlobUnavailable` when it has not `size` bytes: a root stands for one content.
        """
        entry = self._touch(root)
        if entry is None or not entry.whole:
            return False
        try:
            self._checked_tree(root, entry)
        except (_DamagedError, FileNotFoundError):
            self._drop(root, entry)
            return False
        if entry.size != size:
            raise BlobUnavailable(root, [f"it does not have {size} bytes"])
        return True

    def held(self, root: bytes, size: int) -> int | None:
        """Which chunks of a blob of `size` bytes are here, bit i for chunk i; touches no file.

        None when nothing is here and nothing on its way.
        """
        entry = self._entries.get(root)
        if entry is None or entry.size != size:
            return None
        if entry.whole:
            return all_chunks(size)
        return entry.partial.have if entry.partial is not None else None

    def chunk(self, root: bytes, size: int, index: int) -> Chunk | None:
        """Chunk `index` with its proof; None when it is not here, or the blob has not `size` bytes.

        The chunk of a file was verified by this process once: who gets it verifies it again.
        """
        entry = self._touch(root)
        if entry is None or index < 0 or not (self.held(root, size) or 0) >> index & 1:
            return None
        partial = entry.partial
        tree: MerkleTree
        pieces: Pieces
        try:
            if partial is not None and not entry.whole:
                pieces, tree = partial.read(index), partial.tree
            else:
                pieces, tree = (self._read_chunk(root, entry, index),), self._checked_tree(root, entry)
        except (_DamagedError, FileNotFoundError):
            pieces = ()
        if sum(map(len, pieces)) != chunk_length(size, index):
            self._drop(root, entry)
            return None
        return Chunk(index=index, proof=tree.proof(index), pieces=pieces)

    def discard(self, root: bytes) -> None:
        """Forgets the blob, if it is here, not retained and not on its way."""
        with self._lock:
            entry = self._entries.get(root)
            if entry is not None and not entry.busy and not self._is_retained(root):
                self._remove(root)

    def retain(self, owner: str, roots: Iterable[bytes]) -> None:
        """Keeps these blobs, here or still to come, until `owner` names others: none of them goes."""
        needed = frozenset(roots)
        with self._lock:
            self._retained[owner] = needed
            if not needed:
                del self._retained[owner]

    # What is on its way

    def begin(self, root: bytes, size: int) -> Partial:
        """The place of a blob of `size` > 0 bytes that is to come, with what an earlier try left there.

        End it by `finish` or `suspend`. Raises `StoreFull`, and `LocalProtocolError` when the blob is on
        its way or here already.
        """
        with self._writing, self._lock:
            entry = self._entries.get(root)
            if entry is not None and (entry.whole or entry.busy):
                raise LocalProtocolError(f"blob {root.hex()[:16]} is here or on its way")
            if entry is not None and entry.size != size:  # one of the two sizes is wrong
                self._remove(root)
                entry = None
            if entry is None:
                self._make_room(size)
                entry = self._entries[root] = _Entry(size=size, whole=False)
                self._used += size
            entry.busy = True
        try:
            partial: Partial
            if self._files is None or size <= SMALL:
                partial = MemoryPartial(root, size)
            else:
                entry.logged = True
                partial = FilePartial(self._files, root, size)
        except BaseException:
            with self._lock:
                self._remove(root)
            raise
        entry.partial = partial
        return partial

    def finish(self, partial: Partial) -> None:
        """What `begin` returned is whole. When writing it fails, it is gone."""
        root = partial.root
        partial.close()
        with self._writing:
            entry = self._entries.get(root)
            if entry is None or entry.partial is not partial:
                return  # put meanwhile
            if isinstance(partial, MemoryPartial):
                try:
                    self._keep(root, partial.data(), partial.tree)
                except BaseException:
                    with self._lock:
                        self._remove(root)
                    raise
                return
            assert self._files is not None
            self._files.remove(log_name(root, partial.size))
            with self._lock:
                entry.tree, entry.partial = partial.tree, None
                entry.whole, entry.busy, entry.logged = True, False, False

    def suspend(self, partial: Partial) -> None:
        """What `begin` returned is not whole: its files stay for a later `begin`, while there is room."""
        partial.close()
        with self._lock:
            entry = self._entries.get(partial.root)
            if entry is not None and entry.partial is partial:
                entry.busy, entry.partial = False, None
                if not (partial.on_disk and partial.have):
                    self._remove(partial.root)

    # The rest is private

    def _touch(self, root: bytes) -> _Entry | None:
        """The entry, as the most recently used."""
        with self._lock:
            entry = self._entries.get(root)
            if entry is not None:
                self._entries.move_to_end(root)
            return entry

    def _keep(self, root: bytes, data: bytes, tree: MerkleTree) -> None:
        """Makes `data` a whole blob, whatever was there under its root: a torn file is replaced."""
        with self._lock:
            old = self._entries.get(root)
            if old is None or old.size != len(data):
                if old is not None:
                    self._remove(root)
                self._make_room(len(data))
                self._used += len(data)
                old = self._entries[root] = _Entry(size=len(data), whole=False, busy=True)
            was_busy, old.busy = old.busy and old.partial is not None, True  # it does not go meanwhile
        try:
            if self._files is not None:
                self._files.write(root.hex(), data)
                if old.logged:
                    self._files.remove(log_name(root, old.size))
        except BaseException:
            with self._lock:
                old.busy = was_busy
                if not was_busy:
                    self._remove(root)
            raise
        with self._lock:
            old.tree, old.partial = tree, None
            old.whole, old.busy, old.logged = True, False, False
            old.data = data if self._files is None else None
            self._entries.move_to_end(root)

    def _checked_tree(self, root: bytes, entry: _Entry) -> MerkleTree:
        """The tree of a whole blob; of a file that was here before this process, by reading it all once."""
        with entry.lock:
            if entry.tree is None:
                leaves: list[bytes] = []
                while chunk := self._read(root, len(leaves) * CHUNK_SIZE, CHUNK_SIZE):
                    leaves.append(leaf_hash(chunk))
                tree = MerkleTree(leaves)
                if tree.root != root:
                    raise _DamagedError
                entry.tree = tree
            return entry.tree

    def _read_chunk(self, root: bytes, entry: _Entry, index: int) -> bytes:
        start, length = index * CHUNK_SIZE, chunk_length(entry.size, index)
        if entry.data is not None:
            return entry.data[start : start + length]
        return self._read(root, start, length)

    def _read(self, root: bytes, offset: int, length: int) -> bytes:
        assert self._files is not None
        return self._files.read(root.hex(), offset, length)

    def _is_retained(self, root: bytes) -> bool:
        return any(root in roots for roots in self._retained.values())

    def _make_room(self, size: int) -> None:
        """Forgets what is not needed until there is room. Raises `StoreFull`, and forgets nothing then."""
        going = [
            root for root, entry in self._entries.items() if not entry.busy and not self._is_retained(root)
        ]
        free = self.capacity - self._used
        room = min(MAX_BLOB, free + sum(self._entries[root].size for root in going))
        if size > room or len(self._entries) - len(going) >= MAX_BLOBS:
            raise StoreFull(size, self.capacity, max(0, room))
        for root in going:
            if self._used + size <= self.capacity and len(self._entries) < MAX_BLOBS:
                break
            self._remove(root)

    def _drop(self, root: bytes, entry: _Entry) -> None:
        """Forgets what was found damaged or gone, whoever needs it, unless it is on its way."""
        with self._lock:
            if self._entries.get(root) is entry and not entry.busy:
                self._remove(root)

    def _remove(self, root: bytes) -> None:
        entry = self._entries.pop(root)
        self._used -= entry.size
        if self._files is not None:
            self._files.remove(root.hex())
            if entry.logged:
                self._files.remove(log_name(root, entry.size))

    def _take_over(self, files: Files) -> None:
        """Takes over what an earlier process left, oldest first."""
        found = files.entries()
        unfinished = {name[:ROOT_NAME]: name for name, _ in found if _is_log(name)}
        for name, size in found:
            root = name[:ROOT_NAME]
            if unfinished.get(root) == name:
                length = int(name[ROOT_NAME + 1 :])
                self._entries[bytes.fromhex(root)] = _Entry(size=length, whole=False, logged=True)
            elif _is_log(name):  # of another size: one of the two was wrong
                files.remove(name)
            elif _is_root(name) and root not in unfinished:
                self._entries[bytes.fromhex(root)] = _Entry(size=size)
        self._used = sum(entry.size for entry in self._entries.values())
        while self._entries and (self._used > self.capacity or len(self._entries) > MAX_BLOBS):
            self._remove(next(iter(self._entries)))


class _DamagedError(Exception):
    """A file is not what its name says."""


def _is_root(name: str) -> bool:
    return len(name) == ROOT_NAME and all(letter in "0123456789abcdef" for letter in name)


def _is_log(name: str) -> bool:
    """Whether this is the name of the log of an unfinished blob."""
    root, dash, size = name.partition("-")
    return bool(_is_root(root) and dash and size.isdecimal() and size.isascii() and 0 < int(size) <= MAX_BLOB)
