"""How a demo shows its progress: a live line for a terminal, a line a round for a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from federated.demo.ledger import Ledger, slowest


class ProgressView:
    """Follows the events of a demo on `console` (stderr: stdout is for the result)."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._shown = 0  # the last round that was shown
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
                if ledger.last_round > self._shown:
                    self._shown = ledger.last_round
                    self._show_round(ledger)
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
        self._progress.update(self._task, completed=record.number, status=status)
        if not self._console.is_terminal:
            self._console.print(f"round {record.number}: {status}", highlight=False)


def result_table(results: Mapping[str, Any]) -> Table:
    """The rounds and what they came to, for people."""
    table = Table(title=f"{results['peers']} peers trained together for {results['rounds']} rounds")
    for name in ("round", "accuracy", "updates", "seconds", "slowest phase", "MB sent", "model"):
        table.add_column(name, justify="right" if name != "slowest phase" else "left")
    for record in results["history"]:
        digests = sorted(set(record["digests"].values()))
        accuracy = "–" if record["accuracy"] is None else f"{record['accuracy']:.4f}"
        table.add_row(
            str(record["number"]),
            accuracy,
            "skipped" if record["skipped"] else str(len(record["participants"])),
            f"{record['seconds']:.2f}",
            slowest(record["phases"]),
            f"{record['bytes_sent'] / 1e6:.1f}",
            digests[0][:12] if len(digests) == 1 else "[red]disagree[/]",
        )
    return table
