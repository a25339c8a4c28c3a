"""One data set that everybody has, dealt out among the members: for trying a task, not for real data.

A share of it, the same at every peer, is held out for measuring. Of the rest, each class is dealt out
by a draw from a Dirichlet distribution: the smaller `alpha`, the less alike the shards. Of numbers to be
predicted, each tenth from the smallest to the largest is dealt out as a class is. Everything is a function
of `seed`, so all peers see one split without talking.
Source of the split: Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from federated.errors import DataError
from federated.plugin import Dataset, PeerContext

MIN_SAMPLES = 4  # examples a shard has at least; a peer without any has nothing to train on
TENTHS = 10

Labels = NDArray[np.int64]


def deal(
    x: ArrayLike,
    y: ArrayLike,
    context: PeerContext,
    *,
    alpha: float = 0.5,
    seed: int = 7,
    holdout: float = 0.2,
) -> Dataset:
    """This peer's part of the examples `x` (float32 from here on) with the labels `y`.

    Whole numbers are classes (int64 from here on), others are what is to be predicted (float32).
    One member alone gets all of it but the share `holdout`. Raises `DataError` for what cannot be dealt out.
    """
    features, labels = np.asarray(x, np.float32), np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iubf" or len(features) != len(labels):
        raise DataError(
            f"labels of {labels.dtype.name} and shape {labels.shape} are not one number"
            f" for each of {len(features)} examples"
        )
    labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
    order = np.random.default_rng(seed).permutation(len(features))
    cut = int((1 - holdout) * len(features))
    train, held = order[:cut], order[cut:]
    strata = _tenths(labels[train]) if labels.dtype.kind == "f" else labels[train]
    mine = train[partition(strata, len(context.members), alpha, seed)[context.index]]
    return Dataset(
        train=(features[mine], labels[mine]), holdout=(features[held], labels[held]), examples=len(mine)
    )


def _tenths(targets: NDArray[np.float32]) -> Labels:
    """For each of `targets` which tenth of them it belongs to, equal ones by their order."""
    ranks = np.empty(len(targets), np.int64)
    ranks[np.argsort(targets, kind="stable")] = np.arange(len(targets))
    return ranks * TENTHS // len(targets)


def partition(labels: Labels, shards: int, alpha: float, seed: int) -> list[NDArray[np.intp]]:
    """The sorted rows of each shard: every row in exactly one, none with fewer than `MIN_SAMPLES`.

    Raises `DataError` when there are too few rows for so many shards.
    """
    if len(labels) < shards * MIN_SAMPLES:
        raise DataError(f"{len(labels)} examples are too few for {shards} peers")
    generator = np.random.default_rng(seed)
    parts: list[list[int]] = [[] for _ in range(shards)]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        generator.shuffle(rows)
        shares = np.cumsum(generator.dirichlet([alpha] * shards))[:-1]
        for part, chunk in zip(parts, np.split(rows, (shares * len(rows)).astype(int)), strict=True):
            part.extend(chunk.tolist())
    for part in parts:
        while len(part) < MIN_SAMPLES:
            part.append(max(parts, key=len).pop())
    return [np.array(sorted(part), np.intp) for part in parts]
