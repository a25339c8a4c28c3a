from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from p2p.waiter import Waiter


async def test_a_task_waits_until_it_is_woken_once() -> None:
    waiter, woken = Waiter(), 0

    async def wait() -> None:
        nonlocal woken
        await waiter.wait()
        woken += 1

    waiter.wake()  # nobody waits, and it is not remembered
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert waiter
        assert not woken
        waiter.wake()
        assert not waiter
        waiter.wake()
    assert woken == 1


async def test_a_task_that_is_cancelled_waits_no_more() -> None:
    waiter = Waiter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter.wait)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert not waiter
