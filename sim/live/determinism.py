"""The one file that touches trio's private switches: scheduling by seed, and nothing real in between.

trio orders the tasks of a batch at random, and its own tests switch that to a seeded order by the two
names below. They are private: setup.cfg bounds trio's version, and tests/sim/live/test_determinism.py
compares whole runs across processes, so a change shows there and is mended here.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread, get_ident
from typing import Any, NoReturn

from trio import _threads
from trio._core import _run

from sim.heap import SimulationError

A_SOCKET, A_THREAD = "a socket", "a thread"
REFUSED = {
    "socket.__new__": A_SOCKET,
    "_thread.start_new_thread": A_THREAD,  # since Python 3.12
    "_thread.start_joinable_thread": A_THREAD,  # since Python 3.13
}
_start = Thread.start
REPORTED = 20  # places where tasks wait, in the report of a run that stands still


class _Guard:
    """The thread in which a simulation runs, for the audit hook, which can never be removed."""

    thread: int | None = None
    installed = False


def _audit(event: str, _: object) -> None:
    if _Guard.thread is not None and event in REFUSED and get_ident() == _Guard.thread:
        _refuse(REFUSED[event])


def _refuse(what: str) -> NoReturn:
    raise SimulationError(f"a simulated peer asked for {what}: virtual time cannot see it")


def _refuse_thread(*_: object, **__: object) -> NoReturn:
    _refuse(A_THREAD)


def _start_elsewhere(thread: Thread) -> None:
    """`Thread.start` meanwhile: other threads of the process do what they like."""
    if get_ident() == _Guard.thread:
        _refuse(A_THREAD)
    _start(thread)


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Within the body trio runs tasks in an order that `seed` decides, and the collector stands still.

    Raises `SimulationError` from whatever asks for a thread or a socket meanwhile.
    """
    if not _Guard.installed:
        sys.addaudithook(_audit)
        _Guard.installed = True
    switches: Any = _run  # trio calls them final: they are, but for its own tests and for us
    threads: Any = _threads
    scheduling, start_thread = switches._ALLOW_DETERMINISTIC_SCHEDULING, threads.start_thread_soon
    state, collecting = _run._r.getstate(), gc.isenabled()
    switches._ALLOW_DETERMINISTIC_SCHEDULING = True
    _run._r.seed(seed)
    threads.start_thread_soon = _refuse_thread  # trio's threads may be there already: none would start
    gc.disable()  # what it finalises, and when, would depend on everything the process did before
    try:
        yield
    finally:
        threads.start_thread_soon = start_thread
        switches._ALLOW_DETERMINISTIC_SCHEDULING = scheduling
        _run._r.setstate(state)
        if collecting:
            gc.enable()


@contextmanager
def only_virtual() -> Iterator[None]:
    """Refuses threads and sockets; trio's own are made when `trio.run` has begun."""
    _Guard.thread = get_ident()
    threads: Any = Thread
    threads.start = _start_elsewhere
    try:
        yield
    finally:
        threads.start = _start
        _Guard.thread = None


def run_queue() -> deque[Any]:
    """The tasks that trio runs next: nothing may happen before they did."""
    return _run.GLOBAL_RUN_CONTEXT.runner.runq


def waiting_places() -> list[str]:
    """Where the tasks of this run wait, the most frequent first: "count × task: innermost place"."""
    places = Counter(f"{task.name}: {_place(task.coro)}" for task in _run.GLOBAL_RUN_CONTEXT.runner.tasks)
    return [f"{count} x {place}" for place, count in places.most_common(REPORTED)]


def _ours(path: str) -> bool:
    return "/trio/" not in path and not path.endswith("p2p/waiter.py")


def _place(coroutine: Any) -> str:
    """The innermost line of our own code in which a task waits."""
    place = "?"
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None and _ours(frame.f_code.co_filename):
            path = frame.f_code.co_filename.split("/")
            place = f"{'/'.join(path[-2:])}:{frame.f_lineno} in {frame.f_code.co_name}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return place
