"""Child processes that speak JSON lines, for tests with real peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from p2p.lines import LineSplitter

Event = dict[str, Any]

PEER = [sys.executable, "-m", "p2p.peer", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]
DEADLINE = 90.0  # seconds for any one event, for what hangs: a busy machine is not a failure
MAX_LINE = 1 << 22  # bytes of one event


class Process:
    """One child process. `wait_for` takes each event once, in any order."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.ended = False
        self._waiting: list[Event] = []
        self._news = trio.lowlevel.ParkingLot()

    async def read(self) -> None:
        """Reads events until the process closes its stdout."""
        splitter = LineSplitter(MAX_LINE)
        try:
            async for data in self.process.stdout:
                self._waiting += [json.loads(line) for line in splitter.receive_data(data)]
                self._news.unpark_all()
        except trio.ClosedResourceError:
            pass  # the test closed it
        finally:
            self.ended = True
            self._news.unpark_all()

    async def wait_for(
        self, event: str, condition: Callable[[Event], bool] = lambda _: True, *, deadline: float = DEADLINE
    ) -> Event:
        """The first event of this name that meets `condition`; fails with all that came instead."""
        with trio.move_on_after(deadline):
            while True:
                for number, found in enumerate(self._waiting):
                    if found["event"] == event and condition(found):
                        return self._waiting.pop(number)
                if self.ended:
                    break
                await self._news.park()
        why = "the process ended" if self.ended else f"within {deadline} s"
        raise AssertionError(f"no {event!r} {why}, only {self._waiting}")

    async def send(self, line: str) -> None:
        """Writes one line to the process's stdin."""
        await self.process.stdin.send_all(line.encode() + b"\n")

    async def command(self, cmd: str, **arguments: Any) -> Event:
        """The answer of a node that takes commands. Fails when it is an error."""
        await self.send(json.dumps({"id": cmd, "cmd": cmd, **arguments}))
        answer = await self.wait_for("answer", lambda event: event["id"] == cmd)
        assert "error" not in answer, answer
        return answer


@asynccontextmanager
async def run_process(command: Sequence[str], cwd: Path | None = None) -> AsyncIterator[Process]:
    """The process, killed at the end of the block unless it is gone by then; its numbers take one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    child = await trio.lowlevel.open_process(
        list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd, env=environment
    )
    process = Process(child)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.read)
            yield process
            child.kill()
            nursery.cancel_scope.cancel()
    finally:
        child.kill()
        with trio.CancelScope(shield=True):
            await child.wait()
            await child.stdin.aclose()
            await child.stdout.aclose()


@asynccontextmanager
async def run_peer(*arguments: str) -> AsyncIterator[tuple[Process, Event]]:
    """A `p2p.peer` on loopback and its "listening" event."""
    async with run_process([*PEER, *arguments]) as process:
        yield process, await process.wait_for("listening")
