"""How long a message takes from one node to another when nothing is wrong.

Every pair of nodes has its own latency, the same in both directions and at all times. It is computed from
the pair's number and a salt of the run, not drawn in the order of first use: two runs in which different
nodes speak first have the same network, and nothing need be kept.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from math import exp
from statistics import NormalDist
from typing import TYPE_CHECKING

from p2p.errors import InvalidInput
from sim.network.geography import PRESETS

if TYPE_CHECKING:
    from random import Random

    from sim.scenario.model import Latency

LatencyOf = Callable[[int, int], float]
"""Seconds one way between two nodes."""

_MASK = (1 << 64) - 1
_NORMAL = NormalDist()


def latency_model(settings: Latency, nodes: int, rng: Random) -> LatencyOf:
    """The latency of each pair of `nodes` nodes, in seconds.

    Raises `InvalidInput` for a preset that does not exist and a matrix that is not symmetric.
    """
    salt = rng.getrandbits(64)
    low = settings.ms / 1000
    match settings.kind:
        case "constant":
            return lambda one, other: low
        case "uniform":
            span = settings.max_ms / 1000 - low
            if span < 0:
                raise InvalidInput(f"max_ms is {settings.max_ms:g}, below ms, which is {settings.ms:g}")
            return lambda one, other: low + span * share_of_pair(salt, one, other)
        case "lognormal":
            return partial(_lognormal, salt, low, settings.sigma)
        case "matrix":
            matrix = _checked(settings.matrix)
            regions = len(matrix)
            return lambda one, other: matrix[one % regions][other % regions] / 1000
        case "geo":
            return _geographic(settings.preset, nodes, rng)


def share_of_pair(salt: int, one: int, other: int) -> float:
    """A number above 0 and below 1 for two nodes, in either order; all are equally likely.

    The mixer is splitmix64 (Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number Generators").
    """
    pair = one << 32 | other if one < other else other << 32 | one
    mixed = (salt + pair * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
    return ((mixed ^ mixed >> 31) >> 11 | 1) / (1 << 53)


def _lognormal(salt: int, median: float, sigma: float, one: int, other: int) -> float:
    return median * exp(sigma * _NORMAL.inv_cdf(share_of_pair(salt, one, other)))


def _checked(matrix: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    size = len(matrix)
    if not size or any(len(row) != size for row in matrix):
        raise InvalidInput("a latency matrix needs as many columns as it has rows, and at least one")
    for row in range(size):
        for column in range(size):
            if not 0 <= matrix[row][column] == matrix[column][row]:
                raise InvalidInput(
                    f"the latency matrix has {matrix[row][column]:g} ms from region {row} to {column} and "
                    f"{matrix[column][row]:g} ms back: it must be symmetric and not negative"
                )
    return matrix


def _geographic(name: str, nodes: int, rng: Random) -> LatencyOf:
    preset = PRESETS.get(name)
    if preset is None:
        raise InvalidInput(f"there is no geography {name!r}; there are: {', '.join(sorted(PRESETS))}")
    bounds = list(accumulate(preset.shares))[:-1]
    home = [bisect(bounds, rng.random()) for _ in range(nodes)]
    one_way = [
        [preset.rtt_ms(one, other) / 2000 for other in range(len(preset.regions))]
        for one in range(len(preset.regions))
    ]
    return lambda one, other: one_way[home[one]][home[other]]
