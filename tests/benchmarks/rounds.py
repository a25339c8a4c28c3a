"""What a round costs beyond the training: `atcp run`, beside a plain loop that makes the same steps.

    python -m tests.benchmarks.rounds [--json FILE] [--peers 10,100] [--rounds N] [--turns N] [--processes 4]

The task is that of `tests.benchmarks.shared_task`. A run of `atcp run`, by its own code in this process, and
the plain loop take turns; a round lasts from the moment when all members have told of one to the moment when
all have told of the next. `beyond` is the difference of the medians; the evaluation of the model, which the
loop does not do, is in it. Times are those of the wall and, in brackets, of the processor: on a machine that
does other things too, believe these.

    first round   from the start of a process `atcp run` until all members have told of it, imports and all
    memory        the most that this process had
    processes     so many `python -m p2p.peer` on loopback, as `atcp demo` runs them; no processor times
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from federated.cli.program import build_parser
from federated.cli.run import ALL_VOTE, COMMITTEE, train
from federated.registry import GROUP
from federated.reports import Report
from p2p.arguments import number
from p2p.peer_id import PeerId

TASK = "bench-digits"
WIDTH = 132  # characters of the table
SHORT = 3  # rounds of the run that shows the first one, and the memory
SETTLING = 2  # rounds at the beginning that are left out: in the first one each member checks for itself
SEED = 7


class Times(NamedTuple):
    """Seconds of one round."""

    wall: float
    processor: float


class Clock:
    """When all of `peers` members had told of a round, one round after the other."""

    def __init__(self, peers: int) -> None:
        self.moments: list[Times] = []
        self.accuracy: float | None = None
        self._peers = peers
        self._told: dict[int, int] = {}

    def tell(self, peer: PeerId | str, report: Report) -> None:
        """Hears what a member reports."""
        if report["event"] != "round":
            return
        told = self._told[report["round"]] = self._told.get(report["round"], 0) + 1
        if told == self._peers:
            self.moments.append(Times(time.perf_counter(), time.process_time()))
            self.accuracy = report["accuracy"]

    def rounds(self) -> list[Times]:
        """What each round took, but for the first ones."""
        moments = self.moments[SETTLING - 1 :]
        return [
            Times(after.wall - before.wall, after.processor - before.processor)
            for before, after in pairwise(moments)
        ]


@contextmanager
def installed() -> Iterator[None]:
    """The task is found by its name, here and in the processes that are started."""
    with tempfile.TemporaryDirectory(prefix="atcp-bench-") as folder:
        metadata = Path(folder) / f"{TASK}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {TASK}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(
            f"[{GROUP}]\n{TASK} = tests.benchmarks.shared_task:Digits\n"
        )
        root, before = str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, root, *([before] if before else [])])
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


def ours(peers: int, rounds: int) -> tuple[list[Times], float | None]:
    """(what the rounds of `atcp run` take, the accuracy after the last one)."""
    arguments = build_parser().parse_args(options(peers, rounds))
    clock = Clock(peers)
    train(arguments, clock.tell)
    return clock.rounds(), clock.accuracy


def options(peers: int, rounds: int) -> list[str]:
    return ["run", TASK, "--peers", str(peers), "--rounds", str(rounds), "--seed", str(SEED)]


def plain(peers: int, rounds: int) -> list[Times]:
    """What the rounds of the plain loop take."""
    from tests.benchmarks.shared_task import PlainLoop

    loop, found = PlainLoop(peers, SEED), list[Times]()
    for _ in range(rounds):
        before = Times(time.perf_counter(), time.process_time())
        loop.step()
        found.append(Times(time.perf_counter() - before.wall, time.process_time() - before.processor))
    return found[SETTLING:]


def command(peers: int) -> tuple[float, float]:
    """(seconds to the end of the first round, the most memory in MiB) of a process of its own."""
    clock = Clock(peers)
    line = [sys.executable, "-m", "federated.cli", *options(peers, SHORT), "--json"]
    begun = time.perf_counter()
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            report = json.loads(text)
            clock.tell(report.get("peer", ""), report)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {process.returncode}")
    return clock.moments[0].wall - begun, usage.ru_maxrss / 1024


def processes(peers: int, rounds: int) -> list[Times]:
    """What the rounds of so many processes take."""
    import trio

    from federated.demo.run import DemoSettings, run_demo

    clock = Clock(peers)

    def tell(event: dict[str, Any], _: object) -> None:
        clock.tell(event.get("peer", ""), event)

    with tempfile.TemporaryDirectory(prefix="atcp-bench-") as logs:
        settings = DemoSettings(peers=peers, rounds=rounds, seed=SEED, task=TASK)
        trio.run(run_demo, settings, Path(logs), tell)
    return clock.rounds()


def median(rounds: Sequence[Times]) -> Times:
    return Times(*(statistics.median(each[at] for each in rounds) for at in range(2)))


def measure(peers: int, rounds: int, turns: int) -> dict[str, Any]:
    """One row: `atcp run` with so many members."""
    first, memory = command(peers)
    mine, loops, accuracy = list[Times](), list[Times](), None
    for _ in range(turns):
        loops += plain(peers, rounds)
        found, accuracy = ours(peers, rounds)
        mine += found
    voters = f"{COMMITTEE}, drawn" if peers > ALL_VOTE else "all"
    return {**row(f"{peers} members", voters, mine, loops), "first_s": first, "memory_mib": memory} | {
        "accuracy": accuracy
    }


def row(name: str, voters: str, mine: Sequence[Times], loops: Sequence[Times]) -> dict[str, Any]:
    ours, plain = median(mine), median(loops)
    return {
        "name": name,
        "voters": voters,
        "rounds": len(mine),
        "ours_ms": 1e3 * ours.wall,
        "plain_ms": 1e3 * plain.wall,
        "beyond_ms": 1e3 * (ours.wall - plain.wall),
        "ours_processor_ms": 1e3 * ours.processor,
        "plain_processor_ms": 1e3 * plain.processor,
        "beyond_processor_ms": 1e3 * (ours.processor - plain.processor),
    }


def measure_processes(peers: int, rounds: int) -> dict[str, Any]:
    """One row: so many processes. What they compute is not in the processor time of this one."""
    loops = plain(peers, rounds)
    found = row(f"{peers} processes", "all", processes(peers, rounds), loops)
    return {name: value for name, value in found.items() if "processor" not in name}


def show(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("", "voters", "ours, ms", "plain, ms", "beyond, ms", "first round, s", "memory, MiB")
    for each in rows:
        cells = [each["name"], each["voters"]]
        for name in ("ours", "plain", "beyond"):
            processor = each.get(f"{name}_processor_ms")
            cells.append(f"{each[f'{name}_ms']:.1f}" + ("" if processor is None else f" ({processor:.1f})"))
        cells += [f"{each[name]:.{digits}f}" if name in each else "" for name, digits in EXTRA]
        table.add_row(*cells)
    Console(width=WIDTH).print(table)


EXTRA = (("first_s", 2), ("memory_mib", 0))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--peers", default="10,100", metavar="N,N")
    parser.add_argument("--rounds", type=number(int, SETTLING + 1, 1000), default=20, help="of each run (20)")
    parser.add_argument("--turns", type=number(int, 1, 100), default=3, help="runs of each (3)")
    parser.add_argument("--processes", type=number(int, 1, 64), metavar="N")
    arguments = parser.parse_args(argv)
    for package, name in (("torch", "torch"), ("sklearn", "scikit-learn")):
        if importlib.util.find_spec(package) is None:
            print(f"rounds: needs the package {name!r}, which is not installed", file=sys.stderr)
            return 2
    with installed():
        sizes = [int(text) for text in arguments.peers.split(",") if text]
        rows = [measure(peers, arguments.rounds, arguments.turns) for peers in sizes]
        if arguments.processes:
            rows.append(measure_processes(arguments.processes, arguments.rounds))
    if arguments.json:
        result = {"rounds": arguments.rounds, "turns": arguments.turns, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
