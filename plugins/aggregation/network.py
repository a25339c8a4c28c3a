"""Sorting all coordinates at once, by minima and maxima of whole rows.

A sorting network compares the same pairs whatever the values are, so that each comparison is one elementwise
operation on a block; and what nobody wants to know, such as the order of the values that are
trimmed, is not compared at all. Source: Batcher's merge exchange, Knuth, The Art of Computer Programming 3,
5.2.2, Algorithm M.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

REMEMBERED = 64  # networks; a task has one for each number of updates that its rounds come to


@dataclass(frozen=True, slots=True)
class Comparator:
    """Puts the smaller value of two rows into `low` and the larger into `high`, as far as wanted."""

    low: int
    high: int
    wants_low: bool
    wants_high: bool


@lru_cache(maxsize=REMEMBERED)
def network(count: int, first: int, last: int) -> tuple[Comparator, ...]:
    """The comparisons after which the rows `first` to `last` - 1 out of `count` are where they belong."""
    wanted = set(range(first, last))
    kept: list[Comparator] = []
    for low, high in reversed(_merge_exchange(count)):
        comparator = Comparator(low, high, low in wanted, high in wanted)
        if comparator.wants_low or comparator.wants_high:
            kept.append(comparator)
            wanted |= {low, high}
    return tuple(reversed(kept))


def sorted_rows(rows: NDArray[Any], first: int, last: int) -> list[NDArray[Any]]:
    """The `first` to `last` - 1 smallest values of every column, as rows; `rows` are overwritten.

    NaN goes wherever it is compared, into the result too unless the column's other values are compared first.
    """
    lines = list(rows)
    spare = np.empty_like(lines[0])
    for comparator in network(len(lines), first, last):
        one, other = lines[comparator.low], lines[comparator.high]
        if comparator.wants_low and comparator.wants_high:
            np.minimum(one, other, out=spare)
            np.maximum(one, other, out=other)
            lines[comparator.low], spare = spare, one
        elif comparator.wants_low:
            np.minimum(one, other, out=one)
        else:
            np.maximum(one, other, out=other)
    return lines[first:last]


def _merge_exchange(count: int) -> list[tuple[int, int]]:
    """The pairs (low, high) to compare, in order, to sort `count` rows."""
    pairs: list[tuple[int, int]] = []
    top = 1 << max(0, (count - 1).bit_length() - 1)
    part = top
    while part and count > 1:
        step, rest, distance = top, 0, part
        while True:
            pairs += [(low, low + distance) for low in range(count - distance) if low & part == rest]
            if step == part:
                break
            distance, step, rest = step - part, step >> 1, part
        part >>= 1
    return pairs
