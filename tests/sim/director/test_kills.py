"""kill -9 in every round: of one member, while a quorum stays, and each comes back."""

from __future__ import annotations

from typing import Any

from sim.scenario.model import Scenario
from tests.sim.doubles import Call, Stage

LENGTH = 10.0  # virtual seconds of a round


def played(members: int = 7, seed: int = 1, rounds: int = 40, **task: Any) -> Stage:
    """A task whose rounds end every `LENGTH` seconds, told by two members."""
    load = {"members": members, "rounds": rounds, "train_seconds": LENGTH, "start": 5, **task}
    stage = Stage(Scenario.model_validate({"name": "x", "peers": 10, "settle": 500, "task": [load]}), seed)
    for number in range(1, rounds + 1):
        for delay in (0.0, 0.5):
            at = 5 + number * LENGTH + delay
            stage.heap.plan(at, stage.director.finished_round, "digits", number)
            stage.heap.plan(at, stage.director.finished_round, "other", number + 100)
    return stage.run()


def downs(stage: Stage) -> list[Call]:
    """Each crash with the start that ends it: (begin, end, node)."""
    found = []
    for at, _, node, keep_disk, silently in stage.rung.said("crash"):
        assert (keep_disk, silently) == (True, True)
        found.append(
            (
                at,
                min(call[0] for call in stage.rung.said("start") if call[2:] == (node,) and call[0] > at),
                node,
            )
        )
    return found


def test_in_every_round_one_member_is_killed_and_comes_back() -> None:
    stage = played(kill_seconds=4)
    kills = downs(stage)
    assert [int((begin - 5) // LENGTH) for begin, _, _ in kills] == list(range(40))
    assert all(0 < end - begin <= 8 for begin, end, _ in kills)
    assert {node for _, _, node in kills} == set(stage.members["digits"])
    assert not stage.trouble.calm(kills[3][0], kills[3][0])


def test_never_are_more_down_than_may_be_faulty() -> None:
    kills = downs(played(kill_seconds=200))
    assert len(kills) > 4
    for begin, _, _ in kills:
        assert sum(other <= begin < end for other, end, _ in kills) <= 2


def test_where_nobody_may_be_missing_nobody_is_killed() -> None:
    assert downs(played(members=3, kill_seconds=4)) == []
    assert downs(played(kill_seconds=0)) == []
