"""What members that lie together certify, when a committee is drawn in which they are a quorum."""

from __future__ import annotations

from federated.parameters import Parameters

STRENGTH = 5.0  # times what the round has learnt, in the other direction


def poison(base: Parameters, model: Parameters) -> Parameters:
    """The model that unlearns what `model` has learnt since `base`, and more."""
    return {
        name: (array - STRENGTH * (model[name] - array)).astype(array.dtype)
        for name, array in sorted(base.items())
    }
