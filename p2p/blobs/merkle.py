"""The Merkle tree that names a blob and proves each of its chunks alone; sets of chunks as bits.

A blob is cut into chunks of 256 KiB; its name is the root of the tree over them. A leaf is
SHA256(0x00 ‖ chunk), a node SHA256(0x01 ‖ left ‖ right), and a last node without a sibling moves up
as it is, which is the tree of RFC 6962, section 2.1. The two prefixes keep a node from passing for a
chunk. Proofs are its audit paths, as in RFC 9162, section 2.1.3.
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


def all_chunks(size: int) -> int:
    """The set of all chunks of a blob of `size` bytes: a set is an integer with bit i for chunk i."""
    return (1 << chunk_count(size)) - 1


def split(data: bytes | memoryview) -> Iterable[memoryview]:
    """The chunks of `data`, in order, without copying."""
    view = memoryview(data)
    return (view[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE))


def leaf_hash(*pieces: bytes | memoryview) -> bytes:
    """The hash of one chunk, in any number of pieces."""
    digest = hashlib.sha256(b"\x00")
    for piece in pieces:
        digest.update(piece)
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


class PartialTree(MerkleTree):
    """What is known of the tree over `count` ≥ 1 chunks: its root, and what proven chunks came with.

    Everything in it is proven, so a chunk whose sibling came before needs no more than its own hash.
    """

    def __init__(self, root: bytes, count: int) -> None:
        self._levels = [[b""] * count]
        while (width := len(self._levels[-1])) > 1:
            self._levels.append([b""] * -(-width // 2))
        self._levels[-1] = [root]

    def add(self, index: int, pieces: Sequence[bytes | memoryview], proof: Sequence[bytes]) -> bool:
        """Whether `pieces` are chunk `index` under the root; if so, `leaf` and `proof` know it from now on.

        Its length is not looked at: compare it with `chunk_length` before. Only as much of the proof is
        looked at as leads to what is known.
        """
        if not 0 <= index < len(self._levels[0]):
            return False
        path: list[tuple[list[bytes], int, bytes]] = []
        siblings = iter(proof)
        at, digest = index, leaf_hash(*pieces)
        for level in self._levels:
            if level[at]:
                break
            path.append((level, at, digest))
            if at ^ 1 < len(level):
                sibling = next(siblings, b"")
                path.append((level, at ^ 1, sibling))
                digest = node_hash(sibling, digest) if at & 1 else node_hash(digest, sibling)
            at >>= 1
        if digest != level[at]:
            return False
        for nodes, place, node in path:
            nodes[place] = node
        return True
