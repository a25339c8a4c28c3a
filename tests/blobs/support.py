"""What the tests of blobs share."""

from __future__ import annotations

import random

from p2p.blobs.merkle import CHUNK_SIZE
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

PEERS = [PeerId.from_public_key(KeyPair.from_seed(bytes([number]) * 32).public) for number in range(1, 21)]


def blob(size: int, seed: int = 7) -> bytes:
    """`size` random bytes."""
    return random.Random(seed).randbytes(size)


THREE = blob(2 * CHUNK_SIZE + 1000)  # a blob of three chunks, the last one short
