"""The plots of a run, drawn from its metrics with matplotlib (extra `plots`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.report.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    bars,
    legend,
    new_figure,
    shade,
    to_svg,
    whole_numbers,
)
from sim.report.layout import layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sim.report.metrics import Metrics

HOW_TO_GET = "No plots: matplotlib is not installed. Get it with: pip install 'atcp[plots]'"

MAX_LINES = 4000  # of a topology: more make a large file and no better picture
LONG_TAIL = 20  # times the median: beyond it an axis is logarithmic

_MARKS = ("o", "s", "^", "D")
_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot: the name of its file, what it shows, and itself."""

    name: str
    caption: str
    svg: str


def available() -> bool:
    """Whether plots can be drawn here."""
    return find_spec("matplotlib") is not None


def draw_plots(metrics: Metrics) -> list[Plot]:
    """All plots for which the run has data. Needs matplotlib."""
    plots = []
    for name, (draw, caption) in _PLOTS.items():
        figure = draw(metrics)
        if figure is not None:
            plots.append(Plot(name=name, caption=caption, svg=to_svg(figure, name)))
    return plots


def _delivery_cdf(metrics: Metrics) -> Figure | None:
    cdf = metrics["latency_cdf"]
    if not cdf["ms"]:
        return None
    half, nearly_all = cdf["p50"], cdf["p99"]
    title = f"Half of all deliveries take up to {half:,.0f} ms, 99 % up to {nearly_all:,.0f} ms"
    figure, axes = new_figure(title, "milliseconds since publication", "share of deliveries")
    axes.step([cdf["ms"][0], *cdf["ms"]], [0, *cdf["share"]], where="post", color=BLUE)
    for at, label, colour in ((half, "p50", GREEN), (nearly_all, "p99", RED)):
        axes.axvline(at, color=colour, linestyle="--", linewidth=1.2)
        axes.annotate(label, (at, 0), (4, 4), textcoords="offset points", color=colour, fontsize=10)
    if cdf["ms"][-1] > LONG_TAIL * max(1.0, half):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_plain)
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    return figure


def _latency_over_time(metrics: Metrics) -> Figure | None:
    series = metrics["latency_over_time"]
    if len(series["at"]) < 2:
        return None
    title = "How long deliveries take, by the second of publication"
    figure, axes = new_figure(title, "virtual seconds", "milliseconds")
    for (name, label), colour, mark in zip(
        (("p50", "median"), ("p90", "90 % below"), ("p99", "99 % below")),
        (GREEN, BLUE, RED),
        _MARKS,
        strict=False,
    ):
        axes.plot(series["at"], series[name], color=colour, marker=mark, markersize=3.5, label=label)
    if max(series["p99"]) > LONG_TAIL * max(1.0, float(np.median(series["p50"]))):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain)
    else:
        axes.set_ylim(bottom=0)
    _whole_time(axes, metrics)
    return figure


def _copies(metrics: Metrics) -> Figure | None:
    counts = metrics["copies_per_delivery"]
    if not counts["value"]:
        return None
    mean = np.average(counts["value"], weights=counts["count"])
    title = f"A node gets {mean:.1f} copies of a message that it has, on average"
    figure, axes = new_figure(title, "copies for each delivered message", "nodes")
    tenths = max(1, round(max(counts["value"]) / 4))  # about 40 bars from zero
    bins = [(number - 0.5) * tenths / 10 for number in range(round(10 * max(counts["value"])) // tenths + 2)]
    axes.hist(
        counts["value"], bins=[*bins, bins[-1] + tenths / 10], weights=counts["count"], color=BLUE, rwidth=0.9
    )
    whole_numbers(axes.yaxis)
    return figure


def _degrees(metrics: Metrics) -> Figure | None:
    shown = [(metrics["connections"], "connections", BLUE), (metrics["mesh"], "mesh peers", ORANGE)]
    shown = [one for one in shown if one[0]["value"]]
    if not shown:
        return None
    title = "How many peers the nodes have at the end"
    figure, axes = new_figure(title, "connections of a node, mesh peers in a topic", "nodes")
    bars(axes, shown)
    legend(axes)
    return figure


def _degrees_over_time(metrics: Metrics) -> Figure | None:
    series = metrics["samples"]
    if len(series["at"]) < 2:
        return None
    title = "Connections and mesh peers of the nodes: median and range"
    figure, axes = new_figure(title, "virtual seconds", "peers")
    for name, label, colour in (("connections", "connections", BLUE), ("mesh", "mesh peers", ORANGE)):
        if name == "mesh" and not metrics["mesh"]["value"]:
            continue
        axes.fill_between(
            series["at"], series[f"{name}_low"], series[f"{name}_high"], color=colour, alpha=0.2, linewidth=0
        )
        axes.plot(series["at"], series[f"{name}_median"], color=colour, label=label)
    whole_numbers(axes.yaxis)
    axes.set_ylim(bottom=0)
    _whole_time(axes, metrics)
    return figure


def _scores(metrics: Metrics) -> Figure | None:
    """The two distributions over time; far below zero on a logarithmic axis."""
    series = metrics["scores"]
    if len(series["at"]) < 2 or not any(series["honest_median"]):
        return None
    title = "What honest nodes think of their peers: median, 5 % to highest, and the lowest"
    figure, axes = new_figure(title, "virtual seconds", "score in gossipsub")
    for name, colour in (("honest", BLUE), ("adversaries", RED)):
        rows = [
            (at, *(series[f"{name}_{part}"][index] for part in ("low", "fifth", "median", "high")))
            for index, at in enumerate(series["at"])
            if series[f"{name}_median"][index] is not None
        ]
        if rows:
            at, low, fifth, middle, high = zip(*rows, strict=True)
            axes.fill_between(at, fifth, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(at, middle, color=colour, label=name)
            axes.plot(at, low, color=colour, linestyle=":", linewidth=1.2)
    axes.set_yscale("symlog", linthresh=5)
    axes.yaxis.set_major_formatter(_plain)
    _whole_time(axes, metrics)
    return figure


def _hops(metrics: Metrics) -> Figure | None:
    hops = metrics["hops"]
    shown = [
        (hops[kind], f"{kind} ({sum(hops[kind]['count']):,})", colour)
        for kind, colour in (("find", BLUE), ("put", ORANGE), ("get", GREEN))
        if hops[kind]["value"]
    ]
    if not shown:
        return None
    title = "How many peers a DHT operation asks until it ends"
    figure, axes = new_figure(title, "queries", "share of the operations")
    bars(axes, shown, share=True)
    axes.yaxis.set_major_formatter(_percent)
    legend(axes)
    return figure


def _gossip_hops(metrics: Metrics) -> Figure | None:
    counts = metrics["hops"]["gossip"]
    if not counts["value"]:
        return None
    title = "Over how many links a message comes to a node"
    figure, axes = new_figure(title, "links from the publisher", "share of the deliveries")
    bars(axes, [(counts, "deliveries", BLUE)], share=True)
    axes.yaxis.set_major_formatter(_percent)
    return figure


def _accuracy(metrics: Metrics) -> Figure | None:
    tasks = {
        task: measured
        for task, rounds in metrics["rounds"].items()
        if (measured := [one for one in rounds if one["accuracy"] is not None])
    }
    if not tasks:
        return None
    title = "Accuracy of the model, round by round: median and range"
    figure, axes = new_figure(title, "virtual seconds", "accuracy")
    for number, (task, rounds) in enumerate(tasks.items()):
        colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
        at = [one["at"] for one in rounds]
        low, middle, high = (
            [100 * one[name] for one in rounds] for name in ("accuracy_low", "accuracy", "accuracy_high")
        )
        axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(at, middle, color=colour, marker=mark, markersize=5, label=task)
    axes.yaxis.set_major_formatter(_percent)
    _whole_time(axes, metrics)
    return figure


def _bandwidth(metrics: Metrics) -> Figure | None:
    sent, received, seconds = (
        metrics["bytes"]["sent"],
        metrics["bytes"]["received"],
        metrics["virtual_seconds"],
    )
    if not any(sent) or not seconds:
        return None
    figure, axes = new_figure(
        "What the nodes send and receive, over the whole run", "kB per virtual second", "nodes"
    )
    rates = [np.array(values) / seconds / 1000 for values in (sent, received)]
    bins = np.linspace(0, max(1e-9, *(float(rate.max()) for rate in rates)), 31).tolist()
    for rate, label, colour in zip(rates, ("sent", "received"), (BLUE, ORANGE), strict=True):
        axes.hist(rate, bins=bins, color=colour, alpha=0.35, linewidth=0)
        axes.hist(rate, bins=bins, color=colour, histtype="step", linewidth=1.6, label=label)
    whole_numbers(axes.yaxis)
    axes.set_xlim(left=0)
    legend(axes)
    return figure


def _topology(metrics: Metrics) -> Figure | None:
    graph = metrics["topology"]
    if not graph["edges"]:
        return None
    nodes, peers = graph["nodes"], metrics["peers"]
    numbers = {node: number for number, node in enumerate(nodes)}
    places = layout(len(nodes), [(numbers[one], numbers[other]) for one, other in graph["edges"]])
    every = -(-len(graph["edges"]) // MAX_LINES)
    title = "Who is connected to whom at the end"
    if len(nodes) < peers:
        title += f": {len(nodes)} of {peers:,} nodes"
    if every > 1:
        title += f", one line for {every} connections"
    figure, axes = new_figure(title, "", "", (7.2, 6.6))
    lines = np.full((len(graph["edges"][::every]), 3, 2), np.nan)  # one long line with gaps: a small file
    for row, (one, other) in enumerate(graph["edges"][::every]):
        lines[row, :2] = places[numbers[one]], places[numbers[other]]
    axes.plot(lines[:, :, 0].ravel(), lines[:, :, 1].ravel(), color=GREY, linewidth=0.5, alpha=0.5, zorder=1)
    _scatter_nodes(axes, graph, numbers, places)
    axes.set_axis_off()
    axes.set_aspect("equal")
    legend(axes)
    return figure


def _scatter_nodes(axes: Axes, graph: Metrics, numbers: dict[int, int], places: Any) -> None:
    """Each kind of node with a colour and a shape of its own."""
    special = {**dict.fromkeys(graph["down"], "down"), **dict.fromkeys(graph["adversaries"], "adversary")}
    for kind, colour, mark in (("honest", BLUE, "o"), ("adversary", RED, "X"), ("down", GREY, "v")):
        chosen = [numbers[node] for node in graph["nodes"] if special.get(node, "honest") == kind]
        if chosen:
            size = 260 / max(6.0, len(numbers) ** 0.5)
            axes.scatter(
                places[chosen, 0],
                places[chosen, 1],
                s=size,
                c=colour,
                marker=mark,
                zorder=2,
                linewidths=0,
                label=f"{kind} ({len(chosen)})",
            )


def _whole_time(axes: Axes, metrics: Metrics) -> None:
    """The run from beginning to end, with its troubles and a legend."""
    shade(axes, metrics["trouble"], metrics["virtual_seconds"])
    axes.set_xlim(0, metrics["virtual_seconds"])
    legend(axes)


def _plain(value: float, _: float) -> str:
    return f"{value:,.6g}"


def _percent(share: float, _: float) -> str:
    return f"{share:g} %"


_PLOTS: dict[str, tuple[Callable[[Metrics], Figure | None], str]] = {
    "delivery-cdf": (_delivery_cdf, "Deliveries of all messages to all nodes that got them."),
    "latency-over-time": (_latency_over_time, "Percentiles of the deliveries of one second's messages."),
    "gossip-hops": (_gossip_hops, "Each delivery counts once; ways through unknown nodes are left out."),
    "copies": (_copies, "Redundancy is what makes gossip robust, and what it costs."),
    "degrees": (_degrees, "Of the nodes that run at the end."),
    "degrees-over-time": (_degrees_over_time, "Sampled once per virtual second, over the nodes that run."),
    "scores": (
        _scores,
        "Sampled every five virtual seconds; below zero a peer is in no mesh, dotted: the lowest.",
    ),
    "lookup-hops": (_hops, "Queries of each operation, those that failed among them."),
    "accuracy": (_accuracy, "As the honest members measure it when they are through with a round."),
    "bandwidth": (_bandwidth, "Bytes that the network carried, divided by the length of the run."),
    "topology": (_topology, "Nodes that share neighbours are drawn close to each other."),
}
