"""Members of one task on an in-memory network: started, crashed and started again within a test."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from federated.compute import Compute, InlineCompute, Kind, ShouldStop
from federated.driver import Task, open_task
from federated.manifest import PluginRef, RoundPolicy, TaskManifest
from federated.registry import Registry
from federated.reports import Report
from federated.rounds.messages import Block, Certificate, Model
from p2p.blobs import Blobs, BlobStore, open_blobs
from p2p.gossipsub import Pubsub, open_gossipsub
from p2p.host import Host
from p2p.peer_id import PeerId
from p2p.transport import MemoryNetwork
from tests.federated import tiny
from tests.support import key_number, open_memory_host

CAPACITY = 1 << 20  # bytes of blobs a member keeps
JOB = 0.05  # virtual seconds of every job, on disk too: so a round can be interrupted anywhere
LIMIT = 600.0  # virtual seconds for a whole test
START = 1_800_000_000.0  # unix seconds

T = TypeVar("T")


class ModelledCompute(InlineCompute):
    """Every job takes `JOB` seconds of the virtual clock."""

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        await trio.sleep(JOB)
        return job(lambda: False)


def peer_number(number: int) -> PeerId:
    return PeerId.from_public_key(key_number(number).public)


def tiny_manifest(count: int, **changes: Any) -> TaskManifest:
    """A task of the members numbered 1 to `count`, of six rounds."""
    values: dict[str, Any] = {
        "name": "tiny",
        "seed": 3,
        "rounds": 6,
        "members": [str(peer_number(number)) for number in range(1, count + 1)],
        "preprocessor": PluginRef(name="points"),
        "trainer": PluginRef(name="pull"),
        "aggregator": PluginRef(name="weighted-mean"),
        "validator": PluginRef(name="update-check", settings={"max_norm": 1000.0, "max_ratio": 10.0}),
        "policy": RoundPolicy(train_deadline_s=20.0, phase_deadline_s=5.0),
    }
    return TaskManifest(**{**values, **changes})


class Member:
    """One member while it lives."""

    def __init__(
        self, number: int, host: Host, pubsub: Pubsub, blobs: Blobs, scope: trio.CancelScope
    ) -> None:
        self.number = number
        self.host = host
        self.pubsub = pubsub
        self.blobs = blobs
        self.task: Task | None = None
        self._scope = scope
        self.gone = trio.Event()

    async def crash(self) -> None:
        """Ends the member where it is."""
        self._scope.cancel()
        await self.gone.wait()


class Lab:
    """The members of one task, by number from 1. What they keep outlives them: reports, blobs, folders."""

    def __init__(
        self,
        manifest: TaskManifest,
        folder: Path | None = None,
        compute: Callable[[], Compute] = ModelledCompute,
    ) -> None:
        self.manifest = manifest
        self.members: dict[int, Member] = {}
        self.reports: dict[int, list[Report]] = {}
        self._folder = folder
        self.compute = compute
        self._network = MemoryNetwork()
        self._stores: dict[int, BlobStore] = {}
        self._news = trio.Event()

    def folder(self, number: int) -> Path | None:
        """The data folder of a member."""
        return None if self._folder is None else self._folder / str(number)

    def store(self, number: int) -> BlobStore:
        """The blobs of a member."""
        return self._stores.setdefault(number, BlobStore(None, CAPACITY))

    def forget(self, number: int) -> None:
        """The blobs of a member are gone; it must not be at work."""
        del self._stores[number]

    def neighbours(self, number: int) -> list[Member]:
        """Whom member `number` connects to when it starts."""
        return list(self.members.values())

    def wall_time(self) -> float:
        """Unix seconds, by the virtual clock."""
        return START + trio.current_time()

    def rounds(self, number: int) -> dict[int, Report]:
        """What a member reported of its rounds, by round."""
        events = self.reports.get(number, [])
        return {event["round"]: event for event in events if event["event"] == "round"}

    def digests(self) -> dict[int, list[str]]:
        """The different digests that members reported, by round."""
        found: dict[int, dict[str, None]] = {}
        for number in self.reports:
            for round_number, event in self.rounds(number).items():
                found.setdefault(round_number, {})[event["digest"]] = None
        return {number: list(digests) for number, digests in sorted(found.items())}

    def task_events(self, number: int) -> list[Report]:
        """What a member reported of its task."""
        return [event for event in self.reports.get(number, []) if event["event"] == "task"]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once reports made `condition` true."""
        while not condition():
            self._news = trio.Event()
            await self._news.wait()

    async def until_round(self, number: int, *members: int) -> None:
        """Returns once these members reported round `number`."""
        await self.until(lambda: all(number in self.rounds(member) for member in members))

    async def until_finished(self, *members: int) -> None:
        """Returns once these members reported that the task is finished."""
        await self.until(
            lambda: all(
                events and events[-1]["state"] == "finished" for events in map(self.task_events, members)
            )
        )

    async def run(
        self,
        number: int,
        manifest: TaskManifest | None = None,
        *,
        plugins: Registry | None = None,
        idle: bool = False,
        task_status: trio.TaskStatus[Member] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Runs member `number`, connected to all others, until it crashes; without the task when `idle`.

        `manifest` and `plugins` are what this member believes in.
        """
        try:
            with trio.CancelScope() as scope:
                async with (
                    open_memory_host(self._network, number) as host,
                    open_gossipsub(host) as pubsub,
                    open_blobs(host, self.store(number)) as blobs,
                ):
                    member = Member(number, host, pubsub, blobs, scope)
                    for other in self.neighbours(number):
                        await host.connect(other.host.peer_id, other.host.addresses())
                    self.members[number] = member
                    if idle:
                        task_status.started(member)
                        await trio.sleep_forever()
                    async with self._open_task(member, manifest, plugins) as member.task:
                        task_status.started(member)
                        await trio.sleep_forever()
        finally:
            self.members.pop(number).gone.set()

    def _open_task(
        self, member: Member, manifest: TaskManifest | None, plugins: Registry | None
    ) -> AbstractAsyncContextManager[Task]:
        number = member.number
        return open_task(
            member.host,
            member.pubsub,
            member.blobs,
            manifest or self.manifest,
            plugins or tiny.registry(),
            self.folder(number),
            lambda event: self._report(number, event),
            compute=self.compute,
            rng=random.Random(number),
            wall_clock=self.wall_time,
        )

    def _report(self, number: int, event: Report) -> None:
        self.reports.setdefault(number, []).append(event)
        self._news.set()


@asynccontextmanager
async def open_lab(lab: Lab, *numbers: int) -> AsyncIterator[trio.Nursery]:
    """The lab with these members at work; all end with the body."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for number in numbers:
                await nursery.start(lab.run, number)
            yield nursery
            nursery.cancel_scope.cancel()


def assert_agreed(lab: Lab, rounds: int) -> None:
    """Every round was reported, and with one digest."""
    assert {number: len(digests) for number, digests in lab.digests().items()} == dict.fromkeys(
        range(1, rounds + 1), 1
    )


def refused(lab: Lab, number: int, round_number: int) -> list[tuple[str, str]]:
    event = lab.rounds(number)[round_number]
    return [(item["peer"], item["rule"]) for item in event["refused"]]


async def start_idle(lab: Lab, number: int, *, task_status: trio.TaskStatus[Member]) -> None:
    await lab.run(number, idle=True, task_status=task_status)


async def start_with(
    lab: Lab, number: int, plugins: Registry, *, task_status: trio.TaskStatus[Member]
) -> None:
    await lab.run(number, plugins=plugins, task_status=task_status)


def certified(model: Model, number: int, task: bytes = bytes(32)) -> Certificate:
    """A certificate of round `number` for `model`, with the form of one but with no true signature."""
    block = Block(
        task=task,
        parent=task,
        round=number,
        base=bytes(32),
        inputs=bytes(32),
        participants=1,
        examples=1,
        model=model,
    )
    return Certificate(view=1, block=block, votes=((0, bytes(64)),))
