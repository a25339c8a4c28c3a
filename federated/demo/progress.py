"""How a demo shows its progress: a live line for a terminal, a line a round for a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from federated.demo.ledger import Ledger


class ProgressView:
    """Follows the events of a demo on `console` (stderr: stdout is for the result)."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._shown: dict[Ledger, int] = {}  # the last round of each task that was shown
        self._peers = 0
        columns = (
            TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID = self._progress.add_task("", total=rounds, status="starting the peers")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the live line while the block runs, where the console is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with self._progress:
            yield

    def __call__(self, event: Mapping[str, Any], ledger: Ledger) -> None:
        """Takes the next event; `ledger` has it already."""
        match event:
            case {"event": "started", "peers": peers}:
                self._peers = peers
            case {"event": "round"}:
                if ledger.last_round > self._shown.get(ledger, 0):
                    self._shown[ledger] = ledger.last_round
                    self._show_round(ledger)
            case {"event": "ejected", "peer": peer, "round": number}:
                self._console.print(
                    f"[yellow]ejected[/] …{peer[-8:]} in round {number}: it voted twice", highlight=False
                )
            case {"event": "killed", "peer": peer, "round": number}:
                self._peers -= 1
                self._console.print(f"[red]kill -9[/] …{peer[-8:]} in round {number}", highlight=False)
            case {"event": "restarted", "peer": peer}:
                self._peers += 1
                self._console.print(f"[green]started again[/] …{peer[-8:]}", highlight=False)
            case {"event": "lost", "peer": peer, "reason": reason}:
                self._peers -= 1
                self._console.print(f"[red]lost[/] …{peer[-8:]}: {reason}", highlight=False)

    def _show_round(self, ledger: Ledger) -> None:
        record = ledger.rounds[ledger.last_round]
        accuracy = "–" if record.accuracy is None else f"{record.accuracy:.3f}"
        status = (
            f"accuracy {accuracy}  peers {self._peers}  sent {ledger.bytes_sent / 1e6:.1f} MB"
            f"  slowest phase: {record.slowest_phase}"
        )
        self._progress.update(self._task, completed=min(self._shown.values()), status=status)
        if not self._console.is_terminal:
            where = f"{ledger.name} round {record.number}".lstrip()
            self._console.print(f"{where}: {status}", highlight=False)


def result_table(results: Mapping[str, Any], task: Mapping[str, Any]) -> Table:
    """The rounds of one task and what they came to, for people."""
    peers, rounds = results["settings"]["peers"], task["rounds"]
    title = f"{peers} peers trained {task['name']} together for {rounds} rounds"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)  # fits into 80 columns
    for name in ("round", "accuracy", "updates", "seconds", "to vote", "MB sent", "certificate", "model"):
        table.add_column(name, justify="left" if name in ("certificate", "model") else "right", no_wrap=True)
    for record in task["history"]:
        digests = sorted(set(record["digests"].values()))
        accuracy = "–" if record["accuracy"] is None else f"{record['accuracy']:.4f}"
        table.add_row(
            str(record["number"]),
            accuracy,
            "skipped" if record["skipped"] else str(len(record["participants"])),
            f"{record['seconds']:.2f}",
            f"{record['phases'].get('vote', 0.0):.2f}",
            f"{record['bytes_sent'] / 1e6:.1f}",
            certificate_of(record),
            digests[0][:8] if len(digests) == 1 else "[red]disagree[/]",
        )
    return table


def certificate_of(record: Mapping[str, Any]) -> str:
    """How a round was decided, in words."""
    blocks = set(record["blocks"].values())
    if len(blocks) != 1:
        return "two certificates!" if blocks else "none"
    return f"{record['votes']} votes" + (f", view {record['view']}" if record["view"] > 1 else "")


def ejection_line(ejection: Mapping[str, Any]) -> str:
    """Who was ejected, and why, in words."""
    votes = " and ".join(f"{vote['choice']} {vote['block'][:8]}" for vote in ejection["votes"] or [])
    proven = "both signatures are its own" if ejection["proven"] else "the evidence is missing or false"
    return f"ejected …{ejection['peer'][-8:]} in round {ejection['round']}: voted {votes or '?'}; {proven}"
