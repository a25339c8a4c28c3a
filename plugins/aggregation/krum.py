"""Krum and Multi-Krum: updates that have many others near them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.errors import AggregationError
from federated.plugin import checked_settings
from plugins.aggregation.blocks import Matrix, Plan
from plugins.aggregation.points import Points, require, total
from plugins.aggregation.rule import Liars, Rule


class Krum(Rule):
    """The base plus the one delta whose n - f - 2 nearest others are nearest.

    Withstands f liars when n ≥ 2f + 3. Example counts are not looked at. Source: Blanchard et al. 2017,
    "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", section 4.
    """

    @checked_settings
    def __init__(self, *, f: Liars) -> None:
        self.f = f

    def plan(self, points: Points) -> Plan:
        """The best one alone."""
        require("krum", self.f, 2 * self.f + 3, points)
        best = by_score(points.distances, range(len(points)), self.f)[0]
        return points.sum(np.eye(len(points))[best])


class MultiKrum(Rule):
    """The base plus the mean of the `select` deltas with the best scores of Krum; n - f of them by default.

    Withstands f liars when n ≥ 2f + 3; a late update weighs less, example counts are not looked at.
    Source: Blanchard et al. 2017, section 5.
    """

    @checked_settings
    def __init__(self, *, f: Liars, select: Annotated[int, Field(ge=1)] | None = None) -> None:
        self.f = f
        self.select = select

    def plan(self, points: Points) -> Plan:
        """The mean of the best ones."""
        count = len(points)
        require("multi-krum", self.f, 2 * self.f + 3, points)
        select = count - self.f if self.select is None else self.select
        if select > count - self.f:
            raise AggregationError(
                f"multi-krum selects {select} of {count} updates, {self.f} of them liars: lower select"
            )
        weights = np.zeros(count)
        chosen = by_score(points.distances, range(count), self.f)[:select]
        weights[chosen] = points.freshness[chosen]
        return points.mean(weights)


def by_score(distances: Matrix, among: Sequence[int], f: int) -> list[int]:
    """The points `among`, best first: by the sum of the squared distances to the n - f - 2 nearest others.

    Of points with the same score the first is the best. At least one neighbour counts, for `Bulyan`, which
    also ranks the few that remain.
    """
    if len(among) == 1:
        return list(among)
    neighbours = max(1, len(among) - f - 2)
    near = np.sort(distances[np.ix_(among, among)] + np.diag(np.full(len(among), np.inf)), axis=1)
    scores = total(near[:, :neighbours].T)
    return [among[place] for place in np.argsort(scores, kind="stable").tolist()]
