"""TCP: /ip4, /ip6 and /dns… addresses on trio's sockets."""

from __future__ import annotations

import errno
import logging
import os
import socket
from ipaddress import ip_address

import psutil
import trio
from multiaddr import Multiaddr

from p2p.address import tcp_address, tcp_endpoint
from p2p.errors import AddressInUse, ConnectionLost, InvalidAddress
from p2p.stream import Data

logger = logging.getLogger(__name__)

BACKLOG = 128  # connections the kernel holds before accept
RECEIVE_SIZE = 256 * 1024  # bytes of one read; large reads are what makes a stream fast
ACCEPT_PAUSE = 0.1  # seconds without accepting when the process is out of descriptors, as trio does
OUT_OF_CAPACITY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


class TcpStream:
    """A `ByteStream` over one TCP socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or b"" at the end. Raises `ConnectionLost`."""
        try:
            return bytes(await self._stream.receive_some(max_bytes or RECEIVE_SIZE))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost(f"connection lost: {exc.__cause__ or exc}") from exc

    async def send_all(self, data: Data) -> None:
        """Sends all of `data`. Raises `ConnectionLost`."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLost(f"connection lost: {exc.__cause__ or exc}") from exc

    async def aclose(self) -> None:
        """Closes the socket."""
        await self._stream.aclose()


class TcpListener:
    """One listening socket."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        host, port = listener.socket.getsockname()[:2]
        self.addresses = [tcp_address(ip, port) for ip in _reachable(host)]

    async def accept(self) -> tuple[TcpStream, Multiaddr]:
        """The next connection. Raises `ConnectionLost` once the listener is closed."""
        while True:
            try:
                stream = await self._listener.accept()
                remote = stream.socket.getpeername()
            except trio.ClosedResourceError as exc:
                raise ConnectionLost("the listener is closed") from exc
            except OSError as exc:
                if exc.errno in OUT_OF_CAPACITY:
                    logger.warning("cannot accept connections: %s", exc)
                    await trio.sleep(ACCEPT_PAUSE)
                continue  # otherwise the peer was gone again before we looked
            return TcpStream(stream), tcp_address(remote[0], remote[1])

    async def aclose(self) -> None:
        """Closes the listening socket."""
        await self._listener.aclose()


class TcpTransport:
    """Dials and listens on addresses like /ip4/127.0.0.1/tcp/4001."""

    def can_dial(self, address: Multiaddr) -> bool:
        """Whether `address` is one of TCP and nothing on top."""
        try:
            tcp_endpoint(address)
        except InvalidAddress:
            return False
        return True

    async def dial(self, address: Multiaddr) -> TcpStream:
        """Connects to `address`. Raises `ConnectionLost` with the system's reason."""
        host, port = tcp_endpoint(address)
        try:
            return TcpStream(await trio.open_tcp_stream(host, port))
        except OSError as exc:
            cause: BaseException = exc.__cause__ or exc
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            code = cause.errno if isinstance(cause, OSError) else None
            reason = os.strerror(code) if code is not None and code > 0 else str(exc)
            raise ConnectionLost(f"{address}: {reason}") from exc

    async def listen(self, address: Multiaddr) -> TcpListener:
        """Listens on `address`; port 0 lets the system choose. Raises `AddressInUse`, `InvalidAddress`."""
        host, port = tcp_endpoint(address)
        try:
            listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise AddressInUse(
                f"cannot listen on {address}: {reason}; choose another port or address"
            ) from exc
        for extra in listeners[1:]:  # a name with several addresses: the first serves
            await extra.aclose()
        return TcpListener(listeners[0])


def _reachable(host: str) -> list[str]:
    """The addresses behind a bound `host`: itself, or those of all interfaces when it is a wildcard."""
    ip = ip_address(host)
    if not ip.is_unspecified:
        return [host]
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == family
    ]
    return [text for text in found if not ip_address(text.partition("%")[0]).is_link_local] or [host]
