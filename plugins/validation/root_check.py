"""Holds each update against a small root set: examples that all members know, and nobody trains on alone.

Members must refuse the same updates, so everything here has the same bits on every machine: the model is
trained and measured with the arithmetic of `plugins.aggregation.root_training`, and that knows one model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.errors import AggregationError, PluginError
from federated.parameters import Array, Parameters, split
from federated.plugin import ModelUpdate, checked_settings
from plugins.aggregation.exact import matmul
from plugins.aggregation.fltrust import FLTrust
from plugins.aggregation.gram import gram
from plugins.aggregation.points import total
from plugins.aggregation.root_training import RootSet, root_delta, softmax
from plugins.validation.check import Check


@dataclass(frozen=True, slots=True)
class _Known:
    """What the root set says of one base."""

    base: tuple[Array, ...]
    delta: Parameters
    error: float


class RootCheck(Check):
    """Rules: `finite`, `direction`, `error`.

    An update has to point where training on the root set points, and must not make the model much worse
    there. It takes the root set of `fltrust`, which is often the better choice: it weighs by the direction,
    where this one keeps or drops.
    """

    @checked_settings
    def __init__(
        self,
        *,
        root: str,
        min_cosine: Annotated[float, Field(ge=-1, lt=1)] = 0.0,
        max_rise: Annotated[float, Field(ge=0)] | None = None,
        max_model_rise: Annotated[float, Field(ge=0)] | None = None,
        steps: Annotated[int, Field(ge=1, le=1000)] = 15,
        lr: Annotated[float, Field(gt=0, le=10)] = 0.1,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        clip: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        """`root` as for `fltrust`, with the settings of the trainer.

        `min_cosine` is with the root set's own delta. `max_rise` is the share by which an update alone may
        raise the model's squared error on the root set, `max_model_rise` that by which a round may.
        """
        self.min_cosine = min_cosine
        self.max_rise = max_rise
        self.max_model_rise = max_model_rise
        self._trust = FLTrust(root=root, steps=steps, lr=lr, momentum=momentum, clip=clip)
        self._known: _Known | None = None  # of the newest base

    def init(self, parameters: Parameters) -> None:
        """Raises `PluginError` for a model that it cannot train."""
        self._trust.init(split(parameters)[0])

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        """The rule that the update breaks."""
        known = self._root_of(base)
        try:
            inner = gram([update.delta, known.delta])
        except AggregationError:  # not finite, or so large that its square is not
            return "finite"
        if inner[0, 1] < self.min_cosine * np.sqrt(inner[0, 0]) * np.sqrt(inner[1, 1]):
            return "direction"
        if self.max_rise is not None:
            after = {name: array.astype(np.float64) + update.delta[name] for name, array in base.items()}
            if self._error_of(after) > known.error * (1 + self.max_rise):
                return "error"
        return None

    def approve(self, base: Parameters, model: Parameters) -> str | None:
        """Whether the round makes the model much worse on the root set."""
        if self.max_model_rise is None:
            return None
        before, after = self._root_of(base).error, self._error_of(model)
        if after <= before * (1 + self.max_model_rise):
            return None
        return f"its squared error on the root set would rise from {before:.3g} to {after:.3g}"

    def _root_of(self, base: Parameters) -> _Known:
        """Computed once for each base; a base is never changed in place."""
        arrays, known = tuple(base.values()), self._known
        if (
            known is None
            or len(known.base) != len(arrays)
            or any(one is not other for one, other in zip(known.base, arrays, strict=True))
        ):
            trust = self._trust
            try:
                delta = root_delta(
                    base, trust.root, steps=trust.steps, lr=trust.lr, momentum=trust.momentum, clip=trust.clip
                )
                known = _Known(arrays, delta, squared_error(base, trust.root))
            except OverflowError as exc:
                raise PluginError(f"training on the root set runs away: lower lr ({exc})") from exc
            self._known = known
        return known

    def _error_of(self, model: Parameters) -> float:
        try:
            return squared_error(model, self._trust.root)
        except OverflowError:
            return float("inf")


def squared_error(parameters: Parameters, root: RootSet) -> float:
    """The mean over the examples of Σ (probability - truth)², between 0 and 2.

    Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability". Cross-entropy takes a
    logarithm, which has no bits that all processors agree on.
    """
    layers = len(parameters) // 2
    values = root.x
    for layer in range(layers):
        weight = parameters[f"layer{layer}.weight"].astype(np.float64)
        values = matmul(values, weight.T) + parameters[f"layer{layer}.bias"]
        values = values if layer == layers - 1 else np.maximum(values, 0.0)
    apart = softmax(values)
    apart[np.arange(len(root.y)), root.y] -= 1.0
    return float(total(total((apart * apart).T))) / len(root.y)
