"""Runs one plan after the other, on two kinds of processes: a run must be the same in both.

seed ──draw_plan──→ Scenario ──→ a process with PYTHONHASHSEED 1 ─┐
                            └──→ one with 2, of some seeds only ──┴─→ Finding, when something fails
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sim.engine.engines import ProcessEngine
from sim.engine.jobs import encode_job, failures, run_job

if TYPE_CHECKING:
    from types import TracebackType

    from sim.scenario.model import Scenario

TWICE = 8  # one seed in so many is run in both kinds of processes
AHEAD = 4  # runs a worker that are handed out at a time

Plan = tuple[int, "Scenario"]
Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A plan that failed, and how."""

    seed: int
    scenario: Scenario
    reasons: tuple[str, ...]


class Searcher:
    """Runs plans on `workers` processes, at least two."""

    def __init__(self, workers: int) -> None:
        self._engines = [ProcessEngine((workers + 1) // 2, 1), ProcessEngine(max(1, workers // 2), 2)]
        self._stack = ExitStack()
        self._ahead = AHEAD * max(2, workers)
        self._turn = 0

    def __enter__(self) -> Self:
        for engine in self._engines:
            self._stack.enter_context(engine)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def search(self, plans: Iterator[Plan], *, twice: Callable[[int], bool]) -> Iterator[Finding | int]:
        """A `Finding` for each plan that fails and the seed of each other one, in the order of their end."""
        running: dict[Future[str], tuple[Plan, list[Future[str]]]] = {}
        left = True
        while left or running:
            while left and len(running) < self._ahead:
                plan = next(plans, None)
                if plan is None:
                    left = False
                    break
                runs = self._begin(plan, twice(plan[0]))
                running.update((future, (plan, runs)) for future in runs)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda each: running[each][0][0]):
                (seed, scenario), runs = running.pop(future)
                if any(each in running for each in runs):
                    continue  # its twin still runs
                reasons = _judge([json.loads(each.result()) for each in runs])
                yield Finding(seed=seed, scenario=scenario, reasons=reasons) if reasons else seed

    def fails(self, scenario: Scenario, seed: int) -> tuple[str, ...]:
        """Why this one plan fails; empty when it does not. Runs it in both kinds of processes."""
        runs = self._begin((seed, scenario), True)
        return _judge([json.loads(run.result()) for run in runs])

    def _begin(self, plan: Plan, twice: bool) -> list[Future[str]]:
        seed, scenario = plan
        job = encode_job(scenario, seed)
        self._turn += 1
        engines = self._engines if twice else [self._engines[self._turn % 2]]
        return [engine.submit(run_job, job) for engine in engines]


def _judge(results: Sequence[Result]) -> tuple[str, ...]:
    reasons = dict.fromkeys(reason for result in results for reason in failures(result))
    hashes = dict.fromkeys(result["trace_hash"] for result in results)
    if len(hashes) > 1:
        reasons["the run depends on the process: its trace differs with PYTHONHASHSEED"] = None
    return tuple(reasons)
