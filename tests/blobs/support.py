"""What the tests of blobs share."""

from __future__ import annotations

import random
from collections.abc import Sequence

from p2p.blobs.merkle import CHUNK_SIZE, leaf_hash, node_hash
from p2p.blobs.store import BlobStore
from p2p.blobs.wire import Chunk
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

PEERS = [PeerId.from_public_key(KeyPair.from_seed(bytes([number]) * 32).public) for number in range(1, 81)]


def blob(size: int, seed: int = 7) -> bytes:
    """`size` random bytes."""
    return random.Random(seed).randbytes(size)


THREE = blob(2 * CHUNK_SIZE + 1000)  # a blob of three chunks, the last one short


def verify_chunk(root: bytes, count: int, index: int, chunk: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `chunk` is number `index` of the `count` chunks under `root`: RFC 9162, section 2.1.3.2."""
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


def chunk_of(data: bytes, index: int) -> Chunk:
    """The true chunk `index` of `data`."""
    store = BlobStore(None, len(data))
    chunk = store.chunk(store.put(data), len(data), index)
    assert chunk is not None
    return chunk
