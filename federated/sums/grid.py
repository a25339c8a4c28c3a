"""Updates as elements of the field, and sums of them back as means.

    delta ─→ each value to [−range, range] ─→ an integer of at most ± `steps` ─→ modulo the prime

`steps` is as large as it can be with sums of all members still below half of the prime: 26 bits beside the
sign with 15 members, 24 with 64. So a mean is known to `range / steps`, and no honest one is outside of the
range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from federated.parameters import Array, Parameters, Schema, cast
from federated.sums.field import PRIME, Elements


class Grid:
    """How updates of `schema` in a task of up to `members` become integers; `reach` is the range."""

    def __init__(self, schema: Schema, members: int, reach: float) -> None:
        self.schema = schema
        self.size = sum(math.prod(spec.shape) for spec in schema)  # values of an update
        self.steps = (PRIME - 1) // 2 // members
        self.reach = reach

    def elements(self, delta: Mapping[str, Array]) -> Elements:
        """The update as elements; what is beyond the range is put at its end. All values are finite."""
        flat = [delta[spec.name].astype(np.float64).reshape(-1) for spec in self.schema]
        values = np.concatenate(flat) if flat else np.empty(0)
        steps = np.rint(np.clip(values / self.reach, -1.0, 1.0) * self.steps).astype(np.int64)
        return (steps % PRIME).astype(np.uint32)

    def mean(self, total: Elements, count: int) -> Parameters:
        """The mean of the `count` updates whose sum is `total`, in the dtypes of the schema.

        Only a cheat brings it out of the range; it is put at its end then. Raises `AggregationError` for a
        range that does not fit a dtype.
        """
        signed = total.astype(np.int64)
        signed -= PRIME * (signed > PRIME // 2)
        values = np.clip(signed.astype(np.float64) / (count * self.steps), -1.0, 1.0) * self.reach
        return self._shaped(values)

    def _shaped(self, values: NDArray[np.float64]) -> Parameters:
        result, start = {}, 0
        for spec in self.schema:
            end = start + math.prod(spec.shape)
            result[spec.name] = cast(spec.name, values[start:end].reshape(spec.shape), np.dtype(spec.dtype))
            start = end
        return result
