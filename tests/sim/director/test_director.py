"""The whole plan: the same for the same seed, and over when everything is."""

from __future__ import annotations

from typing import Any

import pytest

from sim.director.connections import DIAL_AFTER
from sim.scenario.model import Scenario
from sim.scenario.timing import task_limit
from tests.sim.doubles import Stage, played

EVERYTHING: dict[str, Any] = {
    "peers": 20,
    "gossip": [{}, {"topic": "other", "publishers": 0.3}],
    "dht": [{}],
    "task": [{"members": 5, "rounds": 1}],
    "churn": [{"session": 5, "absence": 2, "share": 0.4}],
    "faults": [
        {"kind": "crash", "at": 8, "seconds": 4, "who": {"share": 0.3}},
        {"kind": "reset", "at": 9, "connections": 0.5, "who": {"share": 0.5}},
    ],
}


def finishing(scenario: Scenario, after: float) -> Stage:
    """A stage whose members are through with a task `after` seconds behind joining it."""
    stage = Stage(scenario)
    join = stage.rung.join_task

    def join_task(node: int, name: str) -> None:
        join(node, name)
        stage.heap.plan(stage.heap.now + after, stage.director.finished_task, node, name)

    stage.rung.join_task = join_task  # type: ignore[method-assign]
    return stage


def test_the_same_seed_asks_for_the_same_and_another_for_something_else() -> None:
    assert played(7, **EVERYTHING).rung.calls == played(7, **EVERYTHING).rung.calls
    assert played(7, **EVERYTHING).rung.calls != played(8, **EVERYTHING).rung.calls


def test_another_load_does_not_shift_what_the_first_one_asks_for() -> None:
    one = played(gossip=[{}], topology={"over": 4})
    both = played(gossip=[{}, {"topic": "other"}], dht=[{}], topology={"over": 4})
    for name in ("publish", "connect"):
        assert one.rung.said(name) == [call for call in both.rung.said(name) if call[3] != "other"]


def test_nodes_come_before_they_dial_and_all_are_there_in_time() -> None:
    stage = played(topology={"over": 4})
    starts, dials = stage.rung.said("start"), stage.rung.said("connect")
    assert [call[2] for call in starts] == list(range(10))
    assert max(at for at, *_ in starts) < 2
    assert len(dials) == 40
    assert all(2 <= at <= 4 + DIAL_AFTER for at, *_ in dials)
    assert not stage.trouble.calm(4, 4)
    assert stage.trouble.calm(8, 8)


def test_who_joins_dials_the_bootstrap_nodes_when_it_comes_and_when_it_is_back() -> None:
    fault = {"kind": "crash", "at": 20, "seconds": 5, "who": {"nodes": [0, 7]}}
    stage = played(topology={"kind": "join", "bootstrap": 2, "over": 10}, faults=[fault])
    dials = [(round(at, 6), node, other) for at, _, node, other in stage.rung.said("connect")]
    assert [other for _, node, other in dials if node == 5] == [0, 1]
    assert [(at, other) for at, node, other in dials if node == 7] == [
        (7.1, 0),
        (7.1, 1),
        (25.1, 0),
        (25.1, 1),
    ]
    assert not [other for _, node, other in dials if node == 0]


def test_who_is_gone_again_at_once_dials_nobody() -> None:
    fault = {"kind": "crash", "at": 5.05, "who": {"nodes": [5]}}
    stage = played(topology={"kind": "join", "bootstrap": 2, "over": 10}, faults=[fault])
    assert [call for call in stage.rung.said("connect") if call[2] == 5] == []


def test_behind_a_nat_nodes_dial_out() -> None:
    nat = [{"kind": "symmetric", "share": 0.5}]
    stage = played(peers=50, network={"nat": nat})
    dialed = {call[3] for call in stage.rung.said("connect")}
    assert 10 < len(dialed) < 40
    assert all(stage.network.reachable(0 if node else 1, node) for node in dialed)


def test_a_run_without_a_task_is_over_as_planned() -> None:
    stage = played(gossip=[{"start": 5, "seconds": 10}], settle=7)
    assert stage.heap.now == stage.planned_end == 22


@pytest.mark.parametrize(("after", "end"), [(1.0, 20.0), (100.0, 120.0)])
def test_a_run_goes_on_until_its_task_is_done_and_quiet_for_a_while(after: float, end: float) -> None:
    scenario = Scenario.model_validate(
        {"name": "x", "peers": 10, "settle": 15, "task": [{"members": 4, "start": 5, "rounds": 9}]}
    )
    stage = finishing(scenario, after).run()
    assert end <= stage.heap.now <= end + 2
    assert stage.books.members == [(node, "digits") for node in stage.members["digits"]]
    assert [call[0] for call in stage.rung.said("join_task")] == [5.0] * 4


def test_nobody_waits_beyond_the_deadlines_of_a_task() -> None:
    scenario = Scenario.model_validate({"name": "x", "peers": 3, "task": [{"members": 3, "rounds": 1}]})
    stage = Stage(scenario).run()
    limit = task_limit(scenario.task[0])
    assert limit <= stage.heap.now <= limit + scenario.settle + 2


def test_nobody_waits_for_members_that_are_gone_or_not_honest() -> None:
    scenario = Scenario.model_validate(
        {
            "name": "x",
            "peers": 3,
            "task": [{"members": 3, "rounds": 9}],
            "adversaries": [{"role": "sign-flip", "who": {"nodes": [2]}}],
            "faults": [{"kind": "crash", "at": 10, "who": {"nodes": [0, 1]}}],
        }
    )
    assert Stage(scenario).run().heap.now == 25


def test_a_member_that_is_away_joins_when_it_is_back() -> None:
    scenario = Scenario.model_validate(
        {
            "name": "x",
            "peers": 3,
            "task": [{"members": 3, "rounds": 1}],
            "faults": [
                {"kind": "crash", "at": 3, "seconds": 10, "who": {"nodes": [1]}},
                {"kind": "crash", "at": 20, "seconds": 2, "who": {"nodes": [1]}},
            ],
        }
    )
    stage = finishing(scenario, 30.0).run()
    joins = [(at, node) for at, _, node, _ in stage.rung.said("join_task")]
    assert joins == [(5.0, 0), (5.0, 2), (13.0, 1)]
