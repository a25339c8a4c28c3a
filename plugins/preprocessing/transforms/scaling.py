"""Numbers brought to one scale: standardise (mean 0, deviation 1) and normalise (0 to 1).

Each feature, that is each place in the rows of a column, has a scale of its own. It is fitted to this peer's
own data, or stands in the manifest and is the same at all peers; nothing is shared unless the task says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated import codec
from federated.errors import CodecError, DataError, PluginError
from federated.parameters import Array, TensorSpec
from federated.plugin import PeerContext, checked_settings
from plugins.preprocessing.files import check_size, data_path, reading
from plugins.preprocessing.table import Table, is_text
from plugins.preprocessing.transforms.base import Columns, Fitted, FittedTransform

MAX_WIDTH = 1 << 20  # features of one example
MEAN, VARIANCE = "mean", "variance"  # the tensors of `plugins.training.moments`

Scale = NDArray[np.float64]
_Numbers = Annotated[Sequence[float], Field(max_length=MAX_WIDTH)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Standardise(FittedTransform):
    """Less the mean, and divided by the standard deviation (by 1 where that is 0).

    `mean` and `std` are given for the features of all `columns` side by side, or are read from `file`: the
    model that a task with the trainer `moments` certified, whose digest is `digest`. Otherwise they are this
    peer's own.
    """

    @checked_settings
    def __init__(
        self,
        *,
        columns: Columns | None = None,
        mean: _Numbers | None = None,
        std: Annotated[Sequence[Annotated[float, Field(gt=0)]], Field(max_length=MAX_WIDTH)] | None = None,
        file: str | None = None,
        digest: _Digest | None = None,
    ) -> None:
        if (mean is None) != (std is None):
            raise PluginError("mean and std go together")
        if mean is not None and std is not None and len(mean) != len(std):
            raise PluginError(f"mean has {len(mean)} numbers and std {len(std)}")
        if (file is None) != (digest is None):
            raise PluginError("file and digest go together: all peers need the same statistics")
        if mean is not None and file is not None:
            raise PluginError("give either mean and std, or file and digest")
        self.columns = columns
        self.given = None if mean is None else (np.array(mean, np.float64), np.array(std, np.float64))
        self.file = file
        self.digest = digest

    def run(self, train: Table, holdout: Table | None, context: PeerContext) -> tuple[Table, Table | None]:
        """As `Transform.run`; a file is looked for at this peer."""
        if self.file is not None and self.digest is not None:
            width = sum(_width(column) for column in numeric(train, self.columns).values())
            self.given = read_moments(data_path(context, self.file), self.digest, width)
        return super().run(train, holdout, context)

    def fit(self, train: Table) -> Fitted:
        """As `FittedTransform.fit`."""
        columns = numeric(train, self.columns)
        if self.given is not None:
            return _scaler(columns, given(train, columns, *self.given))
        return _scaler(columns, {name: _moments(column) for name, column in columns.items()})


class Normalise(FittedTransform):
    """Brought from `low`…`high` to 0…1; without them from this peer's own least and largest values."""

    @checked_settings
    def __init__(
        self, *, columns: Columns | None = None, low: float | None = None, high: float | None = None
    ) -> None:
        if (low is None) != (high is None):
            raise PluginError("low and high go together")
        if low is not None and high is not None and low >= high:
            raise PluginError(f"low is {low} and high {high}: there is nothing between them")
        self.columns = columns
        self.given = None if low is None or high is None else (low, high - low)

    def fit(self, train: Table) -> Fitted:
        """As `FittedTransform.fit`."""
        columns = numeric(train, self.columns)
        if self.given is not None:
            low, span = (np.float64(value) for value in self.given)
            return _scaler(columns, {name: (np.asarray(low), np.asarray(span)) for name in columns})
        return _scaler(columns, {name: _range(column) for name, column in columns.items()})


def numeric(table: Table, names: Sequence[str] | None) -> dict[str, Array]:
    """The columns that are named, or all that hold numbers. Raises `DataError` for text, and for nothing."""
    columns = table.select(names)
    for name, column in columns.items():
        if is_text(column):
            raise DataError(f"{table.source}: column {name!r} is text, which has no scale: encode it first")
    if not columns:
        raise DataError(f"{table.source}: there is no column of numbers")
    return columns


def given(
    table: Table, columns: dict[str, Array], first: Scale, second: Scale
) -> dict[str, tuple[Scale, Scale]]:
    """Two rows of statistics, cut into those of each column. Raises `DataError` when they do not fit."""
    width = sum(_width(column) for column in columns.values())
    if len(first) != width:
        raise DataError(f"{table.source}: statistics of {len(first)} features do not fit {width} of them")
    found, start = {}, 0
    for name, column in columns.items():
        end = start + _width(column)
        shape = column.shape[1:]
        found[name] = first[start:end].reshape(shape), second[start:end].reshape(shape)
        start = end
    return found


def read_moments(path: Path, digest: str, width: int) -> tuple[Scale, Scale]:
    """Mean and deviation of `width` features from a certified model of `moments`. Raises `DataError`."""
    schema = tuple(TensorSpec(name, "float64", (width,)) for name in (MEAN, VARIANCE))
    limit = codec.encoded_size(schema)
    check_size(path, max(limit, codec.MAX_HEADER))
    with reading(path):
        data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise DataError(
            f"{path} has the digest {found[:16]}…, not {digest[:16]}…: it is not what the task names"
        )
    try:
        moments = codec.decode(data, schema, limit)
    except CodecError as exc:
        raise DataError(f"{path} does not have mean and variance of {width} features: {exc}") from exc
    mean, variance = moments[MEAN], moments[VARIANCE]
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise DataError(f"{path}: not all of the statistics are finite")
    return mean, _deviation(variance)


def _scaler(columns: dict[str, Array], scales: dict[str, tuple[Scale, Scale]]) -> Fitted:
    def apply(table: Table) -> Table:
        changed = {}
        for name in columns:
            column, (shift, span) = table.columns[name], scales[name]
            kind = column.dtype if column.dtype.kind == "f" else np.dtype(np.float64)
            changed[name] = ((column - shift) / span).astype(kind)
        return table.replaced(changed)

    return apply


def _moments(column: Array) -> tuple[Scale, Scale]:
    """Mean and deviation of each feature, of the values that are not missing."""
    values = column.astype(np.float64)
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / count
    return mean, _deviation(np.where(known, (values - mean) ** 2, 0).sum(axis=0) / count)


def _deviation(variance: Scale) -> Scale:
    return np.sqrt(np.where(variance > 0, variance, 1.0))


def _range(column: Array) -> tuple[Scale, Scale]:
    """The least value of each feature, and how far the largest is from it."""
    values = column.astype(np.float64)
    known = ~np.isnan(values)
    low = np.where(known, values, np.inf).min(axis=0)
    high = np.where(known, values, -np.inf).max(axis=0)
    varied = high > low  # neither where there is one value only, nor where there is none
    return np.where(np.isfinite(low), low, 0.0), np.subtract(high, low, out=np.ones_like(low), where=varied)


def _width(column: Array) -> int:
    return int(np.prod(column.shape[1:], dtype=np.int64))
