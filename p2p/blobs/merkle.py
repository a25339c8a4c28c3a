"""The Merkle tree that names a blob and proves each of its chunks alone.

A blob is cut into chunks of 256 KiB; its name is the root of the tree over them. A leaf is
SHA256(0x00 ‖ chunk), a node SHA256(0x01 ‖ left ‖ right), and a last node without a sibling moves up
as it is, which is the tree of RFC 6962, section 2.1. The two prefixes keep a node from passing for a
chunk. Proofs are its audit paths, checked as RFC 9162, section 2.1.3.2, tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

CHUNK_SIZE = 256 * 1024  # bytes; the chunk of IPFS' default chunker, and one initial yamux window
HASH_SIZE = 32  # bytes; SHA-256
EMPTY_ROOT = hashlib.sha256().digest()  # RFC 6962: the hash of an empty list


def chunk_count(size: int) -> int:
    """How many chunks a blob of `size` bytes has."""
    return -(-size // CHUNK_SIZE)


def chunk_length(size: int, index: int) -> int:
    """The bytes in chunk `index` of a blob of `size` bytes."""
    return min(CHUNK_SIZE, size - index * CHUNK_SIZE)


def split(data: bytes) -> Iterable[memoryview]:
    """The chunks of `data`, in order, without copying."""
    view = memoryview(data)
    return (view[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE))


def leaf_hash(chunk: bytes | memoryview) -> bytes:
    """The hash of one chunk."""
    digest = hashlib.sha256(b"\x00")
    digest.update(chunk)
    return digest.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def blob_root(data: bytes) -> bytes:
    """The name of the blob `data`: 32 bytes."""
    return MerkleTree([leaf_hash(chunk) for chunk in split(data)]).root


class MerkleTree:
    """All levels over the leaf hashes of one blob: about 64 bytes a chunk."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [list(leaves)]
        while len(below := self._levels[-1]) > 1:
            level = [node_hash(*below[at : at + 2]) for at in range(0, len(below) - 1, 2)]
            self._levels.append(level + below[len(level) * 2 :])

    @property
    def root(self) -> bytes:
        """The name of the blob."""
        top = self._levels[-1]
        return top[0] if top else EMPTY_ROOT

    def leaf(self, index: int) -> bytes:
        """The hash of chunk `index`."""
        return self._levels[0][index]

    def proof(self, index: int) -> tuple[bytes, ...]:
        """The audit path of chunk `index`: the siblings on its way to the root, from below."""
        path = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
            index //= 2
        return tuple(path)


def verify_chunk(root: bytes, count: int, index: int, chunk: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `chunk` is number `index` of the `count` chunks under `root`.

    Its length is not looked at: compare it with `chunk_length` before.
    """
    if not 0 <= index < count:
        return False
    at, last, digest = index, count - 1, leaf_hash(chunk)
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            digest = node_hash(sibling, digest)
            while not at & 1 and at:  # levels on which this node had no sibling
                at, last = at >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and digest == root
