"""Bucketing: means of a few updates each are more alike than the updates."""

from __future__ import annotations

import hashlib
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.plugin import checked_settings
from plugins.aggregation.points import Points


class Bucketing:
    """Deals the deltas out into buckets of `size` at random, and goes on with the mean of each.

    f liars spoil at most f buckets, so the rule behind it needs f for n / size points. The order is drawn
    from the roots of all updates together: since they were committed to before any was revealed, nobody can
    choose its bucket. Source: Karimireddy et al. 2022, "Byzantine-Robust Learning on Heterogeneous Datasets
    via Bucketing".
    """

    @checked_settings
    def __init__(self, *, size: Annotated[int, Field(ge=1)] = 2) -> None:
        self.size = size

    def prepare(self, points: Points) -> Points:
        """A point for each bucket; the last one may have fewer updates."""
        seed = hashlib.sha256(b"".join(update.root for update in points.updates)).digest()
        count = len(points)
        order = sorted(range(count), key=lambda place: hashlib.sha256(seed + place.to_bytes(4)).digest())
        buckets = [order[first : first + self.size] for first in range(0, count, self.size)]
        matrix = np.zeros((len(buckets), count))
        for row, bucket in zip(matrix, buckets, strict=True):
            row[bucket] = 1 / len(bucket)
        return points.mixed(matrix)
