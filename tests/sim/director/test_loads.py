"""What the network is asked to do: at the rate that was said, by those who run and are honest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from sim.director.loads import PUT_AGE, STORED_FOR
from sim.scenario.model import Scenario
from tests.sim.doubles import Call, Stage, played


def nodes(calls: Sequence[Call]) -> set[int]:
    return {call[2] for call in calls}


def test_messages_come_at_their_rate_in_their_time() -> None:
    stage = played(gossip=[{"rate": 50, "start": 5, "seconds": 20, "size": 100}])
    published = stage.rung.said("publish")
    assert 850 < len(published) < 1150
    assert all(5 <= at < 25 for at, *_ in published)
    assert len({data for *_, data in published}) == len(published)
    assert {len(data) for *_, data in published} == {100}
    assert nodes(published) == set(range(10))


def test_shares_of_the_nodes_publish_and_subscribe_and_adversaries_only_subscribe() -> None:
    stage = played(
        gossip=[{"rate": 50, "publishers": 0.5, "subscribers": 0.3, "topic": "news"}],
        adversaries=[{"role": "censor", "who": {"nodes": [0, 1]}}],
    )
    assert len(nodes(stage.rung.said("subscribe"))) == len(stage.rung.said("subscribe")) == 3
    assert len(nodes(stage.rung.said("publish"))) == 4
    assert not {0, 1} & nodes(stage.rung.said("publish"))
    assert {call[3] for call in stage.rung.said("publish", "subscribe")} == {"news"}
    everybody = played(gossip=[{}], adversaries=[{"role": "censor", "who": {"share": 1.0}}])
    assert len(everybody.rung.said("subscribe")) == 10
    assert everybody.rung.said("publish") == []


@pytest.mark.parametrize("seed", range(5))
def test_nobody_publishes_while_down(seed: int) -> None:
    """The fake rung asserts it for every message."""
    stage = played(
        seed,
        gossip=[{"rate": 20, "seconds": 30}],
        churn=[{"session": 3, "absence": 3, "share": 1.0, "start": 2}],
        faults=[{"kind": "crash", "at": 10, "seconds": 5, "who": {"share": 0.8}}],
    )
    assert len(stage.rung.said("publish")) > 300


def test_when_all_are_down_nobody_is_asked_for_anything() -> None:
    stage = played(
        gossip=[{"seconds": 30}],
        dht=[{"seconds": 30}],
        faults=[{"kind": "crash", "at": 10, "who": {"share": 1.0}}],
    )
    assert max(at for at, *_ in stage.rung.said("publish", "put", "find")) < 10


def test_only_values_that_are_stored_are_asked_for_and_by_others() -> None:
    scenario = Scenario.model_validate(
        {"name": "x", "peers": 10, "dht": [{"puts": 5, "gets": 20, "finds": 5, "seconds": 30}]}
    )
    stage = Stage(scenario)
    ended: dict[int, tuple[float, bool]] = {}

    def end(operation: int) -> None:
        ok = operation % 3 > 0
        ended[operation] = (stage.heap.now, ok)
        stage.director.looked_up(operation, ok)

    stage.rung.on_put = lambda operation: stage.heap.plan(stage.heap.now + operation % 20, end, operation)
    stage.run()
    puts = {
        key: (at, node, value, operation) for at, _, node, key, value, operation in stage.rung.said("put")
    }
    gets = stage.rung.said("get")
    assert len(puts) > 100
    assert len(gets) > 150
    for at, _, node, key, operation in gets:
        asked, putter, value, put = puts[key]
        stored, ok = ended[put]
        assert ok
        assert stored <= at - STORED_FOR
        assert asked <= at - PUT_AGE
        assert node != putter
        assert stage.books.operations[operation] == (node, "get", value)


def ends_well(stage: Stage, seconds: float, operation: int) -> None:
    stage.heap.plan(stage.heap.now + seconds, stage.director.looked_up, operation, True)


def test_what_is_asked_for_does_not_depend_on_how_long_things_take() -> None:
    """The rungs differ in it, and must be comparable."""
    scenario = Scenario.model_validate({"name": "x", "peers": 10, "dht": [{"seconds": 40}]})
    asked = []
    for seconds in (0.1, 2.0):
        stage = Stage(scenario)
        stage.rung.on_put = partial(ends_well, stage, seconds)
        asked.append(stage.run().rung.calls)
    assert asked[0] == asked[1]
    assert [call for call in asked[0] if call[1] == "get"]


def test_every_operation_has_a_number_of_its_own_and_is_written_down() -> None:
    stage = played(dht=[{"puts": 3, "finds": 3}, {"puts": 3, "finds": 3}])
    calls = stage.rung.said("put", "get", "find")
    assert len({call[-1] for call in calls}) == len(calls)
    assert {call[-1]: (call[2], call[1]) for call in calls} == {
        number: (node, kind) for number, (node, kind, _) in stage.books.operations.items()
    }
    assert all(node != target for _, _, node, target, _ in stage.rung.said("find"))


def test_a_rate_of_nothing_is_no_load() -> None:
    stage = played(dht=[{"puts": 0, "gets": 0, "finds": 0}])
    assert stage.rung.said("put", "get", "find") == []


def test_one_node_alone_looks_up_nobody() -> None:
    stage = played(peers=1, dht=[{}])
    assert stage.rung.said("find", "get") == []
    assert stage.rung.said("put")
