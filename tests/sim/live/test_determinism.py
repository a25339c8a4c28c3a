"""One seed is one run: whatever is real is refused, and all switches are as they were afterwards."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
from trio import _threads
from trio._core import _run

from sim.heap import SimulationError
from sim.live.determinism import deterministic, only_virtual


def state() -> tuple[object, ...]:
    """What `deterministic` changes."""
    return (
        _run._ALLOW_DETERMINISTIC_SCHEDULING,
        _run._r.getstate(),
        _threads.start_thread_soon,
        gc.isenabled(),
    )


def play(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with only_virtual():
            await body()

    with deterministic(1):
        trio.run(main)


async def in_a_thread() -> None:
    await trio.to_thread.run_sync(os.getpid)


async def in_a_path() -> None:
    await trio.Path("/").exists()


async def in_a_name() -> None:
    await trio.socket.getaddrinfo("localhost", None)


async def in_threading() -> None:
    threading.Thread(target=os.getpid).start()


async def in_a_pool() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(os.getpid)


@pytest.mark.parametrize("asks", [in_a_thread, in_a_path, in_a_name, in_threading, in_a_pool])
def test_a_thread_is_refused_even_one_that_is_there_already(asks: Callable[[], Awaitable[None]]) -> None:
    trio.run(in_a_thread)  # trio keeps it for ten seconds
    with pytest.raises(SimulationError, match="asked for a thread: virtual time cannot see it"):
        play(asks)
    trio.run(in_a_thread)


async def in_a_socket() -> None:
    socket.socket()


async def in_a_trio_socket() -> None:
    await trio.open_tcp_listeners(0, host="127.0.0.1")


@pytest.mark.parametrize("asks", [in_a_socket, in_a_trio_socket])
def test_a_socket_is_refused_and_works_again_afterwards(asks: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(SimulationError, match="asked for a socket: virtual time cannot see it"):
        play(asks)
    socket.socket().close()
    trio.run(in_a_thread)


def test_other_threads_of_the_process_do_what_they_like() -> None:
    ran: list[str] = []
    begin, done = threading.Event(), threading.Event()

    def elsewhere() -> None:
        begin.wait()
        other = threading.Thread(target=ran.append, args=("thread",))
        other.start()
        other.join()
        socket.socket().close()
        done.set()

    async def body() -> None:
        begin.set()
        done.wait()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    play(body)
    thread.join()
    assert ran == ["thread"]


def test_all_switches_are_restored_also_after_an_error() -> None:
    before = state()
    with deterministic(1):
        assert state() != before
        assert not gc.isenabled()
    assert state() == before
    with pytest.raises(ZeroDivisionError), deterministic(2):
        raise ZeroDivisionError
    assert state() == before


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with deterministic(1):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_seed_decides_in_which_order_tasks_run() -> None:
    def order(seed: int) -> list[int]:
        ran = []

        async def main() -> None:
            async def note(number: int) -> None:
                ran.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(note, number)

        with deterministic(seed):
            trio.run(main)
        return ran

    assert order(1) == order(1)
    assert order(1) != order(2)


CANARY = {
    "name": "canary",
    "peers": 6,
    "settle": 4,
    "network": {"jitter": 0, "latency": {"kind": "constant", "ms": 10}},  # so that much happens at once
    "gossip": [{"rate": 6, "seconds": 3}],
    "dht": [{"seconds": 3}],
    "faults": [{"kind": "crash", "at": 6, "seconds": 2, "who": {"count": 2}}],
}
PROGRAM = """
from sim.run import simulate
from sim.scenario.model import Scenario
for rung, seed in (("light", 1), ("light", 2), ("full", 1)):
    outcome = simulate(Scenario.model_validate({**CANARY, "rung": rung}), seed)
    print(rung, seed, outcome.holds, outcome.trace_hash)
"""


def test_the_hash_seed_of_the_process_changes_nothing() -> None:
    """Nothing may depend on the order of a set, on addresses in memory, or on what ran before."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", f"CANARY = {CANARY!r}\n{PROGRAM}"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("0", "1", "2")
    ]
    outputs = {run.communicate()[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(outputs) == 1
    lines = outputs.pop().splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == ["light 1 True", "light 2 True", "full 1 True"]
    assert len({line.rsplit(" ", 1)[1] for line in lines}) == 3
