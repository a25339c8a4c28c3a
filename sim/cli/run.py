"""`python -m sim run`: one scenario, its checks and its report."""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from federated.cli.settings import check_task
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId
from sim.cli.progress import Results, shown
from sim.engine.jobs import failed_result
from sim.heap import SimulationError
from sim.identity import key_of
from sim.record import PubsubTrace
from sim.report import RUNS, TRACE, ReportError, make_folder, print_result, result_of, write_run
from sim.report.wording import command_line
from sim.run import Outcome, simulate
from sim.scenario.library import load, with_changes
from sim.scenario.timing import planned_end
from sim.stopwatch import Stopwatch

if TYPE_CHECKING:
    from sim.scenario.model import Scenario

Result = dict[str, Any]


def run(arguments: argparse.Namespace) -> int:
    """Runs one scenario; 0 when every check holds, 1 when not."""
    if arguments.task is not None:
        check_task(arguments.task)
    scenario = with_changes(
        load(arguments.scenario), peers=arguments.peers, rung=arguments.rung, task=arguments.task
    )
    words = ["run", arguments.scenario, "--seed", str(arguments.seed)]
    words += ["--peers", str(scenario.peers), "--rung", scenario.rung]
    words += [] if arguments.task is None else ["--task", arguments.task]
    parent = None if arguments.no_report else arguments.out or RUNS
    return run_scenario(scenario, arguments.seed, words, parent, as_json=arguments.json)


def run_scenario(
    scenario: Scenario, seed: int, words: list[str], parent: Path | None, *, as_json: bool
) -> int:
    """Runs it, prints what came out, and writes a folder below `parent`; the exit status."""
    command = ["python", "-m", "sim", *words]
    result = result_in_folder(scenario, seed, command, parent, as_json=as_json)
    if as_json:
        print(json.dumps(result))
    elif "error" not in result:
        print_result(result, Results())
    if not result["passed"]:
        print(f"sim: it did not hold; repeat with: {command_line(command)}", file=sys.stderr)
    return 0 if result["passed"] else 1


def result_in_folder(
    scenario: Scenario, seed: int, command: list[str], parent: Path | None, *, as_json: bool
) -> Result:
    """What a run came to, its progress shown; with a folder below `parent`, if there is one.

    A run that cannot go on has an "error". Raises `InvalidInput` when the folder cannot be written.
    """
    title = f"{scenario.name}, {scenario.peers} peers"
    with shown(title, planned_end(scenario), as_json=as_json) as tell:
        watch = Stopwatch(scenario, tell)
        try:
            with _folder(parent, scenario, seed) as folder:
                outcome = _simulate(scenario, seed, watch, folder)
                measured = watch.figures(outcome.events)
                if folder is None:
                    return result_of(outcome, measured)
                written = write_run(folder, outcome, command=command, measured=measured)
        except ReportError as exc:
            raise InvalidInput(str(exc)) from exc
        except SimulationError as exc:
            error = str(exc)
        else:
            if written.note is not None:
                print(f"sim: {written.note}", file=sys.stderr)
            return dict(written.result)
    print(f"sim: {error}", file=sys.stderr)
    return failed_result(scenario, seed, error, watch)


def _simulate(scenario: Scenario, seed: int, watch: Stopwatch, folder: Path | None) -> Outcome:
    gc.collect()
    gc.freeze()  # what the modules made stays; the collector walks only what the run makes
    try:
        with _trace(folder) as file:
            events = None if file is None else PubsubTrace(file, _peer_ids(scenario, seed))
            return simulate(scenario, seed, progress=watch.progress, events=events)
    finally:
        gc.unfreeze()


@contextmanager
def _folder(parent: Path | None, scenario: Scenario, seed: int) -> Iterator[Path | None]:
    """A new folder below `parent`, which is gone again when the body does not end as it should."""
    if parent is None:
        yield None
        return
    folder = make_folder(parent, scenario, seed)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _trace(folder: Path | None) -> Iterator[BinaryIO | None]:
    """The file for the routers' trace."""
    if folder is None:
        yield None
        return
    with (folder / TRACE).open("wb") as file:
        yield file


def _peer_ids(scenario: Scenario, seed: int) -> list[bytes]:
    keys = (key_of(seed, node) for node in range(scenario.peers))
    return [PeerId.from_public_key(key.public).raw for key in keys]
