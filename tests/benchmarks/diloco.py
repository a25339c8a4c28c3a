"""How seldom members may synchronise: DiLoCo with more and more local steps between two rounds.

    python -m tests.benchmarks.diloco [--json FILE] [--plot PNG] [--seeds N] [--seed FIRST]

Every run makes the same number of local steps on the digits, at each of the workers; what changes is how
many of them, H, lie between two rounds. No network: rounds are calls of `federated.workbench` in one process,
with the plugins and the bytes that a task has.

    DiLoCo    inner AdamW, whose moments each worker keeps; outer SGD with Nesterov's momentum, 0.7 and 0.9
    gentle    the same with 1.0 and 0.5: a momentum of 0.9 wants more rounds than there are
    mean      the same inside, but the workers' models are averaged: the control
    data      alike (the classes are spread evenly), or Dirichlet 0.5 (each worker has its own mix of them)
    central   one worker with all the data makes the same number of steps, with batches of the same size

Accuracy is that of the last model on held-out data, in percent, the mean over the seeds; beside it, seed by
seed, what it differs by from `mean` at the smallest H on the same data.
Source: Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models".
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from federated import codec
from federated.manifest import PluginRef, TaskManifest
from federated.plugin import ModelUpdate, PeerContext
from federated.registry import Registry
from federated.rounds.events import Input
from federated.snapshots import max_state
from federated.workbench import Workbench, prepare
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

WIDTH = 132  # characters of the table
INTERVALS = (1, 10, 50, 100, 500)  # H
DATA = {"alike": 1e6, "Dirichlet 0.5": 0.5}
WAYS = {
    "DiLoCo": PluginRef(name="fedavgm", settings={"rate": 0.7, "momentum": 0.9, "nesterov": True}),
    "gentle": PluginRef(name="fedavgm", settings={"rate": 1.0, "momentum": 0.5, "nesterov": True}),
    "mean": PluginRef(name="weighted-mean"),
}
TRAINER: dict[str, Any] = {"hidden": [64], "optimiser": "adamw", "lr": 0.003, "batch": 32, "carry": True}


class Run(NamedTuple):
    """One task: how, on what, with how many local steps between two rounds."""

    way: str
    data: str
    interval: int
    seed: int
    steps: int
    workers: int


def peers(count: int) -> list[PeerId]:
    return [PeerId.from_public_key(KeyPair.from_seed(bytes([n]) * 32).public) for n in range(1, count + 1)]


def manifest(run: Run) -> TaskManifest:
    return TaskManifest(
        name="diloco",
        seed=run.seed,
        rounds=max(1, run.steps // run.interval),
        members=[str(peer) for peer in peers(run.workers)],
        preprocessor=PluginRef(name="digits", settings={"alpha": DATA[run.data], "seed": run.seed}),
        trainer=PluginRef(name="numpy-mlp", settings=TRAINER | {"steps": run.interval}),
        aggregator=WAYS[run.way],
        validator=PluginRef(name="update-check"),
    )


def accuracy(run: Run) -> float:
    """In percent, after all rounds."""
    task, registry = manifest(run), Registry()
    benches = [
        prepare(
            task,
            registry.load(task),
            PeerContext(peer=peer, members=task.peer_ids, index=task.peer_ids.index(peer)),
        )
        for peer in task.peer_ids
    ]
    model, states = benches[0].initial, [b""] * run.workers
    for number in range(1, task.rounds + 1):
        model, states = one_round(task, benches, model, states, number)
    measured = benches[0].evaluate(benches[0].decode(model))["accuracy"]
    assert measured is not None
    return 100 * measured


def one_round(
    task: TaskManifest, benches: Sequence[Workbench], model: bytes, states: Sequence[bytes], number: int
) -> tuple[bytes, list[bytes]]:
    """(the next model, what each worker keeps)."""
    base = benches[0].decode(model)
    updates: list[ModelUpdate] = []
    kept: list[bytes] = []
    for index, (bench, state) in enumerate(zip(benches, states, strict=True)):
        begun = codec.decode_any(state, max_state(len(model))) if state else {}
        made = bench.train(base, number, lambda: False, None, begun)
        item = Input(
            peer=task.peer_ids[index], root=bytes([index]), size=len(made.data), examples=made.examples
        )
        update = benches[0].check(item, made.data, base)
        assert isinstance(update, ModelUpdate), update
        updates.append(update)
        kept.append(made.state or b"")
    following = benches[0].aggregate(base, updates)
    assert isinstance(following, bytes), following
    return following, kept


def figures(runs: Sequence[Run], workers: int | None = None) -> dict[Run, float]:
    """The accuracy of each run, in as many processes as there are cores."""
    with ProcessPoolExecutor(workers) as pool:
        return dict(zip(runs, pool.map(accuracy, runs), strict=True))


def plot(rows: Sequence[Mapping[str, Any]], central: float, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for way in WAYS:
        for data in DATA:
            points = [row for row in rows if (row["way"], row["data"]) == (way, data)]
            axes.plot(
                [row["interval"] for row in points],
                [row["accuracy"] for row in points],
                label=f"{way}, {data}",
                marker="o",
                linestyle="--" if way == "mean" else "-",
            )
    axes.axhline(central, color="grey", linewidth=1, label="central")
    axes.set(xscale="log", xlabel="local steps between two rounds, H", ylabel="accuracy, %")
    intervals = sorted({row["interval"] for row in rows})
    axes.set_xticks(intervals, [str(interval) for interval in intervals])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def measure(steps: int, workers: int, numbers: Sequence[int], intervals: Sequence[int]) -> dict[str, Any]:
    """All rows, and the central control, over the seeds `numbers`."""
    alone = [Run("mean", "alike", steps, seed, steps, 1) for seed in numbers]
    cells = [(way, data, interval) for way in WAYS for data in DATA for interval in intervals]
    runs = [Run(*cell, seed, steps, workers) for cell in cells for seed in numbers]
    begun = time.perf_counter()
    found = figures([*alone, *runs])
    rows = []
    for way, data, interval in cells:
        seen = [found[Run(way, data, interval, seed, steps, workers)] for seed in numbers]
        control = [found[Run("mean", data, min(intervals), seed, steps, workers)] for seed in numbers]
        apart = [one - other for one, other in zip(seen, control, strict=True)]
        rows.append(
            {
                "way": way,
                "data": data,
                "interval": interval,
                "syncs": steps // interval,
                "accuracy": statistics.mean(seen),
                "lowest": min(seen),
                "highest": max(seen),
                "difference": statistics.mean(apart),
                "differences": apart,
            }
        )
    return {
        "steps": steps,
        "workers": workers,
        "seeds": list(numbers),
        "trainer": TRAINER,
        "central": statistics.mean(found[run] for run in alone),
        "rows": rows,
        "seconds": time.perf_counter() - begun,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, metavar="FIRST")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--intervals", type=int, nargs="+", default=INTERVALS, metavar="H")
    arguments = parser.parse_args(argv)
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    result = measure(arguments.steps, arguments.workers, seeds, arguments.intervals)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(result["rows"], result["central"], arguments.plot)
    table = Table("H", "syncs", *(f"{way}, {data.split()[0]}" for way in WAYS for data in DATA))
    for interval in arguments.intervals:
        rows = [row for row in result["rows"] if row["interval"] == interval]
        cells = [f"{row['accuracy']:.1f} ({row['difference']:+.1f})" for row in rows]
        table.add_row(str(interval), str(rows[0]["syncs"]), *cells)
    Console(width=WIDTH).print(table)
    print(f"central: {result['central']:.1f}; {result['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
