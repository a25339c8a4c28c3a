"""What the validators of this package have in common: rules for one update, and rules for a set of them."""

from __future__ import annotations

from collections.abc import Sequence

from federated.parameters import Parameters
from federated.plugin import ModelUpdate

Refused = list[tuple[ModelUpdate, str]]
"""Updates with the rules that they break."""


class Check:
    """A validator that refuses nothing; a subclass has rules for one update, for a set, or both."""

    kind = "validator"

    def init(self, parameters: Parameters) -> None:
        """Raises `PluginError` for a model that it cannot judge updates of."""

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        """The rule that the update breaks on its own, None when it is fine."""
        return None

    def judge(self, updates: Sequence[ModelUpdate], model: Parameters) -> Refused:
        """The updates that do not fit the rest or the model, each with its rule; their order is no matter."""
        return []

    def approve(self, base: Parameters, model: Parameters) -> str | None:
        """Why `model` must not follow on `base`, None when it may."""
        return None

    def screen(self, updates: Sequence[ModelUpdate]) -> list[ModelUpdate]:
        """As `judge`, as far as that goes without a model."""
        return [update for update, _ in self.judge(updates, {})]
