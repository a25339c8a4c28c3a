from __future__ import annotations

import threading

import pytest
import trio

from federated.compute import InlineCompute, ThreadCompute
from federated.errors import PluginError


async def test_a_job_runs_off_the_event_loop():
    assert await ThreadCompute().run(lambda _: threading.current_thread()) is not threading.main_thread()


async def test_an_error_of_the_job_is_the_callers():
    for compute in (ThreadCompute(), InlineCompute()):
        with pytest.raises(ZeroDivisionError):
            await compute.run(lambda _: 1 // 0)


async def test_a_cancelled_caller_leaves_at_once_and_the_job_is_told():
    started, stopped = threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    compute = ThreadCompute()

    def job(should_stop):
        started.set()
        while not should_stop():
            pass
        token.run_sync_soon(stopped.set)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(compute.run, job)
        await trio.to_thread.run_sync(started.wait)
        nursery.cancel_scope.cancel()
    await stopped.wait()
    assert await compute.run(lambda should_stop: should_stop()) is False


async def test_one_job_runs_at_a_time():
    compute = ThreadCompute()
    busy = threading.Lock()

    def job(_):
        alone = busy.acquire(blocking=False)
        sum(range(20_000))
        if alone:
            busy.release()
        results.append(alone)

    results: list[bool] = []
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(compute.run, job)
    assert results == [True] * 20


async def test_inline_jobs_run_on_the_loop_and_are_never_stopped():
    thread, stopping = await InlineCompute().run(lambda stop: (threading.current_thread(), stop()))
    assert thread is threading.main_thread()
    assert stopping is False


async def test_the_steps_of_a_training_tell_its_pace():
    compute = ThreadCompute()
    assert compute.pace is not None

    def train(should_stop):
        for _ in range(10):
            assert not should_stop()

    await compute.run(train)  # another kind of work
    assert compute.pace.steps_within(60.0) is None
    await compute.run(train, "train")
    assert compute.pace.steps_per_second > 0


async def test_a_training_that_fails_tells_its_pace_too():
    compute = ThreadCompute()

    def train(should_stop):
        should_stop()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await compute.run(train, "train")
    assert compute.pace is not None
    assert compute.pace.steps_within(60.0) is not None


@pytest.mark.parametrize("kind", ["train", "validate"])
async def test_a_plugin_that_interrupts_its_thread_ends_no_peer(kind):
    def job(_):
        raise KeyboardInterrupt("me")

    with pytest.raises(
        PluginError, match=r"^a plugin failed: KeyboardInterrupt: me \(test_compute\.py, line"
    ):
        await ThreadCompute().run(job, kind)
