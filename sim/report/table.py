"""A finished run for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sim.report.wording import in_words, number, size, speed


def print_result(result: Mapping[str, Any], console: Console) -> None:
    """The result of a run: what had to hold, the figures, the hashes. Colour only repeats what words say."""
    verdict = Text("passed", "bold green") if result["passed"] else Text("FAILED", "bold red")
    head = f"{result['scenario']}: {result['peers']:,} peers, seed {result['seed']}, rung {result['rung']}: "
    console.print(Text(head, "bold") + verdict)
    virtual, wall = result["virtual_seconds"], result["wall_seconds"]
    console.print(
        f"  {virtual:,.1f} s simulated in {wall:,.1f} s ({speed(result)}), "
        f"{number(result['events'])} events, {size(result['rss_bytes'])} of memory",
        highlight=False,
    )
    console.print(Padding(_checks(result), (1, 0, 1, 2)))
    console.print(Padding(_figures(result), (0, 0, 1, 2)))
    console.print(f"  trace    {result['trace_hash']}", highlight=False, soft_wrap=True)
    console.print(f"  results  {result['results_hash']}", highlight=False, soft_wrap=True)
    if result.get("report"):
        console.print(f"  report   {result['report']}", highlight=False, markup=False, soft_wrap=True)


def _checks(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=3)
    table.add_column(ratio=2)
    for check in sorted(result["assertions"], key=lambda check: bool(check["holds"])):
        word = Text("ok", "green") if check["holds"] else Text("FAILED", "bold red")
        table.add_row(word, Text(check["name"]), Text(check["seen"]))
    return table


def _figures(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, value in result["figures"].items():
        words, text = in_words(name, value)
        table.add_row(Text(words), Text(text))
    return table
