"""Server optimisers without a server: every member takes the same step, with moments that are part of the
model.

A rule makes a step of the updates, and an optimiser another one of that, from what it remembers of the
steps before. What it remembers is certified with the model, so whoever has a model has its moments. Integer
tensors move as the rule says. Source: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from federated.manifest import PluginRef
from federated.parameters import AGGREGATOR, Array, Parameters, cast, split
from federated.plugin import ModelUpdate, checked_settings
from plugins.aggregation.blocks import Step, Vector, advance, steps
from plugins.aggregation.pipeline import make_rule
from plugins.aggregation.points import Points
from plugins.aggregation.rule import Rule

MEAN = PluginRef(name="weighted-mean")

_Rate = Annotated[float, Field(gt=0, le=100)]
_Decay = Annotated[float, Field(ge=0, lt=1)]
_Floor = Annotated[float, Field(gt=0)]


class ServerOptimizer(ABC):
    """What the optimisers share; a subclass says what it remembers, and what it makes of a step."""

    kind = "aggregator"
    moments: ClassVar[tuple[str, ...]]
    rule: Rule

    def init(self, parameters: Parameters) -> Parameters:
        """The moments of every floating-point array, in its shape and dtype. Raises `PluginError`."""
        self.rule.init(parameters)  # a rule keeps nothing, but may refuse the model
        kept: Parameters = {}
        for name, array in parameters.items():
            if array.dtype.kind == "f":
                for moment in self.moments:
                    kept[_kept_as(moment, name)] = np.full_like(array, self.first(moment))
        return kept

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> Parameters:
        """The next model, with its moments. Raises `AggregationError` when the updates do not make one."""
        model, kept = split(base)
        points = Points.of(model, updates)
        following = {name: np.empty(array.shape, array.dtype) for name, array in kept.items()}
        moves = steps(model, points.deltas, self.rule.plan(points))
        return advance(model, self._moves(moves, kept, following)) | following

    def _moves(
        self, moves: Iterator[Step], kept: Mapping[str, Array], following: Mapping[str, Array]
    ) -> Iterator[Step]:
        """The optimiser's steps for those of the rule; `following` is filled on the way."""
        for step in moves:
            names = {moment: _kept_as(moment, step.name) for moment in self.moments}
            if any(name not in kept for name in names.values()):
                yield step
                continue
            here = slice(step.start, step.stop)
            before = {
                moment: kept[name].reshape(-1)[here].astype(np.float64) for moment, name in names.items()
            }
            move, after = self.move(step.values, before)
            for moment, name in names.items():
                following[name].reshape(-1)[here] = cast(name, after[moment], following[name].dtype)
            yield Step(step.name, step.start, step.stop, move)

    def first(self, moment: str) -> float:
        """The value that a moment begins with."""
        return 0.0

    @abstractmethod
    def move(self, step: Vector, before: Mapping[str, Vector]) -> tuple[Vector, dict[str, Vector]]:
        """(how far to go, the moments afterwards) for a step of the rule and the moments before it."""


class FedAvgM(ServerOptimizer):
    """Momentum: v ← momentum·v + step, x ← x + rate·v.

    With Nesterov's the step looks ahead: x ← x + rate·(momentum·v + step).

    Sources: Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", section 4; Douillard et al. 2023, "DiLoCo", Algorithm 1, with Nesterov's.
    """

    moments = ("v",)

    @checked_settings
    def __init__(
        self,
        *,
        rule: PluginRef = MEAN,
        rate: _Rate = 1.0,
        momentum: _Decay = 0.9,
        nesterov: bool = False,
    ) -> None:
        self.rule = make_rule(rule)
        self.rate = rate
        self.momentum = momentum
        self.nesterov = nesterov

    def move(self, step: Vector, before: Mapping[str, Vector]) -> tuple[Vector, dict[str, Vector]]:
        """Along the velocity, or along the one that follows it."""
        velocity = self.momentum * before["v"] + step
        ahead = self.momentum * velocity + step if self.nesterov else velocity
        return self.rate * ahead, {"v": velocity}


class FedAdagrad(ServerOptimizer):
    """x ← x + rate·step / (√v + floor), with v the sum of the squares of all steps."""

    moments = ("v",)

    @checked_settings
    def __init__(self, *, rule: PluginRef = MEAN, rate: _Rate = 0.03, floor: _Floor = 1e-3) -> None:
        self.rule = make_rule(rule)
        self.rate = rate
        self.floor = floor

    def first(self, moment: str) -> float:
        """v is at least floor²."""
        return self.floor * self.floor

    def move(self, step: Vector, before: Mapping[str, Vector]) -> tuple[Vector, dict[str, Vector]]:
        """The less, the further this coordinate has gone."""
        total = before["v"] + step * step
        return self.rate * step / (np.sqrt(total) + self.floor), {"v": total}


class FedAdam(ServerOptimizer):
    """x ← x + rate·m / (√v + floor), with m and v the running means of the steps and of their squares."""

    moments = ("m", "v")

    @checked_settings
    def __init__(
        self,
        *,
        rule: PluginRef = MEAN,
        rate: _Rate = 0.03,
        beta1: _Decay = 0.9,
        beta2: _Decay = 0.99,
        floor: _Floor = 1e-3,
    ) -> None:
        self.rule = make_rule(rule)
        self.rate = rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.floor = floor

    def first(self, moment: str) -> float:
        """v is at least floor²."""
        return self.floor * self.floor if moment == "v" else 0.0

    def move(self, step: Vector, before: Mapping[str, Vector]) -> tuple[Vector, dict[str, Vector]]:
        """Along the mean step, the less the more the steps vary."""
        mean = self.beta1 * before["m"] + (1 - self.beta1) * step
        square = self.square(before["v"], step * step)
        return self.rate * mean / (np.sqrt(square) + self.floor), {"m": mean, "v": square}

    def square(self, before: Vector, now: Vector) -> Vector:
        """The running mean of the squares."""
        return self.beta2 * before + (1 - self.beta2) * now


class FedYogi(FedAdam):
    """As `FedAdam`, but v goes up and down by the square of the step, by no more."""

    def square(self, before: Vector, now: Vector) -> Vector:
        """Towards the square of the step."""
        moved: Vector = before - (1 - self.beta2) * now * np.sign(before - now)
        return moved


def _kept_as(moment: str, name: str) -> str:
    return f"{AGGREGATOR}{moment}/{name}"
