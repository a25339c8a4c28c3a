"""The service "task" of `p2p.services`: what `python -m p2p.peer --task FILE` runs.

    service = TaskService(path, plugins)      raises InvalidInput: one line for a person
    await service.run(host, pubsub, blobs, data_dir, report)

`plugins` are the names that are enabled; none means all that are installed. `run` goes on until it is
cancelled, also after the last round: members that are behind need somebody to ask. A peer that cannot
take part reports that the task is "refused", with the reason, and lives on; `run` returns then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from federated.driver import open_task
from federated.errors import DataError, ManifestError, PluginError
from federated.manifest import load_manifest
from federated.registry import Registry
from federated.reports import Report, task_report
from federated.rounds.committee import Membership
from p2p.blobs import Blobs
from p2p.errors import InvalidInput
from p2p.gossipsub import Pubsub
from p2p.host import Host


class TaskService:
    """One training task, as a peer runs it."""

    def __init__(self, path: Path, plugins: Sequence[str]) -> None:
        """Reads the manifest and looks for its plugins. Raises `InvalidInput` with what to change."""
        try:
            self._manifest = load_manifest(path)
            self._registry = Registry(plugins or None)
            self._registry.load(self._manifest)
        except (ManifestError, PluginError) as exc:
            raise InvalidInput(f"--task: {exc}") from exc
        Membership(self._manifest.task_id, self._manifest.peer_ids)  # can all of them vote?

    async def run(
        self,
        host: Host,
        pubsub: Pubsub,
        blobs: Blobs,
        data_dir: Path | None,
        report: Callable[[Report], None],
    ) -> None:
        """Takes part in the task; events go to `report`, state to `data_dir`."""
        manifest = self._manifest
        if host.peer_id not in manifest.peer_ids:
            report(task_report(manifest, "refused", f"{host.peer_id} is not among the members"))
            return
        try:
            async with open_task(host, pubsub, blobs, manifest, self._registry, data_dir, report):
                await trio.sleep_forever()
        except (DataError, PluginError) as exc:
            report(task_report(manifest, "refused", str(exc)))
