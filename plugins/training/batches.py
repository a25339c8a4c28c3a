"""Which examples each step of a training sees: the same for the same seed, on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as counting
from math import inf
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated.errors import TrainingStopped
from federated.plugin import TrainContext

MAX_EPOCHS = 1000  # local epochs of one round
MAX_STEPS = 1_000_000  # local steps of one round

Indices = NDArray[np.int64]
Epochs = Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)] | None
Batch = Annotated[int, Field(ge=1)]


def batches(
    examples: int, size: int, context: TrainContext, *, epochs: int, steps: int | None = None, least: int = 1
) -> Iterator[Indices]:
    """The rows of each step: a fresh order in every epoch, a function of the seed and the steps alone.

    With `steps` there are that many, in as many epochs as it takes. No batch has fewer than `least` rows,
    unless there are no more examples. Ends where `context.steps` says so; raises `TrainingStopped`.
    """
    generator = np.random.Generator(np.random.PCG64(context.seed))
    left = _limit(context, steps)
    for _ in range(epochs) if steps is None else counting():
        order = generator.permutation(examples)
        for start in range(0, examples, size):
            if not left:
                return
            rows = order[start : start + size]
            if len(rows) < min(least, examples):
                continue
            left -= 1
            if context.should_stop():
                raise TrainingStopped("asked to stop between two batches")
            yield rows


def seen(examples: int, size: int, context: TrainContext, steps: int | None = None) -> int:
    """How many of the examples a training has seen."""
    return int(min(examples, _limit(context, steps) * size))


def _limit(context: TrainContext, steps: int | None) -> float:
    return min(inf if limit is None else limit for limit in (context.steps, steps))
