"""Federated averaging: the mean of the updates by example count, with the counts capped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.plugin import checked_settings
from plugins.aggregation.blocks import Plan
from plugins.aggregation.points import Points
from plugins.aggregation.rule import Rule


class WeightedMean(Rule):
    """The base plus the weighted mean of the deltas.

    A peer's example count is its own word, so no count weighs more than `max_weight` times the
    median of the round. One liar is enough to move it anywhere. Source: McMahan et al. 2017, Algorithm 1.
    """

    @checked_settings
    def __init__(self, *, max_weight: Annotated[float, Field(ge=1)] = 3.0) -> None:
        self.max_weight = max_weight

    def plan(self, points: Points) -> Plan:
        """The mean by capped weights."""
        return points.mean(np.array(capped_weights(points.weights.tolist(), self.max_weight)))


def capped_weights(counts: Sequence[float], max_weight: float) -> list[float]:
    """The self-declared counts as weights, none above `max_weight` times their median.

    Of an even number of counts the lower middle one is the median, so that one of two peers cannot
    lift its own limit.
    """
    if not counts:
        return []
    limit = max_weight * sorted(counts)[(len(counts) - 1) // 2]
    return [min(float(count), limit) for count in counts]
