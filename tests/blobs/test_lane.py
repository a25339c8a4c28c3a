from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from p2p.blobs.lane import MAX_CALLS, Lane

LIMIT = 5.0  # seconds that a test may take; nothing waits for it to pass


class Gate:
    """A call that waits, in its thread, until it is let through."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._open = threading.Event()

    def __call__(self) -> str:
        self._token.run_sync_soon(self.entered.set)
        assert self._open.wait(LIMIT)
        return "through"

    def open(self) -> None:
        self._open.set()


async def started(lane: Lane, nursery: trio.Nursery, results: list[str]) -> Gate:
    """A lane whose thread is at a gate."""
    gate = Gate()

    async def pass_gate() -> None:
        results.append(await lane.run(gate))

    nursery.start_soon(pass_gate)
    with trio.fail_after(LIMIT):
        await gate.entered.wait()
    return gate


async def test_calls_are_made_in_their_order_in_another_thread_and_few_changes() -> None:
    lane, made, threads = Lane(), [], set()
    changes = 0
    run_sync = trio.to_thread.run_sync

    async def count(*args: object, **options: object) -> object:
        nonlocal changes
        changes += 1
        return await run_sync(*args, **options)  # type: ignore[arg-type]

    def call(number: int) -> int:
        made.append(number)
        threads.add(threading.get_ident())
        return -number

    async def one(number: int) -> None:
        assert await lane.run(lambda: call(number)) == -number

    with pytest.MonkeyPatch.context() as patch, trio.fail_after(LIMIT):
        patch.setattr(trio.to_thread, "run_sync", count)
        async with trio.open_nursery() as nursery:
            gate = await started(lane, nursery, [])
            for number in range(2 * MAX_CALLS + 1):
                nursery.start_soon(one, number)
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
    assert made == list(range(2 * MAX_CALLS + 1))
    assert changes == 1 + 3
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_what_a_call_raises_is_its_own_tasks() -> None:
    lane: Lane = Lane()
    outcomes: list[object] = []

    async def one(call: object) -> None:
        try:
            outcomes.append(await lane.run(call))  # type: ignore[arg-type]
        except ZeroDivisionError as exc:
            outcomes.append(type(exc))

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            gate = await started(lane, nursery, [])
            nursery.start_soon(one, lambda: 1 / 0)
            nursery.start_soon(one, lambda: 7)
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert await lane.run(lambda: 8) == 8  # the lane goes on
        with pytest.raises(ZeroDivisionError):
            await lane.run(lambda: 1 / 0)
    assert set(outcomes) == {ZeroDivisionError, 7}


async def test_a_call_that_waits_can_be_cancelled_and_is_not_made() -> None:
    lane, made, results = Lane(), [], list[str]()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            gate = await started(lane, nursery, results)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(lane.run, lambda: made.append("cancelled"))
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            nursery.start_soon(lane.run, lambda: made.append("other"))
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        with trio.CancelScope() as scope:
            scope.cancel()
            await lane.run(lambda: made.append("never"))
        assert scope.cancelled_caught
    assert made == ["other"]
    assert results == ["through"]


@pytest.mark.parametrize("alone", [True, False])
async def test_a_call_that_was_begun_is_waited_for(alone: bool) -> None:
    """Whoever makes the batch: who writes must know that nothing is written behind its back."""
    lane, results = Lane(), list[str]()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            first = None if alone else await started(lane, nursery, [])
            gate, scope = Gate(), trio.CancelScope()

            async def cancelled() -> None:
                with scope:
                    results.append(await lane.run(gate))

            if first is not None:
                nursery.start_soon(lane.run, int)  # its task makes the next batch
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(cancelled)
            if first is not None:
                await trio.testing.wait_all_tasks_blocked()
                first.open()
            await gate.entered.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert results == []
            gate.open()
    assert results == ["through"]


async def test_all_who_wait_hear_that_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    lane: Lane = Lane()
    failures: list[str] = []

    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    async def one() -> None:
        try:
            await lane.run(lambda: None)
        except RuntimeError as exc:
            failures.append(str(exc))

    with monkeypatch.context() as patch, trio.fail_after(LIMIT):
        patch.setattr(trio.to_thread, "run_sync", fails)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
    assert failures == ["can't start new thread"] * 2
    assert await lane.run(lambda: 1) == 1
