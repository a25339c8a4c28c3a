"""Short calls that touch files, of many tasks: a worker thread makes all that wait at one change of threads.

    run ──▶ waiting ──▶ taken: made one after the other in the thread ──▶ their tasks go on
               ▲ what comes meanwhile; one of its tasks sees to the next batch

A change of threads costs more than reading a chunk of 256 KiB. The larger cost is Python's lock: two busy
threads hand it to and fro at each system call. So there is one such thread, and it is asked seldom.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import trio

MAX_CALLS = 16  # made at one change of threads: who asked first waits no longer than for so many

T = TypeVar("T")


class Lane:
    """Makes calls in a worker thread, in their order. Needs no nursery: those who wait do the work."""

    def __init__(self) -> None:
        self._waiting: deque[_Call] = deque()
        self._busy = False  # whether somebody sees to a batch
        self._thread = trio.CapacityLimiter(1)

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises. Cancelled, it has not been made; once begun, it is waited for."""
        await trio.lowlevel.checkpoint_if_cancelled()
        mine = _Call(call)
        self._waiting.append(mine)
        if self._busy:
            mine.task = trio.lowlevel.current_task()

            def abort(_: object) -> trio.lowlevel.Abort:
                if mine.taken:
                    return trio.lowlevel.Abort.FAILED
                self._waiting.remove(mine)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        if not mine.taken:
            await self._make_batch()
        if mine.failure is not None:
            raise mine.failure
        return mine.result  # type: ignore[no-any-return]

    async def _make_batch(self) -> None:
        """Makes the calls that wait, the caller's among them; then somebody who came meanwhile goes on."""
        self._busy = True
        batch: list[_Call] = []
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()  # whoever is about to ask joins
            while self._waiting and len(batch) < MAX_CALLS:
                batch.append(self._waiting.popleft())
                batch[-1].taken = True
            try:
                await trio.to_thread.run_sync(_make, batch, limiter=self._thread)
            except RuntimeError as exc:  # no thread can be started
                for each in batch:
                    each.failure = exc
        for each in batch:
            each.wake()
        if self._waiting:
            self._waiting[0].wake()
        else:
            self._busy = False


class _Call:
    """One call, and its task where that waits for others."""

    __slots__ = ("call", "failure", "result", "taken", "task")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.taken = False
        self.task: trio.lowlevel.Task | None = None
        self.result: Any = None
        self.failure: BaseException | None = None

    def make(self) -> None:
        """Keeps what comes of it."""
        try:
            self.result = self.call()
        except BaseException as exc:  # its task's, not the thread's
            self.failure = exc

    def wake(self) -> None:
        """Lets the task go on, if it waits."""
        task, self.task = self.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


def _make(calls: list[_Call]) -> None:
    for each in calls:
        each.make()
