"""A byte stream over a non-blocking stream socket: plain system calls, and trio only to wait.

trio's own socket objects would cost a checkpoint for each call, and offer neither to send without
waiting nor to read into memory that is there already.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import trio

from p2p.errors import ConnectionLost, LocalProtocolError
from p2p.reading import receive_each
from p2p.stream import Data
from p2p.turns import Turns

RECEIVE_SIZE = 64 * 1024  # bytes that `receive_some` asks for; whoever wants speed uses `receive_into`
CLOSED = "the connection was closed on this side"


class SocketStream:
    """A `ByteStream` over `sock`, which is connected, non-blocking, and belongs to this object now."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reading = Turns()
        self._writing = Turns()
        self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or b"" at the end. Raises `ConnectionLost`."""
        await self._reading.take()
        while True:
            try:
                return self._socket.recv(RECEIVE_SIZE if max_bytes is None else max_bytes)
            except BlockingIOError:
                await self._wait(trio.lowlevel.wait_readable)
            except OSError as exc:
                raise self._lost(exc) from exc

    async def receive_into(self, buffer: memoryview) -> int:
        """Fills the beginning of `buffer`; how many bytes came, 0 at the end. Raises `ConnectionLost`."""
        await self._reading.take()
        while True:
            try:
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                await self._wait(trio.lowlevel.wait_readable)
            except OSError as exc:
                raise self._lost(exc) from exc

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        """Calls `handle` with every piece that comes, until the end; each is good during the call only.

        Raises `ConnectionLost`, and what `handle` raises.
        """
        await receive_each(self, handle)

    def send_nowait(self, data: Data) -> int:
        """Sends the beginning of `data`, as far as the kernel takes it now; how many bytes, maybe 0.

        Raises `ConnectionLost`, and `LocalProtocolError` while another task is in `send_all`.
        """
        if self._sending:
            raise LocalProtocolError("another task is sending on this connection")
        return self._send(data)

    def _send(self, data: Data) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self._lost(exc) from exc

    async def wait_writable(self) -> None:
        """Returns when the kernel has room again. Raises `ConnectionLost`."""
        await self._wait(trio.lowlevel.wait_writable)

    async def send_all(self, data: Data) -> None:
        """Sends all of `data`. Raises `ConnectionLost`; after a cancellation an unknown part was sent."""
        if self._sending:
            raise LocalProtocolError("another task is sending on this connection")
        self._sending = True
        try:
            await self._writing.take()
            rest = memoryview(data)
            while rest:
                rest = rest[self._send(rest) :]
                if rest:
                    await self.wait_writable()
        finally:
            self._sending = False

    async def aclose(self) -> None:
        """Closes the socket; whoever waits for it gets `ConnectionLost`. Safe to repeat."""
        close_socket(self._socket)
        await trio.lowlevel.checkpoint()

    async def _wait(self, ready: Callable[[socket.socket], Awaitable[None]]) -> None:
        if self._socket.fileno() < 0:
            raise ConnectionLost(CLOSED)
        try:
            await ready(self._socket)
        except trio.ClosedResourceError as exc:
            raise ConnectionLost(CLOSED) from exc
        except trio.BusyResourceError as exc:
            raise LocalProtocolError("another task is waiting for this connection") from exc

    def _lost(self, error: OSError) -> ConnectionLost:
        if self._socket.fileno() < 0:
            return ConnectionLost(CLOSED)
        return ConnectionLost(f"connection lost: {error.strerror or error}")


def close_socket(sock: socket.socket) -> None:
    """Closes `sock` and wakes who waits for it; trio must know before the number can be used again."""
    if sock.fileno() >= 0:
        trio.lowlevel.notify_closing(sock)
        sock.close()
