"""Computing in virtual time: the real result, at once, and then the time that it would have taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import trio

from federated.compute import Kind, ShouldStop
from sim.durations import AGGREGATE, EVALUATE, OTHER, SPREAD, VALIDATE

if TYPE_CHECKING:
    from random import Random

    from federated.pace import Pace
    from sim.network import Network

T = TypeVar("T")

SECONDS: dict[Kind, float] = {
    "evaluate": EVALUATE,
    "validate": VALIDATE,
    "aggregate": AGGREGATE,
    "assess": EVALUATE,
    "other": OTHER,
}


class ModelledCompute:
    """A `Compute` of one node: one job after the other, each as long as the model says."""

    pace: Pace | None = None  # what a training takes is in the scenario

    def __init__(self, node: int, network: Network, rng: Random, train_seconds: float) -> None:
        self._node, self._network, self._rng = node, network, rng
        self._train_seconds = train_seconds
        self._turn = trio.Lock()

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        """As `Compute.run`: a cancelled caller has its result computed all the same, and dropped."""
        async with self._turn:
            result = job(lambda: False)
            await trio.sleep(self._network.processing(self._node, self._seconds(kind)))
            return result

    def _seconds(self, kind: Kind) -> float:
        if kind == "train":
            return self._train_seconds * self._rng.lognormvariate(0.0, SPREAD)
        return SECONDS[kind]
