"""Node programs of three implementations, commanded alike: JSON lines in, JSON lines out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from p2p.lines import LineSplitter
from p2p.scope import open_scope

Json = dict[str, Any]

HERE = Path(__file__).parent
INTEROP = HERE.parent / "interop"
JS_NODE = INTEROP / "node_modules" / "node" / "bin" / "node"
PY_LIBP2P = INTEROP / ".venv" / "bin" / "python"
START_TIMEOUT = 40.0  # seconds until a node listens
CALL_TIMEOUT = 60.0  # seconds of one command
MAX_LINE = 1 << 24  # bytes of one answer


def implementations() -> dict[str, list[str]]:
    """The command of every implementation that is installed here; ours is first."""
    found = {"atcp": [sys.executable, "-m", "tests.benchmarks.node"]}
    if PY_LIBP2P.exists():
        found["py-libp2p"] = [str(PY_LIBP2P), str(HERE / "py_libp2p_node.py")]
    if JS_NODE.exists():
        found["js-libp2p"] = [str(JS_NODE), str(INTEROP / "bench_node.mjs")]
    return found


class Node:
    """One node process: how it started, and its answers."""

    def __init__(self, process: trio.Process, started: float) -> None:
        self._process = process
        self._started = started
        self._answers: dict[int, Json] = {}
        self._news = trio.lowlevel.ParkingLot()
        self._next = 0
        self._ready: Json | None = None
        self._ended = False

    @property
    def address(self) -> str:
        """Where its first host listens, with /p2p/."""
        assert self._ready is not None
        address: str = self._ready["nodes"][0]["addr"]
        return address

    @property
    def start_seconds(self) -> float:
        """From the start of the process until it listens."""
        assert self._ready is not None
        started: float = self._ready["t"] - self._started
        return started

    async def read(self) -> None:
        """Takes lines until the process ends."""
        assert self._process.stdout is not None
        splitter = LineSplitter(MAX_LINE)
        async for data in self._process.stdout:
            for line in splitter.receive_data(data):
                message = json.loads(line)
                if message.get("event") == "ready":
                    self._ready = message
                elif "id" in message:
                    self._answers[message["id"]] = message
            self._news.unpark_all()
        self._ended = True
        self._news.unpark_all()

    async def wait_ready(self) -> None:
        """Returns when the node listens."""
        with trio.fail_after(START_TIMEOUT):
            while self._ready is None and not self._ended:
                await self._news.park()
        if self._ready is None:
            raise RuntimeError("the node program ended before it listened")

    async def call(self, cmd: str, **arguments: Any) -> Json:
        """The result of one command. Raises `RuntimeError` with the node's own words."""
        number, self._next = self._next, self._next + 1
        line = json.dumps({"id": number, "cmd": cmd, "timeout": CALL_TIMEOUT - 2, **arguments})
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")
        with trio.fail_after(CALL_TIMEOUT):
            while number not in self._answers and not self._ended:
                await self._news.park()
        answer = self._answers.pop(number, {"ok": False, "error": "the node program ended"})
        if not answer["ok"]:
            raise RuntimeError(answer["error"])
        result: Json = answer["result"]
        return result


@asynccontextmanager
async def open_node(command: Sequence[str], *, nodes: int = 1) -> AsyncIterator[Node]:
    """A node process with the protocols that are measured, ended with the block."""
    started = time.time()
    process = await trio.lowlevel.open_process(
        [*command, "--nodes", str(nodes), "--features", "echo,sink", "--profile", "tuned"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=HERE.parent.parent,
    )
    node = Node(process, started)
    try:
        async with open_scope() as nursery:
            nursery.start_soon(node.read)
            await node.wait_ready()
            yield node
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
