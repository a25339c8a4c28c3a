"""What each compressor costs and what it leaves of the accuracy; and how fast updates become bytes.

    python -m tests.benchmarks.compression [--json FILE] [--plot FILE] [--seeds N] [--rounds N] [--epochs N]
                                           [--hidden N] [--aggregator JSON] [METHOD ...]

The digits, 20 clients, Dirichlet 1.0, an MLP of one hidden layer: the members of a task one after the other
in this process, through `federated.workbench`, so that the product's code is what runs. For each method:

    bytes     of one update as it travels, header included, mean over clients and rounds
    accuracy  in percent on the held-out digits, mean over the last ten rounds
    points    the difference to the same seed without compression: mean, and its standard error

Behind it: MB/s of 100 MB of parameters to bytes and back, with the hashes that the network takes of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from federated import codec
from federated.manifest import PluginRef, TaskManifest
from federated.parameters import Parameters
from federated.plugin import Compressor, ModelUpdate, PeerContext
from federated.registry import Registry
from federated.rounds.events import Input
from federated.snapshots import max_state
from federated.workbench import Workbench, digest, prepare
from p2p.blobs.merkle import blob_root
from tests.federated.samples import members

CLIENTS, ALPHA = 20, 1.0
LAST = 10  # rounds whose accuracies are averaged
MEGABYTE = 1e6
FAR = 30  # times fewer bytes: the right half of the picture
SIZE = 25_000_000  # parameters, float32: 100 MB
TENSORS = 10
REPEATS = 7
ALL = {"small": 0}  # biases too: the model has few numbers


def sparse(share: float, bits: int, **settings: Any) -> PluginRef:
    return PluginRef(name="top-k", settings={"share": share, "bits": bits, **ALL, **settings})


METHODS: dict[str, PluginRef | None] = {
    "uncompressed": None,
    "int8": PluginRef(name="int8", settings=ALL),
    "int4": PluginRef(name="int4", settings=ALL),
    "power-sgd, rank 4": PluginRef(name="power-sgd", settings={"rank": 4}),
    "power-sgd, rank 1": PluginRef(name="power-sgd", settings={"rank": 1}),
    "sign": PluginRef(name="sign", settings=ALL),
    "top 5 %, 8 bits": sparse(0.05, 8),
    "top 2 %, 8 bits": sparse(0.02, 8),
    "top 1 %, 8 bits": sparse(0.01, 8),
    "top 1.5 %, 4 bits": sparse(0.015, 4),
    "top 4 %, 1 bit": sparse(0.04, 1),
    "top 2 %, 1 bit": sparse(0.02, 1),
    "top 1 %, 1 bit": sparse(0.01, 1),
    "top 1 %, 8 bits, no feedback": sparse(0.01, 8, feedback=False),
}


class Run:
    """One task of all clients, with one compressor and one seed."""

    def __init__(self, compressor: PluginRef | None, seed: int, fields: dict[str, Any]) -> None:
        """`fields` has the manifest's rounds, trainer and aggregator."""
        self._manifest = TaskManifest(
            name="compression",
            seed=seed,
            members=members(CLIENTS),
            preprocessor=PluginRef(name="digits", settings={"alpha": ALPHA, "seed": seed}),
            validator=PluginRef(name="update-check"),
            compressor=compressor,
            **fields,
        )
        plugins, peers = Registry().load(self._manifest), self._manifest.peer_ids
        self._benches = [
            prepare(self._manifest, plugins, PeerContext(peer=peer, members=peers, index=index))
            for index, peer in enumerate(peers)
        ]
        self._states: list[Parameters] = [{} for _ in peers]
        self._sizes: list[int] = []

    def measure(self) -> tuple[float, float]:
        """(bytes of an update, accuracy in percent)."""
        first = self._benches[0]
        model, accuracies = first.initial, []
        for number in range(1, self._manifest.rounds + 1):
            model = self._round(first, model, number)
            accuracies.append(100 * (first.evaluate(first.decode(model))["accuracy"] or 0.0))
        return statistics.mean(self._sizes), statistics.mean(accuracies[-LAST:])

    def _round(self, first: Workbench, model: bytes, number: int) -> bytes:
        base, updates = first.decode(model), []
        for index, bench in enumerate(self._benches):
            made = bench.train(base, number, lambda: False, state=self._states[index])
            if made.state is not None:
                self._states[index] = codec.decode_any(made.state, max_state(len(first.initial)))
            self._sizes.append(len(made.data))
            item = Input(
                peer=self._manifest.peer_ids[index],
                root=digest(made.data),
                size=len(made.data),
                examples=made.examples,
            )
            checked = first.check(item, made.data, base)
            if not isinstance(checked, ModelUpdate):
                raise AssertionError(f"an honest update is refused: {checked}")
            updates.append(replace(checked, root=item.root))
        result = first.aggregate(base, updates)
        if not isinstance(result, bytes):
            raise AssertionError(f"honest updates are screened: {result}")
        return result


def compare(names: Sequence[str], seeds: int, fields: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The figures of each method, by name."""
    runs = {
        name: [Run(METHODS[name], seed, fields).measure() for seed in range(seeds)]
        for name in dict.fromkeys(["uncompressed", *names])
    }
    plain = runs["uncompressed"]
    size = statistics.mean(size for size, _ in plain)
    figures = {}
    for name, found in runs.items():
        points = [ours - theirs for (_, ours), (_, theirs) in zip(found, plain, strict=True)]
        spread = statistics.stdev(points) if len(points) > 1 else 0.0
        own = statistics.mean(size for size, _ in found)
        figures[name] = {
            "bytes": own,
            "ratio": size / own,
            "accuracy": statistics.mean(accuracy for _, accuracy in found),
            "points": statistics.mean(points),
            "error": spread / len(points) ** 0.5,
        }
    return figures


def speeds(size: int) -> dict[str, dict[str, float]]:
    """MB/s of `size` float32 parameters, there and back, by wall and by processor time: medians."""
    generator = np.random.default_rng(1)
    parameters = {
        f"layer{number}.weight": generator.standard_normal((100, size // TENSORS // 100), np.float32)
        for number in range(TENSORS)
    }
    schema, data = codec.schema_of(parameters), codec.encode(parameters)
    jobs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "safetensors": (lambda: codec.encode(parameters), lambda: codec.decode(data, schema, len(data))),
        "safetensors and hashes": (
            lambda: blob_root(codec.encode(parameters)),
            lambda: (blob_root(data), codec.decode(data, schema, len(data))),
        ),
    }
    for name in ("int8", "int4", "sign", "top-k", "power-sgd"):
        compressor: Compressor = Registry().create("compressor", PluginRef(name=name))
        made = compressor.compress(parameters, {}, 1)
        jobs[name] = (
            lambda compressor=compressor, state=made.state: compressor.compress(parameters, state, 2),
            lambda compressor=compressor, payload=made.payload: compressor.decompress(payload, schema),
        )
    return {name: _rates(len(data), *pair) for name, pair in jobs.items()}


def _rates(size: int, there: Callable[[], object], back: Callable[[], object]) -> dict[str, float]:
    found = {}
    for name, job in (("encode", there), ("decode", back)):
        times = []
        for _ in range(REPEATS):
            wall, used = time.perf_counter(), time.process_time()
            job()
            times.append((time.perf_counter() - wall, time.process_time() - used))
        for kind, column in zip(("wall", "cpu"), zip(*times, strict=True), strict=True):
            found[f"{name}, {kind}"] = size / MEGABYTE / statistics.median(column)
    return found


def plot(figures: dict[str, dict[str, float]], file: Path) -> None:
    """Accuracy over how many times fewer bytes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5))
    for name, values in figures.items():
        axes.errorbar(values["ratio"], values["accuracy"], yerr=values["error"], fmt="o", capsize=3)
        right = values["ratio"] > FAR  # there is no room for its name on that side
        axes.annotate(
            name,
            (values["ratio"], values["accuracy"]),
            xytext=(-5 if right else 5, 5),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=8,
        )
    plain = figures["uncompressed"]["accuracy"]
    axes.axhspan(plain - 0.5, plain, alpha=0.15)
    axes.axvline(100, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks([1, 10, FAR, 100], ["1", "10", str(FAR), "100"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_xlabel("times fewer bytes")
    axes.set_ylabel("accuracy, %")
    axes.set_title("The band is half a point below uncompressed")
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="all of them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=5, help="of local training in a round")
    parser.add_argument("--hidden", type=int, default=64, help="units of the model's one hidden layer")
    parser.add_argument(
        "--aggregator",
        type=PluginRef.model_validate_json,
        default=PluginRef(name="weighted-mean"),
        metavar="JSON",
        help="as in a manifest",
    )
    parser.add_argument("--parameters", type=int, default=SIZE, help="of the speeds; 0 leaves them out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.methods) - set(METHODS)):
        parser.error(f"no method {unknown[0]!r}; there are: {', '.join(METHODS)}")
    trainer = PluginRef(name="numpy-mlp", settings={"hidden": [arguments.hidden], "epochs": arguments.epochs})
    fields = {"rounds": arguments.rounds, "trainer": trainer, "aggregator": arguments.aggregator}
    figures = compare(arguments.methods or list(METHODS), arguments.seeds, fields)
    rates = speeds(arguments.parameters) if arguments.parameters else {}
    table = Table("method", "bytes", "times fewer", "accuracy, %", "points", "±")
    for name, values in figures.items():
        cells = [f"{values['bytes']:.0f}", f"{values['ratio']:.1f}", f"{values['accuracy']:.2f}"]
        table.add_row(name, *cells, f"{values['points']:+.2f}", f"{values['error']:.2f}")
    Console().print(table)
    if rates:
        table = Table("MB/s of 4 bytes a parameter", *next(iter(rates.values())))
        for name, values in rates.items():
            table.add_row(name, *(f"{value:.0f}" for value in values.values()))
        Console().print(table)
    if arguments.json:
        shape = {
            key: getattr(arguments, key) for key in ("seeds", "rounds", "epochs", "hidden", "parameters")
        }
        shape["aggregator"] = arguments.aggregator.model_dump()
        arguments.json.write_text(
            json.dumps({**shape, "methods": figures, "speeds": rates}, indent=2), encoding="utf-8"
        )
    if arguments.plot:
        plot(figures, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
