"""Checkpoints that are saved while the rounds go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from federated import state as state_module
from federated.compute import InlineCompute, Kind, ShouldStop
from federated.errors import StorageError
from federated.journal import CheckpointStore
from federated.rounds.messages import Certificate
from federated.state import TaskState
from federated.storage import STORAGE_RETRY, Disk, Saver
from p2p.files import FolderFiles
from tests.federated.test_state import ENTRY, MODEL, TASK, chain

T = TypeVar("T")


class SlowCompute(InlineCompute):
    """Takes a second for each job."""

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        await trio.sleep(1.0)
        return await super().run(job, kind)


class Place:
    """A saver of what is in `folder`, on a disk that takes a second."""

    def __init__(self, nursery: trio.Nursery, folder: Path) -> None:
        self.folder = folder
        self.told: list[str | None] = []
        self.state = TaskState(FolderFiles(folder), TASK, len(MODEL))
        self.state.restore()
        disk = Disk(compute=InlineCompute(), tell=self.told.append)
        self.saver = Saver(state=self.state, disk=disk, compute=SlowCompute(), nursery=nursery)

    async def save(self, made: Certificate) -> None:
        await self.saver.save(made, [made], MODEL)

    def saved(self) -> int:
        """The round of the newest checkpoint on the disk; 0 when there is none."""
        restored = TaskState(FolderFiles(self.folder), TASK, len(MODEL)).peek()
        return 0 if restored.certificate is None else restored.certificate.round


async def test_only_the_next_checkpoint_waits_for_one(autojump_clock: MockClock, tmp_path: Path) -> None:
    first, second = chain(2)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        place = Place(nursery, tmp_path)
        await place.saver.wait()
        await place.save(first)
        assert (trio.current_time() - start, place.saved()) == (0.0, 0)
        await place.save(second)
        assert (trio.current_time() - start, place.saved()) == (1.0, 1)
        await place.saver.wait()
        assert (trio.current_time() - start, place.saved()) == (2.0, 2)
        assert len(await place.saver.certificates(1, 9)) == 2
        await place.saver.aclose()


async def test_a_journal_that_is_crowded_is_forgotten_once_the_checkpoint_is_saved(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "CROWDED", 1)
    [made] = chain(1)
    async with trio.open_nursery() as nursery:
        place = Place(nursery, tmp_path)
        place.state.write([ENTRY])
        await place.save(made)
        assert place.saved() == 1
        await place.saver.aclose()
    assert not TaskState(FolderFiles(tmp_path), TASK, len(MODEL)).peek().entries


async def test_a_checkpoint_is_saved_again_until_the_disk_lets_it_be(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = chain(2)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        place = Place(nursery, tmp_path)
        with monkeypatch.context() as broken:
            broken.setattr(CheckpointStore, "save", failing)
            await place.save(first)
            await trio.sleep(1.5)
        await place.save(second)
        assert trio.current_time() - start == 2.0 + STORAGE_RETRY
        assert place.told == ["no space", None]
        await place.saver.wait()
        await place.saver.aclose()


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_not_saved_at_the_end_is_saved_then_if_it_can_be(
    fails: bool, autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [made] = chain(1)
    async with trio.open_nursery() as nursery:
        place = Place(nursery, tmp_path)
        if fails:
            monkeypatch.setattr(CheckpointStore, "save", failing)
        await place.save(made)
        nursery.cancel_scope.cancel()
    await place.saver.aclose()
    assert place.saved() == (0 if fails else 1)


def failing(*args: object) -> None:
    raise StorageError("no space")
