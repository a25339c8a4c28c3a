"""The multi-layer perceptron that both built-in trainers train: its shape, first values, batch order.

Dense layers with ReLU between them and softmax cross-entropy at the end; SGD or AdamW, the norm of each
gradient bounded so that a small, one-sided shard cannot throw the model off. Everything that is random
comes from numpy's PCG64, whose stream is the same on every platform, so peers with the numpy and
with the torch trainer start one task with the same bits and may work in it together.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated.errors import DataError
from federated.parameters import Parameters
from federated.plugin import TrainContext, checked_settings
from plugins.fairness import Q
from plugins.training.batches import Batch, Epochs, Indices, Steps, batches, seen
from plugins.training.gradient import GradientTrainer, Mu, Outcome, Prefixes, Start
from plugins.training.optimisers import Name

MAX_UNITS = 1 << 16  # units of one layer
MAX_LAYERS = 16  # hidden layers

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Units = Annotated[int, Field(ge=1, le=MAX_UNITS)]
Rate = Annotated[float, Field(gt=0, le=10)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(gt=0, le=1)]
Clip = Annotated[float, Field(gt=0)]

Fitted = tuple[Parameters, Parameters, Parameters]
"""(new parameters, what the optimiser keeps, the mean gradient where there is a correction)."""


class MLP(GradientTrainer):
    """What the two trainers share; a subclass says how to take the steps and how to predict.

    `data` is a pair (x, y): float32 of shape (n, inputs), and n integer labels below `classes`.
    """

    @checked_settings
    def __init__(
        self,
        *,
        inputs: Units = 64,
        classes: Units = 10,
        hidden: Annotated[Sequence[Units], Field(max_length=MAX_LAYERS)] = (128,),
        epochs: Epochs = 5,
        steps: Steps = None,
        batch: Batch = 32,
        lr: Rate = 0.1,
        optimiser: Name = "sgd",
        momentum: Momentum = 0.9,
        decay: Decay = 1.0,
        clip: Clip = 1.0,
        carry: bool = False,
        mu: Mu = 0.0,
        scaffold: bool = False,
        local: Prefixes = (),
        q: Q = 0.0,
    ) -> None:
        """Round r trains at `lr` times `decay` to the power r; `clip` bounds the norm of a gradient.

        A round has `epochs` passes over the data, or `steps` batches when they are given. `momentum` is
        SGD's. With `carry` a round begins with the velocity or the moments that the one before ended with,
        instead of from rest. For `mu`, `scaffold`, `local` and `q` see `plugins.training.gradient`.
        """
        super().__init__(carry=carry, mu=mu, scaffold=scaffold, local=local, q=q)
        self.sizes = (inputs, *hidden, classes)
        self.epochs = epochs
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.optimiser = optimiser
        self.momentum = momentum
        self.decay = decay
        self.clip = clip

    def first(self, seed: int) -> Parameters:
        """Weights (out, in) and biases, uniform within ±1/sqrt(in), as torch's linear layers begin."""
        generator = np.random.Generator(np.random.PCG64(seed))
        parameters: Parameters = {}
        for layer, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            bound = 1.0 / np.sqrt(inputs)
            for name, shape in (("bias", (outputs,)), ("weight", (outputs, inputs))):
                values = (2.0 * generator.random(shape) - 1.0) * bound
                parameters[f"layer{layer}.{name}"] = values.astype(np.float32)
        return parameters

    def fit(self, start: Start, data: Any, context: TrainContext) -> Outcome:
        """The optimiser's steps over shuffled passes. Raises `TrainingStopped`, `DataError`."""
        x, y = self._checked(data)
        rows = batches(len(x), self.batch, context, epochs=self.epochs, steps=self.steps)
        new, memory, gradient = self._fit(start, x, y, rows, self.rate(context))
        examples = seen(len(x), self.batch, context, self.steps)
        return Outcome(model=new, memory=memory, gradient=gradient, examples=examples)

    def measure(self, model: Parameters, data: Any) -> dict[str, float]:
        """`accuracy` and mean cross-entropy `loss` on `data`. Raises `DataError`."""
        x, y = self._checked(data)
        logits = self._predict(model, x).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(y)), y]
        loss = np.log(np.exp(logits).sum(axis=1)) - chosen
        return {"accuracy": float((logits.argmax(axis=1) == y).mean()), "loss": float(loss.mean())}

    @abstractmethod
    def _fit(self, start: Start, x: Features, y: Labels, rows: Iterator[Indices], lr: float) -> Fitted:
        """One step of the optimiser for each of `rows`.

        The gradient of the loss is clipped; what `start` adds to it is not.
        """

    @abstractmethod
    def _predict(self, parameters: Parameters, x: Features) -> Features:
        """The logits, shape (n, classes)."""

    def _checked(self, data: Any) -> tuple[Features, Labels]:
        """`data` as the arrays this model takes."""
        x, y = (np.asarray(part) for part in data)
        inputs, classes = self.sizes[0], self.sizes[-1]
        if x.ndim != 2 or x.shape[1] != inputs or y.shape != (len(x),) or not len(x):
            raise DataError(f"x {x.shape} and y {y.shape} do not fit a model of {inputs} inputs")
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes:
            raise DataError(f"labels must be integers from 0 to {classes - 1}")
        return x.astype(np.float32, copy=False), y.astype(np.int64, copy=False)
