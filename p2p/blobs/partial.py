"""A blob that is not whole yet: its true chunks so far, in memory or in two files that survive a crash.

    <root in hex>           the chunks at their places
    <root in hex>-<size>    the log: a record for each chunk that was written, with its audit path;
                            it is there before the first chunk, and as long as the blob is not whole

The log's name is durable before there is a chunk, and nothing in it is believed: what a later process finds
is a chunk only if its bytes and its path lead to the root. So neither file is synced.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from p2p.blobs.merkle import CHUNK_SIZE, HASH_SIZE, PartialTree, all_chunks, chunk_count, chunk_length, split
from p2p.blobs.wire import MAX_HOPS, Pieces

if TYPE_CHECKING:
    from p2p.files import Files

RECORD = 3  # bytes in front of a record's hashes: the index and how many hashes there are
MAX_RECORD = RECORD + MAX_HOPS * HASH_SIZE  # bytes

Chunks = Sequence[tuple[int, Pieces]]  # index and bytes of each


class MemoryPartial:
    """The chunks of a blob of `size` > 0 bytes so far, in memory: gone with the process."""

    on_disk = False

    def __init__(self, root: bytes, size: int) -> None:
        self.root = root
        self.size = size
        self.tree = PartialTree(root, chunk_count(size))  # whoever verifies a chunk adds it there
        self.have = 0  # the chunks that are here: bit i for chunk i
        self._chunks: dict[int, Pieces] = {}
        self._whole: bytes | None = None

    def write(self, chunks: Chunks) -> None:
        """Keeps chunks that `tree` knows."""
        for index, pieces in chunks:
            self._chunks[index] = pieces
            self.have |= 1 << index

    def read(self, first: int, count: int, buffer: memoryview) -> list[Pieces]:
        """`count` chunks that are here, from number `first` on; `buffer` is not needed."""
        return [self._chunks[index] for index in range(first, first + count)]

    def data(self) -> bytes:
        """The blob, once it is whole; the first time, this takes as much memory again."""
        if self._whole is None:
            self._whole = b"".join(
                piece for index in range(len(self._chunks)) for piece in self._chunks[index]
            )
        return self._whole

    def close(self) -> None:
        """Nothing is held but memory."""


class FilePartial:
    """The chunks of a blob of `size` > 0 bytes so far, in files: those of an earlier process are found again.

    Opening, writing and reading raise `OSError`, and read and write files of the system.
    """

    on_disk = True

    def __init__(self, files: Files, root: bytes, size: int) -> None:
        self.root = root
        self.size = size
        self.tree = PartialTree(root, chunk_count(size))  # whoever verifies a chunk adds it there
        self.have = 0  # the chunks that are here: bit i for chunk i
        self._files = files
        self._names = root.hex(), log_name(root, size)
        self._lock = threading.Lock()
        self._closed = False
        self._log = files.open(self._names[1])
        try:
            self._end = self._recover()  # of the log, in bytes
            self._data = files.open(self._names[0])
        except BaseException:
            self._log.close()
            raise

    def write(self, chunks: Chunks) -> None:
        """Writes chunks that `tree` knows, then their records."""
        at = 0
        with self._lock:
            for first, count in runs([index for index, _ in chunks]):
                run = chunks[at : at + count]
                self._data.write(first * CHUNK_SIZE, *(piece for _, pieces in run for piece in pieces))
                at += count
            records = b"".join(encode_record(index, self.tree.proof(index)) for index, _ in chunks)
            self._log.write(self._end, records)
            self._end += len(records)
            for index, _ in chunks:
                self.have |= 1 << index

    def read(self, first: int, count: int, buffer: memoryview) -> list[Pieces]:
        """`count` chunks that are here, from number `first` on, not verified again: views of `buffer`.

        Less when somebody cut the file.
        """
        return read_chunks(self._files, self.root, first, count, buffer)

    def close(self) -> None:
        """Ends the use of the files. Safe to repeat."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._log.close()
                self._data.close()

    def _recover(self) -> int:
        """Takes over the true chunks of an earlier process; returns where the log goes on.

        A log with records that are not true, as a crash of the machine leaves, is written anew.
        """
        count, good, false = chunk_count(self.size), [], False
        for index, proof in decode_records(self._files.read(self._names[1], 0, count * MAX_RECORD)):
            if self._recover_chunk(index, proof):
                good.append(encode_record(index, proof))
            else:
                false = True
        log = b"".join(good)
        if false:
            self._log.truncate(0)
            self._log.write(0, log)
        return len(log)

    def _recover_chunk(self, index: int, proof: Sequence[bytes]) -> bool:
        if not all_chunks(self.size) >> index & 1:
            return False
        try:
            data = self._files.read(self._names[0], index * CHUNK_SIZE, chunk_length(self.size, index))
        except FileNotFoundError:
            return False
        if len(data) != chunk_length(self.size, index) or not self.tree.add(index, (data,), proof):
            return False
        self.have |= 1 << index
        return True


Partial = MemoryPartial | FilePartial


def log_name(root: bytes, size: int) -> str:
    """The name of the log of an unfinished blob."""
    return f"{root.hex()}-{size}"


def read_chunks(files: Files, root: bytes, first: int, count: int, buffer: memoryview) -> list[Pieces]:
    """`count` chunks of the blob's file from number `first` on, read at once; less at its end."""
    size = files.read_into(root.hex(), first * CHUNK_SIZE, buffer[: count * CHUNK_SIZE])
    return [(each,) for each in split(buffer[:size])]


def runs(indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the count of those that follow one another."""
    at = 0
    while at < len(indexes):
        count = 1
        while at + count < len(indexes) and indexes[at + count] == indexes[at] + count:
            count += 1
        yield indexes[at], count
        at += count


def encode_record(index: int, proof: Sequence[bytes]) -> bytes:
    """The log's record of one chunk."""
    return index.to_bytes(2, "big") + bytes([len(proof)]) + b"".join(proof)


def decode_records(log: bytes) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Index and audit path of each record in `log`, up to one that is cut off or none."""
    at = 0
    while at + RECORD <= len(log):
        index, hops = int.from_bytes(log[at : at + 2], "big"), log[at + 2]
        end = at + RECORD + hops * HASH_SIZE
        if hops > MAX_HOPS or end > len(log):
            return
        yield index, tuple(log[place : place + HASH_SIZE] for place in range(at + RECORD, end, HASH_SIZE))
        at = end
