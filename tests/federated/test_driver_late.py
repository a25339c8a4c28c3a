"""A member that is slower than the rounds: its updates count late, with less weight, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import trio
from trio.testing import MockClock

from federated.compute import InlineCompute, Kind, ShouldStop
from federated.driver import Task
from federated.manifest import RoundPolicy, TaskManifest
from federated.parameters import Parameters, difference
from federated.plugin import ModelUpdate, TrainContext
from federated.registry import Registry
from plugins.aggregation.weighted_mean import WeightedMean
from tests.federated.lab import JOB, Lab, Member, ModelledCompute, assert_agreed, open_lab, tiny_manifest
from tests.federated.tiny import Pull, digest_of

T = TypeVar("T")
ROUNDS, SLOW = 8, 4


class SlowCompute(InlineCompute):
    """Trains longer than the others need for a round, and does all else as they do."""

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        await trio.sleep(1.5 if kind == "train" else JOB)
        return job(lambda: False)


class SlowLab(Lab):
    """The last member has a slow machine."""

    def _open_task(
        self, member: Member, manifest: TaskManifest | None, plugins: Registry | None
    ) -> AbstractAsyncContextManager[Task]:
        self.compute = SlowCompute if member.number == SLOW else ModelledCompute
        return super()._open_task(member, manifest, plugins)


def lab(max_staleness: int, folder: Path | None = None) -> SlowLab:
    policy = RoundPolicy(train_deadline_s=20.0, phase_deadline_s=5.0, quorum=0.7, max_staleness=max_staleness)
    return SlowLab(tiny_manifest(SLOW, rounds=ROUNDS, policy=policy), folder)


def expected(made: Lab) -> list[str]:
    """The digests that the reported updates come to, computed here once more."""
    manifest, trainer = made.manifest, Pull()
    models: list[Parameters] = [trainer.init(manifest.seed)]
    for event in made.rounds(1).values():
        late = {item["peer"]: item["rounds"] for item in event["late"]}
        updates = []
        for peer in event["participants"]:
            base = models[event["round"] - 1 - late.get(peer, 0)]
            index = [str(member) for member in manifest.peer_ids].index(peer)
            context = TrainContext(round=1, seed=1, should_stop=lambda: False)
            copy = {name: array.copy() for name, array in base.items()}
            result = trainer.train(copy, np.float32(index), context)
            updates.append(
                ModelUpdate(
                    peer=manifest.peer_ids[index],
                    root=bytes(32),
                    delta=difference(result.parameters, base),
                    examples=result.examples,
                    staleness=late.get(peer, 0),
                )
            )
        models.append(WeightedMean().aggregate(models[-1], updates))
    return [digest_of(model) for model in models[1:]]


async def test_late_updates_count_with_less_weight_and_the_same_everywhere(
    autojump_clock: MockClock,
) -> None:
    made = lab(max_staleness=8)
    async with open_lab(made, 1, 2, 3, SLOW):
        await made.until_finished(1, 2, 3, SLOW)
    assert_agreed(made, ROUNDS)
    late = [item["rounds"] for event in made.rounds(1).values() for item in event["late"]]
    assert late
    assert [event["digest"] for event in made.rounds(1).values()] == expected(made)
    assert not any(event["refused"] for event in made.rounds(1).values())


async def test_a_late_update_is_in_the_store_for_as_long_as_it_is_asked_for(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    made = lab(max_staleness=3, folder=tmp_path)
    async with open_lab(made, 1, 2, 3, SLOW):
        await made.until_finished(1, 2, 3, SLOW)
    assert_agreed(made, ROUNDS)
    assert any(event["late"] for event in made.rounds(1).values())


async def test_without_it_the_slow_member_adds_nothing(autojump_clock: MockClock) -> None:
    made = lab(max_staleness=0)
    async with open_lab(made, 1, 2, 3, SLOW):
        await made.until_finished(1, 2, 3, SLOW)
    assert_agreed(made, ROUNDS)
    assert {len(event["participants"]) for event in made.rounds(1).values()} == {3}


def test_the_weight_of_an_update_falls_with_the_root_of_its_staleness() -> None:
    update = partial(ModelUpdate, peer=tiny_manifest(1).peer_ids[0], root=bytes(32), delta={}, examples=10)
    assert [update(staleness=rounds).weight for rounds in (0, 3, 8)] == [10.0, 5.0, 10 / 3]
