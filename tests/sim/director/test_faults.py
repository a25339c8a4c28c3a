"""What begins ends, on whom it was meant for, in the network, the rung and on the disks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.director.trouble import RECOVERY
from sim.scenario.model import Scenario
from tests.sim.doubles import Stage, played

LASTING = ("partition", "hold", "weather", "slow-reader", "slow-processor", "disk-full", "disk-error")


def stage(*faults: dict[str, Any], **parts: Any) -> Stage:
    return Stage(Scenario.model_validate({"name": "test", "peers": 10, "faults": faults, **parts}))


def seen(stage: Stage, at: float) -> dict[str, Any]:
    """What is wrong with node 2 at that time, filled in when the stage runs."""
    found: dict[str, Any] = {}

    def look() -> None:
        network, disk = stage.network, stage.rung.disks[2]
        found.update(
            to=network.held(2, 7),
            back=network.held(7, 2),
            inside=network.held(2, 3),
            reading=network.reading(2),
            slow=network.processing(2, 1.0),
            full=disk.full,
            errors=disk.error_share,
            alive=stage.rung.running[2],
            clock=round(network.wall_clock(2) - network.wall_clock(7), 6),
        )

    stage.heap.plan(at, look)
    return found


WELL = {
    "to": False,
    "back": False,
    "inside": False,
    "reading": True,
    "slow": 1.0,
    "full": False,
    "errors": 0.0,
    "alive": True,
    "clock": 0.0,
}


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ({"kind": "partition"}, {"to": True, "back": True}),
        ({"kind": "partition", "one_way": True}, {"to": True}),
        ({"kind": "hold"}, {"to": True, "back": True, "inside": True}),
        ({"kind": "weather", "loss": 0.1}, {}),
        ({"kind": "slow-reader"}, {"reading": False}),
        ({"kind": "slow-processor", "factor": 7}, {"slow": 7.0}),
        ({"kind": "disk-full"}, {"full": True}),
        ({"kind": "disk-error", "share": 0.5}, {"errors": 0.5}),
        ({"kind": "clock-jump", "by_ms": -1500}, {"clock": -1.5}),
        ({"kind": "crash"}, {"alive": False}),
    ],
)
def test_a_fault_lasts_from_its_begin_to_its_end(fault: dict[str, Any], wrong: dict[str, Any]) -> None:
    there = stage({**fault, "at": 10, "seconds": 5, "who": {"nodes": [2, 3]}})
    before, during, after = seen(there, 9.9), seen(there, 12), seen(there, 17)
    there.run()
    assert before == after == WELL
    assert during == WELL | wrong
    assert not there.trouble.calm(10, 10)
    assert not there.trouble.calm(15, 15)
    assert there.trouble.calm(4.2, 9.9)


@pytest.mark.parametrize("kind", LASTING)
def test_a_fault_without_a_length_lasts_to_the_end_of_the_run(kind: str) -> None:
    there = stage({"kind": kind, "at": 10, "who": {"nodes": [2]}})
    late = seen(there, 20)
    there.run()
    assert kind == "weather" or late != WELL
    assert not there.trouble.calm(1e6, 1e6)


def test_who_crashes_for_good_is_missed_for_a_while_only() -> None:
    there = played(faults=[{"kind": "crash", "at": 10, "keep_disk": False, "who": {"count": 3}}], settle=60)
    assert [call[3:] for call in there.rung.said("crash")] == [(False, False)] * 3
    assert there.books.lost == [call[2] for call in there.rung.said("crash")]
    assert there.rung.running.count(False) == 3
    assert there.trouble.calm(10.1 + RECOVERY, 1e6)
    silent = played(faults=[{"kind": "crash", "at": 10, "silently": True, "who": {"count": 3}}])
    assert [call[3:] for call in silent.rung.said("crash")] == [(True, True)] * 3
    assert not silent.books.lost
    assert not silent.trouble.calm(50, 50)


def test_a_long_interruption_takes_longer_to_heal() -> None:
    short = stage({"kind": "hold", "at": 5, "seconds": 20, "who": {"count": 1}})
    long = stage({"kind": "hold", "at": 5, "seconds": 50, "who": {"count": 1}})
    short.run()
    long.run()
    assert short.trouble.calm(25.1 + RECOVERY, 100)
    assert not long.trouble.calm(55.1 + RECOVERY, 200)


def test_a_share_of_the_connections_breaks() -> None:
    fault = {"kind": "reset", "at": 10, "connections": 0.5, "who": {"nodes": [4]}}
    there = played(topology={"kind": "full"}, faults=[fault])
    resets = there.rung.said("reset")
    assert {call[:3] for call in resets} == {(10.0, "reset", 4)}
    assert len({call[3] for call in resets}) == len(resets) == 4  # of 9
    everything = played(topology={"kind": "full"}, faults=[{**fault, "connections": 1.0, "seconds": 3}])
    assert len(everything.rung.said("reset")) == 9


def test_faults_of_a_disk_may_overlap() -> None:
    who = {"nodes": [2]}
    there = stage(
        {"kind": "disk-full", "at": 5, "seconds": 10, "who": who},
        {"kind": "disk-full", "at": 10, "seconds": 10, "who": who},
        {"kind": "disk-error", "at": 5, "seconds": 10, "share": 0.7, "who": who},
        {"kind": "disk-error", "at": 10, "seconds": 10, "share": 0.2, "who": who},
    )
    looks = [seen(there, at) for at in (7, 12, 17, 22)]
    there.run()
    assert [look["full"] for look in looks] == [True, True, True, False]
    assert [look["errors"] for look in looks] == [0.7, 0.7, 0.2, 0.0]


def test_a_node_comes_back_when_the_last_cause_to_be_down_is_gone() -> None:
    who = {"nodes": [2]}
    there = stage(
        {"kind": "crash", "at": 5, "seconds": 10, "who": who},
        {"kind": "crash", "at": 10, "seconds": 10, "who": who},
    )
    looks = [seen(there, at) for at in (7, 17, 21)]
    there.run()
    assert [look["alive"] for look in looks] == [False, False, True]
    assert [(call[0], call[1]) for call in there.rung.said("start", "crash") if call[2] == 2][1:] == [
        (5.0, "crash"),
        (20.0, "start"),
    ]


def test_a_node_that_is_down_before_it_comes_comes_later() -> None:
    fault = {"kind": "crash", "at": 0, "seconds": 10, "who": {"share": 1.0}}
    there = played(topology={"over": 4}, faults=[fault], gossip=[{"rate": 1}])
    assert {call[0] for call in there.rung.said("start")} == {0.0, 10.0}  # node 0 had come
    assert len(there.rung.said("subscribe")) == 10


@given(data=st.data(), seed=st.integers(0, 1000))
def test_everything_that_ends_leaves_no_trace(data: st.DataObject, seed: int) -> None:
    faults = [
        {
            "kind": data.draw(st.sampled_from([*LASTING, "crash"])),
            "at": data.draw(st.integers(0, 20)),
            "seconds": data.draw(st.integers(1, 10)),
            "who": data.draw(st.sampled_from([{"share": 0.3}, {"count": 4}, {"nodes": [2, 3]}])),
        }
        for _ in range(data.draw(st.integers(1, 8)))
    ]
    there = Stage(Scenario.model_validate({"name": "x", "peers": 10, "settle": 40, "faults": faults}), seed)
    late = seen(there, 32)
    there.run()
    assert late == WELL
    assert all(there.rung.running)
