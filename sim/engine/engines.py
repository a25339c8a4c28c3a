"""Where many runs are done: in processes of this machine, or on a Ray cluster. The results are the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any, Protocol, Self

from p2p.errors import InvalidInput
from sim.engine.logs import level, show_logs
from sim.environment import environment
from sim.heap import SimulationError

Work = Callable[[str], str]


class WorkerDied(SimulationError):
    """A process that did runs is gone, and its run with it."""

    def __init__(self) -> None:
        super().__init__("a worker process died: it was killed, or the memory was not enough")


class Engine(Protocol):
    """Does jobs side by side."""

    def __enter__(self) -> Self:
        """Begins."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Ends all that runs. Raises `WorkerDied` when that is why the body ended."""

    def run(self, work: Work, jobs: Sequence[str]) -> Iterator[tuple[int, str]]:
        """(index of the job, its result) in the order in which they end. Raises `WorkerDied`."""


class ProcessEngine:
    """Jobs in `workers` processes of this machine; `hash_seed` decides the order of sets in them.

    With `fresh` each job has a process of its own, so that the memory it needs can be told.
    """

    def __init__(self, workers: int, hash_seed: int | None = None, *, fresh: bool = False) -> None:
        self._workers = workers
        self._hash_seed = hash_seed
        self._fresh = fresh
        self._pool: ProcessPoolExecutor | None = None
        self._children_before: list[int | None] = []

    def __enter__(self) -> Self:
        self._children_before = [child.pid for child in active_children()]
        self._pool = ProcessPoolExecutor(
            self._workers,
            mp_context=get_context("spawn"),
            initializer=_begin_worker,
            initargs=(level(),),
            max_tasks_per_child=1 if self._fresh else None,
        )
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        assert self._pool is not None
        if error is not None:  # nobody waits for what they do
            for child in active_children():
                if child.pid not in self._children_before:
                    child.kill()
        self._pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise WorkerDied from error

    def submit(self, work: Work, job: str) -> Future[str]:
        """Begins one job."""
        assert self._pool is not None
        with environment(PYTHONHASHSEED=self._hash_seed):
            return self._pool.submit(work, job)

    def run(self, work: Work, jobs: Sequence[str]) -> Iterator[tuple[int, str]]:
        """As `Engine.run`."""
        index = {self.submit(work, job): number for number, job in enumerate(jobs)}
        for future in as_completed(index):
            try:
                yield index[future], future.result()
            except BrokenProcessPool as exc:
                raise WorkerDied from exc


class RayEngine:
    """Jobs on the Ray cluster that RAY_ADDRESS names, or on one that is started here."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._ray: Any = None

    def __enter__(self) -> Self:
        try:
            import ray
        except ModuleNotFoundError as exc:
            raise InvalidInput("--engine ray: install it with: pip install 'atcp[ray]'") from exc
        self._ray = ray
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": self._workers}
        ray.init(
            include_dashboard=False,
            logging_level="error",
            log_to_driver=False,
            **local,
        )
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._ray.shutdown()

    def run(self, work: Work, jobs: Sequence[str]) -> Iterator[tuple[int, str]]:
        """As `Engine.run`."""
        remote = self._ray.remote(max_calls=1, max_retries=0)(work)  # a fresh process for each
        index = {remote.remote(job): number for number, job in enumerate(jobs)}
        left = list(index)
        while left:
            done, left = self._ray.wait(left)
            for reference in done:
                try:
                    yield index[reference], self._ray.get(reference)
                except self._ray.exceptions.RayError as exc:
                    raise WorkerDied from exc


def _begin_worker(level: str) -> None:
    """Ctrl-C goes to all processes of a terminal: workers leave it to their parent, which ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    show_logs(level)


def make_engine(name: str, workers: int) -> Engine:
    """The engine of that name, "processes" or "ray", with a fresh process for each job."""
    return RayEngine(workers) if name == "ray" else ProcessEngine(workers, fresh=True)
