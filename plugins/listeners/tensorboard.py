"""Writes what the tasks of a peer report as event files of TensorBoard: `--tell tensorboard=runs`.

A run is a peer in a task, `runs/<task>/<peer>`; the steps are the rounds. Besides what is reported there
stands what the machine has left (`federated.resources`), read when a round is over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from federated.reports import Report
from federated.resources import Resources
from plugins.listeners.event_file import first_record, scalar_record

ID = 8  # characters that tell one from another: the first of a task's id, the last of a peer's

Scalar = tuple[str, float | None]


class TensorBoard:
    """The listener; `place` is the folder that `tensorboard --logdir` is to be given.

    `clock` tells unix seconds. Raises `OSError` when there can be no such folder.
    """

    def __init__(self, place: str, clock: Callable[[], float] = time.time) -> None:
        self._folder = Path(place)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._resources = Resources()
        self._names: dict[str, str] = {}  # of the tasks, by id
        self._files: dict[tuple[str, str], Path] = {}  # by task and peer

    def hear(self, peer: str, report: Report) -> None:
        """Writes the numbers of a round, and of what its model and updates were worth, to be read at once."""
        match report:
            case {"event": "task", "task": task, "name": name}:
                self._names[task] = f"{name}-{task[:ID]}"
            case {"event": "round", "task": task, "round": number}:
                self._write(task, peer, number, [*_of_round(report), *self._of_machine()])
            case {"event": "objection", "task": task, "round": number, "before": before, "after": after}:
                self._write(task, peer, number, [("objection/before", before), ("objection/after", after)])
            case {"event": "quality", "task": task, "round": number}:
                self._write(task, peer, number, _of_quality(report))

    def close(self) -> None:
        """Nothing is left to be written."""

    def _write(self, task: str, peer: str, number: int, scalars: list[Scalar]) -> None:
        now, known = self._clock(), [(name, value) for name, value in scalars if value is not None]
        data = scalar_record(now, number, known)
        path = self._files.get((task, peer))
        if path is None:
            folder = self._folder / self._names.get(task, task[:ID]) / peer[-ID:]
            folder.mkdir(parents=True, exist_ok=True)
            path = self._files[task, peer] = folder / f"events.out.tfevents.{int(now)}.{os.getpid()}"
            data = first_record(now) + data
        with path.open("ab") as file:
            file.write(data)

    def _of_machine(self) -> Iterator[Scalar]:
        for reading in self._resources.readings(self._folder):
            yield "/".join(("resources", reading.name, reading.device)).rstrip("/"), reading.value


def _of_round(report: Report) -> Iterator[Scalar]:
    yield "model/accuracy", report["accuracy"]
    yield "model/loss", report["loss"]
    yield "round/seconds", report["seconds"]
    yield "round/participants", len(report["participants"])
    yield "round/refused", len(report["refused"])
    yield "round/late", len(report["late"])
    yield "round/skipped", float(report["skipped"])
    yield "round/bytes_sent", report["bytes_sent"]
    for phase, seconds in report["phases"].items():
        yield f"phases/{phase}", seconds
    for name, value in report.get("training", {}).items():
        yield f"training/{name}", value
    if "privacy" in report:
        yield "privacy/epsilon", report["privacy"]["epsilon"]


def _of_quality(report: Report) -> list[Scalar]:
    peers = [(item["peer"][-ID:], item) for item in report["peers"]]
    return [
        ("quality/loss_before", report["before"]),
        ("quality/loss_after", report["after"]),
        *((f"gain/{peer}", item["gain"]) for peer, item in peers),
        *((f"leave_one_out/{peer}", item["leave_one_out"]) for peer, item in peers),
    ]
