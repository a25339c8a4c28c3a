from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.directory import table as module
from federated.directory.signed import SignedTask, sign_task
from federated.directory.table import (
    BURST,
    FRESH,
    LIFETIME,
    MAX_HOLDERS,
    MAX_PER_PEER,
    PERIOD,
    SOON,
    Heard,
    Hold,
    Release,
    Table,
    Want,
)
from federated.directory.wire import ANY, Announce, Ask, Body, Progress, encode
from p2p.gossipsub.events import Verdict
from tests.federated.samples import manifest, members, peer
from tests.support import key_number

WALL = 1_800_000_000.0
TASK = sign_task(manifest(), key_number(1))


def hold(task: SignedTask = TASK, number: int = 0, progress: Progress = Progress.RUNNING) -> Hold:
    return Hold(envelope=task.envelope, round=number, progress=progress)


def announce(task: SignedTask = TASK, number: int = 0) -> Announce:
    return Announce(envelope=task.envelope, round=number, progress=Progress.RUNNING)


def heard(number: int, body: Body) -> Heard:
    return Heard(sender=peer(number), body=body)


def many(count: int, first: int = 0) -> list[SignedTask]:
    return [sign_task(manifest(seed=seed), key_number(1)) for seed in range(first, first + count)]


def test_a_task_of_ours_is_announced_soon_and_again_every_few_minutes() -> None:
    table = Table(random.Random(1))
    assert table.handle(hold(), 0.0) == []
    assert 0 <= table.next_deadline() <= SOON
    assert table.handle_timer(SOON) == [announce()]
    assert SOON + PERIOD <= table.next_deadline() <= SOON + 2 * PERIOD
    table.handle(hold(number=7), 60.0)
    assert table.handle_timer(SOON + 2 * PERIOD) == [announce(number=7)]


def test_who_hears_its_task_announced_by_another_keeps_still() -> None:
    table = Table(random.Random(1))
    table.handle(hold(), 0.0)
    table.handle(heard(2, announce()), 0.5)
    assert table.handle_timer(SOON) == []
    assert table.next_deadline() >= 0.5 + PERIOD
    [entry] = table.entries(1.0)
    assert list(entry.holders) == [peer(2)]


def test_a_question_is_answered_by_few_of_many_members() -> None:
    """A thousand members hear a question; each hears the answers of the others a little later."""
    task = sign_task(manifest(members=members(1000)), key_number(1))
    tables = [Table(random.Random(number)) for number in range(1000)]
    for table in tables:
        table.handle(hold(task), 0.0)
        table.handle(heard(1, announce(task)), 0.0)
        table.handle(heard(2000, Ask(task=ANY)), 10.0)
    dues = sorted(table.next_deadline() for table in tables)
    assert sum(due <= dues[0] + 0.5 for due in dues) < 60  # half a second, in which an answer gets around


@pytest.mark.parametrize("asked", [ANY, TASK.task_id])
def test_a_question_is_answered_once_for_a_while(asked: bytes) -> None:
    table = Table(random.Random(1))
    table.handle(hold(), 0.0)
    table.handle_timer(SOON)
    assert table.handle(heard(2, Ask(task=asked)), 100.0) == []
    assert table.handle_timer(100.3) == [announce()]
    table.handle(heard(2, Ask(task=asked)), 101.0)
    assert table.next_deadline() > 200.0


def test_a_question_for_another_task_is_not_for_us() -> None:
    table = Table(random.Random(1))
    table.handle(hold(), 0.0)
    table.handle_timer(SOON)
    table.handle(heard(2, Ask(task=bytes(32))), 100.0)
    assert table.next_deadline() > 101.0


def test_a_task_that_nobody_announces_any_more_is_gone() -> None:
    table = Table(random.Random(1))
    table.handle(heard(2, announce(number=4)), 0.0)
    [entry] = table.entries(LIFETIME - 1)
    assert (entry.round, entry.listing.name, entry.creator) == (4, "sample", TASK.creator)
    assert table.entry(TASK.task_id, LIFETIME - 1) is entry
    assert table.entries(LIFETIME) == []
    assert table.entry(TASK.task_id, LIFETIME) is None


def test_one_that_we_leave_is_announced_no_more() -> None:
    table = Table(random.Random(1))
    table.handle(hold(), 0.0)
    table.handle(Release(task=TASK.task_id), 1.0)
    assert table.next_deadline() == float("inf")
    assert table.handle(Want(task=ANY), 1.0) == [Ask(task=ANY)]


def test_one_that_was_heard_of_becomes_ours_with_its_holders() -> None:
    table = Table(random.Random(1))
    table.handle(heard(2, announce()), 0.0)
    table.handle(hold(), 5.0)
    assert table.handle_timer(5.0 + SOON) == [announce()]
    assert list(table.entries(6.0)[0].holders) == [peer(2)]


def test_only_the_last_holders_are_remembered() -> None:
    table = Table(random.Random(1))
    for number in range(MAX_HOLDERS + 2):
        table.handle(heard(number, announce()), float(number))
    assert list(table.entries(20.0)[0].holders) == [peer(number) for number in range(2, MAX_HOLDERS + 2)]


def test_a_peer_that_names_many_tasks_loses_its_own_oldest() -> None:
    table = Table(random.Random(1))
    table.handle(heard(1, announce()), 0.0)
    flood = many(MAX_PER_PEER + 3, first=10)
    for task in flood:
        table.handle(heard(2, announce(task)), 1.0)
    listed = [entry.listing.task for entry in table.entries(2.0)]
    assert listed == [TASK.task_id, *(task.task_id for task in flood[3:])]


def test_when_all_is_full_the_greediest_makes_room_and_ours_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TASKS", 4)
    table = Table(random.Random(1))
    table.handle(hold(), 0.0)
    tasks = many(5, first=10)
    for number, task in zip([1, 2, 2, 3, 4], tasks, strict=True):
        table.handle(heard(number, announce(task)), 1.0)
    kept = [entry.listing.task for entry in table.entries(2.0)]
    assert kept == [TASK.task_id] + [tasks[at].task_id for at in (0, 2, 3, 4)]


def test_the_door_lets_in_what_is_fresh_and_true() -> None:
    table = Table(random.Random(1))
    assert table.judge(peer(1), encode(announce(), int(WALL + FRESH)), 0.0, WALL) is Verdict.ACCEPT
    assert table.judge(peer(1), encode(Ask(task=ANY), int(WALL + FRESH)), 0.0, WALL) is Verdict.ACCEPT
    assert table.judge(peer(1), encode(announce(), int(WALL - 1)), 0.0, WALL) is Verdict.IGNORE
    assert table.judge(peer(1), encode(announce(), int(WALL + 3600)), 0.0, WALL) is Verdict.IGNORE
    assert table.judge(peer(1), b"x", 0.0, WALL) is Verdict.REJECT
    forged = Announce(envelope=TASK.envelope[:-1] + b"\0", round=0, progress=Progress.RUNNING)
    assert table.judge(peer(1), encode(forged, int(WALL + FRESH)), 0.0, WALL) is Verdict.REJECT


def test_who_talks_too_much_is_not_passed_on() -> None:
    table = Table(random.Random(1))
    data = encode(Ask(task=ANY), int(WALL + FRESH))
    verdicts = [table.judge(peer(1), data, 0.0, WALL) for _ in range(BURST + 5)]
    assert verdicts == [Verdict.ACCEPT] * BURST + [Verdict.IGNORE] * 5
    assert table.judge(peer(2), data, 0.0, WALL) is Verdict.ACCEPT
    assert table.judge(peer(1), data, 2.0, WALL) is Verdict.ACCEPT


def test_the_rates_of_few_peers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RATES", 4)
    table = Table(random.Random(1))
    for number in range(20):
        table.judge(peer(number), b"x", 0.0, WALL)
    assert len(table._rates) == 4


TASKS = many(6)
EVENTS = st.one_of(
    st.builds(heard, st.integers(0, 4), st.sampled_from([announce(task) for task in TASKS])),
    st.builds(heard, st.integers(0, 4), st.sampled_from([Ask(task=ANY), Ask(task=TASKS[0].task_id)])),
    st.builds(hold, st.sampled_from(TASKS), st.integers(0, 9), st.sampled_from(Progress)),
    st.builds(Release, task=st.sampled_from([task.task_id for task in TASKS])),
    st.builds(Want, task=st.just(ANY)),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 400)), max_size=40), st.integers(0, 9))
def test_only_our_tasks_are_announced_and_all_of_them_in_time(
    steps: list[tuple[object, float]], seed: int
) -> None:
    """Whatever comes: announced is what we hold, nothing else, and nothing stays silent for too long."""
    table, now, held = Table(random.Random(seed)), 0.0, dict[bytes, None]()
    spoken: dict[bytes, float] = {}  # when each of ours was announced last, by anybody
    for event, pause in steps:
        now += pause
        while table.next_deadline() <= now:
            at = table.next_deadline()
            said = table.handle_timer(at)
            assert said
            for body in said:
                assert isinstance(body, Announce)
                task = next(task for task in TASKS if task.envelope == body.envelope)
                assert task.task_id in held
                spoken[task.task_id] = at
        match event:
            case Hold(envelope=envelope):
                task_id = next(task.task_id for task in TASKS if task.envelope == envelope)
                if task_id not in held:
                    held[task_id], spoken[task_id] = None, now
            case Release(task=task_id):
                held.pop(task_id, None)
            case Heard(body=Announce(envelope=envelope)):
                spoken[next(task.task_id for task in TASKS if task.envelope == envelope)] = now
        table.handle(event, now)  # type: ignore[arg-type]
        for task_id in held:
            assert now - spoken[task_id] <= 2 * PERIOD + SOON
            assert table.entry(task_id, now) is not None
