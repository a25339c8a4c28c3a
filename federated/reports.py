"""The events that a task reports, as JSON objects: what a person or a program follows a peer by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federated.manifest import TaskManifest
from federated.rounds.events import PhaseFinished, RoundFinished

Report = dict[str, Any]


def task_report(manifest: TaskManifest, state: str, reason: str | None = None) -> Report:
    """`state` is "joined", "waiting" (the disk fails), "finished" or "refused"; `reason` is one line."""
    report = _head(manifest, "task") | {"name": manifest.name, "state": state}
    return report if reason is None else report | {"reason": reason}


def phase_report(manifest: TaskManifest, action: PhaseFinished) -> Report:
    """A phase of a round is over."""
    where = {"round": action.round, "phase": action.phase.value, "seconds": action.seconds}
    return _head(manifest, "phase") | where


def round_report(
    manifest: TaskManifest, action: RoundFinished, measured: Mapping[str, float | None], bytes_sent: int
) -> Report:
    """A round is over; `measured` has accuracy and loss, `bytes_sent` counts since the peer started."""
    return _head(manifest, "round") | {
        "round": action.round,
        "digest": action.model.digest.hex(),
        "skipped": action.skipped,
        "participants": [str(peer) for peer in action.participants],
        "refused": [{"peer": str(peer), "rule": rule} for peer, rule in action.refused],
        "seconds": action.seconds,
        "phases": {phase.value: seconds for phase, seconds in action.phases.items()},
        "accuracy": measured.get("accuracy"),
        "loss": measured.get("loss"),
        "bytes_sent": bytes_sent,
        "catch_up": action.catch_up,
    }


def _head(manifest: TaskManifest, event: str) -> Report:
    return {"event": event, "task": manifest.task_id.hex()}
