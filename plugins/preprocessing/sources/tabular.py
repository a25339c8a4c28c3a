"""What a source of named columns is told: which of them are features, and which is the label.

    "label": "species", "classes": ["setosa", "virginica"]      text, numbered in this order
    "label": "digit"                                            whole numbers from 0
    "target": "price"                                           any number, for regression

Without `columns` all others are features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.errors import DataError, PluginError
from federated.parameters import Array
from federated.plugin import checked_settings
from plugins.preprocessing.source import HOLDOUT, FileSource, Name, Share, Steps
from plugins.preprocessing.table import Table, first_row, listing, make_table, targets
from plugins.preprocessing.transforms.encode import Categories, places

MAX_COLUMNS = 1 << 16  # of one file

ColumnNames = Annotated[Sequence[str], Field(min_length=1, max_length=MAX_COLUMNS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What the columns of a file are for; without `columns` all but the label are features."""

    columns: Sequence[str] | None
    label: str | None
    target: str | None
    classes: Categories | None
    text: frozenset[str]

    @property
    def answer(self) -> str | None:
        """The column with what a model is to say."""
        return self.label or self.target

    def features(self, header: Sequence[str], source: str) -> list[str]:
        """The columns to read as features, of those in a file's `header`. Raises `DataError`."""
        counts = Counter(header)
        [(name, count)] = counts.most_common(1)
        if count > 1:
            raise DataError(f"{source}: two columns are called {name!r}")
        wanted = [name for name in header if name != self.answer] if self.columns is None else self.columns
        for name in [*wanted, *filter(None, [self.answer]), *sorted(self.text)]:
            if name not in counts:
                raise DataError(f"{source}: there is no column {name!r}; {listing(header)}")
        if not wanted:
            raise DataError(f"{source}: there is no column beside {self.answer!r}")
        return list(wanted)

    def is_text(self, name: str) -> bool:
        """Whether a column is read as text."""
        return name in self.text or (name == self.label and self.classes is not None)

    def table(self, columns: dict[str, Array], source: str, **details: object) -> Table:
        """The columns that were read as a table with its labels. Raises `DataError`."""
        whole = make_table(columns, None, source, **details)
        labels = None if self.answer is None else self._labels(whole, columns[self.answer])
        kept = {
            name: columns[name] for name in columns if name != self.answer or name in (self.columns or ())
        }
        return replace(whole, columns=kept, labels=labels)

    def _labels(self, table: Table, column: Array) -> Array:
        assert self.answer is not None
        if self.classes is not None:
            return places(table, f"the label {self.answer}", column, self.classes)
        if self.target is not None:
            return targets(table, self.target, column)
        row = first_row(np.isnan(column))
        if row is not None:
            raise DataError(f"{table.at(row)}: the label {self.answer!r} is missing")
        row = first_row((column != np.rint(column)) | (np.abs(column) >= 1 << 53))
        if row is not None:
            raise DataError(
                f"{table.at(row)}: the label {self.answer!r} is {column[row]:g}, no whole number; "
                "for regression name it as target"
            )
        return column.astype(np.int64)


class TabularSource(FileSource):
    """A source of named columns; its settings are those that every one of them has."""

    @checked_settings
    def __init__(
        self,
        *,
        path: Name,
        label: str | None = None,
        target: str | None = None,
        classes: Categories | None = None,
        columns: ColumnNames | None = None,
        holdout: Share = HOLDOUT,
        holdout_path: Name | None = None,
        follow: bool = False,
        transforms: Steps = (),
    ) -> None:
        """Raises `PluginError`."""
        super().__init__(path, holdout_path, transforms=transforms, holdout=holdout, follow=follow)
        if label is not None and target is not None:
            raise PluginError("label is a class and target a number: give one of them")
        if classes is not None and label is None:
            raise PluginError("classes are the values of a label: give label too")
        if classes is not None and len(set(classes)) != len(classes):
            raise PluginError("setting classes: a class is given twice")
        self.roles = Roles(
            columns=columns, label=label, target=target, classes=classes, text=self.transforms.text
        )
        if self.roles.answer is not None and self.roles.answer in self.transforms.text:
            raise PluginError(f"{self.roles.answer!r} is the label, which no transform changes: use classes")

    @abstractmethod
    def read_file(self, path: Path) -> Table:
        """As `FileSource.read_file`."""
