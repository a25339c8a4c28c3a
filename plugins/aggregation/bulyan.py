"""Bulyan: Krum selects updates one after the other, then each coordinate keeps what is near its median."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.plugin import checked_settings
from plugins.aggregation.blocks import Plan, Vector
from plugins.aggregation.krum import by_score
from plugins.aggregation.network import sorted_rows
from plugins.aggregation.points import Points, require
from plugins.aggregation.rule import Liars, Rule


class Bulyan(Rule):
    """Krum selects the best update and takes it out, n - 2f times; of the selected, the n - 4f values of each
    coordinate that are nearest to its median are averaged.

    Withstands f liars when n ≥ 4f + 3. Example counts are not looked at.
    Source: El Mhamdi et al. 2018, "The Hidden Vulnerability of Distributed Learning in Byzantium", section 4.
    """

    @checked_settings
    def __init__(self, *, f: Liars) -> None:
        self.f = f

    def plan(self, points: Points) -> Plan:
        """The selected points, and the mean around their median."""
        require("bulyan", self.f, 4 * self.f + 3, points)
        remaining = list(range(len(points)))
        selected: list[int] = []
        for _ in range(len(points) - 2 * self.f):
            best = by_score(points.distances, remaining, self.f)[0]
            remaining.remove(best)
            selected.append(best)
        return Plan(
            points.mixture[sorted(selected)], partial(_around_median, count=len(selected) - 2 * self.f)
        )


def _around_median(rows: NDArray[Any], count: int) -> Vector:
    """The mean of the `count` values of every column that are nearest to its median.

    Sorted, they stand side by side: the window moves up as long as the value that enters is nearer than the
    one that leaves.
    """
    size = len(rows)
    ordered = [row.astype(np.float64) for row in sorted_rows(rows, 0, size)]
    median = (ordered[(size - 1) // 2] + ordered[size // 2]) / 2
    result = _sum(ordered[:count])
    for first in range(1, size - count + 1):
        enters, leaves = ordered[first + count - 1], ordered[first - 1]
        np.copyto(result, _sum(ordered[first : first + count]), where=enters - median < median - leaves)
    result /= count
    return result


def _sum(rows: list[Vector]) -> Vector:
    result = np.zeros_like(rows[0])
    for row in rows:
        result += row
    return result
