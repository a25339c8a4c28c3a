"""What the simulated peers log, on stderr: each line says which node, and when in virtual time.

A thousand peers log a thousand times what one does, so by default only errors are shown, and of lines that
differ in nothing but their arguments only the first few.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

DEFAULT_LEVEL = "error"
MAX_ALIKE = 10  # lines from one place in the code; below "warning" all are shown


class _Lines(logging.Handler):
    """Prints to whatever stderr is now: a progress bar puts itself in between."""

    def __init__(self) -> None:
        super().__init__()
        self._alike: Counter[tuple[str, int]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the record, unless there were many of its kind."""
        kind = (record.pathname, record.lineno)
        self._alike[kind] += 1
        if self._alike[kind] <= MAX_ALIKE or record.levelno < logging.WARNING:
            line = f"{place()}{record.levelname} {record.name}: {self.format(record)}"
            print(line, file=sys.stderr)
        elif self._alike[kind] == MAX_ALIKE + 1:
            print(f"{record.name}: more like the last ones are not shown", file=sys.stderr)


def place() -> str:
    """Virtual time and node of the task that runs, like "12.345 s, node 7: "; "" outside of any.

    The rung `cores` has no tasks, and its machines do not log.
    """
    if "trio" not in sys.modules:
        return ""
    import trio

    if not trio.lowlevel.in_trio_run():
        return ""
    now = f"{trio.current_time():.3f} s"
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task() if trio.lowlevel.in_trio_task() else None
    while task is not None and not task.name.startswith("node "):
        nursery = task.parent_nursery
        task = None if nursery is None else nursery.parent_task
    return f"{now}: " if task is None else f"{now}, {task.name}: "


@contextmanager
def logged(level: str) -> Iterator[None]:
    """Shows logs of `level` ("debug", "info", "warning" or "error") and above while the body runs."""
    root = logging.getLogger()
    handler, before = _Lines(), root.level
    root.addHandler(handler)
    root.setLevel(level.upper())
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def level() -> str:
    """The level that is shown now, for a process that shall show the same."""
    return logging.getLevelName(logging.getLogger().getEffectiveLevel()).lower()


def show_logs(level: str) -> None:
    """As `logged`, until the process ends."""
    logging.getLogger().addHandler(_Lines())
    logging.getLogger().setLevel(level.upper())
