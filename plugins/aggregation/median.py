"""The coordinate-wise median."""

from __future__ import annotations

from functools import partial

from plugins.aggregation.blocks import Plan
from plugins.aggregation.points import Points
from plugins.aggregation.rule import Rule
from plugins.aggregation.trimmed_mean import mean_of_sorted


class CoordinateMedian(Rule):
    """The base plus, for every coordinate, the middle value; of an even number, the mean of both middle ones.

    Withstands f liars when n ≥ 2f + 1; example counts are not looked at. Source: Yin et al. 2018,
    Definition 1.
    """

    def plan(self, points: Points) -> Plan:
        """The middle one or two values."""
        count = len(points)
        return Plan(points.mixture, partial(mean_of_sorted, first=(count - 1) // 2, last=count // 2 + 1))
