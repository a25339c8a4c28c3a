"""Which dealings are summed up, in which groups, and who opens the sums: the same for everybody.

A share is good when the checks that its holder published lie on the polynomial of the checks of its dealing.
Each holder that opens has to have a good share of each dealing that is summed up, or its sum is none. So a
rectangle is sought: dealings, and holders that have good shares of all of them. The shares of all honest
dealers are good at all honest holders, so there is one that is as large as that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations

from federated.sums.decoding import wrong_values
from federated.sums.documents import CHECKS, Attestation
from federated.sums.holders import Holders
from p2p.peer_id import PeerId

_GROUP = b"atcp/sums/group/1\n"


@dataclass(frozen=True, slots=True)
class Sums:
    """What is to be opened: the dealings of each group by their numbers, and the places of who opens."""

    groups: tuple[tuple[int, ...], ...]
    openers: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many dealings are summed up."""
        return sum(map(len, self.groups))


def good_shares(holders: Holders, attestations: Mapping[int, Attestation], dealings: int) -> dict[int, int]:
    """By the place of each holder in `attestations`, the set of the dealings of which it has a good share."""
    found = dict.fromkeys(sorted(attestations), 0)
    for number in range(dealings):
        places = [place for place in found if number in attestations[place].checks]
        if len(places) < holders.least:
            continue  # nothing that is said of it can make it count
        points = [holders.points[place] for place in places]
        wrong: dict[int, None] | None = {}
        for check in range(CHECKS):
            values = [attestations[place].checks[number][check] for place in places]
            misses = wrong_values(points, values, holders.faults)
            wrong = None if wrong is None or misses is None else wrong | dict.fromkeys(misses)
        if wrong is not None:
            for at, place in enumerate(places):
                found[place] |= 0 if at in wrong else 1 << number
    return found


def rectangle(shares: Mapping[int, int], least: int) -> tuple[int, tuple[int, ...]]:
    """(dealings, the places of at least `least` holders that have good shares of all of them).

    It has as many dealings and holders together as can be, and of those as many holders. What is missing is
    missing between a bad dealer and a bad holder, or one of them and an honest one. So no more honest
    ones are left out than there are bad ones.
    """
    places, everything = list(shares), 0
    for held in shares.values():
        everything |= held
    lacking = [place for place in places if shares[place] != everything]
    best: tuple[int, int, tuple[int, ...]] | None = None
    for count in range(min(len(lacking), len(places) - least) + 1):
        for out in combinations(lacking, count):
            common = everything
            for place in lacking:
                if place not in out:
                    common &= shares[place]
            score = common.bit_count() - count
            if best is None or score > best[0]:
                best = (score, common, out)
    if best is None:
        return 0, ()
    return best[1], tuple(place for place in places if place not in best[2])


def settle(
    holders: Holders,
    dealers: Sequence[PeerId],
    attestations: Mapping[int, Attestation],
    *,
    minimum: int,
    group: int | None,
    seed: bytes,
) -> Sums | None:
    """What is opened of the dealings of `dealers`; None when that would be fewer than `minimum` of them.

    With a size of a `group`, they are dealt out by the hashes of their ids under `seed` to as many groups as
    have that many members; that seed is known only when it is settled who is in them.
    """
    common, openers = rectangle(good_shares(holders, attestations, len(dealers)), holders.least)
    numbers = [number for number in range(len(dealers)) if common >> number & 1]
    if len(numbers) < max(minimum, group or 1):
        return None
    hashes = {number: sha256(_GROUP + seed + dealers[number].raw).digest() for number in numbers}
    numbers.sort(key=lambda number: hashes[number])
    count = 1 if group is None else len(numbers) // group
    return Sums(groups=tuple(tuple(sorted(numbers[at::count])) for at in range(count)), openers=openers)
