"""The three rounds of a step, without I/O: what a member makes of what it has, and all make of that.

    deal ───→ one sealed share for each holder, and their roots       the model stays
    attest ─→ checks of the shares that a holder has                  the model stays
    open ───→ the sums of its shares                                   the mean of each group is found

The check of a share is a combination of its elements by factors that nobody knows before all dealings are
certified: those of the shares of one dealing lie on a polynomial if the shares do, and hardly ever if not.
A random element is dealt with the update for each check and added to it, so that it tells nothing else.
Source: Ben-Or, Goldwasser and Wigderson, "Completeness theorems for non-cryptographic fault-tolerant
distributed computation", 1988, for sums of shares; random combinations are how Cascudo and David, "SCRAPE",
2017, find shares that are none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from federated.errors import CodecError
from federated.manifest import STEP
from federated.rounds.messages import HASH_SIZE
from federated.sums.decoding import open_arrays
from federated.sums.documents import CHECKS, ELEMENT, Opening, head, pack_elements, unpack_elements
from federated.sums.field import PRIME, Elements, add, inner, share, uniform
from federated.sums.seal import OVERHEAD, seal, unseal

if TYPE_CHECKING:
    from federated.parameters import Parameters
    from federated.sums.grid import Grid
    from federated.sums.holders import Holders
    from federated.sums.sets import Sums
    from p2p.keys import KeyPair
    from p2p.peer_id import PeerId

_POLYNOMIALS, _EPHEMERAL = b"atcp/sums/polynomials/1\n", b"atcp/sums/ephemeral/1\n"
_FACTORS = b"atcp/sums/factors/1\n"


class Step(Enum):
    """What a round is for."""

    DEAL = "deal"
    ATTEST = "attest"
    OPEN = "open"


def step_of(round_number: int) -> Step:
    """What a round is for; rounds count from 1."""
    return tuple(Step)[(round_number - 1) % STEP]


@dataclass(frozen=True, slots=True)
class Terms:
    """What all shares of one step have in common: `round` is the one in which they are dealt."""

    task: bytes
    round: int
    holders: Holders
    grid: Grid

    @property
    def share_size(self) -> int:
        """Elements of a share: those of an update, and one for each check."""
        return self.grid.size + CHECKS

    @property
    def sealed_size(self) -> int:
        """Bytes of a sealed share."""
        return self.share_size * ELEMENT + OVERHEAD

    def purpose(self, dealer: PeerId, holder: PeerId) -> bytes:
        """What a share is sealed for: this one and no other."""
        raw = struct.pack(">QB", self.round, len(dealer.raw)) + dealer.raw + holder.raw
        return self.task + raw


def deal(terms: Terms, dealer: PeerId, delta: Parameters, key: bytes) -> Iterator[bytes]:
    """The sealed shares of `delta`, one for each holder; as large as `delta` each, so one after the other.

    `key` is 32 bytes that nobody knows, and that are used for nothing else: not for the same update again.
    """
    draw = uniform(sha256(_POLYNOMIALS + key).digest())
    holders, masks = terms.holders, draw(CHECKS).astype(np.uint32)
    secrets = np.concatenate([terms.grid.elements(delta), masks])
    shares = share(secrets, holders.faults, holders.points, draw)
    for place, peer in enumerate(holders.peers):
        plain = pack_elements(shares.pop(0))
        yield seal(plain, peer, terms.purpose(dealer, peer), ephemeral_key(key, place))


def ephemeral_key(key: bytes, place: int) -> bytes:
    """Another secret for each holder."""
    return sha256(_EPHEMERAL + bytes([place]) + key).digest()


def open_share(terms: Terms, dealer: PeerId, pair: KeyPair, holder: PeerId, sealed: bytes) -> Elements:
    """Our share of a dealing. Raises `CodecError` for what is none."""
    if len(sealed) != terms.sealed_size:
        raise CodecError("seal", f"{len(sealed)} bytes, not the {terms.sealed_size} of a share")
    return unpack_elements(unseal(sealed, pair, terms.purpose(dealer, holder)), terms.share_size)


def factors(terms: Terms, block: bytes) -> list[Elements]:
    """What the elements count in each check; `block` is the hash of the one that certifies the dealings."""
    draw = uniform(sha256(_FACTORS + terms.task + block).digest())
    return [draw(terms.grid.size).astype(np.uint32) for _ in range(CHECKS)]


def checks_of(elements: Elements, counts: Sequence[Elements]) -> tuple[int, ...]:
    """The checks of a share."""
    size = elements.size - CHECKS
    masks = elements[size:]
    return tuple(
        (inner(elements[:size], one) + int(mask)) % PRIME for one, mask in zip(counts, masks, strict=True)
    )


def add_share(total: Elements, elements: Elements) -> None:
    """Adds a share to a sum; what stands for nothing is left out."""
    add(total, elements[: total.size])


@dataclass(frozen=True, slots=True)
class Opened:
    """What the openings of a step came to.

    `means` has (the number of the group, its mean) of each sum that was found; `liars` are the places of the
    holders that opened something else.
    """

    means: tuple[tuple[int, Parameters], ...]
    liars: tuple[int, ...]


def open_sums(terms: Terms, sums: Sums, openings: Mapping[int, Opening]) -> Opened:
    """The mean of each group, out of the openings by the places of the holders.

    They are right as long as no more holders are bad than may be. With fewer openings than that
    needs nothing is found: a leader could have left out those of the others.
    """
    holders, liars = terms.holders, dict[int, None]()
    places = [place for place in sorted(openings) if place in sums.openers]
    if len(places) < holders.least:
        return Opened((), ())
    points = [holders.points[place] for place in places]
    means = []
    for number, group in enumerate(sums.groups):
        found = open_arrays(points, [openings[place].sums[number] for place in places], holders.faults)
        if found is not None:
            total, wrong = found
            means.append((number, terms.grid.mean(total, len(group))))
            liars |= {places[at]: None for at in wrong}
    return Opened(tuple(means), tuple(sorted(liars)))


def largest_document(grid: Grid, author: PeerId, members: int, sums: int) -> int:
    """Bytes of the largest document of a step, with as many holders and dealings as members."""
    attested = (members + 7) // 8 + members * CHECKS * ELEMENT
    body = max(members * HASH_SIZE, attested, sums * grid.size * ELEMENT)
    return len(head(0, 0, author)) + body
