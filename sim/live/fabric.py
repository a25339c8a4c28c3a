"""Connections between simulated nodes: what TCP would do, over the network model.

    Endpoint.send_nowait ──→ Network.send ──→ Endpoint.arrive ──→ the handler of `receive_each`, at once,
                                                              └─→ a queue, when a task reads by itself

Bytes arrive in order, each once. A sender has at most `CAPACITY` bytes on their way or not yet read.
A process that dies has its connections reset; when the power fails nobody says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from zlib import crc32

import trio

from p2p.address import parse_address
from p2p.errors import ConnectionLost
from p2p.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address

    from multiaddr import Multiaddr

    from p2p.stream import Data
    from sim.heap import EventHeap
    from sim.network import Network
    from sim.rung import Frame

CAPACITY = 1 << 20  # bytes of one direction: send and receive buffers as Linux grows them
PACKET = 60  # bytes of a SYN, a FIN or a RST with its headers
BACKLOG = 128  # connections waiting for accept
PORT, CALLER_PORT = 4001, 40001
CLOSED = "the connection is closed"


class Fabric:
    """Who listens, and every connection there is."""

    def __init__(self, heap: EventHeap, network: Network, nodes: int, frame: Frame) -> None:
        self.heap = heap
        self.network = network
        self.frame = frame
        self.up = bytearray(nodes)  # whose process runs
        self.off = bytearray(nodes)  # whose power failed: it answers nothing, not even a refusal
        self.listeners: dict[int, Listener] = {}
        self.endpoints: list[dict[Endpoint, None]] = [{} for _ in range(nodes)]
        self.shared: Mapping[int, IPv4Address] = {}  # nodes that do not have an address to themselves
        self._addresses: dict[tuple[int, int], Multiaddr] = {}
        self._nodes: dict[Multiaddr, int] = {}

    def address(self, node: int, port: int = PORT) -> Multiaddr:
        """Where the node listens, or comes from."""
        found = self._addresses.get((node, port))
        if found is None:
            ip, at = f"10.{node >> 16}.{node >> 8 & 255}.{node & 255}", port
            if node in self.shared:
                ip, at = str(self.shared[node]), port + node + 1
            found = self._addresses[node, port] = parse_address(f"/ip4/{ip}/tcp/{at}")
            if port == PORT:
                self._nodes[found] = node
        return found

    def node_at(self, address: Multiaddr) -> int | None:
        """The node that has this address, if it was given to anybody."""
        return self._nodes.get(address)

    def start(self, node: int) -> None:
        """The node's process runs."""
        self.up[node], self.off[node] = 1, 0

    def crash(self, node: int, *, silently: bool) -> None:
        """The node's process is gone, with everything that it had open."""
        self.up[node], self.off[node] = 0, silently
        self.listeners.pop(node, None)
        endpoints, self.endpoints[node] = self.endpoints[node], {}
        for endpoint in endpoints:
            endpoint.die(tell=not silently)

    def reset(self, node: int, other: int) -> None:
        """All connections between the two break."""
        for endpoint in [each for each in self.endpoints[node] if each.other == other]:
            endpoint.break_off("the connection was reset")
            endpoint.twin.break_off("the connection was reset")


class Endpoint:
    """One end of a connection, a `ByteStream`."""

    __slots__ = (
        "_closed",
        "_ended",
        "_error",
        "_fabric",
        "_lost",
        "_queue",
        "_reader",
        "_sink",
        "_unread",
        "_writer",
        "checksum",
        "dead",
        "node",
        "other",
        "twin",
    )

    twin: Endpoint

    def __init__(self, fabric: Fabric, node: int, other: int) -> None:
        self.node, self.other = node, other
        self.dead = False  # its process is
        self.checksum: Callable[[Any], int] = crc32  # of a piece, for the trace
        self._fabric = fabric
        self._queue: list[tuple[Any, int]] = []  # pieces that nobody took; mostly none, and a deque is 600 B
        self._sink: Callable[[Any], None] | None = None
        self._unread = 0  # bytes that we sent and the other end has not taken
        self._closed = self._ended = False
        self._lost: str | None = None
        self._error: BaseException | None = None  # of the sink
        self._reader, self._writer = Waiter(), Waiter()
        fabric.endpoints[node][self] = None

    # Sending

    def send_nowait(self, data: Data) -> int:
        """Sends the beginning of `data`, as far as there is room; how many bytes. Raises `ConnectionLost`."""
        self._check()
        piece = bytes(data[: max(0, self.room)])
        if piece:
            self.post(piece, len(piece))
        return len(piece)

    def post(self, piece: Any, size: int) -> None:
        """Sends one piece that counts as `size` bytes, room or not; nothing leaves a lost connection."""
        if self._lost is None:
            self._unread += size
            self._fabric.network.send(self.node, self.other, size, self.twin.arrive, piece, size)

    @property
    def room(self) -> int:
        """Bytes that may be sent before the other end reads."""
        return CAPACITY - self._unread

    async def wait_writable(self) -> None:
        """Returns when there is room. Raises `ConnectionLost`."""
        await trio.lowlevel.checkpoint()
        while self._unread >= CAPACITY and self._lost is None and not self._ended:
            await self._writer.wait()
        self._check()

    async def send_all(self, data: Data) -> None:
        """Sends all of `data`. Raises `ConnectionLost`."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            rest = rest[self.send_nowait(rest) :]
            if rest:
                await self.wait_writable()

    # Receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, b"" at the end. Raises `ConnectionLost`."""
        await self._wait_for_piece()
        if not self._queue:
            return b""
        piece, size = self._queue.pop(0)
        if max_bytes is not None and size > max_bytes:
            self._queue.insert(0, (piece[max_bytes:], size - max_bytes))
            piece, size = piece[:max_bytes], max_bytes
        self.twin.taken(size)
        return bytes(piece)

    async def receive_into(self, buffer: memoryview) -> int:
        """Fills the beginning of `buffer`; how many bytes came, 0 at the end. Raises `ConnectionLost`."""
        data = await self.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def receive_each(self, handle: Callable[[Any], None]) -> None:
        """Hands every piece to `handle` when it arrives; returns at the end.

        Raises `ConnectionLost`, and what `handle` raises. `handle` is called outside of any task.
        """
        await trio.lowlevel.checkpoint()
        self._sink = handle
        try:
            self._drain()
            while self._error is None and self._lost is None and not (self._ended and not self._queue):
                await self._reader.wait()
            error, self._error = self._error, None
            if error is not None:
                raise error
            if self._lost is not None and not self._ended:
                raise ConnectionLost(self._lost)
        finally:
            self._sink = None

    async def _wait_for_piece(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._queue or not self._fabric.network.reading(self.node):
            if self._lost is not None:
                raise ConnectionLost(self._lost)
            if self._ended and not self._queue:
                return
            if self._queue:
                self._fabric.network.when_reading(self.node, self._reader.wake)
            await self._reader.wait()

    def arrive(self, piece: Any, size: int) -> None:
        """A piece came over the network."""
        if self.dead:
            self._refuse()
            return
        fabric = self._fabric
        fabric.frame(fabric.heap.now, self.other, self.node, size, self.checksum(piece))
        if self._lost is not None:
            return
        reading = fabric.network.all_read or fabric.network.reading(self.node)
        if reading and self._sink is not None and not self._queue:
            self._hand_over(piece, size)
        else:
            self._queue.append((piece, size))
            if self._sink is None:
                self._reader.wake()
            else:
                self._drain()

    def _hand_over(self, piece: Any, size: int) -> None:
        self.twin.taken(size)
        assert self._sink is not None
        try:
            self._sink(piece)
        except BaseException as exc:
            self._error, self._sink = exc, None
            self._reader.wake()

    def _drain(self) -> None:
        """Hands over what waits, unless the node reads nothing just now."""
        if self._queue and not self._fabric.network.reading(self.node):
            self._fabric.network.when_reading(self.node, self._drain)
            return
        while self._queue and self._sink is not None:
            self._hand_over(*self._queue.pop(0))
        if self._ended or self._lost is not None:
            self._reader.wake()

    def taken(self, size: int) -> None:
        """The other end has read this many bytes."""
        if self._unread >= CAPACITY:
            self._writer.wake()
        self._unread -= size

    # The end

    async def aclose(self) -> None:
        """Closes both directions: the other end reads what is on its way, then the end."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Closes both directions."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._forget()
            if self._lost is None:
                self._fabric.network.send(self.node, self.other, PACKET, self.twin.receive_end)
                self._lost = CLOSED
            self._wake()

    def receive_end(self) -> None:
        """The other end closed."""
        if not self.dead:
            self._ended = True
            self._writer.wake()
            if not self._queue or self._sink is None:
                self._reader.wake()

    def break_off(self, reason: str) -> None:
        """The connection is gone, with everything on its way."""
        if self._lost is None:
            self._lost = reason
            self._queue.clear()
            self._forget()
            self._wake()

    def die(self, *, tell: bool) -> None:
        """The process is gone: nothing reaches it; `tell` the other end as its kernel would."""
        self.dead = True
        if tell and self._lost is None:
            self._refuse()
        self._lost = self._lost or CLOSED
        self._sink = None
        self._queue.clear()

    def _refuse(self) -> None:
        """What a kernel answers for a connection that it does not know; nothing while the power is off."""
        if self._fabric.off[self.node]:
            return
        network = self._fabric.network
        network.send(
            self.node, self.other, PACKET, self.twin.break_off, "the connection was reset by the peer"
        )

    def _check(self) -> None:
        if self._lost is not None:
            raise ConnectionLost(self._lost)
        if self._ended:
            raise ConnectionLost("the connection was closed by the other end")

    def _forget(self) -> None:
        self._fabric.endpoints[self.node].pop(self, None)

    def _wake(self) -> None:
        self._reader.wake()
        self._writer.wake()


class Listener:
    """A node's listening socket."""

    def __init__(self, fabric: Fabric, node: int) -> None:
        self._fabric, self._node = fabric, node
        self._queue: deque[tuple[Endpoint, Multiaddr]] = deque()
        self._waiter = Waiter()
        self._closed = False
        self.addresses = [fabric.address(node)]
        fabric.listeners[node] = self

    def offer(self, endpoint: Endpoint, origin: Multiaddr) -> bool:
        """A connection came; whether there is a place for it."""
        if len(self._queue) >= BACKLOG:
            return False
        self._queue.append((endpoint, origin))
        self._waiter.wake()
        return True

    async def accept(self) -> tuple[Endpoint, Multiaddr]:
        """The next connection. Raises `ConnectionLost` once the listener is closed."""
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                raise ConnectionLost("the listener is closed")
            await self._waiter.wait()
        return self._queue.popleft()

    async def aclose(self) -> None:
        """Stops listening. Safe to repeat."""
        self._closed = True
        if self._fabric.listeners.get(self._node) is self:
            del self._fabric.listeners[self._node]
        while self._queue:
            self._queue.popleft()[0].close()
        self._waiter.wake()
        await trio.lowlevel.checkpoint()
