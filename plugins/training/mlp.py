"""The multi-layer perceptron that both built-in trainers train: its shape, first values, batch order.

Dense layers with ReLU between them and softmax cross-entropy at the end; SGD with momentum, the norm of
each gradient bounded so that a small, one-sided shard cannot throw the model off. Everything that is random
comes from numpy's PCG64, whose stream is the same on every platform, so peers with the numpy and
with the torch trainer start one task with the same bits and may work in it together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import inf
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated.errors import DataError, TrainingStopped
from federated.parameters import Parameters
from federated.plugin import TrainContext, TrainResult, checked_settings

MAX_UNITS = 1 << 16  # units of one layer
MAX_LAYERS = 16  # hidden layers
MAX_EPOCHS = 1000  # local epochs of one round

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]
_Units = Annotated[int, Field(ge=1, le=MAX_UNITS)]


class MLP(ABC):
    """What the two trainers share; a subclass says how to fit and how to predict.

    `data` is a pair (x, y): float32 of shape (n, inputs), and n integer labels below `classes`.
    """

    kind = "trainer"

    @checked_settings
    def __init__(
        self,
        *,
        inputs: _Units = 64,
        classes: _Units = 10,
        hidden: Annotated[Sequence[_Units], Field(max_length=MAX_LAYERS)] = (128,),
        epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] = 5,
        batch: Annotated[int, Field(ge=1)] = 32,
        lr: Annotated[float, Field(gt=0, le=10)] = 0.1,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        decay: Annotated[float, Field(gt=0, le=1)] = 1.0,
        clip: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        """Round r trains at `lr` times `decay` to the power r; `clip` bounds the norm of a gradient."""
        self.sizes = (inputs, *hidden, classes)
        self.epochs = epochs
        self.batch = batch
        self.lr = lr
        self.momentum = momentum
        self.decay = decay
        self.clip = clip

    def init(self, seed: int) -> Parameters:
        """Weights (out, in) and biases, uniform within ±1/sqrt(in), as torch's linear layers begin."""
        generator = np.random.Generator(np.random.PCG64(seed))
        parameters: Parameters = {}
        for layer, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            bound = 1.0 / np.sqrt(inputs)
            for name, shape in (("bias", (outputs,)), ("weight", (outputs, inputs))):
                values = (2.0 * generator.random(shape) - 1.0) * bound
                parameters[f"layer{layer}.{name}"] = values.astype(np.float32)
        return parameters

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """Momentum SGD from rest over `epochs` shuffled passes. Raises `TrainingStopped`, `DataError`."""
        x, y = self._checked(data)
        lr = self.lr * self.decay**context.round
        batches = self._batches(len(x), context)
        seen = len(x) if context.steps is None else min(len(x), context.steps * self.batch)
        return TrainResult(parameters=self._fit(parameters, x, y, batches, lr), examples=seen)

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        """`accuracy` and mean cross-entropy `loss` on `data`. Raises `DataError`."""
        x, y = self._checked(data)
        logits = self._predict(parameters, x).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(y)), y]
        loss = np.log(np.exp(logits).sum(axis=1)) - chosen
        return {"accuracy": float((logits.argmax(axis=1) == y).mean()), "loss": float(loss.mean())}

    @abstractmethod
    def _fit(
        self, parameters: Parameters, x: Features, y: Labels, batches: Iterator[Indices], lr: float
    ) -> Parameters:
        """New parameters after one step of SGD for each of `batches`."""

    @abstractmethod
    def _predict(self, parameters: Parameters, x: Features) -> Features:
        """The logits, shape (n, classes)."""

    def _batches(self, count: int, context: TrainContext) -> Iterator[Indices]:
        """The rows of each step: a fresh order in every epoch, a function of the seed and the steps alone."""
        generator = np.random.Generator(np.random.PCG64(context.seed))
        left = inf if context.steps is None else context.steps
        for _ in range(self.epochs):
            order = generator.permutation(count)
            for start in range(0, count, self.batch):
                if not left:
                    return
                left -= 1
                if context.should_stop():
                    raise TrainingStopped("asked to stop between two batches")
                yield order[start : start + self.batch]

    def _checked(self, data: Any) -> tuple[Features, Labels]:
        """`data` as the arrays this model takes."""
        x, y = (np.asarray(part) for part in data)
        inputs, classes = self.sizes[0], self.sizes[-1]
        if x.ndim != 2 or x.shape[1] != inputs or y.shape != (len(x),) or not len(x):
            raise DataError(f"x {x.shape} and y {y.shape} do not fit a model of {inputs} inputs")
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes:
            raise DataError(f"labels must be integers from 0 to {classes - 1}")
        return x.astype(np.float32, copy=False), y.astype(np.int64, copy=False)
