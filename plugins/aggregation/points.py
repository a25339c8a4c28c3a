"""The updates as a rule sees them: points in space, with the inner products between them.

Whatever comes before a rule (clipping, mixing, bucketing) makes new points that are mixtures of the
updates. Nothing of the size of a model is computed for that: a point is its row of coefficients, and the
inner products of the new points follow from those of the updates. Only the plan at the end reads the deltas
again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.errors import AggregationError
from federated.parameters import Parameters
from federated.plugin import ModelUpdate
from plugins.aggregation.blocks import Matrix, Plan, Vector
from plugins.aggregation.gram import gram


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points in the order of the updates' roots, which is what ties are broken by.

    `mixture` has the coefficients of each point (points × updates). `weights` are the updates' own words
    for their examples, `freshness` is 1 / sqrt(1 + staleness); a mixture has the mean of those of its
    parts.
    """

    base: Parameters
    updates: tuple[ModelUpdate, ...]
    mixture: Matrix
    weights: Vector
    freshness: Vector

    @classmethod
    def of(cls, base: Parameters, updates: Sequence[ModelUpdate]) -> Points:
        """A point for each update of `base`. Raises `AggregationError` without any."""
        if not updates:
            raise AggregationError("there is nothing to average: no update is left")
        ordered = tuple(sorted(updates, key=lambda update: update.root))
        return cls(
            base=base,
            updates=ordered,
            mixture=np.eye(len(ordered)),
            weights=np.array([float(update.weight) for update in ordered]),
            freshness=np.array([1 / math.sqrt(1 + update.staleness) for update in ordered]),
        )

    def __len__(self) -> int:
        return len(self.mixture)

    @property
    def deltas(self) -> list[Parameters]:
        """Those of the updates, in their order."""
        return [update.delta for update in self.updates]

    @cached_property
    def inner(self) -> Matrix:
        """The inner products of the points. Raises `AggregationError` for what is not finite."""
        return product(product(self.mixture, self._gram), self.mixture.T)

    @cached_property
    def _gram(self) -> Matrix:
        return gram(self.deltas)

    @cached_property
    def norms(self) -> Vector:
        """The length of each point."""
        lengths: Vector = np.sqrt(np.maximum(np.diagonal(self.inner), 0.0))
        return lengths

    @cached_property
    def distances(self) -> Matrix:
        """The squared distances between the points."""
        squares = np.diagonal(self.inner)
        apart: Matrix = np.maximum(squares[:, np.newaxis] + squares - 2 * self.inner, 0.0)
        return apart

    def distances_to(self, coefficients: Vector) -> Vector:
        """The distance of each point to the mixture of them by `coefficients`."""
        along = product(self.inner, coefficients[:, np.newaxis])
        square = product(coefficients[np.newaxis], along)[0, 0]
        squares = np.diagonal(self.inner) - 2 * along[:, 0] + square
        lengths: Vector = np.sqrt(np.maximum(squares, 0.0))
        return lengths

    def mixed(self, shares: Matrix) -> Points:
        """A new point for each row of `shares`, which has the shares of the present ones in it; they add up
        to 1.
        """
        return self._made(
            mixture=product(shares, self.mixture),
            weights=product(shares, self.weights[:, np.newaxis])[:, 0],
            freshness=product(shares, self.freshness[:, np.newaxis])[:, 0],
        )

    def scaled(self, factors: Vector) -> Points:
        """The points, each multiplied by its factor."""
        return self._made(mixture=factors[:, np.newaxis] * self.mixture)

    def _made(self, **changes: Any) -> Points:
        made = replace(self, **changes)
        if "_gram" in self.__dict__:  # of the same updates: measured once
            made.__dict__["_gram"] = self._gram
        return made

    def mean(self, weights: Vector) -> Plan:
        """The plan of the mean of the points by weight. Raises `AggregationError` when none has any."""
        whole = float(total(weights))
        if not whole > 0:
            raise AggregationError("there is nothing to average: no update has weight")
        return self.sum(weights / whole)

    def sum(self, coefficients: Vector) -> Plan:
        """The plan of the sum of the points by their coefficients."""
        return Plan(product(coefficients[np.newaxis], self.mixture))


def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum over the first axis, one after the other: `numpy.sum` chooses its order by the processor."""
    return np.asarray(np.cumsum(values, axis=0)[-1])


def product(left: Matrix, right: Matrix) -> Matrix:
    """The matrix product, summed in the order of the inner axis; for matrices of a few updates."""
    result = np.zeros((len(left), right.shape[1]))
    for index, row in enumerate(right):
        result += left[:, index, np.newaxis] * row
    return result


def lower_median(values: Vector) -> float:
    """The middle value, the lower of two: half of the values or fewer, however large, cannot lift it."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def require(rule: str, f: int, least: int, points: Points) -> None:
    """Raises `AggregationError` with what to do unless there are `least` updates to withstand `f` liars."""
    if len(points) < least:
        raise AggregationError(
            f"{rule} with f = {f} needs {least} updates, there are {len(points)}: "
            "lower f, or raise min_updates so that fewer make no round"
        )
