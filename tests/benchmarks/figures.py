"""What is measured of each implementation: one function a figure, on fresh node processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from tests.benchmarks.nodes import Node, open_node

MIB = 1 << 20
MAX_SECONDS = 2  # of one measurement
IDLE_CONNECTIONS = 50

Values = dict[str, float]
Figure = Callable[[Sequence[str]], Awaitable[Values]]


@asynccontextmanager
async def open_pair(command: Sequence[str]) -> AsyncIterator[tuple[Node, Node]]:
    """A listener and a dialer in a process each."""
    async with open_node(command) as listener, open_node(command) as dialer:
        yield listener, dialer


async def start(command: Sequence[str]) -> Values:
    """From the start of the process until it listens, and its memory then."""
    async with open_node(command) as node:
        stats = await node.call("stats")
        return {"start to listening, s": node.start_seconds, "memory after start, MiB": stats["rss_mb"]}


async def handshakes(command: Sequence[str]) -> Values:
    """Dial, upgrade, close."""
    async with open_pair(command) as (listener, dialer):
        result = await dialer.call("handshakes", addr=listener.address, n=800, max_seconds=MAX_SECONDS)
        return {"dial + upgrade + close, per s": result["per_s"]}


async def echo(command: Sequence[str]) -> Values:
    """32-byte round trips on one stream."""
    async with open_pair(command) as (listener, dialer):
        await dialer.call("echo", addr=listener.address, n=500, size=32)
        result = await dialer.call("echo", addr=listener.address, n=5000, size=32)
        times = result["ms"]
        return {
            "echo of 32 B, per s": 1000 / times["p50"],
            "echo of 32 B, p50 ms": times["p50"],
            "echo of 32 B, p99 ms": times["p99"],
        }


async def streams(command: Sequence[str]) -> Values:
    """Open a stream, echo 32 bytes, close it; one after the other."""
    async with open_pair(command) as (listener, dialer):
        result = await dialer.call("streams", addr=listener.address, n=8000, size=32, max_seconds=MAX_SECONDS)
        return {"open + echo + close a stream, per s": result["per_s"]}


async def parallel_streams(command: Sequence[str]) -> Values:
    """The same, 64 at a time; only for nodes that know how."""
    async with open_pair(command) as (listener, dialer):
        arguments = {"addr": listener.address, "size": 32, "max_seconds": MAX_SECONDS, "at_once": 64}
        if "at_once" not in await dialer.call("streams", n=64, **arguments):
            return {}
        result = await dialer.call("streams", n=20000, **arguments)
        return {"the same, 64 at a time, per s": result["per_s"]}


def throughput(chunk: int) -> Figure:
    """One stream, one way, with writes of `chunk` bytes."""

    async def measure(command: Sequence[str]) -> Values:
        async with open_pair(command) as (listener, dialer):
            arguments = {"addr": listener.address, "chunk": chunk, "max_seconds": MAX_SECONDS}
            await dialer.call("throughput", bytes=16 * MIB, **arguments)
            result = await dialer.call("throughput", bytes=4096 * MIB, **arguments)
            return {f"one stream, {chunk // 1024} KiB writes, MB/s": result["MBps"]}

    return measure


async def idle(command: Sequence[str]) -> Values:
    """Resident memory that one more idle connection costs one end."""
    async with open_node(command) as listener:
        async with open_node(command, nodes=IDLE_CONNECTIONS + 1) as dialers:

            async def connect(number: int) -> None:
                await dialers.call("connect", node=number, addr=listener.address)

            await connect(IDLE_CONNECTIONS)  # whatever the first one imports and warms up
            before = (await listener.call("stats"))["rss_mb"]
            for number in range(IDLE_CONNECTIONS):
                await connect(number)
            for _ in range(2):  # identify runs behind the dial: two more exchanges let it end
                await dialers.call("ping", node=0, addr=listener.address, n=50)
            after = (await listener.call("stats"))["rss_mb"]
        return {"idle connection, KiB": (after - before) * 1024 / IDLE_CONNECTIONS}


FIGURES: dict[str, Figure] = {
    "start": start,
    "handshakes": handshakes,
    "echo": echo,
    "streams": streams,
    "parallel-streams": parallel_streams,
    "throughput": throughput(65536),
    "throughput-4k": throughput(4096),
    "throughput-1k": throughput(1024),
    "idle": idle,
}
