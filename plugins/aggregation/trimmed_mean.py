"""The coordinate-wise trimmed mean: forgets the largest and smallest values of every coordinate."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated.plugin import checked_settings
from plugins.aggregation.blocks import Plan, Vector
from plugins.aggregation.network import sorted_rows
from plugins.aggregation.points import Points
from plugins.aggregation.rule import Rule

ROUNDING = 1e-9  # so that 0.29 of 100 updates is 29, though 0.29 * 100 is a little less in binary


class TrimmedMean(Rule):
    """The base plus, for every coordinate, the mean of what is left without both ends.

    A share `trim` of the updates is dropped at each end, so it withstands that share of liars, and
    example counts are not looked at. Source: Yin et al. 2018, "Byzantine-Robust Distributed Learning",
    Definition 2.
    """

    @checked_settings
    def __init__(self, *, trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.2) -> None:
        self.trim = trim

    def plan(self, points: Points) -> Plan:
        """The mean of the middle values."""
        count = len(points)
        drop = int(self.trim * count + ROUNDING)
        return Plan(points.mixture, partial(mean_of_sorted, first=drop, last=count - drop))


def mean_of_sorted(rows: NDArray[Any], first: int, last: int) -> Vector:
    """The mean of the `first` to `last` - 1 smallest values of every column, added from the smallest up."""
    result = np.zeros(rows.shape[1])
    for row in sorted_rows(rows, first, last):
        result += row
    result /= last - first
    return result
