"""The coordinate-wise trimmed mean: forgets the largest and smallest values of every coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated.errors import AggregationError
from federated.parameters import Array, Parameters, add_step
from federated.plugin import ModelUpdate, checked_settings

CHUNK = 1 << 16  # coordinates sorted at a time; with 64 updates that is 32 MiB of float64
ROUNDING = 1e-9  # so that 0.29 of 100 updates is 29, though 0.29 * 100 is a little less in binary


class TrimmedMean:
    """The base plus, for every coordinate, the mean of what is left without both ends.

    A share `trim` of the updates is dropped at each end, so it withstands that share of liars, and
    example counts are not looked at. Source: Yin et al. 2018, "Byzantine-Robust Distributed Learning",
    Definition 2.
    """

    kind = "aggregator"

    @checked_settings
    def __init__(self, *, trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.2) -> None:
        self.trim = trim

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> Parameters:
        """The next model. Raises `AggregationError` without updates or when one does not fit."""
        if not updates:
            raise AggregationError("there is nothing to average: no update is left")
        drop = int(self.trim * len(updates) + ROUNDING)
        step = {name: _trimmed([update.delta[name] for update in updates], drop) for name in sorted(base)}
        return add_step(base, step)


def _trimmed(arrays: Sequence[Array], drop: int) -> NDArray[np.float64]:
    """The mean of each coordinate without its `drop` smallest and `drop` largest values."""
    columns = [array.ravel() for array in arrays]
    result = np.zeros(columns[0].size, np.float64)
    for start in range(0, result.size, CHUNK):
        rows = np.sort(np.array([column[start : start + CHUNK] for column in columns], np.float64), axis=0)
        total = result[start : start + CHUNK]
        for row in rows[drop : len(rows) - drop]:  # one after the other: the same bits everywhere
            total += row
    result /= len(arrays) - 2 * drop
    return result.reshape(arrays[0].shape)
