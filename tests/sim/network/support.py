"""A network of which every arrival is written down."""

from __future__ import annotations

from random import Random
from typing import Any

from sim.heap import EventHeap
from sim.network import Network
from sim.scenario.model import Latency, NetworkSettings

EXACT = Latency(kind="constant", ms=100)


class Wire(list[tuple[float, int, int, Any]]):
    """(when, source, target, what) of each arrival."""

    def __init__(self, seed: int = 1, nodes: int = 4, **settings: Any) -> None:
        super().__init__()
        self.heap = EventHeap()
        self.settings = NetworkSettings(**{"latency": EXACT, "jitter": 0.0, **settings})
        self.network = Network(self.heap, Random(seed), self.settings, nodes)

    def send(self, source: int, target: int, what: Any = None, size: int = 100) -> None:
        """Sends now."""
        self.network.send(source, target, size, self._arrive, source, target, what)

    def _arrive(self, source: int, target: int, what: Any) -> None:
        self.append((self.heap.now, source, target, what))

    def run(self, until: float = 1e6) -> Wire:
        """Lets time pass until then."""
        self.heap.end = until
        self.heap.run()
        return self

    def of(self, source: int, target: int) -> list[Any]:
        """What has arrived at `target` from `source`, in this order."""
        return [what for _, by, at, what in self if (by, at) == (source, target)]

    @property
    def times(self) -> list[float]:
        """When, of each arrival."""
        return [at for at, *_ in self]
