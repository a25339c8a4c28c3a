"""Data that are made by Python code: what the author of a plugin writes, in a package of its own.

Code never comes with a manifest, so whoever has a torch `Dataset`, a data base or an instrument wraps it in a
preprocessor, and every member of the task installs it:

    Weather = from_callable(lambda context: (features, labels))        # weather = my_package:Weather

    class Birds:
        kind = "preprocessor"

        def load(self, context):
            return from_torch(BirdSounds("~/birds"), context)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from federated.errors import DataError
from federated.parameters import Array
from federated.plugin import Dataset, PeerContext, checked_settings
from plugins.preprocessing.pipeline import Transforms
from plugins.preprocessing.source import HOLDOUT, Share, Steps, prepared
from plugins.preprocessing.table import MAX_BYTES, Table, make_table, split, targets

Reader = Callable[[PeerContext], tuple[ArrayLike, ArrayLike | None]]


def from_arrays(
    x: ArrayLike,
    y: ArrayLike | None,
    context: PeerContext,
    *,
    holdout: float = HOLDOUT,
    transforms: Steps = (),
) -> Dataset:
    """A data set of features (one row an example) and labels; a share `holdout` of it is held out.

    Labels of integers become int64 classes, of floats float32 targets. Raises `DataError`, `PluginError`.
    """
    train, held = split(_table(np.asarray(x), None if y is None else np.asarray(y)), holdout)
    return prepared(train, held, Transforms(transforms), context)


def from_torch(
    dataset: Any, context: PeerContext, *, holdout: float = HOLDOUT, transforms: Steps = ()
) -> Dataset:
    """A data set of all (features, label) pairs of a torch `Dataset` that knows its length.

    Features may be tensors, arrays or images. Raises `DataError`, `PluginError`.
    """
    try:
        count = len(dataset)
    except TypeError as exc:
        raise DataError(f"{type(dataset).__name__} does not know its length: it cannot be split") from exc
    features: list[Array] = []
    labels: list[Any] = []
    size = 0
    for number in range(count):
        x, y = _pair(dataset, number)
        if features and x.shape != features[0].shape:
            raise DataError(
                f"example {number + 1} has the shape {x.shape}, those before it {features[0].shape}"
            )
        size += x.nbytes
        if size > MAX_BYTES:
            raise DataError(f"example {number + 1}: the examples are over the limit of {MAX_BYTES} bytes")
        features.append(x)
        labels.append(y)
    if not features:
        raise DataError(f"{type(dataset).__name__} has no examples")
    return from_arrays(np.stack(features), np.array(labels), context, holdout=holdout, transforms=transforms)


def from_callable(read: Reader) -> type:
    """A preprocessor class around a function that returns (x, y), or (x, None) without labels.

    Its settings are those of `from_arrays`: `holdout` and `transforms`.
    """

    class FromCallable:
        """The preprocessor."""

        kind = "preprocessor"

        @checked_settings
        def __init__(self, *, holdout: Share = HOLDOUT, transforms: Steps = ()) -> None:
            self.holdout = holdout
            self.transforms = transforms
            Transforms(transforms)  # what is wrong with them is said before any data are read

        def load(self, context: PeerContext) -> Dataset:
            """What the function makes. Raises `DataError`."""
            x, y = read(context)
            return from_arrays(x, y, context, holdout=self.holdout, transforms=self.transforms)

    return FromCallable


def _table(x: Array, y: Array | None) -> Table:
    if x.dtype.kind not in "fiub" or x.ndim < 1:
        raise DataError(f"features of {x.dtype.name} and shape {x.shape} are no rows of numbers")
    columns = {"x": x if x.dtype.kind == "f" else x.astype(np.float32)}
    if y is None:
        return make_table(columns, None, "the data")
    if y.ndim != 1 or y.dtype.kind not in "fiub":
        raise DataError(f"labels of {y.dtype.name} and shape {y.shape} are not one number for each example")
    if y.dtype.kind != "f":
        return make_table(columns, y.astype(np.int64), "the data")
    table = make_table(columns, y, "the data")
    return replace(table, labels=targets(table, "y", y))


def _pair(dataset: Any, number: int) -> tuple[Array, Any]:
    """One example; a tensor of torch is an array by its own word."""
    example = dataset[number]
    if not isinstance(example, Sequence) or len(example) != 2:
        raise DataError(f"example {number + 1} is no pair of features and label")
    x, y = (np.asarray(part) for part in example)
    if x.dtype.kind not in "fiub" or y.ndim:
        raise DataError(f"example {number + 1} is no pair of numbers and one label")
    return x, y[()]
