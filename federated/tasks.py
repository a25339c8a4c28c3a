"""The tasks that one peer takes part in: each runs by itself, and one that fails leaves the others alone.

    add, join ──→ plugins ──→ open_member ──→ rounds … ──→ finished: goes on serving
         └──────── what goes wrong: "refused", with the reason ──→ nothing runs
    leave ──→ the members certify it ──→ "left"

Beside a task's folder in `tasks/` lie `<id>.json`, the task, so that an export needs nobody; and for a task
that was joined by command `<id>.joined`, with the invitation: the peer takes it up again when it starts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from federated.directory.driver import Directory
from federated.directory.head import HeadRecord
from federated.directory.members import meet_members
from federated.directory.signed import SignedTask, load_task_file, task_file
from federated.directory.wire import Progress
from federated.errors import FederatedError, ManifestError
from federated.export import FOLDER, TASK_FILE
from federated.invitation import parse_invitation
from federated.manifest import TaskId
from federated.monitor import Monitor
from federated.recorder import open_recorder
from federated.reports import Report, task_report
from federated.rounds.messages import Certificate
from federated.standing import Standing
from p2p.errors import InvalidInput, P2PError
from p2p.files import FolderFiles
from p2p.overlay import Overlay
from p2p.peer_id import PeerId
from p2p.scope import open_scope

if TYPE_CHECKING:
    from federated.driver import Task
    from federated.registry import Registry

JOINED = ".joined"  # behind a task's id: the file holds the invitation, if there was one
MAX_TASKS = 32  # of one peer at once; each has a model in memory
MAX_INVITATION = 512  # bytes
LEAVE_TIMEOUT = 50.0  # seconds to wait until the members certified that we leave; then it goes on behind

_ID = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{6,64}")

logger = logging.getLogger(__name__)


def parse_task_id(text: str) -> TaskId | None:
    """The task id that `text` is, in hexadecimal; None when it is none."""
    return TaskId(bytes.fromhex(text)) if _ID.fullmatch(text) else None


@dataclass(slots=True)
class Running:
    """One task, and the scope that ends it."""

    task: SignedTask
    standing: Standing
    invitation: str | None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    member: Task | None = None  # from then on, leaving is for the others to certify
    leaving: trio.Event = field(default_factory=trio.Event)  # somebody wants it to be left
    ended: trio.Event = field(default_factory=trio.Event)


class Tasks:
    """All tasks of a peer; get it from `open_tasks`."""

    def __init__(
        self,
        overlay: Overlay,
        directory: Directory,
        plugins: Sequence[str],
        data_dir: Path | None,
        report: Callable[[Report], None],
        plugin_memory: int | None,
        nursery: trio.Nursery,
        registry: Registry | None = None,
    ) -> None:
        self._plugin_memory = plugin_memory
        self._overlay = overlay
        self._directory = directory
        self._plugins = plugins
        self._data_dir = data_dir
        self._report = report
        self._nursery = nursery
        self._registry = registry
        self._writing = trio.Lock()
        self._monitor = Monitor(str(overlay.host.peer_id))
        self._running: dict[TaskId, Running] = {}

    def add(self, task: SignedTask, invitation: str | None = None) -> None:
        """Takes part in `task` from now on, unless it does. Raises `InvalidInput` with too many of them."""
        known = self._running.get(task.task_id)
        if known is not None and not known.ended.is_set():
            return
        if known is None and len(self._running) >= MAX_TASKS:
            raise InvalidInput(f"this peer takes part in {MAX_TASKS} tasks; leave one first")
        running = Running(task, Standing(task.manifest), invitation)
        self._running[task.task_id] = running
        self._nursery.start_soon(self._live, running)

    async def join(self, task: SignedTask, invitation: str | None) -> None:
        """`add`, and again at every start of the peer until the task is left."""
        self.add(task, invitation)
        if self._data_dir is not None:
            await self._write(task)
            await self._write_file(joined_file(task.task_id), (invitation or "").encode())

    async def leave(self, task: TaskId) -> str:
        """Takes part no more; what became of it: "left", or "leaving" while the members are not there."""
        running = self._running[task]
        running.leaving.set()
        if running.member is None:
            running.scope.cancel()
        with trio.move_on_after(LEAVE_TIMEOUT):
            await running.ended.wait()
            return "left"
        return "leaving"

    def resume(self) -> None:
        """Takes up what was joined before this start. A folder that cannot be read is logged."""
        if self._data_dir is None:
            return
        for path in sorted((self._data_dir / FOLDER).glob(f"*{JOINED}")):
            try:
                self.add(*read_joined(path))
            except (FederatedError, P2PError, OSError, ValueError) as exc:
                logger.error("the task of %s is not taken up again: %s", path, exc)

    def find(self, text: str) -> TaskId:
        """The task that a person means, by id, beginning of it, or name. Raises `InvalidInput`."""
        found = [
            task
            for task, running in self._running.items()
            if running.task.manifest.name == text or (_PREFIX.fullmatch(text) and task.hex().startswith(text))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidInput(f"{len(found)} tasks are called {text}; name one by its id")
        raise InvalidInput(f"this peer takes part in no task {text}; see atcp task list")

    def tasks(self) -> list[TaskId]:
        """The ids of all tasks, those that ended too."""
        return list(self._running)

    async def summary(self, task: TaskId) -> dict[str, Any]:
        """How a task stands, see `Standing.summary`."""
        disk = None
        if self._data_dir is not None:
            disk = await trio.to_thread.run_sync(_size, task_folder(self._data_dir, task))
        running = self._running[task]
        _look(running)
        return running.standing.summary(disk)

    async def _write(self, task: SignedTask) -> None:
        await self._write_file(task_file_of(task.task_id), task_file(task).encode())

    async def _write_file(self, name: str, data: bytes) -> None:
        """Writes a file beside the folders of the tasks, one at a time."""
        assert self._data_dir is not None
        files = FolderFiles(self._data_dir / FOLDER)
        async with self._writing:
            await trio.to_thread.run_sync(_write_durably, files, name, data)

    def metrics(self) -> str:
        """What was counted, in the text format of Prometheus. Raises `MetricsUnavailable`."""
        return self._monitor.metrics()

    # One task

    async def _live(self, running: Running) -> None:
        """One task from its beginning to its end; what goes wrong with it is reported and stays with it."""
        manifest = running.task.manifest
        try:
            with running.scope:
                await self._take_part(running)
            if running.standing.state != "left":  # there was nothing to certify
                self._note(running, task_report(manifest, "left"))
            if self._data_dir is not None:
                FolderFiles(self._data_dir / FOLDER).remove(joined_file(manifest.task_id))
        except (FederatedError, P2PError, OSError) as exc:
            reason = (str(exc).splitlines() or [type(exc).__name__])[0]
            self._note(running, task_report(manifest, "refused", reason))
        running.ended.set()
        self._directory.release(manifest.task_id)

    async def _take_part(self, running: Running) -> None:
        """Returns when this peer is a member no more."""
        from federated.isolation.driver import Isolation
        from federated.joining import open_member  # numpy is for those who train
        from federated.registry import Registry
        from federated.workbench import open_bench

        task, overlay = running.task, self._overlay
        if overlay.host.peer_id not in task.manifest.peer_ids and not task.manifest.is_open:
            raise InvalidInput(f"{overlay.host.peer_id} is not among the members")
        ticket = None if running.invitation is None else parse_invitation(running.invitation)
        registry, bench = self._registry, open_bench
        if registry is None:
            registry, bench = (
                Registry(self._plugins or None),
                Isolation(memory=self._plugin_memory).open_bench,
            )
        files: FolderFiles | None = None
        if self._data_dir is not None:
            await self._write(task)
            files = FolderFiles(task_folder(self._data_dir, task.task_id))
        self._directory.hold(task)
        async with (
            open_recorder(files) as trail,
            open_member(
                overlay.host,
                overlay.pubsub,
                overlay.blobs,
                task.manifest,
                registry,
                self._data_dir,
                self._monitor.watch(trail, partial(self._note, running)),
                ticket=ticket,
                bench=bench,
                kad=overlay.kad,
            ) as member,
            open_scope() as nursery,
        ):
            running.member = member
            self._directory.provide(task.task_id)
            nursery.start_soon(self._meet_members, running)
            nursery.start_soon(self._leave_when_told, running, member)
            await member.wait_left()

    async def _meet_members(self, running: Running) -> None:
        from federated.driver import topic_of  # numpy is for those who train

        manifest, member, overlay = running.task.manifest, running.member, self._overlay

        def is_member(peer: PeerId) -> bool:
            machine = None if member is None else member.machine
            return peer in manifest.peer_ids if machine is None else machine.membership.is_active(peer)

        topic = topic_of(manifest)
        await meet_members(overlay.host, overlay.pubsub, overlay.kad, manifest.task_id, topic, is_member)

    async def _leave_when_told(self, running: Running, member: Task) -> None:
        await running.leaving.wait()
        await member.leave()

    def _note(self, running: Running, report: Report) -> None:
        """Passes a report of the task on, and tells the directory how far it is."""
        running.standing.handle(report)
        if report["event"] in ("round", "task"):
            self._advance(running)
        self._report(report)

    def _advance(self, running: Running) -> None:
        """Lets the directory know the newest certificate."""
        task, newest = running.task, _look(running)
        if newest is not None and not running.ended.is_set():
            certificate, voters = newest
            progress = Progress.FINISHED if running.standing.is_over else Progress.RUNNING
            head = HeadRecord(manifest=task.manifest, voters=voters, certificate=certificate)
            self._directory.advance(task.task_id, certificate.round, progress, head if voters else None)


@asynccontextmanager
async def open_tasks(
    overlay: Overlay,
    directory: Directory,
    plugins: Sequence[str],
    data_dir: Path | None,
    report: Callable[[Report], None],
    plugin_memory: int | None = None,
    registry: Registry | None = None,
) -> AsyncIterator[Tasks]:
    """The tasks of the peer that `overlay` is, while the body runs.

    `plugins` are the names that are enabled; none means all that are installed. Those that work with data run
    in a process for each task, which may have `plugin_memory` bytes; those of a `registry` that is given run
    in this one. State lasts in `data_dir`.
    """
    async with open_scope() as nursery:
        yield Tasks(overlay, directory, plugins, data_dir, report, plugin_memory, nursery, registry)


def _look(running: Running) -> tuple[Certificate, tuple[PeerId, ...]] | None:
    """The newest certificate and its voters, which the standing then knows too."""
    machine = None if running.member is None else running.member.machine
    if machine is None or machine.newest is None:
        return None
    running.standing.restore(machine.newest[0], machine.membership)
    return machine.newest


def task_folder(data_dir: Path, task: TaskId) -> Path:
    """Where a peer keeps the rounds of a task."""
    return data_dir / FOLDER / task.hex()


def task_file_of(task: TaskId) -> str:
    """The name of the file that describes a task."""
    return task.hex() + TASK_FILE


def joined_file(task: TaskId) -> str:
    """The name of the file that says that the task was joined by command."""
    return task.hex() + JOINED


def read_joined(path: Path) -> tuple[SignedTask, str | None]:
    """(task, invitation) by a `.joined` file. Raises `ManifestError`, `P2PError` and `OSError`."""
    _, task = load_task_file(path.with_suffix(TASK_FILE))
    if task is None:
        raise ManifestError(f"{path.with_suffix(TASK_FILE)} is not signed")
    return task, FolderFiles(path.parent).read(path.name, 0, MAX_INVITATION).decode() or None


def _write_durably(files: FolderFiles, name: str, data: bytes) -> None:
    files.make()
    files.write_durably(name, data)


def _size(folder: Path) -> int:
    """Bytes of all files of a task; 0 when there are none yet."""
    try:
        return sum(size for _, size in FolderFiles(folder).entries())
    except OSError:
        return 0
