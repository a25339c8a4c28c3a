"""A series cut into windows: each example is a stretch of time, and what came after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from federated.errors import DataError
from federated.parameters import Array
from federated.plugin import checked_settings
from plugins.preprocessing.table import MAX_BYTES, Table, targets
from plugins.preprocessing.transforms.base import Fitted, FittedTransform
from plugins.preprocessing.transforms.scaling import numeric

MAX_LENGTH = 1 << 16  # rows of one window


class Window(FittedTransform):
    """Windows of `length` rows, one begins every `stride` rows: float32 of shape (n, length, features).

    The label is the value of the column `target`, `horizon` rows after the window's last, as float32;
    without a target it is the label of the window's last row, where rows have labels.
    """

    @checked_settings
    def __init__(
        self,
        *,
        length: Annotated[int, Field(ge=1, le=MAX_LENGTH)],
        stride: Annotated[int, Field(ge=1, le=MAX_LENGTH)] = 1,
        horizon: Annotated[int, Field(ge=1, le=MAX_LENGTH)] = 1,
        target: str | None = None,
    ) -> None:
        self.length = length
        self.stride = stride
        self.horizon = horizon
        self.target = target

    def fit(self, train: Table) -> Fitted:
        """As `FittedTransform.fit`. Raises `DataError` for rows without order, or too few."""
        if not train.ordered:
            raise DataError(f"{train.source}: windows need rows that follow in time: use the source 'stream'")
        if not self._ends(train).size:
            needed = self.length + (self.horizon if self.target is not None else 0)
            raise DataError(
                f"{train.source}: {len(train)} rows are fewer than the {needed} that a window takes"
            )
        return self._apply

    def _ends(self, table: Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The last row of each window that has a label within the table."""
        last = len(table) - (self.horizon if self.target is not None else 0)
        return np.arange(self.length - 1, last, self.stride)

    def _apply(self, table: Table) -> Table:
        columns = numeric(table, None)
        if len(columns) != len(table.columns):
            raise DataError(f"{table.source}: windows take columns of numbers only")
        ends = self._ends(table)
        series = np.concatenate(
            [column.reshape(len(table), -1) for column in columns.values()], axis=1, dtype=np.float32
        )
        size = len(ends) * self.length * series.shape[1] * series.itemsize
        if size > MAX_BYTES:
            raise DataError(f"{table.source}: the windows take {size} bytes, over the limit of {MAX_BYTES}")
        if not len(ends):  # a held-out part that is shorter than one window
            windows = np.empty((0, self.length, series.shape[1]), np.float32)
        else:
            windows = sliding_window_view(series, self.length, axis=0)[ends - self.length + 1].swapaxes(1, 2)
        kept = replace(table, columns={}, labels=self._labels(table)).take(ends)
        return kept.replaced({"window": np.ascontiguousarray(windows)})

    def _labels(self, table: Table) -> Array | None:
        """What each row, as the last of a window, is to tell."""
        if self.target is None:
            return table.labels
        [column] = table.select([self.target]).values()
        values = targets(table, self.target, column)
        return np.roll(values, -self.horizon)  # what wraps around belongs to no window's last row
