"""Examples of any shape, laid out as rows: what a model of dense layers takes."""

from __future__ import annotations

from federated.plugin import checked_settings
from plugins.preprocessing.table import Table, is_text
from plugins.preprocessing.transforms.base import Fitted, FittedTransform


class Flatten(FittedTransform):
    """Each column becomes one of shape (n, width), row by row of each example."""

    @checked_settings
    def __init__(self) -> None:
        pass

    def fit(self, train: Table) -> Fitted:
        """As `FittedTransform.fit`; there is nothing to fit."""
        return self._apply

    def _apply(self, table: Table) -> Table:
        return table.replaced(
            {
                name: column.reshape(len(column), -1) if len(column) else column
                for name, column in table.columns.items()
                if not is_text(column)
            }
        )
