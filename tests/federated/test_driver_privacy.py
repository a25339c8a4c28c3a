"""A private task over the whole stack: what is spent, when it ends, and that a restart forgets nothing."""

from __future__ import annotations

from pathlib import Path

from trio.testing import MockClock

from federated.manifest import DifferentialPrivacy, PluginRef
from federated.registry import Registry
from federated.standing import Standing
from tests.federated.lab import Lab, assert_agreed, open_lab, start_with, tiny_manifest

PRIVACY = DifferentialPrivacy(clip=4.0, noise=4.0, delta=1e-5, epsilon=4.5)
AFFORDED = 3  # updates


def standing(lab: Lab, number: int) -> Standing:
    made = Standing(lab.manifest)
    for report in lab.reports[number]:
        made.handle(report)
    return made


async def test_peers_train_until_their_budget_is_spent(autojump_clock: MockClock) -> None:
    assert PRIVACY.cost(AFFORDED) <= PRIVACY.epsilon < PRIVACY.cost(AFFORDED + 1)
    lab = Lab(tiny_manifest(4, rounds=5, privacy=PRIVACY))
    members = (1, 2, 3, 4)
    async with open_lab(lab, *members):
        await lab.until_finished(*members)
    assert_agreed(lab, 5)
    for number in members:
        rounds = lab.rounds(number)
        assert [rounds[at]["skipped"] for at in range(1, 6)] == [False] * AFFORDED + [True] * 2
        assert [rounds[at]["privacy"]["updates"] for at in range(1, 6)] == [1, 2, 3, 3, 3]
        assert rounds[5]["privacy"] == {
            "epsilon": PRIVACY.cost(AFFORDED),
            "delta": 1e-5,
            "budget": 4.5,
            "updates": AFFORDED,
        }
        told = [event["reason"] for event in lab.task_events(number) if "reason" in event]
        assert len(told) == 1
        assert told[0].startswith("the privacy budget is spent: 3 updates come to an epsilon of ")
        assert standing(lab, number).summary()["privacy"] == rounds[5]["privacy"]
    models = {event["digest"] for event in lab.rounds(1).values()}
    assert len(models) == AFFORDED


async def test_what_was_spent_counts_after_a_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    lab = Lab(tiny_manifest(4, rounds=5, privacy=PRIVACY), tmp_path)
    members = (1, 2, 3, 4)
    async with open_lab(lab, *members) as nursery:
        await lab.until_round(2, *members)
        await lab.members[4].crash()
        before = lab.rounds(4)[2]["privacy"]["updates"]
        await nursery.start(lab.run, 4)
        await lab.until(lambda: any(event["state"] == "finished" for event in lab.task_events(4)))
        again = [event for event in lab.task_events(4) if "privacy" in event]
    assert before >= 2
    assert again[0]["privacy"]["updates"] == 0
    assert again[-1]["privacy"]["updates"] >= before
    assert lab.rounds(4)[5]["privacy"]["updates"] == AFFORDED
    assert_agreed(lab, 5)


async def test_a_task_without_privacy_says_nothing_of_it(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(4, rounds=1))
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_finished(1, 2, 3, 4)
    assert "privacy" not in lab.rounds(1)[1]
    assert "training" not in lab.rounds(1)[1]
    assert standing(lab, 1).summary()["privacy"] is None


async def test_a_trainer_that_hides_examples_has_what_it_needs(autojump_clock: MockClock) -> None:
    trainer = PluginRef(name="dp-mlp", settings={"steps": 2, "batch": 8, "epsilon": 50.0})
    lab = Lab(tiny_manifest(4, rounds=2, preprocessor=PluginRef(name="digits"), trainer=trainer))
    members = (1, 2, 3, 4)
    async with open_lab(lab) as nursery:
        for number in members:
            await nursery.start(start_with, lab, number, Registry())
        await lab.until_finished(*members)
    assert_agreed(lab, 2)
    assert [len(lab.rounds(1)[number]["participants"]) for number in (1, 2)] == [4, 4]
    told = [lab.rounds(1)[number]["training"] for number in (1, 2)]
    assert 0 < told[0]["epsilon"] < told[1]["epsilon"] < 50.0
    assert standing(lab, 1).summary()["training"] == told[1]
