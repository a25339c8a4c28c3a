"""The folder that a run leaves: everything that is needed to understand and to repeat it.

run.json       the scenario in full, seed, versions, the command that repeats it
result.json    hashes, figures and checks: the last line that the run prints with --json
metrics.json   series and distributions; seconds.csv and rounds.csv hold the series as tables
trace          what routers did, for go-libp2p-pubsub's tools; written while the run goes on
plots/*.svg    and index.html, which shows them all
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federated.folders import make_numbered
from sim.heap import SimulationError
from sim.report.metrics import Metrics, metrics_of
from sim.report.page import render
from sim.report.plots import HOW_TO_GET, available, draw_plots
from sim.report.result import Measured, result_of
from sim.report.wording import command_line

if TYPE_CHECKING:
    from sim.run import Outcome
    from sim.scenario.model import Scenario

RUNS = Path("sim-runs")  # where folders go unless somebody says otherwise
TRACE = "trace"
_PACKAGES = ("atcp", "trio", "numpy", "cryptography")


class ReportError(SimulationError):
    """A run's folder cannot be made, written or read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What `write_run` wrote. `note` is one line for people when something is missing."""

    folder: Path
    page: Path
    result: Mapping[str, Any]
    note: str | None


def make_folder(parent: Path, scenario: Scenario, seed: int) -> Path:
    """A new folder below `parent`, named for the run, with a number if need be. Raises `ReportError`."""
    short = hashlib.sha256(scenario.model_dump_json().encode()).hexdigest()[:8]
    name = f"{scenario.name}-{scenario.peers}-{seed}-{short}"
    try:
        return make_numbered(parent, name)
    except FileExistsError as exc:
        raise ReportError(f"{parent} is full of runs called {name}; remove some") from exc
    except OSError as exc:
        raise ReportError(f"cannot make the folder {parent / name}: {exc.strerror}") from exc


def versions() -> dict[str, str]:
    """The versions of everything that a trace may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def write_run(folder: Path, outcome: Outcome, *, command: Sequence[str], measured: Measured) -> Written:
    """Writes everything but the trace into an existing folder. Raises `ReportError`.

    `command` are the words that repeat the run; `measured` is as in `result_of`.
    """
    run = {
        "scenario": outcome.scenario.model_dump(mode="json"),
        "seed": outcome.seed,
        "peers": outcome.peers,
        "rung": outcome.rung,
        "command": command_line(command),
        "versions": versions(),
        "platform": platform.platform(),
    }
    result = result_of(outcome, measured, report=str(folder))
    metrics = metrics_of(outcome)
    try:
        for name, content in (("run", run), ("result", result), ("metrics", metrics)):
            _write_json(folder / f"{name}.json", content)
        _write_csv(folder / "seconds.csv", _seconds(metrics))
        _write_csv(folder / "rounds.csv", _rounds(metrics))
        return _show(folder, run, result, metrics)
    except OSError as exc:
        raise ReportError(f"cannot write the report to {folder}: {exc.strerror}") from exc


def show_again(folder: Path) -> Written:
    """Draws plots and page of a folder once more, from its JSON files. Raises `ReportError`."""
    try:
        parts = [_read_json(folder / f"{name}.json") for name in ("run", "result", "metrics")]
        return _show(folder, *parts)
    except OSError as exc:
        raise ReportError(f"{folder} is not the folder of a run: {exc.strerror}: {exc.filename}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise ReportError(f"the files in {folder} are damaged, or of another version") from exc


def _show(folder: Path, run: Mapping[str, Any], result: Mapping[str, Any], metrics: Metrics) -> Written:
    """The plots, if they can be drawn, and the page."""
    plots = draw_plots(metrics) if available() else []
    note = None if available() else HOW_TO_GET
    if plots:
        (folder / "plots").mkdir(exist_ok=True)
    for plot in plots:
        (folder / "plots" / f"{plot.name}.svg").write_text(plot.svg, encoding="utf-8")
    page = folder / "index.html"
    page.write_text(render(run, result, metrics["trouble"], plots, note), encoding="utf-8")
    return Written(folder=folder, page=page, result=result, note=note)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"{path} holds no object")
    return content


def _seconds(metrics: Metrics) -> list[dict[str, Any]]:
    """One row for each virtual second: what happened in it, and the latency of what was published."""
    series, latency = metrics["per_second"], metrics["latency_over_time"]
    rows = [
        {"second": second, **{name: values[second] for name, values in series.items()}}
        for second in range(len(series["published"]))
    ]
    for index, second in enumerate(latency["at"]):
        rows[second] |= {f"{name}_ms": latency[name][index] for name in ("p50", "p90", "p99")}
    samples = metrics["samples"]
    for index, at in enumerate(samples["at"]):
        rows[int(at)] |= {name: values[index] for name, values in samples.items() if name != "at"}
    return rows


def _rounds(metrics: Metrics) -> list[dict[str, Any]]:
    return [{"task": task, **one} for task, rounds in metrics["rounds"].items() for one in rounds]


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All names of all rows are columns, in the order in which they come up."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as out:
        table = csv.DictWriter(out, names)
        table.writeheader()
        table.writerows(rows)
