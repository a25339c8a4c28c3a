"""A series that grows: a table of text whose lines follow in time, of which the newest are kept.

Held out is the newest part, so a model is measured on what came after all that it was trained on. When lines
are added that part moves on, and what it held before is trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.plugin import checked_settings
from plugins.preprocessing.source import HOLDOUT, Name, Share, Steps
from plugins.preprocessing.sources.csv_file import Delimiter, read_csv
from plugins.preprocessing.sources.tabular import ColumnNames, TabularSource
from plugins.preprocessing.table import Table
from plugins.preprocessing.transforms.encode import Categories


class Stream(TabularSource):
    """The preprocessor; the transform `window` makes examples of the lines. It follows the file."""

    @checked_settings
    def __init__(
        self,
        *,
        path: Name,
        keep: Annotated[int, Field(ge=1)] = 1_000_000,
        label: str | None = None,
        classes: Categories | None = None,
        columns: ColumnNames | None = None,
        delimiter: Delimiter = ",",
        holdout: Share = HOLDOUT,
        follow: bool = True,
        transforms: Steps = (),
    ) -> None:
        super().__init__(
            path=path,
            label=label,
            classes=classes,
            columns=columns,
            transforms=transforms,
            holdout=holdout,
            follow=follow,
        )
        self.keep = keep
        self.delimiter = delimiter

    def read_file(self, path: Path) -> Table:
        """As `FileSource.read_file`."""
        table = read_csv(path, self.roles, self.delimiter, whole_lines=self.follow, ordered=True)
        return table.take(np.arange(max(0, len(table) - self.keep), len(table)))
