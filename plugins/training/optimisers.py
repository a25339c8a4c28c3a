"""The optimisers of the numpy trainers: torch's formulas, and torch's names for what they keep.

So a member may train with numpy in one round and with torch in the next.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import numpy as np

from federated.parameters import Array, Parameters

Name = Literal["sgd", "adamw"]

BETA1, BETA2 = 0.9, 0.999  # of AdamW, as in torch
FLOOR = 1e-8
SHRINK = 0.01


class Optimiser(ABC):
    """Moves a model, in place. `memory` has `<what>/<name of the parameter>`, empty at rest."""

    keeps: tuple[str, ...]

    def __init__(self, model: Mapping[str, Array], memory: Mapping[str, Array], lr: float) -> None:
        self._lr = np.float32(lr)
        self._kept = {
            (what, name): memory.get(f"{what}/{name}", self._rest(what, array)).copy()
            for what in self.keeps
            for name, array in model.items()
        }

    def _rest(self, what: str, array: Array) -> Array:
        return np.zeros_like(array)

    @abstractmethod
    def move(self, name: str, parameter: Array, gradient: Array) -> None:
        """One step of one parameter along its gradient, which may be overwritten."""

    @property
    def memory(self) -> Parameters:
        """What it keeps."""
        return {f"{what}/{name}": array for (what, name), array in self._kept.items()}


class SGD(Optimiser):
    """Momentum: the velocity is the sum of the gradients, each `momentum` times less with every step."""

    keeps = ("momentum_buffer",)

    def __init__(
        self, model: Mapping[str, Array], memory: Mapping[str, Array], lr: float, momentum: float
    ) -> None:
        super().__init__(model, memory, lr)
        self._momentum = np.float32(momentum)

    def move(self, name: str, parameter: Array, gradient: Array) -> None:
        """Along the velocity."""
        velocity = self._kept["momentum_buffer", name]
        velocity *= self._momentum
        velocity += gradient
        parameter -= self._lr * velocity


class AdamW(Optimiser):
    """Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", Algorithm 2."""

    keeps = ("exp_avg", "exp_avg_sq", "step")

    def _rest(self, what: str, array: Array) -> Array:
        return np.zeros((), np.float32) if what == "step" else np.zeros_like(array)

    def move(self, name: str, parameter: Array, gradient: Array) -> None:
        """Along the mean gradient, the less the more the gradients vary."""
        mean, square, count = (self._kept[what, name] for what in self.keeps)
        count += 1
        mean *= np.float32(BETA1)
        mean += np.float32(1 - BETA1) * gradient
        square *= np.float32(BETA2)
        square += np.float32(1 - BETA2) * gradient * gradient
        lr, steps = float(self._lr), float(count)
        spread = np.sqrt(square) / np.float32(math.sqrt(1 - BETA2**steps)) + np.float32(FLOOR)
        parameter *= np.float32(1 - lr * SHRINK)
        parameter -= np.float32(lr / (1 - BETA1**steps)) * mean / spread
