"""Who the nodes of a run are, and where its randomness comes from: all of it from one seed."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from p2p.keys import KeyPair

if TYPE_CHECKING:
    from random import Random


def key_of(seed: int, node: int) -> KeyPair:
    """The identity of a node, the same in every run with this seed."""
    return KeyPair.from_seed(sha256(b"atcp-sim" + seed.to_bytes(8, "big") + node.to_bytes(4, "big")).digest())


def rng_of(seed: int, *purpose: str | int) -> Random:
    """The randomness for one purpose: what one part draws does not shift what another draws."""
    from random import Random  # seeded: the one kind that may be made here

    text = "\0".join(str(word) for word in (seed, *purpose))
    return Random(int.from_bytes(sha256(text.encode()).digest(), "big"))
