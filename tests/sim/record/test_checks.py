from __future__ import annotations

import pytest

from sim.record import Check, Recorder, judge
from sim.record.invariants import RULES
from sim.scenario.model import Adversary, Checks, Selection, TaskLoad
from tests.sim.record.support import TOPIC, Still, finish_round, look_up, recorder, rung


def _find(made: Recorder, words: str) -> Check:
    (check,) = [check for check in judge(made) if words in check.name]
    return check


def _publish(made: Recorder, publisher: int, at: float, *nodes: int) -> None:
    made.heap.now = at
    message_id = f"{publisher} {at}".encode()
    made.published(publisher, TOPIC, message_id, 200)
    for node in nodes:
        made.heap.now = at + 0.1 * node
        made.delivered(node, TOPIC, message_id, publisher, publisher)
    made.heap.now = 50.0


def test_the_slowest_delivery_and_the_longest_eclipse_are_judged_where_that_is_asked_for() -> None:
    adversary = Adversary(role="eclipser", who=Selection(nodes=(3,)))
    made = recorder(
        honest=lambda node: node != 3,
        adversaries=(adversary,),
        checks=Checks(max_ms=250.0, eclipse_seconds=2.0, eclipse_after=1.0),
    )
    links = dict.fromkeys(range(4), (3,))
    for second, mesh in enumerate([(3,), (3,), (3,), (1, 3), (3, 1, 3), (3,), (3,)]):
        made.heap.now = float(second)
        made.sample(rung(Still(links, {0: mesh, 3: (3,)})))
    assert made.longest_eclipse == 2.0
    assert _find(made, "mostly honest within 2 s").holds
    made.heap.now = 7.0
    made.sample(rung(Still(links, {0: (3,)})))
    check = _find(made, "mostly honest within 2 s")
    assert (check.holds, check.seen) == (False, "3 s at the longest")
    assert _find(made, "more than 250 ms").seen == "nothing to judge"
    _publish(made, 0, 10.0, 1, 2)
    assert _find(made, "more than 250 ms").holds
    made = recorder(5, checks=Checks(max_ms=250.0))
    _publish(made, 0, 10.0, 1, 2, 3)
    assert not _find(made, "more than 250 ms").holds


def test_invariants_are_judged_always() -> None:
    made = recorder()
    names = [check.name for check in judge(made)]
    assert names[: len(RULES)] == list(RULES)
    assert all(check.seen == "always" for check in judge(made)[: len(RULES)])
    made.failed(1, ValueError("boom"))
    check = _find(made, "no exception")
    assert not check.holds
    assert check.seen == "1 times, first: ValueError: boom, at node 1 after 0.000 s"


def test_the_count_stands_alone_when_no_violation_was_kept() -> None:
    made = recorder()
    for _ in range(1000):
        made.accused(0, 1, "size")
    made.failed(1, ValueError())
    assert _find(made, "no exception").seen == "1 times"


def test_delivery_counts_those_who_listened_all_the_time() -> None:
    made = recorder(6, honest=lambda node: node != 5)
    made.heap.now = 1.0
    made.crashed(3)
    made.heap.now = 3.0
    made.started(3)
    made.joined(3, TOPIC)
    made.left(4, TOPIC)
    _publish(made, 0, 2.0, 1, 2)  # 3 was away, 4 left, 5 is not honest
    assert _find(made, "in calm reach").seen == "2 of 2 (100 %)"
    _publish(made, 0, 10.0, 1, 2)
    check = _find(made, "in calm reach")
    assert not check.holds
    assert check.seen == "4 of 5 (80 %)"


def test_messages_of_adversaries_are_not_judged() -> None:
    made = recorder(honest=lambda node: node != 3)
    _publish(made, 0, 1.0, 1, 2)
    _publish(made, 3, 2.0)
    assert _find(made, "in calm reach").holds


def test_messages_under_faults_are_judged_apart() -> None:
    made = recorder(calm=lambda begin, end: end < 20, checks=Checks(delivery_under_faults=0.5))
    _publish(made, 0, 1.0, 1, 2, 3)
    _publish(made, 0, 19.0, 1)
    _publish(made, 0, 30.0, 1, 2)
    assert _find(made, "in calm reach").seen == "3 of 3 (100 %)"
    assert _find(made, "under faults").seen == "3 of 6 (50 %)"
    assert _find(made, "under faults").holds


def test_a_run_without_messages_fails() -> None:
    assert not _find(recorder(), "honest nodes publish").holds
    assert _find(recorder(), "in calm reach").seen == "nothing to judge"


@pytest.mark.parametrize(("limit", "holds"), [(299.0, False), (301.0, True)])
def test_latency_is_judged_in_calm(limit: float, holds: bool) -> None:
    made = recorder(calm=lambda begin, end: end < 20, checks=Checks(p99_ms=limit, delivery=None))
    _publish(made, 0, 1.0, 1, 2, 3)
    made.heap.now = 30.0
    made.published(0, TOPIC, b"late", 200)
    made.heap.now = 40.0
    made.delivered(1, TOPIC, b"late", 0, 0)
    check = _find(made, "deliveries in calm take")
    assert (check.holds, check.seen) == (holds, "300.0 ms")
    assert _find(recorder(checks=Checks(p99_ms=1.0)), "take at most").seen == "nothing to judge"


def test_gets_must_return_what_was_put() -> None:
    made = recorder(gossip=(), checks=Checks(gets=1.0))
    made.began(1, 0, "get", b"value")
    look_up(made, 0, 1)
    assert _find(made, "gets in calm").holds
    made.began(2, 0, "get", b"value")
    look_up(made, 0, 2, result=b"older")
    check = _find(made, "gets in calm")
    assert (check.holds, check.seen) == (False, "1 of 2 (50 %)")


def test_operations_under_faults_and_of_adversaries_are_not_judged() -> None:
    made = recorder(gossip=(), honest=lambda node: node != 3, calm=lambda begin, end: begin >= 1.0)
    made.heap.now = 1.5
    look_up(made, 0, 1, kind="put")
    look_up(made, 3, 2, kind="put", ok=False)
    look_up(made, 0, 3, kind="put", ok=False, seconds=1.0)
    assert _find(made, "puts in calm").seen == "1 of 1 (100 %)"
    assert [check.name for check in judge(made) if "finds" in check.name] == []


@pytest.mark.parametrize(
    ("age", "calm", "lost"),
    [(29.0, True, False), (31.0, True, True), (119.0, False, False), (121.0, False, True)],
)
def test_an_operation_that_never_ends_is_found(age: float, calm: bool, lost: bool) -> None:
    made = recorder(gossip=(), calm=lambda begin, end: calm)
    made.began(1, 2, "find")
    made.heap.now = age
    check = _find(made, "every DHT operation ends")
    assert check.holds is not lost
    if lost:
        assert check.seen == f"1 did not, first: a find of node 2, {age} s old"


def test_an_operation_that_ended_late_is_found_too() -> None:
    made = recorder(gossip=(), honest=lambda node: node != 3, checks=Checks(dht_seconds=40.0))
    made.heap.now = 50.0
    look_up(made, 0, 1, seconds=39.0)
    look_up(made, 3, 2, seconds=45.0)
    assert _find(made, "every DHT operation ends").holds
    look_up(made, 1, 3, kind="put", seconds=41.0)
    check = _find(made, "every DHT operation ends")
    assert (check.holds, check.seen) == (False, "1 did not, first: a put of node 1, 41.0 s old")


def test_operations_end_with_the_process_that_ran_them() -> None:
    made = recorder(gossip=(), honest=lambda node: node != 3)
    made.heap.now = 1.0
    made.began(1, 2, "find")
    made.began(2, 3, "find")
    made.heap.now = 2.0
    made.crashed(2)
    made.started(2)
    made.heap.now = 90.0
    assert _find(made, "every DHT operation ends").holds


def test_members_must_be_through_with_the_task() -> None:
    made = recorder(9, gossip=(), honest=lambda node: node != 8, task=(TaskLoad(rounds=1, members=0),))
    assert not _find(made, "through with").holds  # nobody takes part
    for node in range(9):
        made.entered(node, "digits")
    made.crashed(7)
    made.finished_task(0, "digits")
    finish_round(made, 0, 1)
    check = _find(made, "through with the 1 rounds of digits")
    behind = "1 of 7 members, 1 rounds; not node 1, 2, 3, 4, 5, …"
    assert (check.holds, check.seen) == (False, behind)
    made.waiting(1, "the disk is full")
    made.waiting(2, "another reason")
    assert _find(made, "through with").seen == f"{behind}; the first complaint: the disk is full"
    for node in range(1, 7):
        made.finished_task(node, "digits")
    assert _find(made, "through with").holds


@pytest.mark.parametrize(("accuracy", "holds"), [(0.8, True), (0.7, False), (None, False)])
def test_the_last_model_must_be_good_enough(accuracy: float | None, holds: bool) -> None:
    made = recorder(gossip=(), task=(TaskLoad(members=0),), checks=Checks(rounds=False, accuracy=0.8))
    if accuracy is not None:
        for node, measured in enumerate((0.1, accuracy, 0.95)):
            finish_round(made, node, 1, measured={"accuracy": measured})
    finish_round(made, 0, 2, measured={"accuracy": None})
    check = _find(made, "the last model")
    assert check.holds is holds
    assert check.seen == ("nobody measured it" if accuracy is None else f"{100 * accuracy:g} %")


@pytest.mark.parametrize(("skipped", "holds"), [((), True), ((4,), False)])
def test_so_many_rounds_must_be_certified(skipped: tuple[int, ...], holds: bool) -> None:
    load = TaskLoad(members=0, rounds=4)
    made = recorder(gossip=(), task=(load,), checks=Checks(rounds=False, certified=0.9))
    for number in range(1, 5):
        finish_round(made, 0, number, skipped=number in skipped)
    [check] = [check for check in judge(made) if "certified" in check.name]
    assert check.holds == holds
    assert check.seen.startswith("4 of 4" if holds else "3 of 4")
