"""How much an update counts: by its examples, within a bound.

The number of examples is what a peer says of itself. Without a bound, one that declares a billion
replaces the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from federated.plugin import ModelUpdate


def capped_weights(updates: Sequence[ModelUpdate], cap: float) -> list[float]:
    """The examples of each update, at most `cap` times their (lower) median."""
    examples = sorted(update.examples for update in updates)
    limit = cap * examples[(len(examples) - 1) // 2]
    return [min(float(update.examples), limit) for update in updates]
