"""What members hand in that know everything and want the model to fail: the attacks of the literature.

An attack is a function of what its member knows to the delta that it hands in. All members of a task that
poison it are in league: each knows the data of everybody, so the ones that need them have the honest
members' updates of the round at hand.

    sign        -5 times what it has learnt
    gauss       noise ten times as large as what it has learnt
    alie        "a little is enough": the honest mean less z standard deviations at each coordinate, with the
                largest z that leaves a majority on its side. Baruch et al. 2019, "A Little Is Enough:
                Circumventing Defenses For Distributed Learning", Algorithm 3
    ipm         inner product manipulation: -0.5 times the honest mean. Xie et al. 2020, "Fall of Empires:
                Breaking Byzantine-tolerant SGD by Inner Product Manipulation", section 4
    label-flip  what it learns from its data with class k told as the last class - k. Cao et al. 2021,
                "FLTrust", section VI-A
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from federated.parameters import Parameters

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

SIGN = -5.0  # times what was learnt
NOISE = 10.0  # times the length of what was learnt
MANIPULATED = -0.5  # times the honest mean
TELLING = 1e-3  # of its length, by which each of the alike deltas differs: one that comes twice counts once


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a liar knows in a round; deltas are flat, the arrays in the order of their names.

    `base` is the round's model, `own` is what the liar has learnt itself, `honest` makes the deltas of all
    honest members, one a row. There are `members` in the task, so the liars are those that are not honest.
    """

    base: Parameters
    own: Vector
    honest: Callable[[], Matrix]
    members: int
    noise: np.random.RandomState  # numpy keeps its numbers the same in all versions (NEP 19)


@dataclass(frozen=True, slots=True)
class Attack:
    """What to hand in; with `flips` the liar's labels are turned round before it learns."""

    lie: Callable[[Scene], Vector]
    flips: bool = False


def flip_sign(scene: Scene) -> Vector:
    """The opposite of what was learnt, and more of it."""
    return SIGN * scene.own


def drown(scene: Scene) -> Vector:
    """Normal noise."""
    size = NOISE * length(scene.own) / len(scene.own) ** 0.5
    lie: Vector = size * scene.noise.standard_normal(len(scene.own))
    return lie


def a_little(scene: Scene) -> Vector:
    """As far from the honest mean as many of the honest are."""
    honest = scene.honest()
    mean: Vector = honest.mean(axis=0)
    lie: Vector = mean - deviations(scene.members, len(honest)) * honest.std(axis=0)
    return told_apart(lie, scene)


def manipulate(scene: Scene) -> Vector:
    """Against the honest mean."""
    lie: Vector = MANIPULATED * scene.honest().mean(axis=0)
    return told_apart(lie, scene)


def as_learnt(scene: Scene) -> Vector:
    """What came of the flipped labels."""
    return scene.own


ATTACKS = {
    "sign": Attack(flip_sign),
    "gauss": Attack(drown),
    "alie": Attack(a_little),
    "ipm": Attack(manipulate),
    "label-flip": Attack(as_learnt, flips=True),
}


def deviations(members: int, honest: int) -> float:
    """z of "A Little Is Enough": so many honest are further away that the liars with them are a majority.

    At least half of the members are taken for it, the fewest that are more than half less the liars.
    """
    supporters = members // 2 + 1 - (members - honest)
    share = (honest - supporters) / honest
    return NormalDist().inv_cdf(min(max(share, 1 / (2 * honest)), 1 - 1 / (2 * honest)))


def length(vector: Vector) -> float:
    """The Euclidean norm."""
    return float(np.sqrt(np.vdot(vector, vector)))


def told_apart(lie: Vector, scene: Scene) -> Vector:
    """Nearly the same lie, another one for each liar."""
    size = TELLING * length(lie) / len(lie) ** 0.5
    told: Vector = lie + size * scene.noise.standard_normal(len(lie))
    return told
