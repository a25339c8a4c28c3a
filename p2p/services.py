"""What a peer runs above the overlay: services of other packages, found by the entry points `p2p.services`.

"task" → runs training tasks; made with (tasks, plugins, tell, plugin_memory), see `TaskServiceFactory`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from p2p.errors import InvalidInput
from p2p.kad import Validator
from p2p.overlay import Overlay

Report = Callable[[dict[str, Any]], None]


class Service(Protocol):
    """One service, ready to run. What is wrong with its arguments it has said when it was made."""

    def validators(self) -> Mapping[str, Validator]:
        """The namespaces of DHT records that it brings along."""

    def open(
        self, overlay: Overlay, data_dir: Path | None, report: Report
    ) -> AbstractAsyncContextManager[None]:
        """At work while the body runs; state lasts in `data_dir`, or not at all."""


class TaskServiceFactory(Protocol):
    """What the entry point "task" leads to."""

    def __call__(
        self, tasks: Sequence[str], plugins: Sequence[str], tell: Sequence[str], plugin_memory: int | None
    ) -> Service:
        """The service for these tasks, files or ids, whose reports `tell` wants told: NAME=PLACE each.

        The plugins of each may have `plugin_memory` bytes.

        Raises `InvalidInput`.
        """


def load_task_service(
    tasks: Sequence[str],
    plugins: Sequence[str],
    tell: Sequence[str] = (),
    plugin_memory: int | None = None,
) -> Service | None:
    """The installed service that runs training tasks; None when there is none, and no task to run.

    Blocks while a plugin's framework is imported. Raises `InvalidInput`.
    """
    found = list(entry_points(group="p2p.services", name="task"))
    if found:
        factory: TaskServiceFactory = found[0].load()
        return factory(tasks, plugins, tell, plugin_memory)
    if tasks:
        raise InvalidInput("--task: no installed package offers the service 'task'")
    return None
