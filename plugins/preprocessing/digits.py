"""scikit-learn's digits, split among the members so that no two see the same mix of classes.

1797 images of 8x8 pixels. A fifth, the same at every peer, is held out for measuring. Each class of
the rest is dealt out by a draw from a Dirichlet distribution: the smaller `alpha`, the less alike
the shards. Everything is a function of `seed`, so all peers see one split without talking.
Source of the split: Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution".
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated.errors import DataError
from federated.plugin import Dataset, PeerContext, checked_settings

WHITE = 16.0  # the brightest pixel; scikit-learn's digits count 0 to 16
MIN_SAMPLES = 4  # examples a shard has at least; a peer without any has nothing to train on
MAX_SEED = (1 << 53) - 1

Labels = NDArray[np.int64]


class Digits:
    """The preprocessor; needs scikit-learn. One member alone gets the whole training set."""

    kind = "preprocessor"

    @checked_settings
    def __init__(
        self,
        *,
        alpha: Annotated[float, Field(ge=0.01, le=1e6)] = 0.5,
        seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 7,
        holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    ) -> None:
        self.alpha = alpha
        self.seed = seed
        self.holdout = holdout

    def load(self, context: PeerContext) -> Dataset:
        """This peer's shard as (x, y), pixels within 0 and 1 in float32. Raises `DataError`."""
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError as exc:
            raise DataError("the digits need the package 'scikit-learn', which is not installed") from exc
        images, digits = load_digits(return_X_y=True)
        x, y = (images / WHITE).astype(np.float32), digits.astype(np.int64)
        order = np.random.default_rng(self.seed).permutation(len(x))
        cut = int((1 - self.holdout) * len(x))
        train, held = order[:cut], order[cut:]
        mine = train[partition(y[train], len(context.members), self.alpha, self.seed)[context.index]]
        return Dataset(train=(x[mine], y[mine]), holdout=(x[held], y[held]), examples=len(mine))


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
