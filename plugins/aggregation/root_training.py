"""What honest training comes to on a root set: the same bits at every member that computes it.

A trainer multiplies matrices and takes exponentials, and both differ from processor to processor in their
last bits; so members that each train on the same root set come to slightly different deltas. Here the model
of the built-in MLP trainers (ReLU layers, or none; softmax cross-entropy) is trained with exact products, an
exponential made of elementwise operations, and sums in one order: full batches, SGD with momentum,
gradients clipped, as `numpy-mlp` does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federated.parameters import Parameters, l2_norm
from plugins.aggregation.blocks import Matrix, Vector
from plugins.aggregation.exact import matmul
from plugins.aggregation.points import total

LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # ln 2 in two parts: n times the first is exact
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
LOG2_E = float.fromhex("0x1.71547652b82fep+0")
TERMS = 14  # of the series; the next one is below 2^-60 for |r| ≤ ln(2) / 2
LEAST_EXPONENT = -700.0  # what is smaller is 0 to a probability
EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_ and plugins.training.numpy_mlp


@dataclass(frozen=True)
class RootSet:
    """Examples that all members know: x (examples × inputs), and a class for each."""

    x: Matrix
    y: NDArray[np.int64]


def layers_of(parameters: Parameters) -> int:
    """How many layers the MLP has. Raises `ValueError` for another model."""
    count = len(parameters) // 2
    names = {f"layer{layer}.{part}" for layer in range(count) for part in ("weight", "bias")}
    if not count or set(parameters) != names:
        raise ValueError(
            "not the model of numpy-mlp, torch-mlp or softmax: its tensors are layerN.weight, layerN.bias"
        )
    return count


def root_delta(
    base: Parameters, root: RootSet, *, steps: int, lr: float, momentum: float, clip: float
) -> Parameters:
    """By how much the training moves `base`, float64. Raises `OverflowError` when it runs away."""
    start = {name: array.astype(np.float64) for name, array in base.items()}
    new = dict(start)
    velocity = {name: np.zeros_like(array) for name, array in start.items()}
    for _ in range(steps):
        found = gradients(new, root)
        scale = min(1.0, clip / (l2_norm(found) + EPSILON))
        for name, gradient in found.items():
            velocity[name] = momentum * velocity[name] + scale * gradient
            new[name] = new[name] - lr * velocity[name]
    return {name: new[name] - start[name] for name in start}


def gradients(parameters: Parameters, root: RootSet) -> dict[str, NDArray[np.float64]]:
    """Of the mean loss over the root set, by back-propagation."""
    layers = len(parameters) // 2
    values = [root.x]
    for layer in range(layers):
        out = matmul(values[-1], parameters[f"layer{layer}.weight"].T) + parameters[f"layer{layer}.bias"]
        values.append(out if layer == layers - 1 else np.maximum(out, 0.0))
    logits = values.pop()
    error = softmax(logits)
    error[np.arange(len(root.y)), root.y] -= 1.0
    error /= len(root.y)
    found: dict[str, NDArray[np.float64]] = {}
    for layer in reversed(range(layers)):
        found[f"layer{layer}.weight"] = matmul(error.T, values[layer])
        found[f"layer{layer}.bias"] = total(error)
        if layer:
            error = matmul(error, parameters[f"layer{layer}.weight"]) * (values[layer] > 0)
    return dict(sorted(found.items()))


def softmax(logits: Matrix) -> Matrix:
    """The share of each class, one row an example."""
    powers = exponential(logits - logits.max(axis=1, keepdims=True))
    return powers / total(powers.T)[:, np.newaxis]


def exponential(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """e to the power of `values`, which are 0 or less: 2^n times a series in the rest.

    `numpy.exp` has another version for each kind of processor, and their last bits differ.
    """
    bounded = np.maximum(values, LEAST_EXPONENT)
    whole = np.rint(bounded * LOG2_E)
    rest = bounded - whole * LN2_HIGH
    rest = rest - whole * LN2_LOW
    series: Vector = np.ones_like(rest)
    for term in range(TERMS, 0, -1):
        series = series * rest / term + 1.0
    powers: NDArray[np.float64] = np.ldexp(series, whole.astype(np.int32))
    return powers
