"""`python -m sim fuzz`: draws a plan of faults for each seed, until the network does not survive one."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2p.errors import InvalidInput
from sim.cli.progress import counted
from sim.fuzz.plan import draw_plan
from sim.fuzz.search import TWICE, Finding, Searcher
from sim.fuzz.shrink import shrink
from sim.report import RUNS
from sim.scenario.library import load, with_changes

if TYPE_CHECKING:
    from sim.scenario.model import Scenario

SHRINKING = 60  # runs that may be spent on making a plan smaller


def fuzz(arguments: argparse.Namespace) -> int:
    """Runs the seeds; 0 when all hold, 1 when one does not."""
    base = None if arguments.scenario is None else load(arguments.scenario)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    plans = ((seed, _plan(seed, base, arguments)) for seed in seeds)
    found: list[dict[str, Any]] = []
    ran = 0
    with (
        Searcher(arguments.workers or os.cpu_count() or 1) as searcher,
        counted("fuzz", len(seeds), as_json=arguments.json) as ended,
    ):
        for outcome in searcher.search(plans, twice=lambda seed: len(seeds) == 1 or seed % TWICE == 0):
            ran += 1
            ended(failed=isinstance(outcome, Finding))
            if isinstance(outcome, Finding):
                found.append(_report(outcome, searcher, arguments))
                if not arguments.keep_going:
                    break
    if arguments.json:
        last = {"event": "result", "seeds": ran, "failing": found, "passed": not found}
        print(json.dumps(last))
    else:
        print(f"{ran} of {len(seeds)} seeds ran, {len(found)} failed")
    return 1 if found else 0


def _plan(seed: int, base: Scenario | None, arguments: argparse.Namespace) -> Scenario:
    plan = draw_plan(seed, base, peers=arguments.peers)
    return plan if arguments.rung is None else with_changes(plan, rung=arguments.rung)


def _report(finding: Finding, searcher: Searcher, arguments: argparse.Namespace) -> dict[str, Any]:
    """Says what failed and how to repeat it, makes the plan smaller, and writes it down."""
    words = ["python", "-m", "sim", "fuzz", "--seeds", "1", "--first", str(finding.seed)]
    words += ["--peers", str(arguments.peers)]
    for option in ("scenario", "rung"):
        if (value := getattr(arguments, option)) is not None:
            words += [f"--{option}", value]
    entry: dict[str, Any] = {"seed": finding.seed, "reasons": finding.reasons, "repeat": shlex.join(words)}
    print(f"sim: seed {finding.seed} fails: {'; '.join(finding.reasons)}", file=sys.stderr)
    print(f"sim: repeat with: {entry['repeat']}", file=sys.stderr)
    if not arguments.no_report:
        smaller = shrink(finding.scenario, lambda plan: bool(searcher.fails(plan, finding.seed)), SHRINKING)
        path = _write(arguments.out or RUNS / "fuzz", smaller, finding.seed)
        entry |= {"plan": str(path), "replay": shlex.join(["python", "-m", "sim", "replay", str(path)])}
        print(f"sim: a smaller plan that fails: {entry['replay']}", file=sys.stderr)
    return entry


def _write(folder: Path, scenario: Scenario, seed: int) -> Path:
    path = folder / f"seed-{seed}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plan = {"seed": seed, "scenario": scenario.model_dump(mode="json")}
        path.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        raise InvalidInput(f"cannot write {path}: {exc.strerror}") from exc
    return path
