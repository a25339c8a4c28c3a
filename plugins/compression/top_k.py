"""The largest numbers only: where they are, and with few bits how large."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.parameters import Parameters
from federated.plugin import checked_settings
from plugins.compression import indices
from plugins.compression.flat import SMALL, FlatCompressor, Layout, Small
from plugins.compression.indices import Places
from plugins.compression.levels import Bits, Bytes, Levels, Values

BLOCK = 256  # numbers that share a scale: the chosen ones are alike

Share = Annotated[float, Field(gt=0, le=0.5)]


class TopK(FlatCompressor):
    """The share `share` of the numbers with the largest magnitude in the whole update, with `bits` each.

    With one bit each is plus or minus the mean magnitude of its block. Source of the sparse update: Aji and
    Heafield 2017, "Sparse communication for distributed gradient descent"; with one bit: Sattler et al. 2019,
    "Robust and communication-efficient federated learning from non-IID data".
    """

    @checked_settings
    def __init__(
        self, *, share: Share = 0.02, bits: Bits = 1, small: Small = SMALL, feedback: bool = True
    ) -> None:
        super().__init__(small, feedback)
        self.share = share
        self.levels = Levels(bits, BLOCK)

    def _chosen(self, layout: Layout) -> int:
        """How many numbers travel."""
        return math.ceil(self.share * layout.count)

    def _size(self, layout: Layout) -> int:
        chosen = self._chosen(layout)
        return indices.packed_size(chosen, layout.count) + self.levels.size(chosen)

    def _pack(self, values: Values, layout: Layout, state: Parameters, seed: int) -> tuple[Bytes, Parameters]:
        places = largest(values, self._chosen(layout))
        return np.concatenate([indices.pack(places, values.size), self.levels.pack(values[places])]), {}

    def _unpack(self, packed: Bytes, layout: Layout) -> Values:
        total, chosen = layout.count, self._chosen(layout)
        split = indices.packed_size(chosen, total)
        places = indices.unpack(packed[:split], chosen, total)
        numbers = self.levels.unpack(packed[split:], chosen)
        values = np.zeros(total, np.float32)
        values[places] = numbers
        return values


def largest(values: Values, count: int) -> Places:
    """Where the `count` largest magnitudes are, sorted; of equal ones the first."""
    magnitude = np.abs(values)
    least = np.partition(magnitude, values.size - count)[values.size - count]
    (above,) = np.nonzero(magnitude > least)
    (equal,) = np.nonzero(magnitude == least)
    return np.sort(np.concatenate([above, equal[: count - above.size]]))
