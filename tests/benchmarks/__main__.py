"""`make bench`: how fast the wire is, beside what this machine allows and beside other libp2p nodes.

Every figure is measured in rounds, limits and all implementations in each round one after the other,
so that a slow minute of the machine slows all of them. What is shown is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.benchmarks.figures import FIGURES
from tests.benchmarks.layers import LAYERS
from tests.benchmarks.limits import LIMITS
from tests.benchmarks.nodes import implementations

EXAMPLES = """\
examples:
  make bench                                           the whole set, five rounds: about ten minutes
  python -m tests.benchmarks --rounds 1 --only echo    a quick look at one figure
  python -m tests.benchmarks --json results.json       also as JSON

py-libp2p and js-libp2p take part once `tox -e interop` has installed them.
"""
OURS, MACHINE = "atcp", "limit"
AEAD = "ChaCha20-Poly1305, 64 KiB, MB/s"
RATIOS = [  # (figure of ours, limit, what we want to keep)
    ("one stream, 64 KiB writes, MB/s", AEAD, 0.45),
    ("one stream, 64 KiB writes, MB/s", "noise frames over trio, MB/s", 0.8),
    ("one stream, 4 KiB writes, MB/s", AEAD, 0.30),
    ("TLS alone, 64 KiB writes, MB/s", "ssl over trio, MB/s", 0.8),
    ("echo of 32 B, per s", "blocking echo, per s", 0.35),
    ("Noise handshake, both sides, per s", "its primitives alone, per s", 0.6),
]

Results = dict[str, dict[str, list[float]]]  # figure -> who -> one value a round


async def measure(names: Sequence[str], rounds: int, progress: Progress) -> Results:
    """All figures in `names`, `rounds` times."""
    results: Results = {}
    commands = implementations()
    task = progress.add_task("measuring", total=rounds * len(names))

    def note(who: str, values: dict[str, float]) -> None:
        for figure, value in values.items():
            results.setdefault(figure, {}).setdefault(who, []).append(value)

    for _ in range(rounds):
        for name in names:
            progress.update(task, description=name)
            for who, functions in ((MACHINE, LIMITS), (OURS, LAYERS)):
                for figure, function in functions.get(name, {}).items():
                    note(who, {figure: await trio.to_thread.run_sync(function)})
            for who, command in commands.items():
                try:
                    note(who, await FIGURES[name](command))
                except (RuntimeError, trio.TooSlowError) as exc:
                    progress.console.print(f"{who}, {name}: {exc}")
            progress.advance(task)
    return results


def medians(results: Results) -> dict[str, dict[str, float]]:
    """The middle value of each figure."""
    return {
        figure: {who: statistics.median(values) for who, values in each.items()}
        for figure, each in results.items()
    }


def ratios(middle: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    """Our figures as parts of their limits."""
    return [
        {
            "figure": figure,
            "limit": limit,
            "ratio": middle[figure][OURS] / middle[limit][MACHINE],
            "goal": goal,
        }
        for figure, limit, goal in RATIOS
        if OURS in middle.get(figure, {}) and limit in middle
    ]


def show(middle: dict[str, dict[str, float]], console: Console) -> None:
    """Two tables: figures by implementation, and ratios to the limits."""
    columns = [who for who in (MACHINE, *implementations()) if any(who in each for each in middle.values())]
    table = Table(title="medians")
    table.add_column("figure")
    for who in columns:
        table.add_column(who, justify="right")
    for figure, each in middle.items():
        table.add_row(figure, *(f"{each[who]:,.4g}" if who in each else "" for who in columns))
    console.print(table)
    table = Table(title="ours as a part of the limit, in the same run")
    for name in ("figure", "limit", "ratio", "goal"):
        table.add_column(name)
    for row in ratios(middle):
        table.add_row(str(row["figure"]), str(row["limit"]), f"{row['ratio']:.2f}", f"≥ {row['goal']}")
    console.print(table)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure the wire.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="of every figure (default 5)")
    parser.add_argument("--only", action="append", choices=list(FIGURES), help="this figure (repeatable)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there")
    arguments = parser.parse_args()
    with Progress(console=Console(stderr=True)) as progress:
        results = trio.run(measure, arguments.only or list(FIGURES), arguments.rounds, progress)
    middle = medians(results)
    show(middle, Console())
    if arguments.json is not None:
        report = {
            "python": platform.python_version(),
            "machine": platform.processor() or platform.machine(),
            "rounds": arguments.rounds,
            "medians": middle,
            "ratios": ratios(middle),
            "values": results,
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
