"""All inner products of the updates' deltas, to the same bits on every machine.

What is measured is the geometry of the deltas as `exact.round_segments` rounds them, by segments of 2048
coordinates. Equal deltas are rounded alike, and their distance is exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from federated.errors import AggregationError
from federated.parameters import Array
from plugins.aggregation.blocks import Matrix, Vector
from plugins.aggregation.exact import SEGMENT, round_segments

BLOCK = 1 << 19  # values rounded at a time, 4 MiB of float64


def gram(deltas: Sequence[Mapping[str, Array]]) -> Matrix:
    """The matrix of inner products, float64; the order of the rows is that of `deltas`.

    Raises `AggregationError` for a value that is not finite, or beyond 2^480.
    """
    count = len(deltas)
    total = np.zeros((count, count))
    segments = max(1, BLOCK // (SEGMENT * count))
    values = np.empty((count, segments, SEGMENT))
    for name in sorted(deltas[0]) if deltas else ():
        columns = [delta[name].reshape(-1) for delta in deltas]
        for start in range(0, columns[0].size, segments * SEGMENT):
            used = -(-min(columns[0].size - start, segments * SEGMENT) // SEGMENT)
            block = values[:, :used]
            for row, column in zip(block, columns, strict=True):
                _fill(row.reshape(-1), column[start : start + row.size])
            if not round_segments(block):
                raise AggregationError(
                    f"an update of {name} is not finite, or far too large: "
                    "have a validator refuse it, such as update-check"
                )
            segment_first = block.transpose(1, 0, 2)
            for product in np.matmul(segment_first, segment_first.transpose(0, 2, 1)):
                total += product
    return total


def _fill(row: Vector, column: Array) -> None:
    row[: column.size] = column
    row[column.size :] = 0.0
