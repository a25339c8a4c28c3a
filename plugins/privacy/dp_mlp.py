"""The MLP trained so that nobody can tell from its updates whether one example was among the data.

    sample ──→ gradient of each example, clipped ──→ sum + N(0, (noise · clip)²) ──→ step
                                                    count, in the state that lasts ↗

What holds is (ε, δ)-differential privacy of one *example*: of data sets that differ in having it or not. How
many examples there are is told. To hide all of a member's data at once a task sets `privacy` instead.
Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated.accountant import epsilon, rdp
from federated.errors import PluginError, TrainingStopped
from federated.parameters import Parameters
from federated.plugin import TrainContext, TrainResult, checked_settings
from federated.privacy import gaussian
from plugins.training.mlp import MAX_LAYERS, Clip, Features, Labels, Rate, Units
from plugins.training.numpy_mlp import NumpyMLP

TAKEN = "dp-steps"  # in the state: steps so far
RATE = "dp-rate"  # in the state: the highest sampling rate so far, of the fewest examples
EPSILON = 1e-12  # no gradient is so short that dividing by its length overflows

Draw = Callable[[int], NDArray[np.float64]]


class PrivateMLP(NumpyMLP):
    """SGD on random samples of about `batch` examples, `steps` of them a round, while the budget lasts."""

    @checked_settings
    def __init__(
        self,
        *,
        inputs: Units = 64,
        classes: Units = 10,
        hidden: Annotated[Sequence[Units], Field(max_length=MAX_LAYERS)] = (),
        steps: Annotated[int, Field(ge=1, le=100_000)] = 10,
        batch: Annotated[int, Field(ge=1)] = 64,
        lr: Rate = 0.5,
        clip: Clip = 1.0,
        noise: Annotated[float, Field(gt=0)] = 1.0,
        delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5,
        epsilon: Annotated[float, Field(gt=0)] = 8.0,
    ) -> None:
        """`noise` is in units of `clip`; `epsilon` is what all trainings of one member may come to."""
        super().__init__(
            inputs=inputs, classes=classes, hidden=hidden, steps=steps, batch=batch, lr=lr, clip=clip
        )
        self.taken = steps
        self.noise = noise
        self.delta = delta
        self.budget = epsilon

    def cost(self, rate: float, steps: int) -> float:
        """The ε that so many steps come to, each on a sample with this share of the examples."""
        return epsilon(rdp(self.noise, rate, steps), self.delta)

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """The model after `steps` noisy ones. Raises `TrainingStopped`, `DataError`, `PluginError`."""
        x, y = self._checked(data)
        rate = min(1.0, self.batch / len(x))
        before = int(context.state[TAKEN]) if TAKEN in context.state else 0
        highest = max(rate, float(context.state[RATE])) if RATE in context.state else rate
        after = before + self.taken
        if self.cost(highest, after) > self.budget:
            raise PluginError(
                f"the privacy budget is spent: {before} steps come to an epsilon of "
                f"{self.cost(highest, before):.3g}, {self.taken} more would be over {self.budget:g}"
            )
        if not context.secret:
            raise PluginError("there is nothing to make noise of that others do not know")
        draw = gaussian(_derived(context.secret, b"noise"))
        sampler = np.random.default_rng(np.frombuffer(_derived(context.secret, b"sample"), np.uint32))
        new = {name: array.astype(np.float32) for name, array in parameters.items()}
        for _ in range(self.taken):
            if context.should_stop():
                raise TrainingStopped(f"round {context.round}: stopped while training")
            chosen = sampler.random(len(x)) < rate
            summed = self._clipped_sum(new, x[chosen], y[chosen])
            for name in sorted(summed):
                new[name] -= self.lr / (rate * len(x)) * self._noised(summed[name], draw)
        state: Parameters = {TAKEN: np.array(after, np.int64), RATE: np.array(highest, np.float64)}
        told = {"epsilon": self.cost(highest, after), "delta": self.delta}
        return TrainResult(parameters=new, examples=len(x), state=state, metrics=told)

    def _noised(self, summed: Features, draw: Draw) -> Features:
        noise = self.noise * self.clip * draw(summed.size).reshape(summed.shape)
        return (summed + noise).astype(np.float32)

    def _clipped_sum(self, parameters: Parameters, x: Features, y: Labels) -> Parameters:
        """The sum of the examples' gradients, each clipped.

        The gradient of one example in a dense layer is an outer product, of the error behind the layer and
        the values in front of it, so its length is known without it. Source: Goodfellow 2015, "Efficient
        Per-Example Gradient Computations".
        """
        *values, logits = self._activations(parameters, x)
        error = _errors(logits, y)
        errors = [error]
        for layer in range(len(self.sizes) - 2, 0, -1):
            error = (error @ parameters[f"layer{layer}.weight"]) * (values[layer] > 0)
            errors.append(error)
        errors.reverse()
        squares = np.zeros(len(x))
        for value, error in zip(values, errors, strict=True):
            squares += _squares(error) * (_squares(value) + 1)  # and 1 for the bias
        scale = np.minimum(1.0, self.clip / (np.sqrt(squares) + EPSILON)).astype(np.float32)[:, np.newaxis]
        summed: Parameters = {}
        for layer, (value, error) in enumerate(zip(values, errors, strict=True)):
            summed[f"layer{layer}.weight"] = (error * scale).T @ value
            summed[f"layer{layer}.bias"] = (error * scale).sum(axis=0)
        return summed


def _errors(logits: Features, y: Labels) -> Features:
    """What each example's loss says about its logits."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(y)), y] -= 1
    return np.asarray(shares, np.float32)


def _squares(rows: Features) -> NDArray[np.float64]:
    """The squared length of each row."""
    wide = rows.astype(np.float64)
    return np.asarray((wide * wide).sum(axis=1))


def _derived(secret: bytes, purpose: bytes) -> bytes:
    """Another secret for each purpose."""
    return hashlib.sha256(b"atcp dp-mlp " + purpose + secret).digest()
