"""Tables for people: how tasks stand, and which there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

MOST_LISTED = 16  # members that have a line each; there is room for more in JSON
UNITS = ("B", "kB", "MB", "GB", "TB")


def status_table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """The tasks of a peer, as its `status` command tells: some lines for each, which fit 80 columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for task in tasks:
        rows = {
            "round": ", ".join(filter(None, [f"{task['round']}/{task['rounds']}", _phase(task["phase"])])),
            "members": _members(task["members"]),
            **_capabilities(task["capabilities"]),
            "certified": _certificate(task["certificate"]),
            "accuracy": "" if task["accuracy"] is None else f"{task['accuracy']:.4f}",
            "privacy": _privacy(task.get("privacy")),
            "sums": _sums(task.get("mode", "robust"), task.get("sums")),
            "refused": ", ".join(
                f"…{item['peer'][-6:]} {item['rule']}×{item['count']}" for item in task["refused"]
            ),
            "disk": size(task["disk_bytes"]),
        }
        state = task["state"] + (f": {task['reason']}" if task["reason"] else "")
        table.add_row(f"{task['name']} {task['task'][:12]}", state)
        for name, text in rows.items():
            if text:
                table.add_row(f"  {name}", text)
    return table


def list_table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """The tasks that are announced in a network: two lines for each, the second with the whole id."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for task in tasks:
        state = f"{task['state']} {task['round']}/{task['rounds']}"
        joined = ", joined" if task.get("joined") else ""
        who = f"{task['members']} members, {task['admission']}, by …{task['creator'][-8:]}"
        table.add_row(task["name"], f"{state}{joined}, {who}")
        table.add_row("", task["task"])
    return table


def size(count: float | None) -> str:
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


def _capabilities(announced: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A line for each member that announced what it can do; what it does not know yet is left out."""
    shown = sorted(announced)[:MOST_LISTED]
    rows = {f"  …{peer[-6:]}": _capability(announced[peer]) for peer in shown}
    rest = len(announced) - len(shown)
    return rows | ({"  …": f"{rest} more, see --json"} if rest else {})


def _capability(rates: Mapping[str, Any]) -> str:
    steps = rates["steps_per_second"]
    parts = {
        f"{steps:.0f} steps/s" if steps >= 100 else f"{steps:.3g} steps/s": steps,
        f"↓ {size(rates['bytes_down'])}/s": rates["bytes_down"],
        f"↑ {size(rates['bytes_up'])}/s": rates["bytes_up"],
        f"mean {size(rates['aggregate_bytes_per_second'])}/s": rates["aggregate_bytes_per_second"],
        size(rates["memory"]): rates["memory"],
    }
    return ", ".join([*(text for text, value in parts.items() if value), f"{rates['cores']} cores"])


def _privacy(spent: Mapping[str, Any] | None) -> str:
    """What the updates of this peer gave away, in a private task."""
    if spent is None:
        return ""
    given = f"ε {spent['epsilon']:.3g} of {spent['budget']:g}, δ {spent['delta']:g}"
    return f"{given}, {spent['updates']} updates"


def _sums(mode: str, step: Mapping[str, Any] | None) -> str:
    """What the last round was for, in a task of secure sums, and what came of it."""
    if step is None:
        return "" if mode == "robust" else mode
    counts = {"dealings": "dealings", "summed": "summed up", "groups": "groups", "holders": "holders"}
    if mode == "private":
        del counts["groups"]
    known = [f"{step[name]} {text}" for name, text in counts.items() if name in step]
    wrong = [f"{len(step['wrong'])} wrong"] if step.get("wrong") else []
    return ", ".join([f"{step['mode']}, {step['step']}: {step['result']}", *known, *wrong])


def _certificate(certificate: Mapping[str, Any] | None) -> str:
    if certificate is None:
        return ""
    skipped = " skipped" if certificate["skipped"] else ""
    return f"{certificate['digest'][:12]} view {certificate['view']}, {certificate['votes']} votes{skipped}"
