"""How long each aggregation rule takes and how much memory it needs, beside a plain numpy running mean.

    python -m tests.benchmarks.aggregation [RULE ...] [--parameters N] [--updates N] [--repeats N] [--json]

Each rule runs in a process of its own, in turns with the plain mean, on float32 deltas in one tensor:

    plain     mean += delta * share, in float32 and over the whole tensor: what one would write
    figures   medians of wall and processor seconds; the ratio of processor seconds pair by pair;
              the peak of resident memory over what was there before the call, the new model included
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from federated.manifest import PluginRef
from federated.parameters import Parameters
from federated.plugin import ModelUpdate
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from plugins.aggregation.pipeline import make_rule

NAME = "w"  # of the one tensor
MIB = 1 << 20
SHIFT = 1009  # coordinates between two deltas of the same random numbers


def rules(updates: int) -> dict[str, dict[str, Any]]:
    """The settings of each rule measured, with as many liars as it withstands among so many."""
    krum, bulyan = max(0, (updates - 3) // 2), max(0, (updates - 3) // 4)
    mixing = [{"name": "clip"}, {"name": "nnm", "settings": {"f": krum}}]
    return {
        "weighted-mean": {},
        "median": {},
        "trimmed-mean": {},
        "krum": {"f": krum},
        "multi-krum": {"f": krum},
        "bulyan": {"f": bulyan},
        "geometric-median": {},
        "centered-clipping": {},
        "flame": {},
        "pipeline": {"steps": mixing, "rule": {"name": "trimmed-mean"}},
    }


def plain_mean(base: Parameters, updates: Sequence[ModelUpdate]) -> Parameters:
    share = np.float32(1 / len(updates))
    mean = updates[0].delta[NAME] * share
    for update in updates[1:]:
        mean += update.delta[NAME] * share
    return {NAME: base[NAME] + mean}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(wall, processor) seconds."""
    wall, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - used


def measure(name: str, parameters: int, count: int, repeats: int) -> dict[str, float]:
    """The figures of one rule, in this process."""
    peer = PeerId.from_public_key(KeyPair.from_seed(bytes(32)).public)
    values = np.random.default_rng(1).standard_normal(parameters + count * SHIFT, np.float32)
    base = {NAME: values[:parameters]}  # a view: a copy that is freed would hide what comes after it
    updates = [
        ModelUpdate(
            peer=peer,
            root=bytes([number]),
            delta={NAME: values[number * SHIFT :][:parameters].copy()},
            examples=100 + number,
        )
        for number in range(count)
    ]
    rule = make_rule(PluginRef(name=name, settings=rules(count)[name]))
    before = psutil.Process().memory_info().rss
    rule.aggregate(base, updates)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    pairs = [
        (timed(lambda: rule.aggregate(base, updates)), timed(lambda: plain_mean(base, updates)))
        for _ in range(repeats)
    ]
    return {
        "wall": statistics.median(ours[0] for ours, _ in pairs),
        "cpu": statistics.median(ours[1] for ours, _ in pairs),
        "plain wall": statistics.median(plain[0] for _, plain in pairs),
        "plain cpu": statistics.median(plain[1] for _, plain in pairs),
        "ratio": statistics.median(ours[1] / plain[1] for ours, plain in pairs),
        "peak MiB": peak / MIB,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rules", nargs="*", metavar="RULE", choices=[[], *rules(10)])
    parser.add_argument("--parameters", type=int, default=25_000_000)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    sizes = (arguments.parameters, arguments.updates, arguments.repeats)
    if arguments.inside:
        print(json.dumps(measure(arguments.rules[0], *sizes)))
        return 0
    figures = {}
    for name in arguments.rules or rules(arguments.updates):
        options = [
            f"--{key}={size}" for key, size in zip(("parameters", "updates", "repeats"), sizes, strict=True)
        ]
        command = [sys.executable, "-m", "tests.benchmarks.aggregation", name, "--inside", *options]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        figures[name] = json.loads(output)
    if arguments.json:
        print(json.dumps({"parameters": sizes[0], "updates": sizes[1], "rules": figures}))
        return 0
    table = Table("rule", "wall, s", "cpu, s", "plain mean: wall, s", "cpu, s", "cpu to plain", "peak, MiB")
    for name, figure in figures.items():
        cells = [f"{figure[key]:.3f}" for key in ("wall", "cpu", "plain wall", "plain cpu")]
        table.add_row(name, *cells, f"{figure['ratio']:.2f}", f"{figure['peak MiB']:.0f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
