"""Wall clocks: each node's is wrong in its own way, and may jump."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

EPOCH = 1.7e9  # unix seconds at which every run begins: 2023-11-14 22:13:20 UTC


class Clocks:
    """The wall clocks of `nodes` nodes, each off by up to `skew` seconds either way."""

    def __init__(self, nodes: int, skew: float, rng: Random) -> None:
        self._off = [skew * (2 * rng.random() - 1) for _ in range(nodes)]

    def read(self, node: int, now: float) -> float:
        """Unix seconds on the node's clock, `now` seconds after the start."""
        return EPOCH + now + self._off[node]

    def jump(self, nodes: Iterable[int], seconds: float) -> None:
        """The clocks of `nodes` go forward by `seconds`, or back."""
        for node in nodes:
            self._off[node] += seconds
