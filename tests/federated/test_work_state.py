"""What trainers keep from round to round: who is started again makes the updates of who was not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from trio.testing import MockClock

from federated.compute import InlineCompute
from federated.manifest import PluginRef, TaskManifest
from federated.plugin import PeerContext
from federated.registry import Registry
from federated.rounds.actions import Train
from federated.rounds.events import Trained, TrainFailed
from federated.rounds.messages import Model
from federated.state import TaskState
from federated.storage import Disk, Shelf
from federated.work import RoundWork
from federated.workbench import Workbench, prepare
from p2p.blobs import Blobs
from p2p.files import Files
from sim.disk import SimDisk
from tests.federated import tiny
from tests.federated.lab import peer_number, tiny_manifest
from tests.federated.mortal import assert_every_kill_is_survived
from tests.federated.test_work import FakeBlobs

ROUNDS = 4
MLP: dict[str, Any] = {"hidden": [8], "epochs": 1, "carry": True}


class Life:
    """One process of a member that trains; its blobs are lost with it."""

    def __init__(self, bench: Workbench, manifest: TaskManifest, files: Files | None) -> None:
        self.blobs = FakeBlobs()
        self.told: list[str | None] = []
        self.complaints: list[str] = []
        self._bench = bench
        state = TaskState(files, manifest.task_id, len(bench.initial))
        self.work = RoundWork(
            bench=bench,
            blobs=cast("Blobs", self.blobs),
            trainer=InlineCompute(),
            compute=InlineCompute(),
            shelf=cast("Shelf", self.blobs),
            disk=Disk(compute=InlineCompute(), tell=self.told.append),
            snapshots=state.snapshots,
            complain=self.complaints.append,
        )

    async def begin(self) -> Model:
        """The first model, which a round begins on."""
        model = await self.work.add_model(self._bench.initial)
        await self.work.turn(model)
        return model

    async def train(self, number: int) -> bytes | None:
        """The update of round `number` on the first model; None when there is none."""
        model = await self.begin()
        event = await self.work.perform(Train(round=number, base=model))
        if isinstance(event, TrainFailed):
            return None
        assert isinstance(event, Trained)
        return self.blobs.held[event.root]


def small_task(trainer: str = "glides") -> Callable[[], tuple[Workbench, TaskManifest]]:
    """Makes the workbench of a member, anew for each of its lives."""
    manifest = tiny_manifest(3, trainer=PluginRef(name=trainer))
    return lambda: (_prepared(manifest, tiny.registry()), manifest)


def digits_task(trainer: str, **settings: Any) -> Callable[[], tuple[Workbench, TaskManifest]]:
    manifest = tiny_manifest(
        3,
        preprocessor=PluginRef(name="digits"),
        trainer=PluginRef(name=trainer, settings=MLP | settings),
        validator=PluginRef(name="update-check"),
    )
    return lambda: (_prepared(manifest, Registry()), manifest)


def _prepared(manifest: TaskManifest, registry: Registry) -> Workbench:
    context = PeerContext(peer=peer_number(1), members=manifest.peer_ids, index=0)
    return prepare(manifest, registry.load(manifest), context)


async def in_one_life(task: Callable[[], tuple[Workbench, TaskManifest]]) -> list[bytes | None]:
    life = Life(*task(), None)
    return [await life.train(number) for number in range(1, ROUNDS + 1)]


@pytest.mark.parametrize("trainer", ["numpy-mlp", "torch-mlp"])
async def test_a_trainer_that_is_started_again_goes_on_where_it_was(trainer: str) -> None:
    if trainer == "torch-mlp":
        pytest.importorskip("torch", reason="the torch trainer is an extra that is not installed here")
    task, disk = digits_task(trainer), SimDisk(random.Random(1))
    expected = await in_one_life(task)
    found = []
    for number in range(1, ROUNDS + 1):
        found.append(await Life(*task(), disk.mount()).train(number))
        disk.crash()
    assert found == expected
    from_rest = [await Life(*task(), None).train(number) for number in range(1, ROUNDS + 1)]
    assert from_rest[0] == expected[0]
    assert all(ours != theirs for ours, theirs in zip(from_rest[1:], expected[1:], strict=True))


@pytest.mark.parametrize("local", [["layer1."], []], ids=["personal", "shared"])
async def test_a_trainer_that_is_started_again_measures_with_what_it_kept(local: list[str]) -> None:
    task, disk = digits_task("numpy-mlp", local=local), SimDisk(random.Random(1))
    life = Life(*task(), disk.mount())
    await life.train(1)
    before = await life.work.evaluate()
    assert before["loss"] is not None
    disk.crash()
    again = Life(*task(), disk.mount())
    await again.begin()
    assert await again.work.evaluate() == before
    stranger = Life(*task(), None)
    await stranger.begin()
    assert (await stranger.work.evaluate() == before) == (not local)


@pytest.mark.parametrize("kills", [1, 2])
async def test_a_trainer_that_is_killed_at_any_moment_makes_the_same_updates(kills: int) -> None:
    task = small_task()
    expected = await in_one_life(task)
    await assert_every_kill_is_survived(lambda files: Life(*task(), files), expected, kills)


async def test_a_snapshot_without_its_journal_entry_does_not_change_the_update() -> None:
    task, disk = small_task(), SimDisk(random.Random(1))
    expected = await in_one_life(task)
    for number in range(1, ROUNDS + 1):
        for _ in range(3):  # killed each time when the snapshot is durable, and nothing in the journal
            assert await Life(*task(), disk.mount()).train(number) == expected[number - 1]
            disk.crash()


async def test_a_trainer_that_keeps_nothing_leaves_no_file() -> None:
    disk = SimDisk(random.Random(1))
    life = Life(*small_task("pull")(), disk.mount())
    assert await life.train(1) == await life.train(2)
    assert disk.mount().entries() == []


async def test_a_training_that_fails_leaves_the_state_before_it() -> None:
    (bench, manifest), disk = small_task()(), SimDisk(random.Random(1))
    whole = await in_one_life(small_task())
    failing, _ = small_task("raises")()
    assert await Life(bench, manifest, disk.mount()).train(1) == whole[0]
    assert await Life(failing, manifest, disk.mount()).train(2) is None
    assert await Life(bench, manifest, disk.mount()).train(3) == whole[1]


async def test_training_waits_for_a_full_disk(autojump_clock: MockClock) -> None:
    task, disk = small_task(), SimDisk(random.Random(1))
    expected = await in_one_life(task)
    life = Life(*task(), disk.mount().sub("task"))
    tell = life.told.append

    def told(failure: str | None) -> None:
        tell(failure)
        disk.full = False  # somebody makes room

    life.work._disk._tell = told
    disk.full = True
    assert await life.train(1) == expected[0]
    assert life.told == ["/task/snapshot-00000001: No space left on device", None]
    assert await life.train(2) == expected[1]


async def test_training_waits_until_a_damaged_snapshot_is_removed(autojump_clock: MockClock) -> None:
    task, disk = small_task(), SimDisk(random.Random(1))
    files = disk.mount().sub("task")
    life = Life(*task(), files)
    first = await life.train(1)
    files.write("snapshot-00000001", b"torn")
    tell = life.told.append

    def told(failure: str | None) -> None:
        tell(failure)
        files.remove("snapshot-00000001")

    life.work._disk._tell = told
    assert await life.train(2) == first  # as the first time
    assert life.told == [
        "the snapshot /task/snapshot-00000001 is damaged; remove it, and the trainer goes on without",
        None,
    ]
