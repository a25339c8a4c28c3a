"""How a scenario scales: a row of a table for each size, and one plot of them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sim.report.canvas import BLUE, GREY, INK, ORANGE, new_figure, to_svg
from sim.report.plots import available
from sim.report.wording import number, size

Result = Mapping[str, Any]


def _text(name: str, form: Callable[[Any], str] = number) -> Callable[[Result], str]:
    def column(result: Result) -> str:
        value = result.get(name)
        return "-" if value is None else form(value)

    return column


COLUMNS: Mapping[str, Callable[[Result], str]] = {
    "peers": _text("peers"),
    "rung": _text("rung", str),
    "start-up s": _text("startup_seconds"),
    "virtual s a wall s": _text("speed"),
    "wall s": _text("wall_seconds"),
    "events a s": _text("events_per_second"),
    "bare heap a s": _text("bare_heap_events_per_second"),
    "a peer": _text("bytes_per_peer", size),
    "memory": _text("rss_bytes", size),
    "passed": _text("passed", lambda passed: "yes" if passed else "NO"),
}
"""The columns of the table, by their heads."""


def draw_scaling(results: Sequence[Result]) -> str | None:
    """Speed and memory over the number of peers, as SVG; None without matplotlib, or without two sizes."""
    measured = [result for result in results if result.get("speed")]
    if not available() or len(measured) < 2:
        return None
    figure, axes = new_figure(
        "Simulated seconds in a second, and memory of a peer", "peers", "virtual seconds a wall second"
    )
    peers = [result["peers"] for result in measured]
    axes.plot(peers, [result["speed"] for result in measured], marker="o", color=BLUE, label="speed")
    axes.axhline(1.0, linewidth=1, linestyle=":", color=GREY, label="real time")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(peers, labels=[f"{count:,}" for count in peers])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda speed, _: number(float(speed)))
    memory = axes.twinx()
    sizes = [result["bytes_per_peer"] / 1000 for result in measured]
    memory.plot(peers, sizes, marker="s", linestyle="--", color=ORANGE, label="memory (right)")
    memory.set_ylabel("kB a peer", color=INK)
    memory.tick_params(colors=INK)
    memory.grid(visible=False)
    memory.set_ylim(0, 1.1 * max(1.0, *sizes))
    handles = [*axes.get_lines(), *memory.get_lines()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, labelcolor=INK, frameon=False)
    return to_svg(figure, "scale")
