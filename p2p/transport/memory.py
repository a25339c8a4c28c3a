"""An in-memory transport: /memory/N addresses within one process, for tests and examples.

The same stack runs on it as on TCP, without sockets, so virtual clocks work.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress

import trio
from multiaddr import Multiaddr

from p2p.address import parse_address
from p2p.errors import AddressInUse, ConnectionLost, LocalProtocolError
from p2p.reading import READ_AHEAD
from p2p.stream import Data
from p2p.waiter import Waiter

PIPE_SIZE = 256 * 1024  # bytes in flight in one direction before a sender waits; near what loopback TCP has
BACKLOG = 128  # connections waiting for accept
CLOSED = "the connection is closed"


class _Pipe:
    """One direction: bytes on their way, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = bytearray()
        self._ended = False  # by the sending end
        self._broken = False  # by the receiving end
        self._arrival = Waiter()  # the reader, while nothing is here
        self._room = Waiter()  # the writer, while it is full

    def put(self, data: Data) -> int:
        """Takes the beginning of `data`; how many bytes."""
        if self._ended or self._broken:
            raise ConnectionLost(CLOSED)
        room = self._size - len(self._bytes)
        taken = data if len(data) <= room else memoryview(data)[:room]
        self._bytes += taken
        if taken:
            self._arrival.wake()
        return len(taken)

    async def wait_for_room(self) -> None:
        """Returns when `put` can take something. Raises `ConnectionLost`."""
        await trio.lowlevel.checkpoint()
        while len(self._bytes) >= self._size and not (self._ended or self._broken):
            await _wait(self._room)
        if self._ended or self._broken:
            raise ConnectionLost(CLOSED)

    async def wait_for_bytes(self) -> None:
        """Returns when `take` can give something, or nothing because it is the end."""
        await trio.lowlevel.checkpoint()
        while not (self._bytes or self._ended or self._broken):
            await _wait(self._arrival)
        if self._broken:
            raise ConnectionLost(CLOSED)

    def take(self, max_bytes: int) -> bytes:
        """The first bytes; b"" at the end."""
        data = bytes(memoryview(self._bytes)[:max_bytes])
        del self._bytes[: len(data)]
        if data:
            self._room.wake()
        return data

    async def take_each(self, handle: Callable[[memoryview], None]) -> None:
        """Calls `handle` with all that comes, until the end. Raises `ConnectionLost`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        unyielded = 0
        while not self._broken:
            if data := self._bytes:
                self._bytes = bytearray()
                self._room.wake()
                handle(memoryview(data))
                if (unyielded := unyielded + len(data)) >= READ_AHEAD:
                    unyielded = 0
                    await trio.lowlevel.checkpoint()
            elif self._ended:
                return await trio.lowlevel.checkpoint()
            else:
                await _wait(self._arrival)
        raise ConnectionLost(CLOSED)

    def end(self) -> None:
        """The sending end closes: what is on its way still arrives."""
        self._ended = True
        self._changed()

    def break_off(self) -> None:
        """The receiving end closes: what is on its way is lost."""
        self._broken = True
        self._bytes.clear()
        self._changed()

    def _changed(self) -> None:
        self._arrival.wake()
        self._room.wake()


async def _wait(place: Waiter) -> None:
    if place:
        raise LocalProtocolError("another task is waiting for this connection")
    await place.wait()


class MemoryStream:
    """One end of a connection within the process: a `ByteStream`."""

    def __init__(self, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or b"" once the other end is closed. Raises `ConnectionLost` when ours is."""
        await self._incoming.wait_for_bytes()
        return self._incoming.take(PIPE_SIZE if max_bytes is None else max_bytes)

    async def receive_into(self, buffer: memoryview) -> int:
        """Fills the beginning of `buffer`; how many bytes came, 0 at the end. Raises `ConnectionLost`."""
        await self._incoming.wait_for_bytes()
        data = self._incoming.take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        """Calls `handle` with every piece that comes, until the end; each is good during the call only.

        Raises `ConnectionLost` when our end is closed, and what `handle` raises.
        """
        await self._incoming.take_each(handle)

    def send_nowait(self, data: Data) -> int:
        """Hands over the beginning of `data`, as far as there is room; how many bytes, maybe 0.

        Raises `ConnectionLost`, and `LocalProtocolError` while another task is in `send_all`.
        """
        if self._sending:
            raise LocalProtocolError("another task is sending on this connection")
        return self._outgoing.put(data)

    async def wait_writable(self) -> None:
        """Returns when there is room. Raises `ConnectionLost`."""
        await self._outgoing.wait_for_room()

    async def send_all(self, data: Data) -> None:
        """Hands `data` over; waits while the other end is slow. Raises `ConnectionLost`."""
        if self._sending:
            raise LocalProtocolError("another task is sending on this connection")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            rest = memoryview(data)
            while rest:
                rest = rest[self._outgoing.put(rest) :]
                if rest:
                    await self._outgoing.wait_for_room()
        finally:
            self._sending = False

    async def aclose(self) -> None:
        """Closes both directions."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Closes both directions."""
        self._outgoing.end()
        self._incoming.break_off()


def memory_stream_pair(size: int = PIPE_SIZE) -> tuple[MemoryStream, MemoryStream]:
    """Two connected ends, with at most `size` bytes in flight in each direction."""
    there, back = _Pipe(size), _Pipe(size)
    return MemoryStream(there, back), MemoryStream(back, there)


class MemoryNetwork:
    """The place where memory transports meet; two networks know nothing of each other."""

    def __init__(self) -> None:
        self.listeners: dict[Multiaddr, trio.MemorySendChannel[tuple[MemoryStream, Multiaddr]]] = {}
        self.ports = itertools.count(1 << 32)  # the addresses of dialing ends, and of /memory/0


class MemoryListener:
    """A listener of the in-memory network."""

    def __init__(self, network: MemoryNetwork, address: Multiaddr) -> None:
        self.addresses = [address]
        self._network = network
        self._closed = False
        send, self._incoming = trio.open_memory_channel[tuple[MemoryStream, Multiaddr]](BACKLOG)
        network.listeners[address] = send

    async def accept(self) -> tuple[MemoryStream, Multiaddr]:
        """The next connection. Raises `ConnectionLost` once the listener is closed."""
        try:
            return await self._incoming.receive()
        except trio.ClosedResourceError as exc:
            raise ConnectionLost("the listener is closed") from exc

    async def aclose(self) -> None:
        """Frees the address, and closes what nobody accepted. Safe to repeat."""
        if not self._closed:
            self._closed = True
            del self._network.listeners[self.addresses[0]]
            with suppress(trio.WouldBlock):
                while True:
                    stream, _ = self._incoming.receive_nowait()
                    stream.close()
            self._incoming.close()
        await trio.lowlevel.checkpoint()


class MemoryTransport:
    """Dials and listens on /memory/N within one `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    def can_dial(self, address: Multiaddr) -> bool:
        """Whether `address` is /memory/N."""
        return str(address).startswith("/memory/")

    async def dial(self, address: Multiaddr) -> MemoryStream:
        """Connects to `address`. Raises `ConnectionLost` when nobody listens there."""
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        try:
            origin = parse_address(f"/memory/{next(self._network.ports)}")
            self._network.listeners[address].send_nowait((theirs, origin))
        except (KeyError, trio.WouldBlock, trio.BrokenResourceError) as exc:
            raise ConnectionLost(f"{address}: connection refused") from exc
        return ours

    async def listen(self, address: Multiaddr) -> MemoryListener:
        """Listens on `address`; /memory/0 picks a free number. Raises `AddressInUse`."""
        await trio.lowlevel.checkpoint()
        if str(address) == "/memory/0":
            address = parse_address(f"/memory/{next(self._network.ports)}")
        if address in self._network.listeners:
            raise AddressInUse(f"cannot listen on {address}: in use; choose another address")
        return MemoryListener(self._network, address)
