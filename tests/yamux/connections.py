"""Running yamux connections over memory streams, against each other or against hand-written frames."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from trio.testing import memory_stream_pair

from p2p.errors import ConnectionLost, P2PError
from p2p.peer_id import PeerId
from p2p.reading import READ_AHEAD
from p2p.scope import open_scope
from p2p.stream import MAX_BLOCK, Data
from p2p.yamux import YamuxConnection, YamuxStream
from p2p.yamux.outbox import MAX_TAKEN
from tests.byte_streams import Memory
from tests.support import key_number
from tests.yamux.frames import Frame, decode

PEERS = [PeerId.from_public_key(key_number(number).public) for number in (1, 2)]
Handler = Callable[[YamuxStream], Awaitable[None]]


class SecureEnd:
    """A `SecureStream` without encryption; while its `gate` is closed, none that it takes gets through."""

    remote_key = key_number(1).public
    early_muxer = None

    def __init__(self, near: Memory, far: Memory, remote_peer: PeerId) -> None:
        self._near = near
        self._far = far
        self._held = b""
        self._flushed = True
        self.remote_peer = remote_peer
        self.gate = trio.Event()
        self.gate.set()
        self.closed = False
        self.writes: list[bytes] = []  # what each `send_nowait` was given

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return bytes(await self._near.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost("closed") from exc

    async def receive_each(self, handle: Callable[[Data], None]) -> None:
        unyielded = 0
        while data := await self.receive_some():
            handle(data)
            if (unyielded := unyielded + len(data)) >= READ_AHEAD:
                unyielded = 0
                await trio.lowlevel.checkpoint()

    def send_nowait(self, blocks: Sequence[Data]) -> bool:
        assert self._flushed, "flush first"
        assert all(0 < len(block) <= MAX_BLOCK for block in blocks)
        assert len(blocks) <= MAX_TAKEN
        data = b"".join(blocks)
        self.writes.append(data)
        if not self.gate.is_set():
            self._held, self._flushed = data, False
            return False
        self._put(data)
        return True

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()
        await self.gate.wait()
        data, self._held = self._held, b""
        self._put(data)
        self._flushed = True

    def _put(self, data: bytes) -> None:
        try:
            if data:
                self._far.receive_stream.put_data(data)
        except trio.ClosedResourceError as exc:
            raise ConnectionLost("closed") from exc

    async def send_all(self, data: Data) -> None:
        raise AssertionError("a muxer sends blocks")

    async def aclose(self) -> None:
        self.closed = True
        await self._near.aclose()


class Node:
    """One side: its connection, the end beneath, and how `run` ended."""

    def __init__(self, end: SecureEnd, *, initiator: bool) -> None:
        self.end = end
        self.connection = YamuxConnection(end, initiator=initiator)
        self.ended = trio.Event()
        self.error: P2PError | None = None

    async def run(self, handler: Handler) -> None:
        try:
            await self.connection.run(handler)
        except P2PError as exc:
            self.error = exc
        self.ended.set()

    async def open_stream(self) -> YamuxStream:
        return await self.connection.open_stream()


def new_node() -> Node:
    """A node that does not run, over a stream of its own."""
    near, far = memory_stream_pair()
    return Node(SecureEnd(near, far, PEERS[1]), initiator=True)


async def echo(stream: YamuxStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def wait(stream: YamuxStream) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def open_nodes(on_one: Handler = wait, on_other: Handler = echo) -> AsyncIterator[tuple[Node, Node]]:
    """Two running nodes, connected; the first one dialed."""
    near, far = memory_stream_pair()
    one = Node(SecureEnd(near, far, PEERS[1]), initiator=True)
    other = Node(SecureEnd(far, near, PEERS[0]), initiator=False)
    async with open_scope() as nursery:
        nursery.start_soon(one.run, on_one)
        nursery.start_soon(other.run, on_other)
        await trio.testing.wait_all_tasks_blocked()
        yield one, other


class Wire:
    """The far end of a node's connection, spoken by hand."""

    def __init__(self, stream: trio.StapledStream, node: Node) -> None:
        self.stream = stream
        self._node = node
        self._seen = 0  # writes of the node

    async def send(self, *frames: bytes) -> None:
        """Sends in one piece, and returns once the node took notice."""
        await self.stream.send_all(b"".join(frames))
        await trio.testing.wait_all_tasks_blocked()

    async def received(self) -> list[Frame]:
        """What the node sent since the last call, once it has nothing more to say."""
        await trio.testing.wait_all_tasks_blocked()
        writes = self._node.end.writes[self._seen :]
        self._seen += len(writes)
        return decode(b"".join(writes))


@asynccontextmanager
async def open_node(handler: Handler = wait, *, initiator: bool = False) -> AsyncIterator[tuple[Node, Wire]]:
    """A running node whose peer is the test itself."""
    near, far = memory_stream_pair()
    node = Node(SecureEnd(near, far, PEERS[1]), initiator=initiator)
    async with open_scope() as nursery:
        nursery.start_soon(node.run, handler)
        await trio.testing.wait_all_tasks_blocked()
        yield node, Wire(far, node)


async def read_all(stream: YamuxStream) -> bytes:
    parts = []
    while data := await stream.receive_some():
        parts.append(data)
    return b"".join(parts)
