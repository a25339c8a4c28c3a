"""What a demo came to: the figures for `results.json`, the table and the page (no I/O)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from federated.demo.ledger import Ledger


@dataclass(slots=True, kw_only=True)
class DemoTask:
    """One task of a demo: what trains it, what became of it, and what one machine alone reaches."""

    trainer: str
    name: str
    path: Path  # of the manifest
    ledger: Ledger
    centralised: float | None = None


def results_of(tasks: Collection[DemoTask], liars: Sequence[str]) -> dict[str, Any]:
    """The results of all tasks; the figures at the top are those of the one that did worst."""
    each = [_task_results(task) for task in tasks]
    ledger = next(iter(tasks)).ledger  # of the first task; the kills are there
    names = ("accuracy", "centralised_accuracy", "rounds", "certified")
    return {
        **{name: min(task[name] or 0 for task in each) for name in names},
        "digests_agree": all(task["digests_agree"] for task in each),
        "bytes_sent": ledger.bytes_sent,
        "kills": [asdict(kill) for kill in ledger.kills],
        "liars": list(liars),
        "liars_ejected": all(_is_settled(task.ledger, liars) for task in tasks),
        "tasks": each,
    }


def is_complete(results: Mapping[str, Any]) -> bool:
    """Whether all held: every round certified, one model at all peers, the liars and nobody else ejected."""
    rounds = results["settings"]["rounds"]
    through = results["rounds"] == results["certified"] == rounds
    return bool(through and results["digests_agree"] and results["liars_ejected"])


def _task_results(task: DemoTask) -> dict[str, Any]:
    ledger = task.ledger
    return {
        "name": task.name,
        "trainer": task.trainer,
        "accuracy": ledger.accuracy,
        "centralised_accuracy": task.centralised,
        "rounds": ledger.last_round,
        "certified": ledger.certified,
        "digests_agree": ledger.digests_agree,
        "slowest_phase": ledger.slowest_phase,
        "ejections": [asdict(ejection) for ejection in ledger.ejections.values()],
        "history": [asdict(record) for _, record in sorted(ledger.rounds.items())],
    }


def _is_settled(ledger: Ledger, liars: Sequence[str]) -> bool:
    """Whether all that lied, and nobody else, were ejected, with evidence that is true."""
    ejections = ledger.ejections.values()
    return sorted(ledger.ejections) == sorted(liars) and all(ejection.proven for ejection in ejections)
