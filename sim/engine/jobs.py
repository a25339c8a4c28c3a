"""One run as a job: JSON in, JSON out, so that any process or machine can do it."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from typing import Any

from sim.report.result import result_of
from sim.run import simulate
from sim.scenario.model import Scenario
from sim.stopwatch import Stopwatch

Result = dict[str, Any]


def encode_job(scenario: Scenario, seed: int) -> str:
    """The job that runs `scenario` with `seed`."""
    return json.dumps({"scenario": scenario.model_dump(mode="json"), "seed": seed})


def run_job(job: str) -> str:
    """The result of the run, as JSON; with an "error" when the run itself failed."""
    fields = json.loads(job)
    scenario, seed = Scenario.model_validate(fields["scenario"]), fields["seed"]
    gc.collect()
    watch = Stopwatch(scenario)
    try:
        outcome = simulate(scenario, seed, progress=watch.progress)
        result = result_of(outcome, watch.figures(outcome.events))
    except Exception as exc:  # one run's failure is a finding, not the end of a sweep
        result = failed_result(scenario, seed, f"{type(exc).__name__}: {exc}", watch)
    return json.dumps(result)


def failed_result(scenario: Scenario, seed: int, error: str, watch: Stopwatch | None = None) -> Result:
    """The result of a run that did not get to its end, in the form of `sim.report.result_of`.

    Its hashes are empty, and it has an "error". Without a `watch`, nobody knows how far it came.
    """
    return {
        "event": "result",
        "scenario": scenario.name,
        "rung": scenario.rung,
        "peers": scenario.peers,
        "seed": seed,
        "virtual_seconds": None if watch is None else watch.virtual_seconds,
        "events": None if watch is None else watch.events,
        "wall_seconds": None if watch is None else round(watch.wall_seconds, 3),
        "rss_bytes": None if watch is None else watch.rss,
        "trace_hash": "",
        "results_hash": "",
        "figures": {},
        "assertions": [{"name": "the run gets to its end", "holds": False, "seen": error}],
        "passed": False,
        "error": error,
        "report": None,
    }


def failures(result: Mapping[str, Any]) -> list[str]:
    """What did not hold, in words; empty when all did."""
    if "error" in result:
        return [str(result["error"])]
    return [f"{check['name']}: {check['seen']}" for check in result["assertions"] if not check["holds"]]
