"""A scenario that contradicts itself is refused with one line that says where, and what to write."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sim.scenario.model import Crash, DhtLoad, Latency, Nat, NetworkSettings, Scenario, Selection, TaskLoad
from sim.scenario.timing import PHASES, TASK_GRACE, planned_end, task_limit, work_end


def scenario(**parts: Any) -> Scenario:
    return Scenario.model_validate({"name": "test", "peers": 10, **parts})


def test_a_name_is_enough() -> None:
    assert Scenario(name="empty").peers == 50


@pytest.mark.parametrize(
    "who", [{}, {"share": 0}, {"count": 0}, {"share": 0.5, "count": 1}, {"nodes": [1], "share": 0.1}]
)
def test_a_selection_says_who_in_exactly_one_way(who: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one of nodes, share"):
        Selection.model_validate(who)


def test_a_selection_names_a_node_once() -> None:
    with pytest.raises(ValidationError, match="stands twice"):
        Selection(nodes=(1, 2, 1))


@pytest.mark.parametrize(
    ("latency", "problem"),
    [
        ({"kind": "uniform", "ms": 20, "max_ms": 10}, "max_ms = 10 is less than ms = 20"),
        ({"kind": "matrix"}, "go together"),
        ({"matrix": [[1]]}, "go together"),
        ({"kind": "matrix", "matrix": [[1, 2], [3]]}, "row 1 of matrix has 1 numbers; write 2"),
        ({"kind": "matrix", "matrix": [[1, 2], [3, -4]]}, "row 1 of matrix: write milliseconds"),
        ({"kind": "geo", "preset": "moon"}, "no preset 'moon'; write one of world"),
    ],
)
def test_latencies_make_sense(latency: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Latency.model_validate(latency)


def test_good_latencies_are_taken() -> None:
    assert Latency(kind="matrix", matrix=((0, 10), (10, 0))).matrix == ((0, 10), (10, 0))
    assert Latency(kind="uniform", ms=10, max_ms=10).max_ms == 10
    assert Latency(kind="geo").preset == "world"


def test_somebody_is_open_to_all() -> None:
    with pytest.raises(ValidationError, match="the shares of nat make 1; write less"):
        NetworkSettings(nat=(Nat(share=0.5), Nat(kind="symmetric", share=0.5)))


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"task": [{"members": 11}]}, r"task\[0\].members: 11 members of 10 peers; write at most 10, or 0"),
        ({"task": [{}, {}]}, r"task\[1\].name: 'digits' is the name of another task"),
        (
            {"task": [{"settings": {"trainr": {}}}]},
            r"task\[0\].settings: there is no 'trainr'; write one of preprocessor, trainer",
        ),
        ({"checks": {"accuracy": 0.9}}, "checks.accuracy: there is no task"),
        ({"topology": {"kind": "clusters", "clusters": 11}}, "topology.clusters: 11 clusters of 10 peers"),
        ({"topology": {"kind": "join", "bootstrap": 11}}, "topology.bootstrap: 11 nodes of 10 peers"),
        ({"peers": 501, "topology": {"kind": "full"}}, 'topology.kind: "full" is for at most 500 peers'),
        (
            {"faults": [{"kind": "hold", "at": 1, "who": {"count": 11}}]},
            r"faults\[0\].who.count: 11 of 10 peers; write at most 10",
        ),
        (
            {"adversaries": [{"role": "censor", "who": {"nodes": [3, 10]}}]},
            r"adversaries\[0\].who.nodes: there is no node 10; write 0 to 9",
        ),
        (
            {
                "gossip": [{"start": 5, "seconds": 10}],
                "faults": [{"kind": "hold", "at": 16, "who": {"count": 1}}],
            },
            r"faults\[0\].at: 16 s is after the last work, which ends at 15 s",
        ),
    ],
)
def test_a_scenario_does_not_contradict_itself(parts: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        scenario(**parts)


def test_without_work_a_fault_may_come_whenever_it_likes() -> None:
    assert scenario(faults=[{"kind": "hold", "at": 1000, "who": {"count": 1}}]).faults


def test_a_run_ends_some_quiet_time_after_its_last_work_or_fault() -> None:
    assert planned_end(scenario(settle=7, topology={"over": 3})) == 10
    assert planned_end(scenario(settle=7, dht=[{"start": 5, "seconds": 10}])) == 22
    crash = Crash(at=14, seconds=20, who=Selection(count=1))
    assert planned_end(Scenario(name="x", settle=7, dht=(DhtLoad(),), faults=(crash,))) == 41
    assert work_end(Scenario(name="x", dht=(DhtLoad(),), faults=(crash,))) == 15


def test_a_task_may_take_as_long_as_its_deadlines_allow() -> None:
    load = TaskLoad(rounds=2, train_deadline=10, phase_deadline=3, start=5)
    assert task_limit(load) == 5 + 2 * (10 + PHASES * 3) + TASK_GRACE
    assert work_end(scenario(task=[load.model_dump()])) == task_limit(load)
    assert planned_end(scenario(task=[load.model_dump()], settle=1)) == 6
