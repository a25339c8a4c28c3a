"""Each matrix as the product of two thin ones.

A matrix M of n rows and m columns becomes P (n × rank) and Q (m × rank) with M ≈ P Qᵀ, by one step of power
iteration that begins with the Q of the round before: over the rounds it finds the directions in which the
updates go. Every member has factors of its own, and the aggregator averages their products.

Making the factors may use whatever the processor has. Decoding may not: it adds the products of the columns,
one after the other, element by element in float64, and is the same on every machine and with any number of
threads.
Source: Vogels et al. 2019, "PowerSGD: practical low-rank gradient compression for distributed optimization",
algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated.errors import CodecError
from federated.parameters import Parameters, TensorSpec
from federated.plugin import checked_settings
from plugins.compression.flat import SMALL, FlatCompressor, Layout, Small
from plugins.compression.levels import Bytes, Levels, Values

FACTORS = Levels(16, 64)  # half of float32, and no worse: what rounding leaves out is fed back
KEPT = "factors"  # of the state: every Q, one after the other

Matrix = NDArray[np.float64]
Rank = Annotated[int, Field(ge=1, le=64)]


class PowerSGD(FlatCompressor):
    """Matrices as products of rank `rank`; vectors, and what would get no smaller, travel as they are.

    A tensor of more dimensions is a matrix of its first one and all others.
    """

    @checked_settings
    def __init__(self, *, rank: Rank = 2, small: Small = SMALL, feedback: bool = True) -> None:
        super().__init__(small, feedback)
        self.rank = rank

    def _packs(self, spec: TensorSpec) -> bool:
        if len(spec.shape) < 2 or not super()._packs(spec):
            return False
        rows, columns = _sides(spec)
        return self._rank(spec) * (rows + columns) < rows * columns

    def _rank(self, spec: TensorSpec) -> int:
        return min(self.rank, *_sides(spec))

    def _count(self, layout: Layout) -> int:
        """How many numbers the factors have."""
        return sum(self._rank(spec) * sum(_sides(spec)) for spec in layout.packed)

    def _size(self, layout: Layout) -> int:
        return FACTORS.size(self._count(layout))

    def _pack(self, values: Values, layout: Layout, state: Parameters, seed: int) -> tuple[Bytes, Parameters]:
        generator = np.random.Generator(np.random.PCG64(seed))
        kept = state.get(KEPT)
        factors, next_kept, start = [], [], 0
        for spec, part in layout.parts(values):
            (rows, columns), rank = _sides(spec), self._rank(spec)
            matrix = part.reshape(rows, columns).astype(np.float64)
            if kept is None:
                q = generator.standard_normal((columns, rank))
            else:
                q = kept[start : start + columns * rank].reshape(columns, rank).astype(np.float64)
                start += columns * rank
            p = np.linalg.qr(matrix @ q)[0]  # orthonormal, also where the product is 0
            q = matrix.T @ p
            factors += [p.reshape(-1), q.reshape(-1)]
            next_kept.append(q.reshape(-1))
        packed = FACTORS.pack(np.concatenate(factors).astype(np.float32))
        return packed, {KEPT: np.concatenate(next_kept).astype(np.float32)}

    def _unpack(self, packed: Bytes, layout: Layout) -> Values:
        factors = self._factors(FACTORS.unpack(packed, self._count(layout)), layout)
        values = np.empty(layout.count, np.float32)
        for (spec, part), (p, q) in zip(layout.parts(values), factors, strict=True):
            product = np.zeros(_sides(spec))
            for column in range(p.shape[1]):
                product += p[:, column, np.newaxis] * q[:, column]
            with np.errstate(over="ignore"):
                part[...] = product.reshape(spec.shape)
            if not np.isfinite(part).all():
                raise CodecError("scale", f"the factors of {spec.name} are too large")
        return values

    def _factors(self, numbers: Values, layout: Layout) -> Iterator[tuple[Matrix, Matrix]]:
        """(P, Q) of each matrix."""
        wide, start = numbers.astype(np.float64), 0
        for spec in layout.packed:
            rank, pair = self._rank(spec), []
            for side in _sides(spec):
                stop = start + side * rank
                pair.append(wide[start:stop].reshape(side, rank))
                start = stop
            yield pair[0], pair[1]


def _sides(spec: TensorSpec) -> tuple[int, int]:
    """(rows, columns) of a tensor as a matrix."""
    return spec.shape[0], math.prod(spec.shape[1:])
