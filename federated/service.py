"""The service "task" of `p2p.services`: what a peer runs for its tasks.

    service = TaskService(tasks, plugins, tell, memory)      raises InvalidInput: one line for a person
    async with service.open(overlay, data_dir, report): ...

`tasks` are files of manifests or ids of tasks, which are found in the network; `plugins` are the names that
are enabled, none means all that are installed; `tell` names listeners (`federated.listeners`); `memory` is
what the plugin process of a task may have, in bytes (`federated.isolation`). A task goes on after its last
round: members that are behind need somebody to ask. A task in which this peer cannot take part is reported as
"refused", with the reason; the others and the peer live on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from federated.control import open_control
from federated.desk import Desk
from federated.directory.driver import open_directory
from federated.directory.signed import SignedTask, load_task_file, sign_task
from federated.directory.validators import VALIDATORS
from federated.errors import ManifestError, PluginError
from federated.listeners import load_listeners, open_listeners
from federated.manifest import TaskId, TaskManifest
from federated.reports import Report
from federated.rounds.committee import Membership
from federated.tasks import open_tasks, parse_task_id
from p2p.errors import InvalidInput
from p2p.kad import Validator
from p2p.overlay import Overlay
from p2p.scope import open_scope

if TYPE_CHECKING:
    from federated.registry import Registry


class TaskService:
    """The training tasks of one peer."""

    def __init__(
        self,
        tasks: Sequence[str] = (),
        plugins: Sequence[str] = (),
        tell: Sequence[str] = (),
        plugin_memory: int | None = None,
        registry: Registry | None = None,
    ) -> None:
        """Reads manifests and looks for their plugins, in `registry` when it is given.

        Raises `InvalidInput` with what to change.
        """
        self._plugins = tuple(plugins)
        self._plugin_memory = plugin_memory
        self._registry = registry
        self._files: list[tuple[TaskManifest, SignedTask | None]] = []
        self._ids: list[TaskId] = []
        try:
            for text in tasks:
                self._read(text)
            self._check_plugins()
        except (ManifestError, PluginError) as exc:
            raise InvalidInput(f"--task: {exc}") from exc
        self._listeners = load_listeners(tell)

    def validators(self) -> Mapping[str, Validator]:
        """The namespaces of tasks in the DHT."""
        return VALIDATORS

    @asynccontextmanager
    async def open(
        self, overlay: Overlay, data_dir: Path | None, report: Callable[[Report], None]
    ) -> AsyncIterator[None]:
        """Takes part in the tasks while the body runs; events go to `report`, state to `data_dir`.

        Commands are heard there when the body begins, and nothing is reported before.
        """
        async with AsyncExitStack() as stack:
            hear = await stack.enter_async_context(open_listeners(self._listeners))
            me = str(overlay.host.peer_id)

            def tell(event: Report) -> None:
                hear(me, event)
                report(event)

            directory = await stack.enter_async_context(
                open_directory(overlay.host, overlay.pubsub, overlay.kad)
            )
            tasks = await stack.enter_async_context(
                open_tasks(
                    overlay, directory, self._plugins, data_dir, tell, self._plugin_memory, self._registry
                )
            )
            desk = Desk(overlay, directory, tasks, data_dir)
            if data_dir is not None:
                await stack.enter_async_context(open_control(data_dir, desk.handle))
            nursery = await stack.enter_async_context(open_scope())
            tasks.resume()
            for manifest, signed in self._files:
                tasks.add(signed or sign_task(manifest, overlay.host.key))
            for task in self._ids:
                nursery.start_soon(desk.seek, task, tell)
            yield

    def _read(self, text: str) -> None:
        task = parse_task_id(text)
        if task is not None and not Path(text).exists():
            self._ids.append(task)
            return
        manifest, signed = load_task_file(Path(text))
        Membership(manifest.task_id, manifest.peer_ids)  # can all of them vote?
        self._files.append((manifest, signed))

    def _check_plugins(self) -> None:
        if self._files or self._plugins:
            from federated.registry import Registry  # numpy is for those who train

            registry = self._registry or Registry(self._plugins or None)
            for manifest, _ in self._files:
                registry.edge_points(manifest)  # the process that works with them imports them
                registry.load_judging(manifest)
