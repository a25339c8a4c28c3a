"""A task goes on, and so does the other one on the same peer, while a plugin does what it wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from federated.compute import ThreadCompute
from federated.driver import open_task
from federated.isolation.driver import Isolation
from federated.manifest import RoundPolicy, TaskManifest
from federated.reports import Report
from p2p.blobs import BlobStore, open_blobs
from p2p.gossipsub import open_gossipsub
from p2p.transport import MemoryNetwork
from tests.federated.isolation import bugs
from tests.federated.isolation.bugs import buggy_task
from tests.support import open_memory_host

MEMORY = 300 << 20  # bytes
LIMIT = 120.0  # seconds, for what hangs
Hear = Callable[[Report], None]


@asynccontextmanager
async def open_peer(*tasks: tuple[TaskManifest, Hear]) -> AsyncIterator[None]:
    """Member 1 of each task, alone; its plugins run in processes."""
    with trio.fail_after(LIMIT):
        async with AsyncExitStack() as stack:
            host = await stack.enter_async_context(open_memory_host(MemoryNetwork(), 1))
            pubsub = await stack.enter_async_context(open_gossipsub(host))
            blobs = await stack.enter_async_context(open_blobs(host, BlobStore(None, 1 << 24)))
            for manifest, hear in tasks:
                await stack.enter_async_context(
                    open_task(
                        host,
                        pubsub,
                        blobs,
                        manifest,
                        bugs.REGISTRY,
                        None,
                        hear,
                        compute=ThreadCompute,
                        bench=Isolation(memory=MEMORY).open_bench,
                    )
                )
            yield


class Ear:
    """Hears of one task; gives its plugin one of `bugs` after the other, each until it was complained of."""

    def __init__(self, folder: Path, bugs: dict[str, str]) -> None:
        self.file = folder / "orders"
        self.finished = trio.Event()
        self.recovered = trio.Event()  # after all bugs, a round has our update
        self.rounds: list[Report] = []
        self.complaints: list[str] = []
        self._bugs = dict(bugs)
        self.file.write_text("")

    def __call__(self, report: Report) -> None:
        match report:
            case {"event": "round"}:
                self.rounds.append(report)
                if report["participants"] and not self._bugs:
                    self.recovered.set()
                self._order()
            case {"event": "task", "reason": str(reason)}:
                self.complaints.append(reason)
                if self._bugs and next(iter(self._bugs.values())) in reason:
                    del self._bugs[next(iter(self._bugs))]
                    self._order()
            case {"event": "task", "state": "finished"}:
                self.finished.set()

    def _order(self) -> None:
        self.file.write_text(next(iter(self._bugs), ""))


def task(ear: Ear, name: str, rounds: int, deadline: float) -> TaskManifest:
    policy = RoundPolicy(train_deadline_s=deadline, phase_deadline_s=deadline)
    return buggy_task(ear.file, rounds=rounds, name=name, policy=policy)


async def test_a_plugin_with_a_bug_costs_its_rounds_and_no_other_task_anything(tmp_path: Path) -> None:
    (tmp_path / "healthy").mkdir()
    healthy = Ear(tmp_path / "healthy", {})
    buggy = Ear(
        tmp_path,
        {
            "exit_hard train": "the plugin process ended with exit status 3",
            "endless_regex train": "the plugin process did not come to an end in time and was killed",
        },
    )
    async with open_peer(
        (task(healthy, "healthy", 4, 60.0), healthy),
        (task(buggy, "buggy", 10_000, 0.5), buggy),  # alone it waits for its deadlines
    ):
        await buggy.recovered.wait()
        await healthy.finished.wait()
    assert [len(report["participants"]) for report in healthy.rounds] == [1, 1, 1, 1]
    assert [report["loss"] for report in healthy.rounds] == [0.5, 0.25, 0.125, 0.0625]
    assert healthy.complaints == []
    assert [report["round"] for report in buggy.rounds] == list(range(1, len(buggy.rounds) + 1))
    assert len([report for report in buggy.rounds if not report["participants"]]) >= 2
