"""What a running peer does when it is told: the commands of `atcp task`, see `federated.control`.

status [task] · list · join task|file [invitation] · leave task · export task out · metrics
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from federated.directory.driver import Directory
from federated.directory.signed import MAX_FILE, SignedTask, parse_task_file, sign_task
from federated.directory.table import Entry
from federated.export import export_folder
from federated.invitation import parse_invitation
from federated.manifest import TaskId
from federated.reports import Report
from federated.resources import Resources
from federated.tasks import Tasks, parse_task_id, task_folder
from p2p.address import with_peer
from p2p.errors import InvalidInput
from p2p.kad import RecordNotFound
from p2p.overlay import Overlay

LISTEN = 3.0  # seconds for which a peer listens for tasks before it lists them, when it knows none
SEEK_PAUSE = 30.0  # seconds until a task that nobody knows is looked for again


class Desk:
    """Takes orders for the tasks of one peer."""

    def __init__(self, overlay: Overlay, directory: Directory, tasks: Tasks, data_dir: Path | None) -> None:
        self._overlay = overlay
        self._directory = directory
        self._tasks = tasks
        self._data_dir = data_dir
        self._resources = Resources()

    async def handle(self, command: str, arguments: dict[str, Any]) -> Any:
        """The answer to one command, ready for JSON. Raises `FederatedError` and `P2PError` as an answer."""
        match command, arguments:
            case "status", {"task": str(text)}:
                return {**self._peer(), "tasks": [await self._tasks.summary(self._tasks.find(text))]}
            case "status", _:
                summaries = [await self._tasks.summary(task) for task in self._tasks.tasks()]
                return {**self._peer(), "tasks": summaries}
            case "metrics", _:
                counted = self._tasks.metrics()
                return counted + await trio.to_thread.run_sync(self._resources.text, self._data_dir)
            case "list", _:
                return await self._list()
            case "join", {"file": str(text)}:
                return await self._join(self._read(text), arguments.get("invitation"))
            case "join", {"task": str(text)}:
                return await self._join(await self._find(text), arguments.get("invitation"))
            case "leave", {"task": str(text)}:
                task = self._tasks.find(text)
                return {"task": task.hex(), "state": await self._tasks.leave(task)}
            case "export", {"task": str(text), "out": str(out)}:
                return await self._export(self._tasks.find(text), Path(out))
        raise InvalidInput(
            f"the running peer does not understand {command!r:.40}; it may be of another version"
        )

    async def seek(self, task: TaskId, report: Callable[[Report], None]) -> None:
        """Looks for a task until it is found, and takes part in it."""
        told = {"event": "task", "task": task.hex(), "name": task.hex()[:16]}
        found: SignedTask | None = None
        searching = False
        while found is None:
            try:
                found = await self._directory.find(task)
            except RecordNotFound as exc:
                if not searching:
                    searching = True
                    report({**told, "state": "searching", "reason": str(exc)})
                await trio.sleep(SEEK_PAUSE)
        try:
            self._tasks.add(found)
        except InvalidInput as exc:
            report({**told, "state": "refused", "reason": str(exc)})

    def _peer(self) -> dict[str, Any]:
        host = self._overlay.host
        return {
            "peer_id": str(host.peer_id),
            "addrs": [str(with_peer(address, host.peer_id)) for address in host.addresses()],
            "peers": len(host.peers()),
        }

    async def _list(self) -> list[dict[str, Any]]:
        entries = self._directory.entries()
        if not entries:
            entries = await self._directory.listen(LISTEN)
        mine = dict.fromkeys(self._tasks.tasks())
        return [{**describe(entry), "joined": entry.listing.task in mine} for entry in entries]

    async def _join(self, task: SignedTask, invitation: str | None) -> dict[str, Any]:
        if invitation is not None and parse_invitation(invitation).invitation.task != task.task_id:
            raise InvalidInput("the invitation is for another task")
        await self._tasks.join(task, invitation)
        return {"task": task.task_id.hex(), "name": task.manifest.name, "state": "joining"}

    def _read(self, text: str) -> SignedTask:
        manifest, signed = parse_task_file(text.encode()[: MAX_FILE + 1])
        return signed or sign_task(manifest, self._overlay.host.key)

    async def _find(self, text: str) -> SignedTask:
        """The task with this id, or of the one that is listed whose name or beginning of an id it is."""
        task = parse_task_id(text)
        if task is None:
            known = [entry.listing for entry in self._directory.entries()]
            found = [
                item.task
                for item in known
                if item.name == text or (len(text) > 5 and item.task.hex().startswith(text))
            ]
            if len(found) != 1:
                what = "no task" if not found else f"{len(found)} tasks"
                raise InvalidInput(f"{what} {text!r:.70} here; give the whole id, or the task's file")
            task = found[0]
        return await self._directory.find(task)

    async def _export(self, task: TaskId, out: Path) -> dict[str, Any]:
        if self._data_dir is None:
            raise InvalidInput("a peer without --data-dir keeps nothing to export")
        folder = task_folder(self._data_dir, task)
        last = await trio.to_thread.run_sync(export_folder, folder, out)
        return {
            "task": task.hex(),
            "round": last.round,
            "digest": last.block.model.digest.hex(),
            "out": str(out),
        }


def describe(entry: Entry) -> dict[str, Any]:
    """One task of the directory, ready for JSON."""
    listing = entry.listing
    return {
        "task": listing.task.hex(),
        "name": listing.name,
        "creator": str(entry.creator),
        "rounds": listing.rounds,
        "members": listing.members,
        "admission": listing.admission,
        "round": entry.round,
        "state": str(entry.progress),
    }
