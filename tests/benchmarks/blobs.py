"""`python -m tests.benchmarks.blobs`: how long processes take to give their blobs to one another.

Each process has one blob in its store, in a folder; all fetch those of all others at the same time. Beside it
the same bytes go over the same channels without any of that: each process writes its blob to a stream
to each of the others, which drop it. What is shown: the median times, their ratio and that of the processor
time (which a busy machine does not change as much), and how much memory the largest process took at its
peak above the size of its own blob, which it keeps in memory as well.

The exchange keeps what comes, so each round also measures what that costs alone: every process writes as many
bytes to files in its folder. That comes first and last, since memory that a virtual machine never used, or
gave back, is mapped by its host at the first touch, which in a folder in memory may cost more than all the
rest, and hits whichever comes upon it. The lesser of the two is what no protocol can save.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from p2p.address import parse_address
from p2p.blobs import Blobs, BlobStore, open_blobs
from p2p.blobs.merkle import CHUNK_SIZE
from p2p.files import FolderFiles
from p2p.host import Host, open_host
from p2p.lines import LineSplitter
from p2p.peer_id import PeerId
from p2p.stream import Stream

COPY = "/atcp-benchmark/copy/1"
BLOCK = 64 * 1024  # bytes of one write of a plain copy
MAX_LINE = 1 << 20  # bytes
GOAL = 2.2  # times a plain copy
MEMORY_GOAL = 64 << 20  # bytes above the blob's own size

PHASES = ("exchange", "copy", "write", "first write")
LABELS = ("exchange", "plain copies", "writing alone, last", "writing alone, first")

Json = dict[str, Any]


class Process:
    """One of the processes, commanded over its standard input."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._answers: list[Json] = []

    async def call(self, **command: Any) -> Json:
        """What the process answers to a command."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(command).encode() + b"\n")
        return await self.receive()

    async def receive(self) -> Json:
        """The next answer."""
        assert self._process.stdout is not None
        splitter = LineSplitter(MAX_LINE)
        async for data in self._process.stdout:
            for line in splitter.receive_data(data):
                answer: Json = json.loads(line)
                return answer
        raise RuntimeError("a process ended")


@asynccontextmanager
async def open_process(folder: str) -> AsyncIterator[Process]:
    """A process with a store in `folder`, killed with the block."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.benchmarks.blobs", "--node", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Process(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def measure(peers: int, size: int, rounds: int, where: Path | None) -> Json:
    """Seconds of each round, and bytes of memory of the largest process."""
    names = [*PHASES, *(f"processor {name}" for name in PHASES), "ratio", "processor ratio", "memory"]
    results: dict[str, list[float]] = {name: [] for name in names}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=where))
        nodes = [
            await stack.enter_async_context(open_process(f"{folder}/{number}")) for number in range(peers)
        ]
        addresses = [await node.receive() for node in nodes]

        async def all_do(**command: Any) -> list[Json]:
            answers: list[Json] = [{}] * peers

            async def one(number: int) -> None:
                answers[number] = await nodes[number].call(**command)

            async with trio.open_nursery() as nursery:
                for number in range(peers):
                    nursery.start_soon(one, number)
            return answers

        await all_do(cmd="connect", peers=addresses)
        for number in range(rounds):
            blobs = await all_do(cmd="prepare", size=size, seed=number)
            between = ("copy", "exchange") if number % 2 else ("exchange", "copy")
            for what in ("first write", *between, "write"):
                start = trio.current_time()
                answers = await all_do(cmd=what.removeprefix("first "), blobs=blobs, size=size)
                results[what].append(trio.current_time() - start)
                results[f"processor {what}"].append(sum(each["processor"] for each in answers))
                results["memory"] += [each["peak"] - size for each in answers if "peak" in each]
            for kind in ("", "processor "):
                results[f"{kind}ratio"].append(results[f"{kind}exchange"][-1] / results[f"{kind}copy"][-1])
        results["start"] = [answer["start"] for answer in addresses]
    return results


# One process


class Node:
    """What one process does."""

    def __init__(self, host: Host, blobs: Blobs, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self._blobs = blobs
        self._data = b""
        self._root = b""
        self._others: list[PeerId] = []
        self._copied = 0  # bytes that came by plain copies
        self._news = trio.lowlevel.ParkingLot()
        host.handle(COPY, self._receive_copy)

    async def connect(self, command: Json) -> Json:
        """Connects to all others."""
        for each in command["peers"]:
            peer = PeerId.parse(each["peer"])
            if peer != self._host.peer_id:
                self._others.append(peer)
                if each["peer"] > str(self._host.peer_id):
                    await self._host.connect(peer, [parse_address(each["address"])])
        for peer in self._others:
            await self._host.wait_for_peer(peer)
        return {}

    async def prepare(self, command: Json) -> Json:
        """Forgets what was exchanged, and makes a blob of its own."""
        await self._forget(but=b"")
        self._copied = 0
        self._data = b""
        self._data = os.urandom(command["size"])
        self._root = await self._blobs.put(self._data)
        return {"peer": str(self._host.peer_id), "root": self._root.hex()}

    async def _forget(self, but: bytes) -> None:
        for root in self._blobs.store.roots():
            if root != but:
                await self._blobs.discard(root)

    async def exchange(self, command: Json) -> Json:
        """Fetches the blobs of all others; the peak of the memory meanwhile, bytes."""
        _forget_peak()
        async with trio.open_nursery() as nursery:
            for each in command["blobs"]:
                peer = PeerId.parse(each["peer"])
                if peer != self._host.peer_id:
                    root = bytes.fromhex(each["root"])
                    nursery.start_soon(self._blobs.fetch_into_store, root, command["size"], [peer])
        return {"peak": _memory("VmHWM")}

    async def write(self, command: Json) -> Json:
        """Writes as many bytes to its folder as an exchange does, in the place of what one has left there."""
        await self._forget(but=self._root)
        view = memoryview(self._data)
        for number in range(len(self._others)):
            path = self._folder / f"written-{number}"
            with path.open("wb", buffering=0) as file:
                for at in range(0, len(view), CHUNK_SIZE):
                    file.write(view[at : at + CHUNK_SIZE])
        for path in self._folder.glob("written-*"):
            path.unlink()
        return {}

    async def copy(self, command: Json) -> Json:
        """Writes its own blob to all others; ends when all of theirs came."""
        async with trio.open_nursery() as nursery:
            for peer in self._others:
                nursery.start_soon(self._send_copy, peer)
            while self._copied < command["size"] * len(self._others):
                await self._news.park()
        return {}

    async def _send_copy(self, peer: PeerId) -> None:
        stream = await self._host.open_stream(peer, [COPY])
        view = memoryview(self._data)
        for at in range(0, len(view), BLOCK):
            await stream.send_all(view[at : at + BLOCK])
        await stream.aclose()

    async def _receive_copy(self, stream: Stream) -> None:
        while data := await stream.receive_some():
            self._copied += len(data)
        self._news.unpark_all()


def _forget_peak() -> None:
    """The peak of the memory is what it is now. Source: proc(5), "clear_refs"."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> int:
    """Bytes of this process, as /proc tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


async def run_node(folder: str) -> None:
    """Does what it is told until its input ends."""
    async with (
        open_host(listen=[parse_address("/ip4/127.0.0.1/tcp/0")]) as host,
        open_blobs(host, BlobStore(FolderFiles(Path(folder)), 1 << 40)) as blobs,
    ):
        node = Node(host, blobs, Path(folder))
        commands: dict[str, Callable[[Json], Awaitable[Json]]] = {
            "connect": node.connect,
            "prepare": node.prepare,
            "exchange": node.exchange,
            "copy": node.copy,
            "write": node.write,
        }
        address, peer = str(host.addresses()[0]), str(host.peer_id)
        print(json.dumps({"peer": peer, "address": address, "start": _memory("VmRSS")}), flush=True)
        splitter = LineSplitter(MAX_LINE)
        async for data in trio.lowlevel.FdStream(os.dup(0)):
            for line in splitter.receive_data(data):
                command = json.loads(line)
                start = time.process_time()
                answer = await commands[command["cmd"]](command)
                print(json.dumps({**answer, "processor": time.process_time() - start}), flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.blobs", description="Measure the content exchange."
    )
    parser.add_argument("--size-mb", type=int, default=400, help="of each blob, MiB (default 400)")
    parser.add_argument("--peers", type=int, default=6, help="processes (default 6)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--folder", type=Path, help="of the stores: one in memory leaves the disk out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there")
    parser.add_argument("--node", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.node is not None:
        trio.run(run_node, arguments.node)
        return
    results = trio.run(measure, arguments.peers, arguments.size_mb << 20, arguments.rounds, arguments.folder)
    middle = {name: statistics.median(results[name]) for name in results}
    memory, start = max(results["memory"]), max(results["start"])
    columns = [[middle[kind + name] for name in PHASES] for kind in ("", "processor ")]
    rest = [(each[0] - min(each[2:])) / each[1] for each in columns]
    print(f"{arguments.peers} processes, {arguments.size_mb} MiB each    time   processor time")
    for name, *values in zip(LABELS, *columns, strict=True):
        print(f"{name:20}{values[0]:12.2f} s{values[1]:12.2f} s")
    print(
        f"ratio               {middle['ratio']:12.2f}  {middle['processor ratio']:12.2f}     (goal ≤ {GOAL})"
    )
    print(f"  less the writing  {rest[0]:12.2f}  {rest[1]:12.2f}")
    print(f"memory at its peak  {memory / 2**20:12.1f} MiB above the blob   (goal ≤ {MEMORY_GOAL >> 20})")
    print(f"  at the start      {start / 2**20:12.1f} MiB")
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps({"medians": middle, "memory": memory, **results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
