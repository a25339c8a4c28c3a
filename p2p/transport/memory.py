"""An in-memory transport: /memory/N addresses within one process, for tests and examples.

The same stack runs on it as on TCP, without sockets, so virtual clocks work.
"""

from __future__ import annotations

import itertools

import trio
from multiaddr import Multiaddr

from p2p.address import parse_address
from p2p.errors import AddressInUse, ConnectionLost
from p2p.stream import Data

PIPE_CHUNKS = 16  # writes in flight in one direction before a sender waits
BACKLOG = 128  # connections waiting for accept


class MemoryStream:
    """One end of a connection within the process: a `ByteStream`."""

    def __init__(
        self, send: trio.MemorySendChannel[bytes], receive: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        self._send = send
        self._receive = receive
        self._rest = memoryview(b"")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or b"" once the other end is closed. Raises `ConnectionLost` when ours is."""
        if self._rest:
            await trio.lowlevel.checkpoint()
        else:
            try:
                self._rest = memoryview(await self._receive.receive())
            except trio.EndOfChannel:
                return b""
            except trio.ClosedResourceError as exc:
                raise ConnectionLost("the connection is closed") from exc
        data, self._rest = self._rest[:max_bytes], self._rest[len(self._rest[:max_bytes]) :]
        return bytes(data)

    async def send_all(self, data: Data) -> None:
        """Hands `data` over; waits while the other end is slow. Raises `ConnectionLost`."""
        if not data:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._send.send(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost("the connection is closed") from exc

    async def aclose(self) -> None:
        """Closes both directions."""
        self._send.close()
        self._receive.close()
        await trio.lowlevel.checkpoint()


def memory_stream_pair() -> tuple[MemoryStream, MemoryStream]:
    """Two connected ends."""
    there_send, there_receive = trio.open_memory_channel[bytes](PIPE_CHUNKS)
    back_send, back_receive = trio.open_memory_channel[bytes](PIPE_CHUNKS)
    return MemoryStream(there_send, back_receive), MemoryStream(back_send, there_receive)


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
        send, self._incoming = trio.open_memory_channel[tuple[MemoryStream, Multiaddr]](BACKLOG)
        network.listeners[address] = send

    async def accept(self) -> tuple[MemoryStream, Multiaddr]:
        """The next connection. Raises `ConnectionLost` once the listener is closed."""
        try:
            return await self._incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as exc:
            raise ConnectionLost("the listener is closed") from exc

    async def aclose(self) -> None:
        """Frees the address."""
        self._network.listeners.pop(self.addresses[0], None)
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
