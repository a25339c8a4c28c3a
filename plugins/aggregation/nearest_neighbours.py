"""Nearest-neighbour mixing: unlike data becomes more alike before a rule compares it."""

from __future__ import annotations

import numpy as np

from federated.plugin import checked_settings
from plugins.aggregation.points import Points, require
from plugins.aggregation.rule import Liars


class NearestNeighbours:
    """Replaces each delta by the mean of its n - f nearest ones, itself among them.

    Withstands f liars, with a rule behind it that does, when n ≥ 2f + 1. Source: Allouah et al. 2023,
    "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", Algorithm 2.
    """

    @checked_settings
    def __init__(self, *, f: Liars) -> None:
        self.f = f

    def prepare(self, points: Points) -> Points:
        """As many points, each a mean of n - f; of neighbours at one distance the first ones."""
        require("nnm", self.f, 2 * self.f + 1, points)
        count = len(points)
        matrix = np.zeros((count, count))
        for row, distances in zip(matrix, points.distances, strict=True):
            row[np.argsort(distances, kind="stable")[: count - self.f]] = 1 / (count - self.f)
        return points.mixed(matrix)
