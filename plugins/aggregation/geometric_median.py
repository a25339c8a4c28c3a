"""The geometric median: the point with the smallest sum of distances to all updates."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from federated.plugin import checked_settings
from plugins.aggregation.blocks import Plan
from plugins.aggregation.points import Points, total
from plugins.aggregation.rule import Rule

SMOOTHING = 1e-6  # the least distance that counts; Pillutla et al. 2022, section 5


class GeometricMedian(Rule):
    """The base plus the geometric median of the deltas, by the smoothed algorithm of Weiszfeld (RFA).

    Withstands f liars when n ≥ 2f + 1: an update pulls with the same force however far away it is. A late
    one pulls less, example counts are not looked at. Source: Pillutla et al. 2022, "Robust Aggregation for
    Federated Learning", Algorithm 2.
    """

    @checked_settings
    def __init__(self, *, iterations: Annotated[int, Field(ge=1, le=1000)] = 20) -> None:
        self.iterations = iterations

    def plan(self, points: Points) -> Plan:
        """The mean by the weights that the iterations come to."""
        weights = np.zeros(len(points))
        core = _majority(points)
        weights[core] = points.freshness[core]
        for _ in range(self.iterations):
            distances = points.distances_to(weights / total(weights))
            weights = points.freshness / np.maximum(SMOOTHING, distances)
        return points.mean(weights)


def _majority(points: Points) -> list[int]:
    """The points in the smallest ball around one of them that has more than half: where to begin.

    From the mean, one liar that is far enough away would take more iterations than there are to come back.
    """
    size = len(points) // 2 + 1
    radius = np.sort(points.distances, axis=1)[:, size - 1]
    middle = points.distances[int(np.argmin(radius))]
    return [int(place) for place in np.argsort(middle, kind="stable")[:size]]
