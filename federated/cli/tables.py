"""Tables for people: how tasks stand, and which there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

UNITS = ("B", "kB", "MB", "GB", "TB")


def status_table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """The tasks of a peer, as its `status` command tells."""
    table = Table(box=None, pad_edge=False)
    for name in (
        "task",
        "state",
        "round",
        "phase",
        "members",
        "last certificate",
        "accuracy",
        "refused",
        "disk",
    ):
        table.add_column(name, overflow="fold")
    for task in tasks:
        table.add_row(
            f"{task['name']} {task['task'][:12]}",
            task["state"] + (f": {task['reason']}" if task["reason"] else ""),
            f"{task['round']}/{task['rounds']}",
            _phase(task["phase"]),
            _members(task["members"]),
            _certificate(task["certificate"]),
            "" if task["accuracy"] is None else f"{task['accuracy']:.4f}",
            ", ".join(f"…{item['peer'][-6:]} {item['rule']}×{item['count']}" for item in task["refused"]),
            size(task["disk_bytes"]),
        )
    return table


def list_table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """The tasks that are announced in a network."""
    table = Table(box=None, pad_edge=False)
    for name in ("name", "id", "state", "members", "admission", "creator"):
        table.add_column(name, overflow="fold")
    for task in tasks:
        state = f"{task['state']} {task['round']}/{task['rounds']}" + (
            ", joined" if task.get("joined") else ""
        )
        table.add_row(
            task["name"], task["task"], state, str(task["members"]), task["admission"], task["creator"]
        )
    return table


def size(count: int | None) -> str:
    """A number of bytes for people; nothing for None."""
    if count is None:
        return ""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def _phase(phase: Mapping[str, Any] | None) -> str:
    if phase is None:
        return ""
    waited = f" ({phase['answers']}/{phase['needed']})" if phase["needed"] else ""
    return f"{phase['phase']} done in round {phase['round']}{waited}"


def _members(members: Mapping[str, str]) -> str:
    counts = Counter(members.values())
    others = [f"{count} {state}" for state, count in sorted(counts.items()) if state != "active"]
    return ", ".join([str(counts["active"]), *others])


def _certificate(certificate: Mapping[str, Any] | None) -> str:
    if certificate is None:
        return ""
    skipped = " skipped" if certificate["skipped"] else ""
    return f"{certificate['digest'][:12]} view {certificate['view']}, {certificate['votes']} votes{skipped}"
