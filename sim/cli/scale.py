"""`python -m sim scale`: one scenario at several sizes, in a table and a plot."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from p2p.errors import InvalidInput
from sim.cli.progress import Results, counted
from sim.engine.engines import WorkerDied, make_engine
from sim.engine.jobs import encode_job, failed_result, failures, run_job
from sim.report import RUNS
from sim.report.scaling import COLUMNS, draw_scaling
from sim.scenario.library import load, with_changes

Result = dict[str, Any]


def scale(arguments: argparse.Namespace) -> int:
    """Runs all sizes, each in a process of its own; 0 when every check of every size holds."""
    base = load(arguments.scenario)
    scenarios = [with_changes(base, peers=peers, rung=arguments.rung) for peers in arguments.peers]
    jobs = [encode_job(scenario, arguments.seed) for scenario in scenarios]
    results: dict[int, Result] = {}
    try:
        with (
            counted(f"{base.name}, {len(jobs)} sizes", len(jobs), as_json=arguments.json) as ended,
            make_engine(arguments.engine, arguments.workers) as engine,
        ):
            for number, answer in engine.run(run_job, jobs):
                result = results[number] = json.loads(answer)
                if arguments.json:
                    print(json.dumps(result | {"event": "size"}), flush=True)
                ended()
    except WorkerDied as exc:  # the sizes that are through are worth their table
        for number, scenario in enumerate(scenarios):
            results.setdefault(number, failed_result(scenario, arguments.seed, str(exc)))
    ordered = [results[number] for number in range(len(jobs))]
    folder = None if arguments.no_report else _write(arguments.out or RUNS, base.name, ordered)
    _print(ordered, folder, as_json=arguments.json)
    for result in ordered:
        for failure in failures(result):
            print(f"sim: {result['peers']} peers: did not hold: {failure}", file=sys.stderr)
    return 0 if all(result["passed"] for result in ordered) else 1


def _write(parent: Path, name: str, results: list[Result]) -> Path:
    folder = parent / f"scale-{name}-{'-'.join(str(result['peers']) for result in results)}-{os.getpid()}"
    try:
        folder.mkdir(parents=True)
        (folder / "scale.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        if (plot := draw_scaling(results)) is not None:
            (folder / "scale.svg").write_text(plot, encoding="utf-8")
    except OSError as exc:
        raise InvalidInput(f"cannot write to {folder}: {exc.strerror}") from exc
    return folder


def _print(results: list[Result], folder: Path | None, *, as_json: bool) -> None:
    if as_json:
        passed = all(result["passed"] for result in results)
        last = {"event": "result", "sizes": results, "passed": passed}
        print(json.dumps(last | {"report": None if folder is None else str(folder)}))
        return
    table = Table(box=None)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(*(column(result) for column in COLUMNS.values()))
    console = Results()
    console.print(table)
    if folder is not None:
        console.print(f"report {folder}", highlight=False, markup=False, soft_wrap=True)
