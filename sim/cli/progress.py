"""How far a run is: a bar for people on stderr, or a line of JSON for each virtual second on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from sim.run import Progress as RunProgress

FILE_WIDTH = 120  # characters of a line where stdout is no terminal

Tell = Callable[["RunProgress"], None]

SHORTEST = 0.1  # seconds; over less no rate is shown


@contextmanager
def shown(name: str, planned: float, *, as_json: bool) -> Iterator[Tell]:
    """Shows the progress of one run of about `planned` virtual seconds while the body runs."""
    if as_json:
        yield _write_line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} virtual s,"),
        TimeElapsedColumn(),
        TextColumn("wall"),
    )
    with _bar(*columns) as bar:
        task = bar.add_task(name, total=planned)

        def tell(progress: RunProgress) -> None:
            bar.update(task, completed=progress.virtual_seconds, total=progress.planned_seconds)

        yield tell


@contextmanager
def counted(name: str, total: int, *, as_json: bool) -> Iterator[Callable[..., None]]:
    """Shows how many of `total` runs have ended, how many `failed=True` of them, and how fast they end."""
    if as_json:
        yield lambda *, failed=False: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(
            "{task.completed} of {task.total}, {task.fields[failed]} failed, {task.fields[rate]:.1f}/s,"
        ),
        TimeElapsedColumn(),
    )
    with _bar(*columns) as bar:
        task = bar.add_task(name, total=total, failed=0, rate=0.0)

        def ended(*, failed: bool = False) -> None:
            shown = bar.tasks[task]
            rate = (shown.completed + 1) / max(shown.elapsed or 0.0, SHORTEST)
            bar.update(task, advance=1, failed=shown.fields["failed"] + failed, rate=rate)

        yield ended


class Results(Console):
    """stdout for tables. Whoever closes it early, as `| head` does, ends the program without a word."""

    def __init__(self) -> None:
        super().__init__(width=None if sys.stdout.isatty() else FILE_WIDTH)

    def on_broken_pipe(self) -> NoReturn:
        """Lets it be known, where rich would end the program with status 1."""
        raise BrokenPipeError


def _bar(*columns: ProgressColumn) -> Progress:
    """A bar on stderr that goes away at the end; none where stderr is no terminal."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _write_line(progress: RunProgress) -> None:
    step = {
        "event": "step",
        "virtual_seconds": progress.virtual_seconds,
        "planned_seconds": progress.planned_seconds,
        "events": progress.events,
    }
    print(json.dumps(step), file=sys.stdout, flush=True)
