"""The report folder of a demo: results.json, a page, and a picture of accuracy over rounds and bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from federated.demo.page import page
from federated.errors import FederatedError
from federated.folders import make_numbered


def make_folder(parent: Path, name: str) -> Path:
    """A new folder under `parent`, numbered when `name` is taken. Raises `FederatedError`."""
    try:
        return make_numbered(parent, name)
    except FileExistsError as exc:
        raise FederatedError(f"{parent} is full of reports called {name}; remove some") from exc
    except OSError as exc:
        raise FederatedError(f"cannot make the report folder {parent / name}: {exc.strerror}") from exc


def write_report(folder: Path, results: Mapping[str, Any]) -> None:
    """Writes results.json, report.html and, with matplotlib, accuracy.png. Raises `FederatedError`."""
    versions = {"atcp": version("atcp"), "python": python_version()}
    text = json.dumps({**results, "versions": versions}, indent=2)
    try:
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        pictures = ["accuracy.png"] if draw_accuracy(folder / "accuracy.png", results) else []
        (folder / "report.html").write_text(page(results, versions, pictures), encoding="utf-8")
    except OSError as exc:
        raise FederatedError(f"cannot write the report to {folder}: {exc.strerror}") from exc


def draw_accuracy(path: Path, results: Mapping[str, Any]) -> bool:
    """Draws held-out accuracy over rounds and over megabytes sent; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for task in results["tasks"]:
        history = [record for record in task["history"] if record["accuracy"] is not None]
        accuracy = [record["accuracy"] for record in history]
        rounds = [record["number"] for record in history]
        [line] = axes[0].plot(rounds, accuracy, marker="o", label=f"{task['name']}, held-out")
        axes[1].plot([record["bytes_sent"] / 1e6 for record in history], accuracy, marker="o")
        for axis in axes:
            axis.axhline(
                task["centralised_accuracy"],
                linestyle="--",
                color=line.get_color() if len(results["tasks"]) > 1 else "gray",
                label=f"{task['name']}, centralised",
            )
        for ejection in task["ejections"]:
            axes[0].axvline(ejection["round"], linestyle=":", color="tab:orange", label="ejected")
    for axis, label in zip(axes, ("round", "megabytes sent by all peers"), strict=True):
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    for kill in results["kills"]:
        axes[0].axvline(kill["round"], linestyle=":", color="tab:red", label="kill -9")
    axes[0].set_ylabel("accuracy")
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes[0].legend(unique.values(), unique.keys(), loc="lower right")
    figure.suptitle(f"{results['settings']['peers']} peers, {results['rounds']} rounds, no server")
    figure.savefig(path, dpi=120)
    return True
