"""What the programs of the matrix say to one another, and our own side of it.

Protocols that every node serves:

    /interop/echo/1.0.0        sends back what comes, and closes when the other end closes
    /interop/digest/1.0.0      reads to the end first, then answers with the SHA-256 of all of it
    /interop/slow/1.0.0        the same, but reads nothing before it is told to (`release`)
    /interop/resetting/1.0.0   reads a byte, then resets the stream
    /interop/waiting/1.0.0     sends a byte, then waits until the other end resets the stream

Each node can be told to open one of these to the other and to check what happens: a `Side`. `Ours` is a
host in this process; `Theirs` is a program that takes the same words as JSON lines on stdin.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Protocol

import trio

from p2p.errors import StreamReset
from p2p.host import Host
from p2p.peer_id import PeerId
from p2p.stream import Stream
from tests.processes import Process

ECHO = "/interop/echo/1.0.0"
DIGEST = "/interop/digest/1.0.0"
SLOW = "/interop/slow/1.0.0"
RESETTING = "/interop/resetting/1.0.0"
WAITING = "/interop/waiting/1.0.0"


@dataclass(frozen=True)
class Seen:
    """What one end learnt of the other from identify."""

    agent: str
    protocols: tuple[str, ...]


class Side(Protocol):
    """One end of the connection. Each method fails when the other end does not do its part."""

    async def ping(self) -> None: ...

    async def identify(self) -> Seen: ...

    async def echo(self, size: int) -> None:
        """`size` bytes come back on one stream."""

    async def parallel(self, streams: int, size: int) -> None:
        """All streams are open before the first byte is sent."""

    async def half_close(self, size: int) -> None:
        """Closes for writing, and then still gets an answer of which nothing was sent before."""

    async def be_reset(self) -> None:
        """Opens a stream that the other end resets, and sees that it was a reset."""

    async def reset(self) -> None:
        """Opens a stream and resets it."""

    async def see_reset(self) -> None:
        """Returns when the other end's `reset` has come."""

    async def slow_start(self, size: int) -> None:
        """Begins to send `size` bytes to the slow reader of the other end."""

    async def slow_sent(self) -> bool:
        """Whether all of that was taken."""

    async def slow_finish(self) -> None:
        """Returns when the slow reader has answered, and rightly."""

    async def release(self) -> None:
        """Lets the own slow reader read."""


class Theirs:
    """The program of another implementation, told what to do with the peer that it is connected to."""

    def __init__(self, process: Process, peer: PeerId) -> None:
        self.process = process
        self.peer = str(peer)

    async def ping(self) -> None:
        assert (await self.process.command("ping", peer=self.peer))["ms"] >= 0

    async def identify(self) -> Seen:
        answer = await self.process.command("identify", peer=self.peer)
        assert answer["observed"].startswith("/ip4/127.0.0.1/tcp/"), answer
        return Seen(answer["agent"], tuple(answer["protocols"]))

    async def echo(self, size: int) -> None:
        await self.process.command("echo", peer=self.peer, size=size)

    async def parallel(self, streams: int, size: int) -> None:
        await self.process.command("parallel", peer=self.peer, streams=streams, size=size)

    async def half_close(self, size: int) -> None:
        await self.process.command("half_close", peer=self.peer, size=size)

    async def be_reset(self) -> None:
        await self.process.command("be_reset", peer=self.peer)

    async def reset(self) -> None:
        await self.process.command("reset", peer=self.peer)

    async def see_reset(self) -> None:
        await self.process.wait_for("reset-seen")

    async def slow_start(self, size: int) -> None:
        await self.process.command("slow_start", peer=self.peer, size=size)

    async def slow_sent(self) -> bool:
        return bool((await self.process.command("slow_sent"))["sent"])

    async def slow_finish(self) -> None:
        await self.process.command("slow_finish")

    async def release(self) -> None:
        await self.process.command("release")


class Ours:
    """A host in this process, and the peer that it is connected to."""

    def __init__(self, host: Host, peer: PeerId, nursery: trio.Nursery) -> None:
        self._host = host
        self._peer = peer
        self._nursery = nursery
        self._rng = random.Random(1)
        self._released = trio.Event()
        self._reset_seen = trio.Event()
        self._sent = False
        self._slow_done = trio.Event()
        for protocol, handler in (
            (ECHO, _serve_echo),
            (DIGEST, _serve_digest),
            (SLOW, self._serve_slow),
            (RESETTING, _serve_resetting),
            (WAITING, self._serve_waiting),
        ):
            host.handle(protocol, handler)

    async def _serve_slow(self, stream: Stream) -> None:
        await self._released.wait()
        await _serve_digest(stream)

    async def _serve_waiting(self, stream: Stream) -> None:
        await stream.send_all(b"1")
        await _expect_reset(stream)
        self._reset_seen.set()

    async def _open(self, protocol: str) -> Stream:
        return await self._host.open_stream(self._peer, [protocol])

    async def ping(self) -> None:
        assert await self._host.ping(self._peer) > 0

    async def identify(self) -> Seen:
        seen = await self._host.wait_for_peer(self._peer)
        return Seen(seen.agent, seen.protocols)

    async def echo(self, size: int) -> None:
        data = self._rng.randbytes(size)
        await _exchange(await self._open(ECHO), data, data)

    async def parallel(self, streams: int, size: int) -> None:
        opened: list[Stream] = []

        async def open_one() -> None:
            opened.append(await self._open(ECHO))

        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(open_one)
        async with trio.open_nursery() as nursery:
            for stream in opened:
                data = self._rng.randbytes(size)
                nursery.start_soon(_exchange, stream, data, data)

    async def half_close(self, size: int) -> None:
        data = self._rng.randbytes(size)
        await _exchange(await self._open(DIGEST), data, hashlib.sha256(data).digest())

    async def be_reset(self) -> None:
        stream = await self._open(RESETTING)
        await stream.send_all(b"1")
        await _expect_reset(stream)

    async def reset(self) -> None:
        stream = await self._open(WAITING)
        assert await stream.receive_some() == b"1"
        stream.reset()

    async def see_reset(self) -> None:
        await self._reset_seen.wait()

    async def slow_start(self, size: int) -> None:
        stream = await self._open(SLOW)
        self._sent, self._slow_done = False, trio.Event()
        self._nursery.start_soon(self._feed_slow, stream, self._rng.randbytes(size))

    async def _feed_slow(self, stream: Stream, data: bytes) -> None:
        await stream.send_all(data)
        self._sent = True
        await _exchange(stream, b"", hashlib.sha256(data).digest())
        self._slow_done.set()

    async def slow_sent(self) -> bool:
        return self._sent

    async def slow_finish(self) -> None:
        await self._slow_done.wait()

    async def release(self) -> None:
        self._released.set()


async def _receive_all(stream: Stream) -> bytes:
    parts = []
    while part := await stream.receive_some():
        parts.append(part)
    return b"".join(parts)


async def _exchange(stream: Stream, data: bytes, expected: bytes) -> None:
    """Sends `data` and the end; fails unless `expected` and the end come back."""

    async def send() -> None:
        if data:
            await stream.send_all(data)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        got = await _receive_all(stream)
    assert got == expected, f"{len(got)} bytes differ from the {len(expected)} expected"
    await stream.aclose()


async def _expect_reset(stream: Stream) -> None:
    try:
        got = await _receive_all(stream)
    except StreamReset:
        return
    raise AssertionError(f"the stream ended after {len(got)} bytes and was not reset")


async def _serve_echo(stream: Stream) -> None:
    while part := await stream.receive_some():
        await stream.send_all(part)


async def _serve_digest(stream: Stream) -> None:
    await stream.send_all(hashlib.sha256(await _receive_all(stream)).digest())


async def _serve_resetting(stream: Stream) -> None:
    await stream.receive_some(1)
    stream.reset()
