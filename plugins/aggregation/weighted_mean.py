"""Federated averaging: the mean of the updates by example count, with the counts capped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from federated.parameters import Parameters, add_step, weighted_mean
from federated.plugin import ModelUpdate, checked_settings


class WeightedMean:
    """The base plus the weighted mean of the deltas.

    A peer's example count is its own word, so no count weighs more than `max_weight` times the
    median of the round. Source: McMahan et al. 2017, Algorithm 1.
    """

    kind = "aggregator"

    @checked_settings
    def __init__(self, *, max_weight: Annotated[float, Field(ge=1)] = 3.0) -> None:
        self.max_weight = max_weight

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> Parameters:
        """The next model. Raises `AggregationError` without updates or when one does not fit."""
        weights = capped_weights([update.examples for update in updates], self.max_weight)
        deltas = [update.delta for update in updates]
        return add_step(base, weighted_mean(list(zip(deltas, weights, strict=True))))


def capped_weights(counts: Sequence[int], max_weight: float) -> list[float]:
    """The self-declared counts as weights, none above `max_weight` times their median.

    Of an even number of counts the lower middle one is the median, so that one of two peers cannot
    lift its own limit.
    """
    if not counts:
        return []
    limit = max_weight * sorted(counts)[(len(counts) - 1) // 2]
    return [min(float(count), limit) for count in counts]
