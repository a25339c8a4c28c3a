"""Dials and listens on WebSocket addresses over TCP.

wsproto is imported when somebody dials or listens: a host that only offers WebSocket starts without it.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from p2p.address import tcp_address
from p2p.errors import ConnectionLost, InvalidAddress, P2PError
from p2p.scope import close_forcefully
from p2p.stream import ByteStream, Listener, Transport
from p2p.transport.tcp import TcpTransport
from p2p.transport.websocket.endpoint import Endpoint, parse_endpoint

if TYPE_CHECKING:
    from p2p.transport.websocket.driver import WebSocketStream

MAX_RESOLVED = 8  # addresses of one name that are tried
_FAMILIES = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


class WebSocketListener:
    """A TCP listener whose connections speak WebSocket."""

    def __init__(self, tcp: Listener, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        self._tcp = tcp
        self._endpoint = endpoint
        self._context = context
        self.addresses = [endpoint.on(address) for address in tcp.addresses]

    async def accept(self) -> tuple[WebSocketStream, Multiaddr]:
        """The next connection, before its handshake; the first read or write completes that.

        Raises `ConnectionLost` once the listener is closed.
        """
        raw, remote = await self._tcp.accept()
        return _stream(raw, self._context), self._endpoint.on(remote, named=False)

    async def aclose(self) -> None:
        """Stops listening."""
        await self._tcp.aclose()


class WebSocketTransport:
    """Addresses like /ip4/127.0.0.1/tcp/4002/ws and /dns4/example.org/tcp/443/tls/ws.

    `client_context` decides which servers are believed, by default those whose certificate the
    system's authorities vouch for; `server_context` holds our certificate, for listening on /tls/ws.
    """

    def __init__(
        self,
        *,
        client_context: ssl.SSLContext | None = None,
        server_context: ssl.SSLContext | None = None,
        tcp: Transport | None = None,
    ) -> None:
        self._client_context = client_context
        self._server_context = server_context
        self._tcp: Transport = TcpTransport() if tcp is None else tcp

    def can_dial(self, address: Multiaddr) -> bool:
        """Whether `address` is one of WebSocket."""
        try:
            parse_endpoint(address)
        except InvalidAddress:
            return False
        return True

    async def dial(self, address: Multiaddr) -> WebSocketStream:
        """Connects to `address`, all handshakes done. The caller sets the deadline.

        Raises `ConnectionLost` with the reason, `InvalidAddress`.
        """
        endpoint = parse_endpoint(address)
        raw = await self._connect(endpoint)
        try:
            context = self._verifying_context() if endpoint.secure else None
            stream = _stream(raw, context, endpoint)
            await stream.open()
        except BaseException as exc:
            await close_forcefully(raw)
            if isinstance(exc, P2PError):
                raise ConnectionLost(f"{address}: {exc}") from exc
            raise
        return stream

    async def listen(self, address: Multiaddr) -> WebSocketListener:
        """Listens on `address`; port 0 lets the system choose. Raises `AddressInUse`, `InvalidAddress`."""
        endpoint = parse_endpoint(address)
        if endpoint.secure and self._server_context is None:
            raise InvalidAddress(
                f"cannot listen on {address}: that takes a certificate; give WebSocketTransport a "
                "server_context (an ssl.SSLContext that has loaded one), or listen on /ws behind a proxy "
                "that speaks TLS"
            )
        context = self._server_context if endpoint.secure else None
        return WebSocketListener(await self._tcp.listen(endpoint.tcp), endpoint, context)

    async def _connect(self, endpoint: Endpoint) -> ByteStream:
        """A TCP connection to `endpoint`, to one after another of its addresses when it has a name."""
        if self._tcp.can_dial(endpoint.tcp):
            return await self._tcp.dial(endpoint.tcp)
        reasons: list[str] = []
        for address in await _resolve(endpoint):
            try:
                return await self._tcp.dial(address)
            except ConnectionLost as exc:
                reasons.append(str(exc))
        raise ConnectionLost("; ".join(reasons))

    def _verifying_context(self) -> ssl.SSLContext:
        if self._client_context is None:
            self._client_context = ssl.create_default_context()
        return self._client_context


async def _resolve(endpoint: Endpoint) -> list[Multiaddr]:
    """The TCP addresses behind the name of `endpoint`, at most `MAX_RESOLVED`.

    Hosts resolve names before they dial; this is for a transport that is used by itself.
    """
    family = _FAMILIES[str(endpoint.tcp).split("/")[1]]
    try:
        found = await trio.socket.getaddrinfo(
            endpoint.host, endpoint.port, family=family, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as exc:
        raise ConnectionLost(f"{endpoint.tcp}: cannot resolve {endpoint.host}: {exc}") from exc
    return [tcp_address(str(sockaddr[0]), endpoint.port) for *_, sockaddr in found[:MAX_RESOLVED]]


def _stream(
    raw: ByteStream, context: ssl.SSLContext | None, server: Endpoint | None = None
) -> WebSocketStream:
    """WebSocket over `raw`, within TLS when there is a `context`; a client's when it goes to `server`."""
    from p2p.transport.websocket.driver import WebSocketStream
    from p2p.transport.websocket.session import Session

    if context is not None:
        from p2p.transport.websocket.tls_layer import TlsLayer

        raw = TlsLayer(raw, context, None if server is None else server.server_name)
    return WebSocketStream(raw, Session(None if server is None else server.authority))
