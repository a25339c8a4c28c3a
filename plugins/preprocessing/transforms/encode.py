"""Text with a few values as numbers: a feature for each value (one-hot), or the value's number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.errors import DataError, PluginError
from federated.parameters import Array
from federated.plugin import checked_settings
from plugins.preprocessing.table import Table, listing
from plugins.preprocessing.transforms.base import Fitted, FittedTransform

MAX_CATEGORIES = 1 << 12  # of one column

Categories = Annotated[Sequence[str], Field(min_length=1, max_length=MAX_CATEGORIES)]


class Encode(FittedTransform):
    """Encodes columns of text by `categories`: the values of each, in the order that all peers use."""

    @checked_settings
    def __init__(
        self,
        *,
        categories: Annotated[dict[str, Categories], Field(min_length=1, max_length=1 << 12)],
        ordinal: bool = False,
    ) -> None:
        """With `ordinal` a value becomes its place in the list. Raises `PluginError`."""
        for name, values in categories.items():
            if len(set(values)) != len(values):
                raise PluginError(f"categories.{name}: a value is given twice")
        self.categories = categories
        self.ordinal = ordinal
        self.text: Sequence[str] = tuple(categories)

    def fit(self, train: Table) -> Fitted:
        """As `FittedTransform.fit`; there is nothing to fit."""
        return self._apply

    def _apply(self, table: Table) -> Table:
        table.select(self.text)
        return table.replaced({name: self._encoded(table, name) for name in self.categories})

    def _encoded(self, table: Table, name: str) -> Array:
        codes = places(table, name, table.columns[name], self.categories[name])
        if self.ordinal:
            return codes.astype(np.float32)
        chosen: Array = codes[:, None] == np.arange(len(self.categories[name]))
        return chosen.astype(np.float32)


def places(table: Table, name: str, column: Array, values: Sequence[str]) -> Array:
    """The place of each value of a column among `values`, int64. Raises `DataError`."""
    numbers = {value: number for number, value in enumerate(values)}
    codes = np.array([numbers.get(value, -1) for value in column], np.int64)
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        what = (
            f"{name} {column[row]!r:.40} is none of the categories" if column[row] else f"{name!r} is missing"
        )
        raise DataError(f"{table.at(row)}: {what}; {listing(values)}")
    return codes
