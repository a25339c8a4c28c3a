"""TCP: /ip4 and /ip6 addresses on non-blocking sockets. Names are resolved before they come here."""

from __future__ import annotations

import errno
import logging
import os
import socket
from ipaddress import ip_address

import trio
from multiaddr import Multiaddr

from p2p.address import tcp_address, tcp_endpoint
from p2p.errors import AddressInUse, ConnectionLost, InvalidAddress
from p2p.transport.sockets import SocketStream, close_socket

logger = logging.getLogger(__name__)

BACKLOG = 128  # connections the kernel holds before accept
ACCEPT_PAUSE = 0.1  # seconds without accepting when the process is out of descriptors, as trio does
OUT_OF_CAPACITY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


class TcpStream(SocketStream):
    """A `ByteStream` over one TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # writers combine what belongs together
        super().__init__(sock)


class TcpListener:
    """One listening socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        host, port = sock.getsockname()[:2]
        self.addresses = [tcp_address(ip, port) for ip in _reachable(host)]

    async def accept(self) -> tuple[TcpStream, Multiaddr]:
        """The next connection and where it comes from. Raises `ConnectionLost` once this is closed."""
        while True:
            await trio.lowlevel.checkpoint()
            if self._socket.fileno() < 0:
                raise ConnectionLost("the listener is closed")
            try:
                sock, remote = self._accept()
            except BlockingIOError:
                await self._wait()
            except OSError as exc:
                if exc.errno in OUT_OF_CAPACITY:
                    logger.warning("cannot accept connections: %s", exc)
                    await trio.sleep(ACCEPT_PAUSE)
                # otherwise the peer was gone again before we looked
            else:
                return sock, tcp_address(remote[0], remote[1])

    def _accept(self) -> tuple[TcpStream, tuple[str, int]]:
        sock, remote = self._socket.accept()
        try:
            return TcpStream(sock), remote
        except OSError:
            sock.close()
            raise

    async def _wait(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._socket)
        except trio.ClosedResourceError as exc:
            raise ConnectionLost("the listener is closed") from exc

    async def aclose(self) -> None:
        """Closes the listening socket."""
        close_socket(self._socket)
        await trio.lowlevel.checkpoint()


class TcpTransport:
    """Dials and listens on addresses like /ip4/127.0.0.1/tcp/4001."""

    def can_dial(self, address: Multiaddr) -> bool:
        """Whether `address` is one of TCP over IP and nothing on top."""
        try:
            _endpoint(address)
        except InvalidAddress:
            return False
        return True

    async def dial(self, address: Multiaddr) -> TcpStream:
        """Connects to `address`. Raises `ConnectionLost` with the system's reason, `InvalidAddress`."""
        family, endpoint = _endpoint(address)
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                stream = TcpStream(sock)
                await _connect(sock, endpoint)
            except BaseException:
                close_socket(sock)
                raise
        except OSError as exc:
            reason = os.strerror(exc.errno) if exc.errno else str(exc)
            raise ConnectionLost(f"{address}: {reason}") from exc
        return stream

    async def listen(self, address: Multiaddr) -> TcpListener:
        """Listens on `address`; port 0 lets the system choose. Raises `AddressInUse`, `InvalidAddress`.

        /ip6/:: takes IPv6 only, so that it and /ip4/0.0.0.0 may share a port.
        """
        family, endpoint = _endpoint(address)
        await trio.lowlevel.checkpoint()
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                _listen(sock, endpoint)
            except OSError:
                sock.close()
                raise
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise AddressInUse(
                f"cannot listen on {address}: {reason}; choose another port or address"
            ) from exc
        return TcpListener(sock)


def _endpoint(address: Multiaddr) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The family and the (host, port) of `address`. Raises `InvalidAddress`, also for a name."""
    host, port = tcp_endpoint(address)
    try:
        version = ip_address(host).version
    except ValueError as exc:
        raise InvalidAddress(f"cannot use {address}: it has a name where an IP address must be") from exc
    return (socket.AF_INET if version == 4 else socket.AF_INET6), (host, port)


async def _connect(sock: socket.socket, endpoint: tuple[str, int]) -> None:
    try:
        sock.connect(endpoint)
    except BlockingIOError:
        await trio.lowlevel.wait_writable(sock)
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code)) from None


def _listen(sock: socket.socket, endpoint: tuple[str, int]) -> None:
    sock.setblocking(False)
    # On POSIX a port is free again at once after a restart; elsewhere the option would share it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(endpoint)
    sock.listen(BACKLOG)


def _reachable(host: str) -> list[str]:
    """The addresses behind a bound `host`: itself, or those of all interfaces when it is a wildcard."""
    ip = ip_address(host)
    if not ip.is_unspecified:
        return [host]
    import psutil  # a megabyte, for those who listen on a wildcard address

    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == family
    ]
    return [text for text in found if not ip_address(text.partition("%")[0]).is_link_local] or [host]
