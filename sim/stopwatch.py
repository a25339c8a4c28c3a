"""How fast a run is and what it needs: wall time and memory beside virtual time. Never part of a result."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from random import Random
from typing import TYPE_CHECKING

import psutil

from sim.heap import EventHeap
from sim.scenario.timing import planned_end

if TYPE_CHECKING:
    from sim.run import Progress
    from sim.scenario.model import Scenario

BARE_EVENTS = 200_000  # of the loop that a run is compared with; a fifth of a second


class Stopwatch:
    """Measures one run: made before it, told of its progress."""

    def __init__(self, scenario: Scenario, then: Callable[[Progress], None] | None = None) -> None:
        starts = [load.start for load in scenario.gossip]
        starts += [load.start for load in scenario.dht] + [load.start for load in scenario.task]
        self._begin = min(starts, default=scenario.topology.over)
        self._end = max(self._begin + 1.0, planned_end(scenario) - scenario.settle)
        self._peers = scenario.peers
        self._then = then
        self.virtual_seconds, self.events = 0.0, 0  # as last told
        import_module("sim.cores" if scenario.rung == "cores" else "sim.live")  # the code is no peer's memory
        self._process = psutil.Process()
        self._memory_before = self.rss = int(self._process.memory_info().rss)  # bytes
        self._started = time.perf_counter()
        self._marks: list[tuple[float, float]] = []  # (virtual, wall) while the loads are on

    @property
    def wall_seconds(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._started

    def progress(self, progress: Progress) -> None:
        """Takes a moment of the run, and passes it on."""
        self.rss = max(self.rss, int(self._process.memory_info().rss))
        self.virtual_seconds, self.events = progress.virtual_seconds, progress.events
        if self._begin <= progress.virtual_seconds <= self._end:
            self._marks.append((progress.virtual_seconds, self.wall_seconds))
        if self._then is not None:
            self._then(progress)

    def figures(self, events: int) -> dict[str, int | float | None]:
        """What was measured of a run of `events` events; `speed` is of the time while the loads were on."""
        wall, speed = self.wall_seconds, None
        if len(self._marks) > 1:
            (virtual, began), (later, ended) = self._marks[0], self._marks[-1]
            speed = round((later - virtual) / max(ended - began, 1e-9), 3)
        bare = bare_heap_rate()
        return {
            "wall_seconds": round(wall, 3),
            "startup_seconds": round(self._marks[0][1], 3) if self._marks else None,
            "speed": speed,
            "rss_bytes": self.rss,
            "bytes_per_peer": (self.rss - self._memory_before) // self._peers,
            "events_per_second": round(events / wall),
            "bare_heap_events_per_second": round(bare),
        }


def bare_heap_rate() -> float:
    """Events a second of a heap that plans one no-op for each that it runs: the limit of any simulation."""
    heap, rng, left = EventHeap(), Random(0), BARE_EVENTS

    def again() -> None:
        nonlocal left
        if left > 0:
            left -= 1
            heap.plan(heap.now + rng.random(), again)

    for _ in range(1000):
        again()
    started = time.perf_counter()
    heap.run()
    return heap.events / (time.perf_counter() - started)
