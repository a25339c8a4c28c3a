"""Where heavy work is done: off the event loop, so that the network answers while a model trains."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

import trio

from federated.blame import told
from federated.errors import PluginError
from federated.pace import Pace
from federated.throttle import Throttle

T = TypeVar("T")

ShouldStop = Callable[[], bool]
"""Asked by a job now and then: true when nobody wants its result any more."""

Kind = Literal["train", "evaluate", "validate", "aggregate", "assess", "other"]
"""What a job is: a simulation gives each kind a duration of its own."""


class Compute(Protocol):
    """Runs jobs for the driver: a thread in production, inline in a simulation.

    `pace` is what its trainings showed of this machine; None where time is not the machine's.
    """

    pace: Pace | None

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        """What `job(should_stop)` returns or raises. A cancelled caller asks the job to stop."""


class ThreadCompute:
    """Runs jobs in worker threads, at most `workers` at a time.

    A cancelled caller does not wait: the job sees its `should_stop` and keeps its place until it ends,
    so that work nobody wants never runs beside the work that follows. A training rests whenever the process
    takes too much of the machine.
    """

    def __init__(self, workers: int = 1) -> None:
        self.pace: Pace | None = Pace()
        self._throttle = Throttle(len(os.sched_getaffinity(0)))
        self._limiter = trio.CapacityLimiter(workers)

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        """As `Compute.run`."""
        stop = threading.Event()
        try:
            return await trio.to_thread.run_sync(
                self._work, job, kind, stop, abandon_on_cancel=True, limiter=self._limiter
            )
        finally:
            stop.set()

    def _work(self, job: Callable[[ShouldStop], T], kind: Kind, stop: threading.Event) -> T:
        """The job, in its thread, where a `KeyboardInterrupt` is no person's: it would end the peer."""
        try:
            return self._train(job, stop) if kind == "train" else job(stop.is_set)
        except KeyboardInterrupt as exc:
            raise PluginError(f"a plugin failed: {told(exc)}") from exc

    def _train(self, job: Callable[[ShouldStop], T], stop: threading.Event) -> T:
        """A training: every question whether to stop is a step."""
        steps, begin = 0, time.monotonic()

        def should_stop() -> bool:
            nonlocal steps
            if stop.is_set():
                return True
            steps += 1
            rest = self._throttle.rest(time.monotonic(), time.process_time())
            return rest > 0 and stop.wait(rest)

        try:
            return job(should_stop)
        finally:
            assert self.pace is not None
            self.pace.observe(steps, time.monotonic() - begin)


def machine_size() -> tuple[int, int]:
    """Memory in bytes, and the processor cores that this process may use."""
    import psutil  # a megabyte, for those who measure themselves

    return int(psutil.virtual_memory().total), len(os.sched_getaffinity(0))


class InlineCompute:
    """Runs jobs at once on the event loop: for tests and simulations, where threads would break time."""

    pace: Pace | None = None

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        """As `Compute.run`."""
        await trio.lowlevel.checkpoint()
        return job(lambda: False)
