"""Where keys lie in Kademlia's space, and how far apart: XOR of SHA-256.

Source: libp2p/specs kad-dht/README.md, "Kademlia Keyspace" and "Distance Function".
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

BITS = 256  # size of a position
MULTIHASH_SHA256 = b"\x12\x20"  # what a peer id looks like that does not contain its key


@lru_cache(8192)
def position(key: bytes) -> int:
    """The position of a key's bytes; for a peer those of its multihash."""
    return int.from_bytes(hashlib.sha256(key).digest(), "big")


def common_prefix_length(one: int, other: int) -> int:
    """How many leading bits two positions share: 0 to 256; a bucket's number."""
    return BITS - (one ^ other).bit_length()


def random_key(origin: int, prefix_length: int, rng: Random) -> bytes:
    """A key, shaped as a peer id, whose position shares exactly `prefix_length` bits with `origin`.

    It is found by trying: 2^(prefix_length + 1) hashes on average, so keep that at 15 or less.
    """
    while True:
        key = MULTIHASH_SHA256 + rng.randbytes(32)
        found = int.from_bytes(hashlib.sha256(key).digest(), "big")
        if common_prefix_length(found, origin) == prefix_length:
            return key
