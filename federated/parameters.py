"""What a model is to the training layer: named arrays, their schema, and arithmetic in fixed order.

Everything here gives the same bits on every processor: sums run elementwise in float64, one operand
after the other. `numpy.sum` and `numpy.dot` choose their order by the processor at hand, so they
stay out of whatever ends in a digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.errors import AggregationError

Array = NDArray[Any]
Parameters = dict[str, Array]

AGGREGATOR = "atcp.aggregator/"  # how the names of arrays begin that the aggregator keeps in the model
EXACT_INTEGER = 1 << 53  # float64 holds every integer up to here, IEEE 754


@dataclass(frozen=True, slots=True, order=True)
class TensorSpec:
    """Name, dtype (numpy's name, `float32`) and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"


Schema = tuple[TensorSpec, ...]


def schema_of(parameters: Mapping[str, Array]) -> Schema:
    """The specs of all tensors, sorted by name."""
    return tuple(
        TensorSpec(name, array.dtype.name, tuple(array.shape)) for name, array in sorted(parameters.items())
    )


def schema_difference(found: Schema, expected: Schema) -> str | None:
    """The first difference in words, None when there is none."""
    here = {spec.name: spec for spec in found}
    there = {spec.name: spec for spec in expected}
    for spec in expected:
        other = here.get(spec.name)
        if other is None:
            return f"tensor {spec} is missing"
        if other != spec:
            return f"tensor {other} should be {spec}"
    unknown = next((spec for spec in found if spec.name not in there), None)
    return None if unknown is None else f"tensor {unknown} is not part of the model"


def split(model: Mapping[str, Array]) -> tuple[Parameters, Parameters]:
    """(what the trainer knows of a model, what the aggregator keeps in it), by their names."""
    trained = {name: array for name, array in model.items() if not name.startswith(AGGREGATOR)}
    return trained, {name: array for name, array in model.items() if name not in trained}


def non_finite(parameters: Mapping[str, Array]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, None when all are finite."""
    return next((name for name, array in sorted(parameters.items()) if not np.isfinite(array).all()), None)


def difference(new: Mapping[str, Array], base: Mapping[str, Array]) -> Parameters:
    """`new` minus `base`, in the dtypes of `base`: what travels as an update."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused by validation
        return {name: (new[name] - base[name]).astype(base[name].dtype) for name in sorted(base)}


def l2_norm(parameters: Mapping[str, Array]) -> float:
    """The Euclidean norm over all tensors together; infinite when it is beyond float64."""
    total = 0.0
    with np.errstate(over="ignore"):
        for _, array in sorted(parameters.items()):
            values = array.astype(np.float64).ravel()
            if values.size:
                total += float(np.cumsum(values * values)[-1])  # a running sum has one order only
    return float(np.sqrt(total))


def weighted_mean(items: Sequence[tuple[Mapping[str, Array], float]]) -> dict[str, NDArray[np.float64]]:
    """The mean of the arrays by weight, in float64, summed in the order given.

    Raises `AggregationError` when the weights do not add up to something above zero.
    """
    total = 0.0
    for _, weight in items:
        total += weight
    if not total > 0:
        raise AggregationError("there is nothing to average: no update has weight")
    mean: dict[str, NDArray[np.float64]] = {}
    for name, first in sorted(items[0][0].items()):
        result = np.zeros(first.shape, np.float64)
        for arrays, weight in items:
            result += (weight / total) * arrays[name].astype(np.float64)
        mean[name] = result
    return mean


def add_step(base: Mapping[str, Array], step: Mapping[str, NDArray[np.float64]]) -> Parameters:
    """`base` plus a float64 step, in the dtypes of `base`; integers are rounded to even.

    Raises `AggregationError` when a result does not fit its dtype.
    """
    result = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in sorted(base.items()):
            total = array.astype(np.float64) + step[name]
            result[name] = cast(name, total, array.dtype)
    return result


def cast(name: str, values: NDArray[np.float64], dtype: np.dtype[Any]) -> Array:
    """float64 values of the array `name` in its dtype, integers rounded to even.

    Raises `AggregationError` when they do not fit.
    """
    array = np.empty(values.shape, dtype)
    cast_into(name, values, array)
    return array


def cast_into(name: str, values: NDArray[np.float64], array: Array) -> None:
    """`cast` to the dtype of `array`, which has the values then."""
    dtype = array.dtype
    if dtype.kind == "f":
        np.copyto(array, values, casting="same_kind")
        fits = bool(np.isfinite(array).all())
    else:
        limits = np.iinfo(dtype)
        low, high = max(limits.min, -EXACT_INTEGER), min(limits.max, EXACT_INTEGER)
        rounded = np.rint(values)
        fits = bool(((rounded >= low) & (rounded <= high)).all())
        np.copyto(array, rounded, casting="unsafe")
    if not fits:
        raise AggregationError(f"the aggregate of {name} does not fit {dtype.name}")
