"""Where the members of a task in one process compute: short jobs of many at one change of threads.

    train, evaluate ────→ a lane with a thread for each core; together, what takes no more than `TURN`
    validate, aggregate → a lane with one thread; at once, where the last one took a `MOMENT`
    assess ─────────────→ a lane with one thread: rounds go on meanwhile
    other ──────────────→ at once

A change of threads takes as long as a pass over a small shard, and while two threads of Python are busy each
waits for the other. Members ask for the same thing at about the same time, so their jobs go together. What
takes long, or never ends, leaves the event loop free: it answers Ctrl-C, and a training's deadline passes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from federated.blame import told
from federated.compute import InlineCompute, Kind, ShouldStop
from federated.errors import PluginError

TURN = 0.25  # seconds that jobs may take together: the first to ask waits no longer for its result
PATIENCE = 0.25  # seconds; after that they do not wait for the one that takes long
MOMENT = 0.02  # seconds that a job may take on the event loop

T = TypeVar("T")


class _Job:
    """One job, and where its task waits."""

    __slots__ = ("_call", "_failure", "_result", "_stop", "done", "is_begun", "kind", "took")

    def __init__(self, call: Callable[[ShouldStop], Any], kind: Kind) -> None:
        self.kind = kind
        self.is_begun = False
        self.took = 0.0  # seconds
        self.done = trio.Event()
        self._call = call
        self._stop = threading.Event()
        self._result: Any = None
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Nobody wants the result any more."""
        self._stop.set()

    @property
    def is_unwanted(self) -> bool:
        """Whether it was stopped."""
        return self._stop.is_set()

    def make(self) -> None:
        """Does it."""
        begun = time.perf_counter()
        try:
            self._result = self._call(self._stop.is_set)
        except KeyboardInterrupt as exc:  # in a thread it is no person's
            self._failure = PluginError(f"a plugin failed: {told(exc)}")
        except BaseException as exc:  # its task's, not the thread's
            self._failure = exc
        self.took = time.perf_counter() - begun

    def result(self) -> Any:
        """What the job returned, or raised."""
        if self._failure is not None:
            raise self._failure
        return self._result


class Lane:
    """Does jobs in the order asked for, in up to `threads` threads; `run` is to run as long as it is used."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._jobs: deque[_Job] = deque()
        self._took: dict[Kind, float] = {}  # seconds, of the last job of a kind
        self._idle = trio.lowlevel.ParkingLot()  # of those that do jobs
        self._busy = 0

    def is_momentary(self, kind: Kind) -> bool:
        """Whether a job of this kind may as well be done on the event loop, and nothing is before it."""
        return not self._jobs and not self._busy and self._took.get(kind, MOMENT) < MOMENT

    def make(self, call: Callable[[ShouldStop], T], kind: Kind) -> T:
        """Does a job here and now."""
        begun = time.perf_counter()
        try:
            return call(_never)
        finally:
            self._took[kind] = time.perf_counter() - begun

    async def do(self, call: Callable[[ShouldStop], T], kind: Kind) -> T:
        """What the job returns or raises. A cancelled caller asks it to stop, and does not wait."""
        job = _Job(call, kind)
        self._jobs.append(job)
        self._idle.unpark()
        try:
            await job.done.wait()
        finally:
            job.stop()
            if not job.is_begun:
                self._jobs.remove(job)
        return job.result()  # type: ignore[no-any-return]

    async def run(self) -> None:
        """Does what is asked for, for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._threads):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        limiter = trio.CapacityLimiter(1)
        while True:
            while not self._jobs:
                await self._idle.park()
            await trio.lowlevel.checkpoint()  # whoever is about to ask joins
            batch, done = self._take(), deque[_Job]()
            if not batch:
                continue
            self._busy += 1
            with trio.move_on_after(PATIENCE) as patience:
                await trio.to_thread.run_sync(_make, batch, done, abandon_on_cancel=True, limiter=limiter)
            self._tell(done)
            if patience.cancelled_caught:
                self._take_back(batch)
                async with limiter:  # which the thread gives back at its end
                    self._tell(done)
            self._busy -= 1

    def _tell(self, done: deque[_Job]) -> None:
        """Lets those go on whose jobs are done."""
        while (job := _next(done)) is not None:
            self._took[job.kind] = job.took
            job.done.set()

    def _take_back(self, batch: deque[_Job]) -> None:
        """One job takes long, or has no end: those behind it go to the other threads."""
        while (job := _next(batch)) is not None:
            if not job.is_unwanted:
                job.is_begun = False
                self._jobs.append(job)
                self._idle.unpark()

    def _take(self) -> deque[_Job]:
        """The next jobs, as many as end in time by what the last ones took."""
        batch, expected = deque[_Job](), 0.0
        while self._jobs:
            expected += self._took.get(self._jobs[0].kind, TURN)
            if batch and expected > TURN:
                break
            batch.append(self._jobs.popleft())
            batch[-1].is_begun = True
        return batch


class LocalCompute(InlineCompute):
    """One for all members: nothing is throttled, since nobody else waits for an answer of theirs."""

    def __init__(self, cores: int) -> None:
        self._training = Lane(cores)
        self._judging = Lane(1)  # so what is computed once for all is not begun twice
        self._assessing = Lane(1)

    async def serve(self) -> None:
        """To run as long as jobs are to be done."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._training.run)
            nursery.start_soon(self._judging.run)
            nursery.start_soon(self._assessing.run)

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        """As `Compute.run`."""
        match kind:
            case "train" | "evaluate":
                return await self._training.do(job, kind)
            case "validate" | "aggregate":
                if self._judging.is_momentary(kind):
                    return self._judging.make(job, kind)
                return await self._judging.do(job, kind)
            case "assess":
                return await self._assessing.do(job, kind)
            case "other":
                return job(_never)


def _never() -> bool:
    """What a job is told that ends before anybody could ask it to."""
    return False


def _make(jobs: deque[_Job], done: deque[_Job]) -> None:
    """Moves the jobs from the one to the other."""
    while (job := _next(jobs)) is not None:
        job.make()
        done.append(job)


def _next(jobs: deque[_Job]) -> _Job | None:
    """The next job, for whoever comes first: the thread that does them, or who takes them back."""
    try:
        return jobs.popleft()
    except IndexError:
        return None
