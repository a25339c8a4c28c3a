"""A simulated network to test on, and pairs of connections as the two rungs make them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any

import pytest
import trio

from p2p.config import HostConfig
from p2p.errors import P2PError
from p2p.scope import open_scope
from p2p.stream import MuxedConnection, MuxedStream
from p2p.upgrade import ConnectionUpgrader, Upgrader
from sim.heap import EventHeap, SimulationError
from sim.identity import key_of
from sim.live.clock import LivelockGuard, VirtualClock
from sim.live.determinism import deterministic
from sim.live.fabric import Endpoint, Fabric
from sim.live.light import LightUpgrader
from sim.live.transport import SimTransport
from sim.network import Network
from sim.scenario.model import Latency, NetworkSettings, Scenario

LATENCY = 0.05  # seconds one way, always
RUNGS = pytest.mark.parametrize("rung", ["light", "full"])
Handler = Callable[[MuxedStream], Awaitable[None]]


class World:
    """A few nodes on a network without jitter, and virtual time."""

    def __init__(self, nodes: int = 3, end: float = 100_000.0, **settings: Any) -> None:
        self.heap = EventHeap(end)
        latency = Latency(kind="constant", ms=LATENCY * 1000)
        all_settings = NetworkSettings(**{"latency": latency, "jitter": 0.0, **settings})
        self.network = Network(self.heap, Random(1), all_settings, nodes)
        self.frames: list[tuple[float, int, int, int, int]] = []
        self.fabric = Fabric(self.heap, self.network, nodes, lambda *frame: self.frames.append(frame))

    def run(self, body: Callable[[], Awaitable[None]]) -> None:
        """Runs `body`; raises what it raises, or what ended the run before it was through."""
        clock = VirtualClock(self.heap)

        async def watch() -> None:
            await clock.finished.wait()
            raise clock.error or SimulationError("the end came first")

        async def main() -> None:
            async with open_scope() as nursery:
                nursery.start_soon(watch)
                await body()

        with deterministic(1):
            trio.run(main, clock=clock, instruments=[LivelockGuard(clock, self.heap)])

    def at(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Plans `call` for so many seconds from now."""
        self.heap.plan(self.heap.now + seconds, call, *arguments)

    def transport(self, node: int) -> SimTransport:
        return SimTransport(self.fabric, node)

    async def connect(self, source: int = 0, target: int = 1) -> tuple[Endpoint, Endpoint]:
        """Both ends of a new connection."""
        listener = await self.transport(target).listen(self.fabric.address(target))
        near = await self.transport(source).dial(self.fabric.address(target))
        far, origin = await listener.accept()
        assert origin == self.fabric.address(source, 40001)
        await listener.aclose()
        return near, far


def simulated(
    nodes: int = 3, end: float = 100_000.0, **settings: Any
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Makes a test of an `async def test(world, …)`."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        def run(**arguments: Any) -> None:
            world = World(nodes, end, **settings)
            world.run(lambda: test(world, **arguments))

        signature = inspect.signature(test)
        parameters = [each for name, each in signature.parameters.items() if name != "world"]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__name__, run.__doc__ = test.__name__, test.__doc__
        run.pytestmark = getattr(test, "pytestmark", [])  # type: ignore[attr-defined]
        return run

    return decorate


# Connections


async def wait(stream: MuxedStream) -> None:
    await trio.sleep_forever()


async def echo(stream: MuxedStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def read_all(stream: MuxedStream) -> bytes:
    parts = []
    while data := await stream.receive_some():
        parts.append(data)
    return b"".join(parts)


@dataclass
class Side:
    """One end of a muxed connection, and how its `run` ended."""

    connection: MuxedConnection
    raw: Endpoint
    ended: trio.Event = field(default_factory=trio.Event)
    error: P2PError | None = None
    at: float = inf

    async def run(self, handler: Handler) -> None:
        try:
            await self.connection.run(handler)
        except P2PError as exc:
            self.error = exc
        self.at = trio.current_time()
        self.ended.set()

    async def open(self) -> MuxedStream:
        """A new stream."""
        return await self.connection.open_stream()


def upgrader(world: World, rung: str, node: int) -> ConnectionUpgrader:
    """What secures the connections of a node in this rung."""
    rng, key = Random(node), key_of(1, node)
    if rung == "light":
        return LightUpgrader(key, world.heap, rng.randbytes)
    return Upgrader(key, HostConfig(security=("noise",)), rng, None, entropy=rng.randbytes)


@asynccontextmanager
async def open_pair(
    world: World, rung: str, on_one: Handler = wait, on_other: Handler = echo
) -> AsyncIterator[tuple[Side, Side]]:
    """Two connected sides of the rung; the first one dialed."""
    near, far = await world.connect()
    sides: dict[int, MuxedConnection] = {}

    async def accept() -> None:
        sides[1] = await upgrader(world, rung, 1).upgrade_inbound(far)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        sides[0] = await upgrader(world, rung, 0).upgrade_outbound(near, None)
    one, other = Side(sides[0], near), Side(sides[1], far)
    async with open_scope() as nursery:
        nursery.start_soon(one.run, on_one)
        nursery.start_soon(other.run, on_other)
        await trio.sleep(1)
        yield one, other


class Peer:
    """A handler that hands its streams to the test, and keeps them open."""

    def __init__(self) -> None:
        self.streams: list[MuxedStream] = []

    async def __call__(self, stream: MuxedStream) -> None:
        self.streams.append(stream)
        await trio.sleep_forever()


@asynccontextmanager
async def open_streams(world: World, rung: str) -> AsyncIterator[tuple[MuxedStream, MuxedStream]]:
    """Both ends of one stream, on which b"hello" went from the first to the second."""
    peer = Peer()
    async with open_pair(world, rung, on_other=peer) as (one, _):
        near = await one.open()
        await near.send_all(b"hello")
        await trio.sleep(1)
        assert await peer.streams[0].receive_some() == b"hello"
        yield near, peer.streams[0]


def scenario(**parts: Any) -> Scenario:
    """A small scenario."""
    return Scenario.model_validate({"name": "test", "peers": 4, "settle": 5, **parts})
