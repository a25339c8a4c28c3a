"""FLAME: the majority that points in one direction, clipped to the median length."""

from __future__ import annotations

import numpy as np

from plugins.aggregation.blocks import Matrix, Plan
from plugins.aggregation.centered_clipping import clipped
from plugins.aggregation.points import Points, lower_median, total
from plugins.aggregation.rule import Rule


class Flame(Rule):
    """The mean of the largest group of deltas that point in one direction, clipped to the median length of
    all.

    Withstands f liars when n ≥ 2f + 1 and the honest point more nearly the same way than the liars; so not
    on very unlike data. The group is the first with more than half of the updates when the most similar are
    joined first, which is what HDBSCAN finds under FLAME's settings (at least n/2 + 1 in a cluster, one
    neighbour). No noise is added: that hides backdoors and is for the training, where each peer can draw
    its own. A late update weighs less, example counts are not looked at. Source: Nguyen et al. 2022,
    "FLAME: Taming Backdoors in Federated Learning", Algorithm 1.
    """

    def plan(self, points: Points) -> Plan:
        """The mean of the clipped deltas of the group."""
        weights = np.zeros(len(points))
        group = _majority(_cosine_distances(points))
        weights[group] = points.freshness[group]
        kept = clipped(points.norms, lower_median(points.norms))
        return points.sum(weights / total(weights) * kept)


def _cosine_distances(points: Points) -> Matrix:
    """1 - cosine of each pair; an update of zeros has no direction and is at distance 1."""
    lengths = np.where(points.norms > 0, points.norms, 1.0)
    distances: Matrix = 1 - points.inner / lengths[:, np.newaxis] / lengths
    return distances


def _majority(distances: Matrix) -> list[int]:
    """The first group of more than half of the points when the nearest pairs are joined first."""
    count = len(distances)
    labels = np.arange(count)
    pairs = [(distances[one, other], one, other) for one in range(count) for other in range(one + 1, count)]
    for _, one, other in sorted(pairs):
        if labels[one] != labels[other]:
            labels[labels == labels[other]] = labels[one]
            group = np.flatnonzero(labels == labels[one])
            if len(group) > count // 2:
                return group.tolist()
    return [0]  # of a single update
