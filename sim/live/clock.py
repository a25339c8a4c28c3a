"""trio's clock for a run: it stands still while tasks run, and events pass when none can.

trio asks for the time to sleep only when no task is runnable. That is when the next events of the heap
happen, right here and outside of any task: many of them, as long as they wake nobody. Then trio runs
whom they woke, at the same virtual instant.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Any

import trio

from sim.heap import EventHeap, SimulationError
from sim.live.determinism import run_queue, waiting_places

MAX_PASSES = 200_000  # of trio's loop without time passing: more is a livelock, not work


class VirtualClock(trio.abc.Clock):
    """Drives `heap` until its `end`, or until something fails; `finished` wakes then, once."""

    def __init__(self, heap: EventHeap) -> None:
        self._heap = heap
        self._queue: deque[Any] = deque()
        self._stopped = False
        self.finished = trio.Event()
        self.error: BaseException | None = None

    def start_clock(self) -> None:
        """Called by trio when its loop begins."""
        self._queue = run_queue()

    def current_time(self) -> float:
        """Virtual seconds. trio asks once in each pass of its loop."""
        return self._heap.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Lets events pass until a task can run or `deadline` is reached; trio never really sleeps."""
        heap, queue = self._heap, self._queue
        if not self._stopped:
            try:
                while not queue and not self._stopped:
                    at = heap.next_at
                    if at > heap.end < deadline or at == inf == deadline:
                        self._reach_end()
                    elif at > deadline:
                        break
                    else:
                        heap.step()
            except BaseException as exc:  # an event failed: the run is over, and says why
                self.stop(exc)
        if not queue and deadline < inf:
            heap.advance(deadline)
        return 0.0

    def _reach_end(self) -> None:
        if self._heap.end == inf:
            places = "\n  ".join(waiting_places())
            raise SimulationError(f"deadlock at {self._heap.now:.3f} s: nothing is planned\n  {places}")
        self._heap.advance(self._heap.end)
        self.stop(None)

    def stop(self, error: BaseException | None) -> None:
        """The run is over: at its end, or by an error."""
        self._stopped, self.error = True, error
        self.finished.set()


class LivelockGuard(trio.abc.Instrument):
    """Ends a run in which tasks wake one another while no time passes."""

    def __init__(self, clock: VirtualClock, heap: EventHeap) -> None:
        self._clock, self._heap = clock, heap
        self._instant, self._passes = -1.0, 0

    def before_io_wait(self, timeout: float) -> None:
        """Once in each pass of trio's loop."""
        if self._heap.now > self._instant:
            self._instant, self._passes = self._heap.now, 0
        self._passes += 1
        if self._passes == MAX_PASSES:
            places = "\n  ".join(waiting_places())
            self._clock.stop(
                SimulationError(
                    f"livelock at {self._heap.now:.3f} s: {MAX_PASSES} passes, no time passed\n  {places}"
                )
            )
