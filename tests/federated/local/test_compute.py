"""Lanes: jobs go together where they are short, side by side where they are long."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from federated.compute import Kind
from federated.errors import PluginError
from federated.local import compute as module
from federated.local.compute import Lane, LocalCompute

LIMIT = 60.0  # seconds


@asynccontextmanager
async def open_compute(cores: int = 2) -> AsyncIterator[LocalCompute]:
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            compute = LocalCompute(cores)
            nursery.start_soon(compute.serve)
            yield compute
            nursery.cancel_scope.cancel()


async def results(compute: LocalCompute, kind: Kind, count: int, job: Callable[[int], int]) -> list[int]:
    """What `count` tasks that ask at the same time are told."""
    found = [-1] * count

    async def ask(number: int) -> None:
        found[number] = await compute.run(lambda _: job(number), kind)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(ask, number)
    return found


async def test_short_jobs_change_threads_together(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    make = module._make

    def counted(jobs: deque[module._Job], done: deque[module._Job]) -> None:
        batches.append(len(jobs))
        make(jobs, done)

    monkeypatch.setattr(module, "_make", counted)
    monkeypatch.setattr(module, "TURN", LIMIT)
    main = threading.get_ident()
    async with open_compute(1) as compute:
        assert await results(compute, "train", 1, lambda number: 7) == [7]
        assert await results(compute, "train", 5, lambda number: number) == [0, 1, 2, 3, 4]
        assert await compute.run(lambda _: threading.get_ident(), "evaluate") != main
        assert await compute.run(lambda _: threading.get_ident(), "other") == main
    assert batches == [1, 5, 1]


async def test_long_jobs_go_one_by_one_in_as_many_threads_as_there_are() -> None:
    meeting = threading.Barrier(2, timeout=LIMIT)
    async with open_compute(2) as compute:
        for _ in range(2):  # unknown, and known to be long
            compute._training._took = {} if not compute._training._took else {"train": 2 * module.TURN}
            assert await results(compute, "train", 2, lambda number: number + 0 * meeting.wait()) == [0, 1]


async def test_those_behind_one_that_takes_long_go_to_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    release, order = threading.Event(), list[int]()

    def job(number: int) -> int:
        if number == 0:
            release.wait(LIMIT)
        return number

    async with open_compute(2) as compute:
        compute._training._took["train"] = 0.0

        async def ask(number: int) -> None:
            order.append(await compute.run(lambda _: job(number), "train"))
            if len(order) == 3:  # those before it and those behind it
                release.set()

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(ask, number)
    assert sorted(order[:3]) == [1, 2, 3]
    assert order[3] == 0


async def test_what_is_taken_back_is_asked_for_again_unless_nobody_wants_it() -> None:
    lane, made = Lane(1), list[int]()
    jobs = [module._Job(lambda _, number=number: made.append(number), "train") for number in range(3)]
    jobs[1].stop()
    lane._take_back(deque(jobs))
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lane.run)
            await lane.do(lambda _: made.append(3), "train")
            nursery.cancel_scope.cancel()
    assert made == [0, 2, 3]


async def test_what_is_judged_in_a_moment_is_judged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOMENT", LIMIT)
    main = threading.get_ident()
    async with open_compute() as compute:
        first = await compute.run(lambda _: threading.get_ident(), "validate")
        assert first != main  # nobody knows yet
        assert await compute.run(lambda _: threading.get_ident(), "validate") == main
        assert await compute.run(lambda stop: stop(), "validate") is False
        assert await compute.run(lambda _: threading.get_ident(), "aggregate") != main
        compute._judging._took["validate"] = 2 * LIMIT  # the last one took long
        assert await compute.run(lambda _: threading.get_ident(), "validate") != main


async def test_nothing_is_judged_before_what_was_asked_for_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    release = threading.Event()
    async with open_compute() as compute, trio.open_nursery() as nursery:
        compute._judging._took["validate"] = 0.0

        def wait(_: object) -> None:
            release.wait(LIMIT)
            order.append("aggregate")

        nursery.start_soon(compute.run, wait, "aggregate")
        await wait_all_tasks_blocked()
        nursery.start_soon(compute.run, lambda _: order.append("validate"), "validate")
        await wait_all_tasks_blocked()
        release.set()
    assert order == ["aggregate", "validate"]


async def test_while_contributions_are_assessed_members_train_and_judge() -> None:
    release, found = threading.Event(), list[str]()

    def assess(_: object) -> None:
        release.wait(LIMIT)
        found.append("assess")

    async with open_compute(1) as compute, trio.open_nursery() as nursery:
        nursery.start_soon(compute.run, assess, "assess")
        await wait_all_tasks_blocked()
        await compute.run(lambda _: found.append("train"), "train")
        await compute.run(lambda _: found.append("validate"), "validate")
        release.set()
    assert found == ["train", "validate", "assess"]


@pytest.mark.parametrize("kind", ["train", "aggregate", "assess", "other"])
async def test_what_a_job_raises_is_raised_to_who_asked(kind: Kind) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("here")

    async with open_compute() as compute:
        with pytest.raises(ZeroDivisionError, match="here"):
            await compute.run(fail, kind)
        assert await compute.run(lambda _: 1, kind) == 1


async def test_an_interrupt_in_a_thread_is_the_plugin_s() -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    async with open_compute() as compute:
        with pytest.raises(PluginError, match=r"a plugin failed: KeyboardInterrupt \(test_compute.py, line"):
            await compute.run(interrupt, "train")


async def test_who_is_cancelled_asks_its_job_to_stop_and_does_not_wait() -> None:
    begun, stopped = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def endless(should_stop: Callable[[], bool]) -> None:
        token.run_sync_soon(begun.set)
        while not should_stop():
            stopped.wait(0.001)
        stopped.set()

    async with open_compute(1) as compute, trio.open_nursery() as nursery:
        nursery.start_soon(compute.run, endless, "train")
        await begun.wait()
        nursery.cancel_scope.cancel()
    assert stopped.wait(LIMIT)


async def test_a_job_that_nobody_wants_any_more_is_not_begun() -> None:
    made: list[int] = []
    lane = Lane(1)
    with trio.move_on_after(0):
        await lane.do(lambda _: made.append(1), "train")
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lane.run)
            await lane.do(lambda _: made.append(2), "train")
            nursery.cancel_scope.cancel()
    assert made == [2]
