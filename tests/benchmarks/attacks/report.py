"""What the runs came to: figures, a table for each data set and model, and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.benchmarks.attacks.task import Case

GOAL = 90.0  # percent
DARK = 55.0  # percent; below, black is hard to read on the map's colour

Row = Mapping[str, Any]


def rows_of(found: Mapping[Case, Sequence[float]]) -> list[Row]:
    """One for each data set, model, rule and attack: the last model's accuracy over the seeds."""
    cells: dict[tuple[str, str, str, str], list[Case]] = {}
    for case in found:
        cells.setdefault((case.dataset, case.model, case.rule, case.attack), []).append(case)
    rows = []
    for (dataset, model, rule, attack), cases in cells.items():
        last = [found[case][-1] for case in cases]
        rows.append(
            {
                "dataset": dataset,
                "model": model,
                "rule": rule,
                "attack": attack,
                "accuracy": statistics.mean(last),
                "lowest": min(last),
                "highest": max(last),
                "seeds": {str(case.seed): found[case][-1] for case in cases},
                "rounds": [
                    statistics.mean(each) for each in zip(*(found[case] for case in cases), strict=True)
                ],
            }
        )
    return rows


def tasks_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The data sets and models, in their order."""
    return list(dict.fromkeys((row["dataset"], row["model"]) for row in rows))


def grid(rows: Sequence[Row], dataset: str, model: str) -> dict[str, dict[str, Row]]:
    """By rule, by attack."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if (row["dataset"], row["model"]) == (dataset, model):
            found.setdefault(row["rule"], {})[row["attack"]] = row
    return found


def title(dataset: str, model: str, controls: Mapping[str, float]) -> str:
    """What was trained, and what one machine reaches."""
    told = ", ".join(f"{name} alone {accuracy:.1f}" for name, accuracy in controls.items())
    return f"{dataset}, {model}: accuracy in %; {told}"


def table(rows: Sequence[Row], dataset: str, model: str) -> Table:
    """Mean accuracy, and the lowest over the seeds in brackets; bold from `GOAL` on."""
    cells = grid(rows, dataset, model)
    found = Table("rule", *next(iter(cells.values())))
    for rule, by_attack in cells.items():
        texts = [f"{row['accuracy']:.1f} ({row['lowest']:.1f})" for row in by_attack.values()]
        bold = [row["accuracy"] >= GOAL for row in by_attack.values()]
        found.add_row(
            rule, *(f"[bold]{text}[/]" if it else text for text, it in zip(texts, bold, strict=True))
        )
    return found


def plot(rows: Sequence[Row], controls: Mapping[str, Mapping[str, float]], file: Path) -> None:
    """A map of rules and attacks for each data set and model."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    tasks = tasks_of(rows)
    height = max(len(grid(rows, *task)) for task in tasks)
    figure, axes = pyplot.subplots(
        len(tasks), 1, figsize=(9, (1.5 + 0.4 * height) * len(tasks)), squeeze=False, layout="constrained"
    )
    for (dataset, model), [axis] in zip(tasks, axes, strict=True):
        cells = grid(rows, dataset, model)
        values = [[row["accuracy"] for row in by_attack.values()] for by_attack in cells.values()]
        axis.imshow(values, cmap="RdYlGn", vmin=40, vmax=100, aspect="auto")
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                weight = "bold" if value >= GOAL else "normal"
                color = "white" if value < DARK else "black"
                axis.text(x, y, f"{value:.1f}", ha="center", va="center", weight=weight, color=color)
        axis.set_xticks(range(len(values[0])), list(next(iter(cells.values()))))
        axis.set_yticks(range(len(values)), list(cells))
        axis.set_title(title(dataset, model, controls[f"{dataset}, {model}"]), fontsize=10)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
