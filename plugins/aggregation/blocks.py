"""Aggregation block by block: what a rule decided, carried out over all coordinates in one pass.

A rule looks at the updates as a whole and hands over a `Plan`; here the deltas are read once, in blocks
that stay in the processor's cache, so that besides the next model only a few MiB are needed. Sums run
elementwise in float64, one operand after the other: the same bits on every processor, whatever the number
of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.errors import AggregationError
from federated.parameters import Array, Parameters, cast_into

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Reduce = Callable[[NDArray[Any]], Vector]

BLOCK = 1 << 18  # values at a time, 2 MiB of float64: what costs most is to begin to read the next update
LEAST_BLOCK = 1 << 10  # coordinates; with fewer the calls would cost more than the work


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the deltas, at every coordinate alike.

    `mixture` has one row of coefficients, one for each update, for every vector that is made of them;
    `reduce` makes one vector of those (vectors × coordinates, in their own dtype, which it may overwrite).
    Without it there is one vector, and that is the step.
    """

    mixture: Matrix
    reduce: Reduce | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """How far coordinates `start` to `stop` of a flattened array are to move; `values` may be overwritten."""

    name: str
    start: int
    stop: int
    values: Vector


def steps(base: Parameters, deltas: Sequence[Mapping[str, Array]], plan: Plan) -> Iterator[Step]:
    """The steps of a plan, the arrays by name and each from its first coordinate to its last.

    The values of a step are good until the next one is asked for.
    """
    rows = len(plan.mixture)
    size = BLOCK if plan.reduce is None else max(LEAST_BLOCK, BLOCK // rows)
    spare, total = np.empty((2, size))  # 4 MiB: from there on numpy asks for pages of 2 MiB
    for name in sorted(base):
        columns = [delta[name].reshape(-1) for delta in deltas]
        count = base[name].size
        if any(column.size != count for column in columns):
            raise AggregationError(f"an update of {name} has another size than the model")
        for start in range(0, count, size):
            stop = min(start + size, count)
            blocks = [column[start:stop] for column in columns]
            if plan.reduce is None:
                values = _mix(plan.mixture[0], blocks, total[: stop - start], spare[: stop - start])
            else:
                values = plan.reduce(_vectors(plan.mixture, blocks, spare[: stop - start]))
            values += 0.0  # makes -0.0 to 0.0: which of the two a minimum is differs between processors
            yield Step(name, start, stop, values)


def advance(base: Parameters, moves: Iterable[Step]) -> Parameters:
    """`base` plus all steps, in its dtypes. Raises `AggregationError` when a result does not fit."""
    flat = {name: base[name].reshape(-1) for name in sorted(base)}
    result = {name: np.empty(array.size, array.dtype) for name, array in flat.items()}
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it does not fit
        for step in moves:
            here = slice(step.start, step.stop)
            values = step.values
            values += flat[step.name][here]
            cast_into(step.name, values, result[step.name][here])
    return {name: array.reshape(base[name].shape) for name, array in result.items()}


def _mix(coefficients: Vector, blocks: Sequence[Array], total: Vector, spare: Vector) -> Vector:
    """The sum of the blocks by their coefficients, in `total`; an update with none is not read."""
    used = [(by, block) for by, block in zip(coefficients.tolist(), blocks, strict=True) if by]
    if not used:
        total.fill(0.0)
    for number, (by, block) in enumerate(used):
        part = spare if number else total
        np.copyto(part, block)
        if by != 1:
            np.multiply(part, by, out=part)
        if number:
            np.add(total, part, out=total)
    return total


def _vectors(mixture: Matrix, blocks: Sequence[Array], spare: Vector) -> NDArray[Any]:
    """The mixtures of a block, one a row; in the dtype of the blocks when each is an update as it is."""
    picked = [_picked(row) for row in mixture]
    if all(index is not None for index in picked):
        return np.stack([blocks[index] for index in picked if index is not None])
    vectors = np.empty((len(mixture), len(spare)))
    for row, vector in zip(mixture, vectors, strict=True):
        _mix(row, blocks, vector, spare)
    return vectors


def _picked(row: Vector) -> int | None:
    """The one update that this mixture is, None when it is made of several or of a part."""
    used = np.flatnonzero(row)
    return int(used[0]) if len(used) == 1 and row[used[0]] == 1 else None
