"""The data of one peer on their way from a source to a trainer: columns of equal length, and labels.

A source makes a `Table`, transforms make another one of it, `features` puts its columns together. A column
has one row an example, of numbers (of any shape, NaN where one is missing) or of text (`str` in an object
array, empty where it is missing). What is wrong is said with the place in the file it stands at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.errors import DataError
from federated.parameters import Array

MAX_BYTES = 1 << 32  # bytes of all arrays; a peer holds its data in memory
MAX_NAMED = 8  # columns that an error message lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns by name, in order, and int64 classes or float32 targets as `labels`.

    Row i is `unit` number `origin[i]` of the file `source`. `draws` are uniform numbers below 1 that stay the
    same for a row whatever comes after it; they choose what is held out. `ordered`: rows follow in time.
    """

    columns: Mapping[str, Array]
    labels: Array | None
    source: str
    origin: NDArray[np.int64]
    draws: NDArray[np.float64]
    unit: str = "row"
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.origin)

    def at(self, row: int) -> str:
        """Where a row stands, for a person."""
        return f"{self.source}, {self.unit} {self.origin[row]}"

    def take(self, rows: NDArray[Any]) -> Table:
        """The rows with these numbers, or where a mask is true."""
        return replace(
            self,
            columns={name: column[rows] for name, column in self.columns.items()},
            labels=None if self.labels is None else self.labels[rows],
            origin=self.origin[rows],
            draws=self.draws[rows],
        )

    def replaced(self, changes: Mapping[str, Array]) -> Table:
        """The same rows with some columns changed, each in its old place."""
        return replace(self, columns={**self.columns, **changes})

    def select(self, names: Sequence[str] | None) -> dict[str, Array]:
        """The columns with these names, or all that hold numbers. Raises `DataError`."""
        if names is None:
            return {name: column for name, column in self.columns.items() if not is_text(column)}
        for name in names:
            if name not in self.columns:
                raise DataError(f"{self.source}: there is no column {name!r}; {listing(self.columns)}")
        return {name: self.columns[name] for name in names}


def make_table(columns: Mapping[str, Array], labels: Array | None, source: str, **details: Any) -> Table:
    """A table whose rows are numbered from 1, and drawn by the name of their file wherever that lies.

    `details` are other fields of `Table`. Raises `DataError` when there are no rows or lengths differ.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if labels is not None:
        lengths["labels"] = len(labels)
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{count} of {name}" for name, count in lengths.items())
        raise DataError(f"{source}: the numbers of rows differ: {sizes}")
    count = next(iter(lengths.values()), 0)
    if not count:
        raise DataError(f"{source}: there are no examples in it")
    made = {"origin": np.arange(1, count + 1), "draws": draws(PurePath(source).name, count), **details}
    return Table(columns=columns, labels=labels, source=source, **made)


def draws(name: str, count: int) -> NDArray[np.float64]:
    """Uniform numbers of which the first stay the same when there are more."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(seed)).random(count)


def joined(tables: Sequence[Table]) -> Table:
    """Several tables of the same columns as one. Raises `DataError` when their shapes differ."""
    first = tables[0]
    shapes = {name: column.shape[1:] for name, column in first.columns.items()}
    for table in tables:
        for name, shape in shapes.items():
            if table.columns[name].shape[1:] != shape:
                found = table.columns[name].shape[1:]
                raise DataError(
                    f"{table.source}: {name} has rows of {found}, those of {first.source} {shape}"
                )
    labels = [table.labels for table in tables if table.labels is not None]
    return replace(
        first,
        columns={name: np.concatenate([table.columns[name] for table in tables]) for name in shapes},
        labels=np.concatenate(labels) if labels else None,
        origin=np.concatenate([table.origin for table in tables]),
        draws=np.concatenate([table.draws for table in tables]),
    )


def split(table: Table, share: float) -> tuple[Table, Table | None]:
    """What is trained on, and what is held out: about `share` of the rows, the newest where they are ordered.

    Raises `DataError` when nothing is left to train on.
    """
    if table.ordered:
        held = np.arange(len(table)) >= len(table) - int(share * len(table))
    else:
        held = table.draws < share
    if held.all():
        raise DataError(f"{table.source}: all of the {len(table)} examples are held out; have more of them")
    return table.take(~held), table.take(held) if held.any() else None


def features(table: Table) -> Array:
    """The columns side by side: float32 of shape (n, width); a single column keeps its own shape.

    A single column of integers (tokens) stays int64. Raises `DataError` for text, and for what is missing.
    """
    if not table.columns:
        raise DataError(f"{table.source}: no column is left to train on")
    converted = [_numbers(table, name, column) for name, column in table.columns.items()]
    if len(converted) == 1:
        [only] = converted
        return only if only.ndim > 1 else only.reshape(-1, 1)
    return np.concatenate([column.reshape(len(table), -1) for column in converted], axis=1, dtype=np.float32)


def _numbers(table: Table, name: str, column: Array) -> Array:
    if is_text(column):
        raise DataError(
            f"{table.source}: column {name!r} is text: encode it, make tokens of it, or do not list it"
        )
    if column.dtype.kind == "i":
        return column
    with np.errstate(over="ignore", invalid="ignore"):
        values = column.astype(np.float32)
    row = first_row(~np.isfinite(values))
    if row is not None:
        if np.isnan(column[row]).any():
            what = "is missing: impute it, or leave the column out"
        else:
            what = "is infinite" if np.isinf(column[row]).any() else "is beyond float32: standardise it"
        raise DataError(f"{table.at(row)}: a value of {name!r} {what}")
    return values


def targets(table: Table, name: str, column: Array) -> Array:
    """A column of `table` as what is to be predicted, float32. Raises `DataError`."""
    if column.ndim != 1:
        raise DataError(f"{table.source}: the target {name!r} is no single number for each example")
    with np.errstate(over="ignore", invalid="ignore"):
        values = column.astype(np.float32)
    row = first_row(~np.isfinite(values))
    if row is not None:
        what = "is missing" if np.isnan(column[row]) else "is beyond float32"
        raise DataError(f"{table.at(row)}: the target {name!r} {what}")
    return values


def first_row(wrong: NDArray[np.bool_]) -> int | None:
    """The first row in which anything is true."""
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    return int(rows[0]) if len(rows) else None


def is_text(column: Array) -> bool:
    """Whether a column holds text."""
    return column.dtype.kind == "O"


def text_column(values: Sequence[str]) -> Array:
    """A column of text."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


def listing(names: Mapping[str, object] | Sequence[str]) -> str:
    """What there is instead, for an error message."""
    shown = ", ".join(list(names)[:MAX_NAMED]) + (", …" if len(names) > MAX_NAMED else "")
    return f"there are: {shown}" if shown else "there is none"
