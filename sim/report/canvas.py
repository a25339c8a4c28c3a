"""The look of all plots, and how they become SVG that fits light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart with any colour vision; the blue is lighter, to be seen on dark pages
BLUE, ORANGE, GREEN, RED = "#1f83c6", "#e69f00", "#009e73", "#d55e00"
PURPLE, GREY = "#cc79a7", "#8a8a8a"

INK = "#010203"  # becomes `currentColor`: the colour of the page's text
SIZE = (7.2, 3.9)  # inches
TITLE_WIDTH = 66  # characters of a line
MAX_BARS = 60

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 2,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"),
        INK,
    ),
}


def new_figure(title: str, x: str, y: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, labelled, with the title as a sentence above."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.set_title(fill(title, TITLE_WIDTH))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
    return figure, axes


def shade(axes: Axes, intervals: Sequence[Sequence[Any]], end: float) -> None:
    """Marks when something was wrong, behind the curves. Each interval: begin, end, what."""
    label = "something wrong, or healing"
    for begin, until in _merged(intervals, end):
        axes.axvspan(begin, until, color=ORANGE, alpha=0.15, linewidth=0, zorder=0, label=label)
        label = "_again"


def legend(axes: Axes) -> None:
    """A legend below the axes, where it covers nothing; none for a single curve."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(4, len(handles)),
            labelcolor=INK,
            frameon=False,
        )


def bars(axes: Axes, shown: Sequence[tuple[Any, str, str]], *, share: bool = False) -> None:
    """Bars for distributions of whole numbers side by side, each with its label and colour.

    A distribution is {"value": …, "count": …}; with `share` the bars of each sum up to 100.
    """
    highest = max(max(counts["value"]) for counts, _, _ in shown)
    lowest = min(min(counts["value"]) for counts, _, _ in shown)
    step = max(1, -(-(highest - lowest + 1) // MAX_BARS))
    totals = [sum(counts["count"]) / 100 if share else 1 for counts, _, _ in shown]
    axes.hist(
        [counts["value"] for counts, _, _ in shown],
        bins=[lowest - 0.5 + step * number for number in range((highest - lowest) // step + 2)],
        weights=[
            [count / total for count in counts["count"]]
            for (counts, _, _), total in zip(shown, totals, strict=True)
        ],
        color=[colour for _, _, colour in shown],
        label=[label for _, label, _ in shown],
        rwidth=0.85,
    )
    whole_numbers(axes.xaxis)
    if not share:
        whole_numbers(axes.yaxis)


def whole_numbers(axis: Axis) -> None:
    """Marks only whole numbers on the axis."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def to_svg(figure: Figure, name: str) -> str:
    """The figure as SVG without a background, its text in the colour of whatever surrounds it."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # several plots share a page: their names must not be taken for each other's
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)


def _merged(intervals: Sequence[Sequence[Any]], end: float) -> list[tuple[float, float]]:
    """The intervals within the run, those that overlap as one."""
    merged: list[tuple[float, float]] = []
    for begin, until in sorted((float(one[0]), min(float(one[1]), end)) for one in intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(until, merged[-1][1]))
        elif begin < until:
            merged.append((begin, until))
    return merged
