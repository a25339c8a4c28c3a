"""The trainer whose model is statistics: mean and variance of every feature over the data of all members.

No peer sees more of another one than these two numbers a feature, and nobody sees them unless the task is
this one. Each round a peer sends the mean of its own data and their mean square around the mean of the round
before; the weighted mean of both over all members is what one machine with all the data would get. So the
first round finds the mean (and squares around 0), the second the variance around it; more rounds only mend
what rounding lost.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from federated.errors import DataError, TrainingStopped
from federated.parameters import Parameters
from federated.plugin import TrainContext, TrainResult, checked_settings

MAX_INPUTS = 1 << 20  # features
BLOCK = 1 << 20  # numbers summed between two questions whether to stop
MEAN, VARIANCE = "mean", "variance"


class Moments:
    """Counts, does not learn. `data` is (x, y): x has `inputs` numbers a row, y is not looked at."""

    kind = "trainer"

    @checked_settings
    def __init__(self, *, inputs: Annotated[int, Field(ge=1, le=MAX_INPUTS)]) -> None:
        self.inputs = inputs

    def init(self, seed: int) -> Parameters:
        """Zeros: nothing is known."""
        return {name: np.zeros(self.inputs, np.float64) for name in (MEAN, VARIANCE)}

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """The statistics of `data`, all of it. Raises `TrainingStopped`, `DataError`."""
        x = np.asarray(data[0])
        count = len(x)
        rows = x.reshape(count, -1)
        if not count or rows.shape[1] != self.inputs:
            raise DataError(f"x {x.shape} does not have {self.inputs} features a row: set trainer.inputs")
        centre = parameters[MEAN]
        total, squares = np.zeros(self.inputs), np.zeros(self.inputs)
        step = max(1, BLOCK // self.inputs)
        for start in range(0, count, step):
            if context.should_stop():
                raise TrainingStopped("asked to stop between two blocks")
            apart = rows[start : start + step].astype(np.float64) - centre
            total += apart.sum(axis=0)
            squares += (apart * apart).sum(axis=0)
        return TrainResult(
            parameters={MEAN: centre + total / count, VARIANCE: squares / count}, examples=count
        )

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        """Nothing: there is no better or worse."""
        return {}
