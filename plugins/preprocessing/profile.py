"""What the data of a peer are like, in a few numbers for its people: to see at once that a column is off."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from federated.parameters import Array
from plugins.preprocessing.table import Table, is_text

MAX_COLUMNS = 64  # that are named
MAX_CLASSES = 64  # that are counted


def profile(train: Table, holdout: Table | None) -> dict[str, Any]:
    """Examples, classes, missing values and ranges of the data as they were read, ready for JSON."""
    told: dict[str, Any] = {
        "examples": len(train),
        "held_out": 0 if holdout is None else len(holdout),
    }
    if train.labels is not None and train.labels.dtype.kind == "i":
        values, counts = np.unique(train.labels, return_counts=True)
        if len(values) <= MAX_CLASSES:
            told["classes"] = {str(value): int(count) for value, count in zip(values, counts, strict=True)}
    shares = ((name, _missing(column)) for name, column in train.columns.items())
    ranges = ((name, _range(column)) for name, column in train.columns.items())
    told["missing"] = dict(islice(((name, share) for name, share in shares if share), MAX_COLUMNS))
    told["ranges"] = dict(islice(((name, ends) for name, ends in ranges if ends), MAX_COLUMNS))
    return told


def _missing(column: Array) -> float:
    """The share of values that are not there."""
    if is_text(column):
        return sum(not value for value in column) / len(column)
    return float(np.isnan(column).mean()) if column.size else 0.0


def _range(column: Array) -> list[float] | None:
    """The least and the largest value, of a column of single numbers that has some."""
    known = column[np.isfinite(column)] if column.ndim == 1 and not is_text(column) else column[:0]
    return [float(known.min()), float(known.max())] if len(known) else None
