from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from trio.testing import MockClock

from federated.errors import TrainingStopped
from federated.manifest import RoundPolicy, parse_manifest
from federated.monitor import worth_of
from federated.parameters import Parameters
from federated.plugin import ModelUpdate
from federated.quality import MAX_ASSESSED, Contribution, assess
from federated.standing import Standing
from federated.workbench import Workbench
from tests.federated import tiny
from tests.federated.lab import Lab, assert_agreed, open_lab, peer_number, start_with, tiny_manifest
from tests.federated.test_workbench import base, bench, never

# The tiny task begins at 3; its held-out point is the mean of 0, 1, 2: the loss is |w - 1|, first 2


def update(number: int, step: float, examples: int = 1) -> ModelUpdate:
    delta: Parameters = {"count": np.ones((), np.int64), "w": np.full(4, step, np.float32)}
    root = bytes([number]) * 32
    return ModelUpdate(peer=peer_number(number), root=root, delta=delta, examples=examples)


def model(made: Workbench, updates: list[ModelUpdate]) -> Parameters:
    data = made.aggregate(base(made), updates)
    assert isinstance(data, bytes)
    return made.decode(data)


def contributions(updates: list[ModelUpdate], made: Workbench | None = None) -> dict[int, Contribution]:
    made = made or bench()
    found = assess(made, base(made), model(made, updates), updates, never)
    assert found is not None
    assert [item.peer for item in found.contributions] == sorted(item.peer for item in updates)
    numbers = {peer_number(number): number for number in range(1, 100)}
    return {numbers[item.peer]: item for item in found.contributions}


def test_an_update_is_worth_what_the_loss_falls_by() -> None:
    made = bench()
    updates = [update(1, -1.0), update(2, -2.0), update(3, 1.5)]  # the mean is -0.5
    found = assess(made, base(made), model(made, updates), updates, never)
    assert found is not None
    assert (found.before, found.after) == (pytest.approx(2.0), pytest.approx(1.5))
    known = contributions(updates)
    assert {number: item.gain for number, item in known.items()} == {
        1: pytest.approx(1.0),
        2: pytest.approx(2.0),
        3: pytest.approx(-1.5),
    }
    assert {number: item.leave_one_out for number, item in known.items()} == {
        1: pytest.approx(0.25),  # without it the mean of the others, -0.25
        2: pytest.approx(0.75),
        3: pytest.approx(-1.0),
    }


def test_what_cannot_be_said_is_left_open() -> None:
    [alone] = contributions([update(1, -1.0)]).values()
    assert (alone.gain, alone.leave_one_out) == (pytest.approx(1.0), None)  # nothing is left to average
    far = update(1, -1.0)
    far.delta["count"] = np.array(np.iinfo(np.int64).max, np.int64)
    made = bench()
    found = assess(made, base(made), base(made), [far], never)
    assert found is not None
    assert found.contributions[0].gain is None


def test_one_that_is_refused_when_another_is_gone_leaves_that_open() -> None:
    updates = [update(number, -0.1) for number in range(1, 6)] + [update(6, -0.9)]
    made = bench()
    known = contributions(updates, made)
    assert known[6].leave_one_out is not None
    updates[5] = update(6, -50.0)  # without it the rest is fine, with it and without another it is not
    found = assess(made, base(made), base(made), updates, never)
    assert found is not None
    by_peer = {item.peer: item.leave_one_out for item in found.contributions}
    assert by_peer[peer_number(6)] is not None
    assert by_peer[peer_number(1)] is None


def test_without_a_loss_there_is_no_report() -> None:
    made = bench(preprocessor="nothingheldout")
    assert assess(made, base(made), base(made), [update(1, 1.0)], never) is None


def test_so_many_updates_are_assessed_and_it_can_be_stopped() -> None:
    made = bench()
    updates = [update(number, -0.5) for number in range(1, MAX_ASSESSED + 6)]
    found = assess(made, base(made), base(made), updates, never)
    assert found is not None
    assert len(found.contributions) == MAX_ASSESSED
    with pytest.raises(TrainingStopped):
        assess(made, base(made), base(made), updates, lambda: True)


@pytest.mark.parametrize(
    ("gain", "leave_one_out", "worth"),
    [(1.0, -0.1, "harmful"), (-1.0, 0.1, "helpful"), (1.0, None, "helpful"), (None, None, "unknown")],
)
def test_what_an_update_is_counted_as(gain: Any, leave_one_out: Any, worth: str) -> None:
    assert worth_of({"peer": "a", "gain": gain, "leave_one_out": leave_one_out}) == worth


def test_a_task_that_assesses_nothing_has_the_id_that_it_always_had() -> None:
    plain = tiny_manifest(3)
    assert b"quality" not in plain.canonical()
    policy = plain.policy.model_copy(update={"quality_every": 2})
    assessed = tiny_manifest(3, policy=policy)
    assert parse_manifest(assessed.canonical()) == assessed
    assert assessed.task_id != plain.task_id


# Over the whole stack


def lab(**policy: Any) -> Lab:
    values = {"train_deadline_s": 20.0, "phase_deadline_s": 5.0, **policy}
    return Lab(tiny_manifest(4, rounds=4, policy=RoundPolicy(**values)))


async def test_each_peer_reports_what_the_others_contribute(autojump_clock: MockClock) -> None:
    made = lab(quality_every=2)
    async with open_lab(made, 1, 2, 3) as nursery:
        await nursery.start(start_with, made, 4, tiny.registry(pull="Harms"))
        await made.until_finished(1, 2, 3, 4)
        await made.until(lambda: all(len(quality(made, number)) == 2 for number in (1, 2, 3)))
    assert_agreed(made, 4)
    liar = str(peer_number(4))
    for number in (1, 2, 3):
        reports = quality(made, number)
        assert [report["round"] for report in reports] == [2, 4]
        for report in reports:
            assert {item["peer"] for item in report["peers"]} == set(made.rounds(number)[2]["participants"])
            worth = {item["peer"]: item["leave_one_out"] for item in report["peers"]}
            assert worth[liar] == min(worth.values())
            assert worth[liar] < 0
        standing = Standing(made.manifest)
        for report in made.reports[number]:
            standing.handle(report)
        assert standing.summary()["quality"] == {
            name: reports[-1][name] for name in ("round", "before", "after", "peers")
        }


async def test_a_peer_that_only_fetched_the_model_assesses_nobody(autojump_clock: MockClock) -> None:
    made = lab(quality_every=1)
    async with open_lab(made, 1, 2, 3) as nursery:
        await nursery.start(start_with, made, 4, tiny.registry(**{"weighted-mean": "OtherMean"}))
        await made.until_finished(1, 2, 3, 4)
    assert len(quality(made, 1)) >= 3
    assert quality(made, 4) == []


async def test_an_assessment_that_fails_is_told_in_a_line(autojump_clock: MockClock) -> None:
    made = lab(quality_every=1)
    async with open_lab(made, 1, 2, 3) as nursery:
        await nursery.start(start_with, made, 4, tiny.registry(pull="Raises"))
        await made.until_finished(1, 2, 3, 4)
        line = "the updates are not assessed: trainer 'pull'"  # told when it comes to that, beside the rounds
        await made.until(
            lambda: any(event.get("reason", "").startswith(line) for event in made.task_events(4))
        )


def quality(made: Lab, number: int) -> list[dict[str, Any]]:
    return [event for event in made.reports[number] if event["event"] == "quality"]
