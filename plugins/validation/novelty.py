"""Refuses updates that somebody else has made: near-duplicates of another, or of the step before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.errors import PluginError
from federated.parameters import AGGREGATOR, Parameters, l2_norm, split
from federated.plugin import ModelUpdate, checked_settings
from plugins.aggregation.gram import gram
from plugins.validation.check import Check, Refused

STEP = f"{AGGREGATOR}v/"  # where `fedavgm` keeps the direction in which the model has moved


class Novelty(Check):
    """Rules: `idle`, `free-rider`, `near-duplicate`.

    A copy with a little noise, or of another length, has another hash than the original but points the same
    way. Commits and reveals keep a member from copying in time (`federated.rounds.collection`); what is
    found here are members that work together as one, and those that send back what the others did in the
    last round.
    """

    @checked_settings
    def __init__(
        self,
        *,
        max_cosine: Annotated[float, Field(gt=0, lt=1)] = 0.99,
        min_norm: Annotated[float, Field(ge=0)] = 0.0,
        free_riders: bool = False,
    ) -> None:
        """`max_cosine` is between two deltas, or a delta and the last step; below `min_norm` one is idle.

        `free_riders` needs a model that knows the last step: the aggregator is `fedavgm`.
        """
        self.max_cosine = max_cosine
        self.min_norm = min_norm
        self.free_riders = free_riders

    def init(self, parameters: Parameters) -> None:
        """Raises `PluginError` where the last step is wanted and nobody keeps it."""
        if self.free_riders and not _last_step(parameters):
            raise PluginError("setting free_riders: the aggregator does not keep the last step; fedavgm does")

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        """Whether the member did nothing."""
        return "idle" if l2_norm(update.delta) < self.min_norm else None

    def judge(self, updates: Sequence[ModelUpdate], model: Parameters) -> Refused:
        """Those that point where the last step did, and of those that point one way all but one.

        That one is the first by its root.
        """
        if not updates:
            return []
        ordered = sorted(updates, key=lambda update: update.root)
        deltas = [_floats(update.delta) for update in ordered]
        step = _last_step(model) if self.free_riders else {}
        if step:
            deltas.append(step)
        alike = self._alike(deltas)
        refused, kept = Refused(), list[int]()
        for index, update in enumerate(ordered):
            if step and alike[index, -1]:
                refused.append((update, "free-rider"))
            elif any(alike[index, other] for other in kept):
                refused.append((update, "near-duplicate"))
            else:
                kept.append(index)
        return refused

    def _alike(self, deltas: Sequence[Parameters]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
        """Which of them point the same way; one of zeros points nowhere."""
        inner = gram(deltas)
        lengths = np.sqrt(np.diagonal(inner))
        bounds = self.max_cosine * lengths[:, np.newaxis] * lengths
        return (inner >= bounds) & (bounds > 0)


def _floats(delta: Parameters) -> Parameters:
    """Without counters and the like, which all members count alike."""
    return {name: array for name, array in delta.items() if array.dtype.kind == "f"}


def _last_step(model: Parameters) -> Parameters:
    """How the model moved in the last round, as far as it knows; all zeros in the first."""
    kept = split(model)[1]
    return {name.removeprefix(STEP): array for name, array in kept.items() if name.startswith(STEP)}
