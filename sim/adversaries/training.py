"""What members hand in instead of what they have learnt: (the round's model, the result) → a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from federated.manifest import TaskManifest
from federated.parameters import Array, Parameters, difference, l2_norm
from federated.plugin import TrainContext, Trainer, TrainResult
from federated.registry import Registry, TaskPlugins

NOISE = 10.0  # times the size of an honest update

Corrupt = Callable[[Parameters, TrainResult], TrainResult]


class Corrupted:
    """The trainer of an adversary: it learns, and hands in something else."""

    kind = "trainer"

    def __init__(self, honest: Trainer, corrupt: Corrupt) -> None:
        self._honest = honest
        self._corrupt = corrupt

    def init(self, seed: int) -> Parameters:
        """As the honest one."""
        return self._honest.init(seed)

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """What `corrupt` makes of the honest result."""
        return self._corrupt(parameters, self._honest.train(parameters, data, context))

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        """As the honest one."""
        return self._honest.evaluate(parameters, data)


class CorruptedRegistry(Registry):
    """A registry whose trainers hand in what `corrupt` makes of their results."""

    def __init__(self, corrupt: Corrupt) -> None:
        super().__init__()
        self._corrupt = corrupt

    def load(self, manifest: TaskManifest) -> TaskPlugins:
        """As `Registry.load`, with another trainer."""
        plugins = super().load(manifest)
        return replace(plugins, trainer=Corrupted(plugins.trainer, self._corrupt))


def flip_signs(base: Parameters, result: TrainResult) -> TrainResult:
    """The model minus what was learnt, not plus."""
    return replace(
        result,
        parameters={
            name: (array - (result.parameters[name] - array)).astype(array.dtype)
            for name, array in base.items()
        },
    )


def make_noise(base: Parameters, result: TrainResult) -> TrainResult:
    """The model plus normal noise, `NOISE` times as large as the update; its seed is the update itself."""
    step = difference(result.parameters, base)
    seed = sha256()
    for _, array in sorted(step.items()):
        seed.update(array.tobytes())
    # numpy keeps the numbers of this generator the same in all versions, those of the newer ones not (NEP 19)
    noise = np.random.RandomState(int.from_bytes(seed.digest()[:4], "big"))
    values = sum(array.size for array in step.values())
    size = NOISE * l2_norm(step) / max(values, 1) ** 0.5
    return replace(
        result,
        parameters={
            name: (array + size * noise.standard_normal(array.shape)).astype(array.dtype)
            for name, array in sorted(base.items())
        },
    )


def ride_free(base: Parameters, result: TrainResult) -> TrainResult:
    """The model as it came, for all the examples that others would learn from."""
    return replace(result, parameters={name: array.copy() for name, array in base.items()})


def make_nan(base: Parameters, result: TrainResult) -> TrainResult:
    """A model of NaN; integers, which have none, stay as they are."""
    return replace(result, parameters={name: _nan(array) for name, array in result.parameters.items()})


def _nan(array: Array) -> Array:
    return np.full_like(array, np.nan) if array.dtype.kind == "f" else array.copy()
