"""The attack that knows the root set: made for `fltrust`, which has no secrets.

It points halfway between where the root set points, so that it is trusted more than most of the honest are,
and the opposite of what the honest have learnt beyond it. Halfway is where trust times harm is largest. At
its best it takes away all that the members know and the root set does not. Source of the idea: Cao et al.
2021, "FLTrust", section V, "adaptive attacks".
"""

from __future__ import annotations

import numpy as np

from plugins.aggregation.root_training import RootSet, root_delta
from sim.adversaries.league import flat
from sim.adversaries.poisoning import Attack, Scene, Vector, length, told_apart


def tailored(root: RootSet) -> Attack:
    """The attack on a rule that has this root set, and trains on it as `fltrust` does by default."""

    def lie(scene: Scene) -> Vector:
        trusted = flat(root_delta(scene.base, root, steps=15, lr=0.1, momentum=0.9, clip=1.0))
        along = trusted / length(trusted)
        honest = scene.honest()
        honest = honest / np.linalg.norm(honest, axis=1, keepdims=True)
        learnt: Vector = np.maximum(honest @ along, 0.0) @ honest
        beyond: Vector = learnt - (learnt @ along) * along
        both: Vector = along - beyond / length(beyond)
        return told_apart(length(trusted) * both, scene)

    return Attack(lie)
