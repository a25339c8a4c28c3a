"""Where heavy work is done: off the event loop, so that the network answers while a model trains."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

import trio

T = TypeVar("T")

ShouldStop = Callable[[], bool]
"""Asked by a job now and then: true when nobody wants its result any more."""

Kind = Literal["train", "evaluate", "validate", "aggregate", "other"]
"""What a job is: a simulation gives each kind a duration of its own."""


class Compute(Protocol):
    """Runs jobs for the driver: a thread in production, inline in a simulation."""

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        """What `job(should_stop)` returns or raises. A cancelled caller asks the job to stop."""


class ThreadCompute:
    """Runs jobs in worker threads, at most `workers` at a time.

    A cancelled caller does not wait: the job sees its `should_stop` and keeps its place until it ends,
    so that work nobody wants never runs beside the work that follows.
    """

    def __init__(self, workers: int = 1) -> None:
        self._limiter = trio.CapacityLimiter(workers)

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        """As `Compute.run`."""
        stop = threading.Event()
        try:
            return await trio.to_thread.run_sync(
                job, stop.is_set, abandon_on_cancel=True, limiter=self._limiter
            )
        finally:
            stop.set()


class InlineCompute:
    """Runs jobs at once on the event loop: for tests and simulations, where threads would break time."""

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        """As `Compute.run`."""
        await trio.lowlevel.checkpoint()
        return job(lambda: False)
