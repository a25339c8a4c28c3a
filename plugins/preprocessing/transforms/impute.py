"""Missing values replaced: by the mean or the median of what this peer has, or by a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from federated.errors import DataError, PluginError
from federated.parameters import Array
from federated.plugin import checked_settings
from plugins.preprocessing.table import Table, is_text, text_column
from plugins.preprocessing.transforms.base import Columns, Fitted, FittedTransform


class Impute(FittedTransform):
    """Fills the columns named, or all that hold numbers. A `value` that is text fills columns of text."""

    @checked_settings
    def __init__(
        self,
        *,
        columns: Columns | None = None,
        strategy: Literal["mean", "median", "constant"] = "mean",
        value: float | str | None = None,
    ) -> None:
        if (strategy == "constant") != (value is not None):
            raise PluginError("value goes with the strategy constant, and that with a value")
        if isinstance(value, str) and columns is None:
            raise PluginError("a value that is text needs columns: the names of columns of text")
        self.columns = columns
        self.strategy = strategy
        self.value = value
        self.text: Sequence[str] = tuple(columns or ()) if isinstance(value, str) else ()

    def fit(self, train: Table) -> Fitted:
        """As `FittedTransform.fit`."""
        fillings = {name: self._filling(train, name) for name in train.select(self.columns)}

        def apply(table: Table) -> Table:
            return table.replaced({name: _filled(table.columns[name], fillings[name]) for name in fillings})

        return apply

    def _filling(self, table: Table, name: str) -> Array | str:
        """What replaces a missing value of a column, one number for each feature."""
        column = table.columns[name]
        if is_text(column) != isinstance(self.value, str):
            kind = "text" if is_text(column) else "numbers"
            raise DataError(f"{table.source}: column {name!r} holds {kind}, which this cannot fill")
        if isinstance(self.value, str):
            return self.value
        if self.value is not None:
            return np.full(column.shape[1:], self.value, np.float64)
        if np.isnan(column).all(axis=0).any():
            raise DataError(
                f"{table.source}: column {name!r} has no {self.strategy}: no value of it is known here"
            )
        known = np.nanmean if self.strategy == "mean" else np.nanmedian
        return np.asarray(known(column.astype(np.float64), axis=0))


def _filled(column: Array, filling: Array | str) -> Array:
    if isinstance(filling, str):
        return text_column([value or filling for value in column])
    return np.where(np.isnan(column), filling, column).astype(column.dtype)
