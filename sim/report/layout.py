"""Where the nodes of a drawing go: connected ones attract each other, all push each other away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STEPS = 150
GRAVITY = 0.3  # keeps what is not connected from drifting out of the picture


def layout(nodes: int, edges: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """A position within [-1, 1]² for each of the nodes 0..nodes-1: the same for the same graph.

    Takes time in the square of `nodes`: 0.5 s for 300. Source: Fruchterman & Reingold 1991, from a circle.
    """
    if nodes == 0:
        return np.zeros((0, 2))
    around = 2 * np.pi * np.random.default_rng(0).permutation(nodes) / nodes
    places = np.stack([np.cos(around), np.sin(around)], axis=1)
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    ideal = 1.2 / np.sqrt(nodes)
    for step in range(STEPS):
        apart = places[:, None, :] - places[None, :, :]
        squares = np.maximum((apart**2).sum(axis=2), 1e-6)
        force = (apart * (ideal**2 / squares)[:, :, None]).sum(axis=1)
        along = places[ends[:, 0]] - places[ends[:, 1]]
        pull = along * (np.linalg.norm(along, axis=1) / ideal)[:, None]
        np.add.at(force, ends[:, 0], -pull)
        np.add.at(force, ends[:, 1], pull)
        force -= GRAVITY * places
        length = np.maximum(np.linalg.norm(force, axis=1), 1e-9)[:, None]
        places += force / length * np.minimum(length, 0.15 * (1 - step / STEPS))
    places -= (places.max(axis=0) + places.min(axis=0)) / 2
    return places / max(float(np.abs(places).max()), 1e-9)
