"""What attacks leave of the accuracy, rule by rule.

    python -m tests.benchmarks.attacks [RULE ...] [--json FILE] [--plot PNG] [--where PLACE] [--seeds N]

The members train one task, some of them lie (`sim.adversaries.poisoning` says how), and a rule makes a model
of what they hand in. The accuracy is that of the last model, in percent, on examples held out, mean over the
seeds; in brackets the lowest. A seed decides the split of the data, the first model, the root set and who
lies. Beside it what one machine reaches that has all the data, and one that has the root set alone.

    workbench   the members one after the other through `federated.workbench`, no network
    sim         the round machines of all members on the simulator, in virtual time
    sockets     a process for each member, `python -m p2p.peer`, on loopback

The column `tailored` is an attack on the rule `FLTrust` by somebody who has its root set.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from tests.benchmarks.attacks import simulator, sockets, workbench
from tests.benchmarks.attacks.report import plot, rows_of, table, tasks_of, title
from tests.benchmarks.attacks.task import CLEAN, COLUMNS, DATASETS, MODELS, RULES, TAILORED, Case, alone

WIDTH = 150  # characters of the tables
PLACES: dict[str, Callable[[Case], list[float]]] = {
    "workbench": workbench.run,
    "sim": simulator.run,
    "sockets": sockets.run,
}


def measure(cases: Sequence[Case], place: str, workers: int | None = None) -> dict[Case, list[float]]:
    """The accuracies of each case, in as many processes as there are cores; over sockets one by one."""
    job = PLACES[place]
    if place == "sockets":
        return dict(zip(cases, _told(map(job, cases), len(cases)), strict=True))
    with ProcessPoolExecutor(workers) as pool:
        return dict(zip(cases, _told(pool.map(job, cases), len(cases)), strict=True))


def _told(results: Iterable[list[float]], count: int) -> Iterable[list[float]]:
    return track(results, "runs", total=count, console=Console(stderr=True))


def controls(cases: Sequence[Case]) -> dict[str, Mapping[str, float]]:
    """For each data set and model what one machine reaches alone, mean over the seeds."""
    found: dict[str, dict[int, Mapping[str, float]]] = {}
    for case in cases:
        by_seed = found.setdefault(f"{case.dataset}, {case.model}", {})
        if case.seed not in by_seed:
            by_seed[case.seed] = alone(case)
    return {
        task: {
            name: statistics.mean(each[name] for each in by_seed.values())
            for name in next(iter(by_seed.values()))
        }
        for task, by_seed in found.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.attacks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("rules", nargs="*", metavar="RULE", help=f"all; {', '.join(RULES)}")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    parser.add_argument("--where", choices=PLACES, default="workbench")
    parser.add_argument("--attack", nargs="+", choices=COLUMNS, default=None, metavar="NAME")
    parser.add_argument("--dataset", nargs="+", choices=DATASETS, default=["digits"])
    parser.add_argument("--model", nargs="+", choices=list(MODELS), default=["mlp"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, metavar="FIRST")
    shape = ("clients", "byzantine", "alpha", "rounds", "root")
    for name in shape:
        default = Case._field_defaults[name]
        parser.add_argument(f"--{name}", type=type(default), default=default)
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.rules) - set(RULES)):
        parser.error(f"no rule {unknown[0]!r}; there are: {', '.join(RULES)}")
    columns = arguments.attack or [name for name in COLUMNS if name != TAILORED or arguments.where != "sim"]
    if arguments.where == "sim" and TAILORED in columns:
        parser.error(
            f"no adversary of the simulator knows a root set: --attack {CLEAN} …, without {TAILORED}"
        )
    fields: dict[str, Any] = {name: getattr(arguments, name) for name in shape}
    cases = [
        Case(rule, attack, seed, dataset, model, **fields)
        for dataset, model, rule, attack, seed in product(
            arguments.dataset,
            arguments.model,
            arguments.rules or RULES,
            columns,
            range(arguments.seed, arguments.seed + arguments.seeds),
        )
    ]
    begun = time.perf_counter()
    beside = controls(cases)
    rows = rows_of(measure(cases, arguments.where))
    seconds = time.perf_counter() - begun
    if arguments.json:
        result = {"where": arguments.where, "seeds": arguments.seeds, **fields, "controls": beside}
        text = json.dumps({**result, "rows": rows, "seconds": seconds}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    if arguments.plot:
        plot(rows, beside, arguments.plot)
    console = Console(width=WIDTH)
    for task in tasks_of(rows):
        console.print(title(*task, beside[", ".join(task)]), table(rows, *task), highlight=False)
    print(f"{len(cases)} runs in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
