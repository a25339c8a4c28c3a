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
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from p2p.blobs.errors import BlobUnavailable
from p2p.blobs.index import Entry, Index
from p2p.blobs.merkle import (
    CHUNK_SIZE,
    MerkleTree,
    all_chunks,
    chunk_count,
    chunk_length,
    leaf_hash,
    split,
)
from p2p.blobs.partial import FilePartial, MemoryPartial, Partial, log_name, read_chunks, runs
from p2p.blobs.wire import Chunk, Pieces
from p2p.errors import InvalidInput, LocalProtocolError

if TYPE_CHECKING:
    from p2p.files import Files

MOST_RECENT = 1 << 22  # bytes of blobs in files that are kept in memory too: the updates of a round, or two
RECENT = 1 << 16  # bytes of one of them at most: a change of threads costs as much as reading it
SMALL = 4 << 20  # bytes; a blob up to this size comes in seconds: kept in memory until it is whole


class BlobStore:
    """At most `capacity` bytes of blobs by their roots, in `files` or in memory.

    Raises `InvalidInput` when the files cannot be used. The calls that touch files raise `OSError`.
    """

    def __init__(self, files: Files | None, capacity: int) -> None:
        self.capacity = capacity  # bytes of content
        self._files = files
        self._index = Index(files, capacity)
        self._writing = threading.Lock()  # of whole files
        self._recent: deque[Entry] = deque()  # small ones that were written last, oldest first
        self._recent_size = 0  # bytes
        if files is not None:
            try:
                files.make()
                self._index.take_over(files)
            except OSError as exc:
                raise InvalidInput(f"cannot use the folder {files}: {exc.strerror}") from exc

    @property
    def blocking(self) -> bool:
        """Whether calls take time, since they read and write files of the system."""
        return self._files is not None and self._files.blocking

    def __contains__(self, root: bytes) -> bool:
        entry = self._index.get(root)
        return entry is not None and entry.whole

    def __len__(self) -> int:
        """How many whole blobs there are."""
        return len(self._index.whole())

    def roots(self) -> list[bytes]:
        """Every whole blob, the one used least recently first."""
        return self._index.whole()

    # What is whole

    def put(self, data: bytes) -> bytes:
        """Keeps `data` and returns its root. Raises `StoreFull`."""
        tree = MerkleTree([leaf_hash(chunk) for chunk in split(data)])
        root = tree.root
        with self._writing:
            entry = self._index.get(root)
            if entry is not None and entry.whole and entry.tree is not None:
                self._index.touch(root)
                return root
            self._keep(root, data, tree)
        return root

    def get(self, root: bytes) -> bytes | None:
        """The blob, verified; None when it is not here, or was found damaged and dropped."""
        entry = self._index.touch(root)
        if entry is None or not entry.whole:
            return None
        if (data := entry.data) is not None:
            return data
        try:
            data = self._read(root, 0, entry.size + 1)
        except FileNotFoundError:
            data = b""
        tree = MerkleTree([leaf_hash(chunk) for chunk in split(data)])
        if len(data) != entry.size or tree.root != root:
            self._index.drop(root, entry)
            return None
        entry.tree = tree
        return data

    def in_memory(self, root: bytes) -> bytes | None:
        """The blob, if it is whole and need not be read; touches no file."""
        entry = self._index.touch(root)
        return None if entry is None or not entry.whole else entry.data

    def chunks(self, root: bytes) -> Iterator[bytes]:
        """The chunks of a whole blob in order, verified: one in memory at a time.

        Raises `BlobUnavailable` when the blob is not here, or is found damaged on the way.
        """
        entry = self._index.touch(root)
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
            self._index.drop(root, entry)
            raise BlobUnavailable(root, ["it is damaged"]) from exc

    def check(self, root: bytes, size: int) -> bool:
        """Whether the blob is here, and not damaged before this process: then its file is read once.

        Raises `BlobUnavailable` when it has not `size` bytes: a root stands for one content.
        """
        entry = self._index.touch(root)
        if entry is None or not entry.whole:
            return False
        try:
            self._checked_tree(root, entry)
        except (_DamagedError, FileNotFoundError):
            self._index.drop(root, entry)
            return False
        if entry.size != size:
            raise BlobUnavailable(root, [f"it does not have {size} bytes"])
        return True

    def unchecked(self, root: bytes) -> bool:
        """Whether this is the blob of an earlier process, whose file is still to be read once."""
        entry = self._index.get(root)
        return entry is not None and entry.whole and entry.tree is None

    def held(self, root: bytes, size: int) -> int | None:
        """Which chunks of a blob of `size` bytes are here, bit i for chunk i; touches no file.

        None when nothing is here and nothing on its way.
        """
        entry = self._index.get(root)
        if entry is None or entry.size != size:
            return None
        if entry.whole:
            return all_chunks(size)
        return entry.partial.have if entry.partial is not None else None

    def chunk(self, root: bytes, size: int, index: int) -> Chunk | None:
        """Chunk `index` with its proof; None when it is not here, or the blob has not `size` bytes."""
        return self.chunks_at(root, size, [index], memoryview(bytearray(CHUNK_SIZE)))[0]

    def chunks_at(
        self, root: bytes, size: int, indexes: Sequence[int], buffer: memoryview
    ) -> list[Chunk | None]:
        """Some chunks, each as by `chunk`; those of a file are views of `buffer`, which has room for all.

        What lies side by side in a file is read at once. A chunk of a file was verified by this process
        once: who gets it verifies it again.
        """
        entry, held = self._index.touch(root), self.held(root, size) or 0
        found: dict[int, Chunk] = {}
        at = 0  # bytes of the buffer that are in use
        for first, count in runs([index for index in indexes if index >= 0 and held >> index & 1]):
            if entry is not None:
                run = self._read_run(root, entry, first, count, buffer[at:])
                found |= {chunk.index: chunk for chunk in run}
                at += count * CHUNK_SIZE
        return [found.get(index) for index in indexes]

    def _read_run(
        self, root: bytes, entry: Entry, first: int, count: int, buffer: memoryview
    ) -> Sequence[Chunk]:
        """`count` chunks that are here, from number `first` on; none when they are found damaged or gone."""
        partial = entry.partial
        tree: MerkleTree
        try:
            if partial is not None and not entry.whole:
                found, tree = partial.read(first, count, buffer), partial.tree
            else:
                tree = self._checked_tree(root, entry)
                found = self._read_chunks(root, entry, first, count, buffer)
        except (_DamagedError, FileNotFoundError):
            found = []
        chunks = [
            Chunk(index=index, proof=tree.proof(index), pieces=pieces)
            for index, pieces in enumerate(found, first)
        ]
        if len(chunks) < count or any(each.size != chunk_length(entry.size, each.index) for each in chunks):
            self._index.drop(root, entry)
            return []
        return chunks

    def discard(self, root: bytes) -> None:
        """Forgets the blob, if it is here, not retained and not on its way."""
        self._index.discard(root)

    def retain(self, owner: str, roots: Iterable[bytes]) -> None:
        """Keeps these blobs, here or still to come, until `owner` names others: none of them goes."""
        self._index.retain(owner, roots)

    # What is on its way

    def begin(self, root: bytes, size: int) -> Partial:
        """The place of a blob of `size` > 0 bytes that is to come, with what an earlier try left there.

        End it by `finish` or `suspend`. Raises `StoreFull`, and `LocalProtocolError` when the blob is on
        its way or here already.
        """
        with self._writing, self._index.lock:
            entry = self._index.get(root)
            if entry is not None and (entry.whole or entry.busy):
                raise LocalProtocolError(f"blob {root.hex()[:16]} is here or on its way")
            if entry is not None and entry.size != size:  # one of the two sizes is wrong
                self._index.remove(root)
                entry = None
            if entry is None:
                entry = self._index.add(root, size)
            entry.busy = True
        try:
            partial: Partial
            if self._files is None or size <= SMALL:
                partial = MemoryPartial(root, size)
            else:
                entry.logged = True
                partial = FilePartial(self._files, root, size)
        except BaseException:
            self._index.remove(root)
            raise
        entry.partial = partial
        return partial

    def finish(self, partial: Partial) -> None:
        """What `begin` returned is whole. When writing it fails, it is gone."""
        root = partial.root
        partial.close()
        with self._writing:
            entry = self._index.get(root)
            if entry is None or entry.partial is not partial:
                return  # put meanwhile
            if isinstance(partial, MemoryPartial):
                try:
                    self._keep(root, partial.data(), partial.tree)
                except BaseException:
                    self._index.remove(root)
                    raise
                return
            assert self._files is not None
            self._files.remove(log_name(root, partial.size))
            with self._index.lock:
                entry.tree, entry.partial = partial.tree, None
                entry.whole, entry.busy, entry.logged = True, False, False

    def suspend(self, partial: Partial) -> None:
        """What `begin` returned is not whole: its files stay for a later `begin`, while there is room."""
        partial.close()
        with self._index.lock:
            entry = self._index.get(partial.root)
            if entry is not None and entry.partial is partial:
                entry.busy, entry.partial = False, None
                if not (partial.on_disk and partial.have):
                    self._index.remove(partial.root)

    # The rest is private

    def _keep(self, root: bytes, data: bytes, tree: MerkleTree) -> None:
        """Makes `data` a whole blob, whatever was there under its root: a torn file is replaced."""
        with self._index.lock:
            old = self._index.get(root)
            if old is None or old.size != len(data):
                if old is not None:
                    self._index.remove(root)
                old = self._index.add(root, len(data))
            was_busy, old.busy = old.busy and old.partial is not None, True  # it does not go meanwhile
        try:
            if self._files is not None:
                self._files.write(root.hex(), data)
                if old.logged:
                    self._files.remove(log_name(root, old.size))
        except BaseException:
            with self._index.lock:
                old.busy = was_busy
                if not was_busy:
                    self._index.remove(root)
            raise
        with self._index.lock:
            old.tree, old.partial = tree, None
            old.whole, old.busy, old.logged = True, False, False
            old.data = data if self._files is None or self._remember(old) else None
            self._index.touch(root)

    def _remember(self, entry: Entry) -> bool:
        """Whether the blob stays in memory too; those that do so longest make room for it."""
        if entry.size > RECENT:
            return False
        self._recent.append(entry)
        self._recent_size += entry.size
        while self._recent_size > MOST_RECENT:
            oldest = self._recent.popleft()
            self._recent_size -= oldest.size
            oldest.data = None
        return True

    def _checked_tree(self, root: bytes, entry: Entry) -> MerkleTree:
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

    def _read_chunk(self, root: bytes, entry: Entry, index: int) -> bytes:
        start, length = index * CHUNK_SIZE, chunk_length(entry.size, index)
        data = entry.data
        return data[start : start + length] if data is not None else self._read(root, start, length)

    def _read_chunks(
        self, root: bytes, entry: Entry, first: int, count: int, buffer: memoryview
    ) -> list[Pieces]:
        data = entry.data
        if data is None:
            assert self._files is not None
            return read_chunks(self._files, root, first, count, buffer)
        view = memoryview(data)[first * CHUNK_SIZE : (first + count) * CHUNK_SIZE]
        return [(each,) for each in split(view)]

    def _read(self, root: bytes, offset: int, length: int) -> bytes:
        assert self._files is not None
        return self._files.read(root.hex(), offset, length)


class _DamagedError(Exception):
    """A file is not what its name says."""
