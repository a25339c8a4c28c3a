"""Centered clipping: the mean of what is within reach of the last guess."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from federated.plugin import checked_settings
from plugins.aggregation.blocks import Plan, Vector
from plugins.aggregation.points import Points, lower_median, total
from plugins.aggregation.rule import Rule


class CenteredClipping(Rule):
    """Begins where the base is, and moves, `iterations` times, by the mean of the differences to the
    deltas, each of them clipped to `radius`; by default to the median of their lengths.

    Withstands f liars when n ≥ 2f + 1: one moves the result by at most radius / n an iteration. A late
    update weighs less, example counts are not looked at. Source: Karimireddy et al. 2021, "Learning from
    History for Byzantine Robust Optimization", Algorithm 2, with a start at 0 instead of the last step.
    """

    @checked_settings
    def __init__(
        self,
        *,
        radius: Annotated[float, Field(gt=0)] | None = None,
        iterations: Annotated[int, Field(ge=1, le=1000)] = 5,
    ) -> None:
        self.radius = radius
        self.iterations = iterations

    def plan(self, points: Points) -> Plan:
        """The sum by the coefficients that the iterations come to."""
        shares = points.freshness / total(points.freshness)
        centre: Vector = np.zeros(len(points))
        for _ in range(self.iterations):
            distances = points.distances_to(centre)
            radius = lower_median(distances) if self.radius is None else self.radius
            kept = shares * clipped(distances, radius)
            centre = centre * (1 - total(kept)) + kept
        return points.sum(centre)


def clipped(lengths: Vector, limit: float) -> Vector:
    """By what each length is to be multiplied so that none is over `limit`."""
    if not limit > 0:
        return np.where(lengths > 0, 0.0, 1.0)
    factors: Vector = np.minimum(1.0, limit / np.maximum(lengths, limit))
    return factors
