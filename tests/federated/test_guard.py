"""Members hold a round's model against their own held-out data, and follow what a quorum certifies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trio.testing import MockClock

from federated import codec
from federated.errors import ManifestError, PluginError
from federated.guard import LossGuard, Worsened
from federated.manifest import PluginRef, RoundPolicy, parse_manifest
from federated.parameters import Parameters
from tests.federated import tiny
from tests.federated.lab import Lab, assert_agreed, open_lab, start_with, tiny_manifest
from tests.federated.test_workbench import bench

BASE, MODEL = {"w": np.zeros(1)}, {"w": np.ones(1)}
POLICY = RoundPolicy(train_deadline_s=20.0, phase_deadline_s=5.0, max_loss_rise=0.2)
CREDULOUS = PluginRef(name="update-check", settings={"max_norm": 1e9, "max_ratio": 1e9})


def losses(before: Any, after: Any) -> Callable[[Parameters], float | None]:
    """Measures the base and the model so; an exception is raised."""

    def measure(model: Parameters) -> float | None:
        loss: float | None = before if model is BASE else after
        if isinstance(loss, Exception):
            raise loss
        return loss

    return measure


@pytest.mark.parametrize(
    ("before", "after"),
    [(1.0, 1.2), (1.0, 0.1), (-1.0, -0.8), (0.0, 0.0), (None, None), (None, 9.0), (PluginError("x"), 9.0)],
)
def test_a_model_that_is_hardly_worse_is_accepted(before: Any, after: Any) -> None:
    LossGuard(0.2, losses(before, after)).check(BASE, MODEL)


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (1.0, 1.21, "would rise from 1 to 1.21"),
        (-1.0, -0.79, "would rise from -1 to -0.79"),
        (0.0, 1e-9, "would rise from 0 to 1e-09"),
        (1.0, None, "would be no number"),
    ],
)
def test_a_model_that_is_worse_is_not(before: float, after: float | None, line: str) -> None:
    with pytest.raises(Worsened, match=f"^the model stays as it is: its loss on .* {line}$") as caught:
        LossGuard(0.2, losses(before, after)).check(BASE, MODEL)
    assert (caught.value.before, caught.value.after) == (before, after)


def test_a_model_that_cannot_be_measured_is_not() -> None:
    with pytest.raises(PluginError, match="too large"):
        LossGuard(0.2, losses(1.0, PluginError("too large"))).check(BASE, MODEL)


def test_the_base_is_measured_once_and_again_for_other_data() -> None:
    measured: list[Parameters] = []
    guard = LossGuard(0.0, lambda model: measured.append(model) or 1.0)
    for _ in range(3):
        guard.check(BASE, MODEL)
    assert [model is BASE for model in measured] == [True, False, False, False]
    guard.forget()
    guard.check(BASE, MODEL)
    assert [model is BASE for model in measured[4:]] == [True, False]
    guard.check(MODEL, BASE)  # the next round
    assert [model is BASE for model in measured[6:]] == [False, True]


def test_the_policy_is_part_of_the_task_only_where_there_is_one() -> None:
    plain = tiny_manifest(3)
    assert b"max_loss_rise" not in plain.canonical()
    for rise in (0.0, 0.2):  # any rise at all is too much; a fifth is
        guarded = tiny_manifest(3, policy=POLICY.model_copy(update={"max_loss_rise": rise}))
        assert parse_manifest(guarded.canonical()) == guarded
        assert guarded.task_id != plain.task_id
    with pytest.raises(ManifestError, match="max_loss_rise"):
        parse_manifest(guarded.canonical().replace(b'"max_loss_rise":0.2', b'"max_loss_rise":-1'))


def test_a_workbench_compares_on_what_is_held_out() -> None:
    worse = codec.encode({"count": np.zeros((), np.int64), "w": np.full(4, 9, np.float32)})
    guarded = bench(policy=POLICY)
    base = guarded.decode(guarded.initial)
    assert guarded.is_guarded
    guarded.accept(base, guarded.initial)
    with pytest.raises(Worsened, match=r"from 2 to 8$"):
        guarded.accept(base, worse)
    free = bench()
    assert not free.is_guarded
    free.accept(base, worse)


# Over the whole stack


def lab(count: int = 4, **changes: Any) -> Lab:
    return Lab(tiny_manifest(count, rounds=3, **{"policy": POLICY, "validator": CREDULOUS, **changes}))


def objections(made: Lab, number: int) -> list[Any]:
    return [event for event in made.reports[number] if event["event"] == "objection"]


async def run(made: Lab, **fourth: str) -> None:
    """Four members to the end, of which the last has plugins of its own."""
    async with open_lab(made, 1, 2, 3) as nursery:
        await nursery.start(start_with, made, 4, tiny.registry(**fourth))
        await made.until_finished(1, 2, 3, 4)
    assert_agreed(made, 3)


async def test_a_poisoned_round_is_skipped_and_everybody_says_why(autojump_clock: MockClock) -> None:
    made = lab()
    await run(made, pull="Huge")
    for number in (1, 2, 3):
        assert [event["skipped"] for event in made.rounds(number).values()] == [True] * 3
        assert made.rounds(number)[3]["loss"] == made.rounds(number)[1]["loss"] < 2
        told = objections(made, number)
        assert [event["round"] for event in told] == [1, 2, 3]
        assert all(event["after"] > 50 > event["before"] for event in told)
    assert all(event["seconds"] < 5 for event in made.rounds(1).values())  # no deadline was waited for


async def test_without_the_policy_the_same_round_is_certified(autojump_clock: MockClock) -> None:
    made = lab(policy=RoundPolicy(train_deadline_s=20.0, phase_deadline_s=5.0))
    await run(made, pull="Huge")
    assert not made.rounds(1)[1]["skipped"]
    assert made.rounds(1)[3]["loss"] > 50
    assert not objections(made, 1)


async def test_one_that_objects_alone_follows_the_others(autojump_clock: MockClock) -> None:
    made = lab()
    await run(made, pull="Contrary")
    assert [event["skipped"] for event in made.rounds(1).values()] == [False] * 3
    against = [event["round"] for event in objections(made, 4)]
    assert against[:2] == [1, 2]
    assert [number for number, event in made.rounds(4).items() if event["catch_up"]] == against
    assert len(made.rounds(4)[3]["participants"]) == 4  # its update counts all the same
    assert not objections(made, 1)
    assert all(event["seconds"] < 5 for event in made.rounds(1).values())


async def test_half_of_the_members_can_keep_a_model_back_but_not_the_task(autojump_clock: MockClock) -> None:
    made = lab()
    async with open_lab(made, 1, 2) as nursery:
        for number in (3, 4):
            await nursery.start(start_with, made, number, tiny.registry(pull="Contrary"))
        await made.until_finished(1, 2, 3, 4)
    assert_agreed(made, 3)
    assert [event["skipped"] for event in made.rounds(1).values()] == [True] * 3
    assert all(event["seconds"] < 5 for event in made.rounds(1).values())


async def test_members_that_hold_nothing_out_accept(autojump_clock: MockClock) -> None:
    made = lab(preprocessor=PluginRef(name="nothingheldout"))
    await run(made, pull="Huge")
    assert [event["skipped"] for event in made.rounds(1).values()] == [False] * 3
    assert not objections(made, 1)
