"""The MLP trainer that needs nothing but numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from federated.parameters import Parameters
from plugins.training.mlp import MLP, Features, Indices, Labels

EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_, so that both trainers take the same steps


class NumpyMLP(MLP):
    """Momentum SGD on softmax cross-entropy, with the gradients written out."""

    def _fit(
        self, parameters: Parameters, x: Features, y: Labels, batches: Iterator[Indices], lr: float
    ) -> Parameters:
        new = {name: array.copy() for name, array in parameters.items()}
        velocity = {name: np.zeros_like(array) for name, array in parameters.items()}
        rate, momentum = np.float32(lr), np.float32(self.momentum)
        for rows in batches:
            gradients = self._gradients(new, x[rows], y[rows])
            scale = np.float32(min(1.0, self.clip / (_norm(gradients) + EPSILON)))
            for name, gradient in gradients.items():
                speed = velocity[name]
                speed *= momentum
                speed += scale * gradient
                new[name] -= rate * speed
        return new

    def _predict(self, parameters: Parameters, x: Features) -> Features:
        return self._activations(parameters, x)[-1]

    def _activations(self, parameters: Parameters, x: Features) -> list[Features]:
        """The input, the output of every hidden layer, and the logits."""
        values = [x]
        last = len(self.sizes) - 2
        for layer in range(last + 1):
            out = values[-1] @ parameters[f"layer{layer}.weight"].T + parameters[f"layer{layer}.bias"]
            values.append(out if layer == last else np.maximum(out, 0, out=out))
        return values

    def _gradients(self, parameters: Parameters, x: Features, y: Labels) -> Parameters:
        """Of the mean loss of one batch, by back-propagation."""
        *values, logits = self._activations(parameters, x)
        logits -= logits.max(axis=1, keepdims=True)
        error = np.exp(logits, out=logits)
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(y)), y] -= 1
        error /= np.float32(len(y))
        gradients: Parameters = {}
        for layer in reversed(range(len(self.sizes) - 1)):
            gradients[f"layer{layer}.weight"] = error.T @ values[layer]
            gradients[f"layer{layer}.bias"] = error.sum(axis=0)
            if layer:
                error = (error @ parameters[f"layer{layer}.weight"]) * (values[layer] > 0)
        return gradients


def _norm(gradients: Parameters) -> float:
    return math.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients.values()))
