"""A place where one task waits to be woken: what a `ParkingLot` does for many, at a fraction of its cost."""

from __future__ import annotations

import trio


class Waiter:
    """One task at a time waits here; true while it does. `wake` needs no current task."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def __bool__(self) -> bool:
        return self._task is not None

    async def wait(self) -> None:
        """Returns after the next `wake`."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def wake(self) -> None:
        """Lets the task go on, if one waits."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
