"""The attack that knows the root set: made for `fltrust`, which has no secrets.

It points where the root set points, as far as it takes to be trusted, and otherwise opposite to all that the
honest have learnt beyond that: at its best it takes away what the members know and the root set does not.
Without a bound on the trust in one, trust times harm is largest at a cosine of 0.71, and at 0.4 the harm is
largest with one, as runs with 0.05 to 0.71 showed. Source of the idea: Cao et al. 2021, "FLTrust", section V.
"""

from __future__ import annotations

import numpy as np

from plugins.aggregation.root_training import RootSet, root_delta
from sim.adversaries.league import flat
from sim.adversaries.poisoning import Attack, Scene, Vector, length, told_apart

COSINE = 0.4  # with the root set's delta
TINY = 1e-12  # nothing: in a round in which no honest member points where the root set does


def tailored(root: RootSet) -> Attack:
    """The attack on a rule that has this root set, and trains on it as `fltrust` does by default."""

    def lie(scene: Scene) -> Vector:
        trusted = flat(root_delta(scene.base, root, steps=15, lr=0.1, momentum=0.9, clip=1.0))
        along = trusted / length(trusted)
        honest = scene.honest()
        honest = honest / np.linalg.norm(honest, axis=1, keepdims=True)
        learnt: Vector = np.maximum(honest @ along, 0.0) @ honest
        beyond: Vector = learnt - (learnt @ along) * along
        size = max(length(beyond), TINY)
        both: Vector = COSINE * along - (1 - COSINE**2) ** 0.5 * beyond / size
        return told_apart(length(trusted) * both, scene)

    return Attack(lie)
