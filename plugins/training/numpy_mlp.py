"""The MLP trainer that needs nothing but numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from federated.parameters import Parameters
from plugins.training.batches import Indices
from plugins.training.gradient import Start
from plugins.training.mlp import MLP, Features, Fitted, Labels
from plugins.training.optimisers import SGD, AdamW

EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_, so that both trainers take the same steps


class NumpyMLP(MLP):
    """SGD with momentum or AdamW on softmax cross-entropy, with the gradients written out."""

    def _fit(self, start: Start, x: Features, y: Labels, rows: Iterator[Indices], lr: float) -> Fitted:
        new = {name: array.copy() for name, array in start.model.items()}
        optimiser = (
            SGD(new, start.memory, lr, self.momentum)
            if self.optimiser == "sgd"
            else AdamW(new, start.memory, lr)
        )
        sums = {name: np.zeros_like(array) for name, array in start.correction.items()}
        steps = 0
        for chosen in rows:
            steps += 1
            gradients = self._gradients(new, x[chosen], y[chosen])
            scale = np.float32(min(1.0, self.clip / (_norm(gradients) + EPSILON)))
            for name, gradient in gradients.items():
                gradient *= scale
                if name in sums:
                    sums[name] += gradient
                    gradient += start.correction[name]
                if start.mu and name in start.shared:
                    gradient += np.float32(start.mu) * (new[name] - start.model[name])
                optimiser.move(name, new[name], gradient)
        mean = {name: total / np.float32(max(steps, 1)) for name, total in sums.items()}
        return new, optimiser.memory, mean

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
