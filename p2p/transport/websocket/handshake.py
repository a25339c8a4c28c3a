"""The opening handshake: one HTTP/1.1 request and the answer that switches to WebSocket, without I/O.

The head is cut off here, so that it is bounded, and so that bytes behind it are frames already.
Source: RFC 6455, section 4; libp2p/specs websockets/README.md.
"""

from __future__ import annotations

from typing import NoReturn

import h11
import wsproto.utilities
from wsproto.connection import Connection, ConnectionType
from wsproto.events import AcceptConnection, RejectConnection, Request
from wsproto.handshake import H11Handshake

from p2p.errors import InvalidAddress, RemoteProtocolError
from p2p.stream import Data

MAX_HEAD = 16 * 1024  # bytes of a request or answer up to its empty line; h11's own default
_END = b"\r\n\r\n"
_FIRST_PRINTABLE = (
    0x21  # HTTP starts with a letter; libp2p without HTTP does not, and gets its answer at once
)


class Handshake:
    """One end of the opening handshake; a client when it has the `authority` that it asks for.

    Any host and any path are served: who is at the other end is proven above, by noise or TLS.
    """

    def __init__(self, authority: str | None = None) -> None:
        self._client = authority is not None
        self._http = H11Handshake(ConnectionType.CLIENT if self._client else ConnectionType.SERVER)
        self._head = bytearray()
        self._outgoing = b""
        if authority is not None:
            try:
                self._outgoing = self._http.send(Request(host=authority, target="/"))
            except (UnicodeError, h11.LocalProtocolError) as exc:
                raise InvalidAddress(f"{authority!r} is not a host that HTTP can name") from exc

    def data_to_send(self) -> bytes:
        """Our request or answer, once."""
        data, self._outgoing = self._outgoing, b""
        return data

    def receive_data(self, data: Data) -> Connection | None:
        """The connection for frames once the peer's head is whole and good.

        Raises `RemoteProtocolError`; a server has a refusal to send then.
        """
        searched = max(0, len(self._head) - len(_END) + 1)
        self._head += data
        end = self._head.find(_END, searched)
        if self._head and self._head[0] < _FIRST_PRINTABLE:
            self._refuse("not HTTP", 400)
        if (end if end >= 0 else len(self._head)) > MAX_HEAD:
            self._refuse(f"HTTP headers over {MAX_HEAD} bytes", 431)
        if end < 0:
            return None
        surplus = bytes(self._head[end + len(_END) :])
        connection = self._open(bytes(self._head[: end + len(_END)]))
        connection.receive_data(surplus)
        return connection

    def _open(self, head: bytes) -> Connection:
        try:
            self._http.receive_data(head)
            for event in self._http.events():
                if isinstance(event, Request):  # extensions, such as compression, are left out of the answer
                    self._outgoing = self._http.send(AcceptConnection())
                elif isinstance(event, RejectConnection):
                    self._refuse(f"the server answers with status {event.status_code}", event.status_code)
        except wsproto.utilities.RemoteProtocolError as exc:
            hint = exc.event_hint
            self._refuse(str(exc), hint.status_code if isinstance(hint, RejectConnection) else 400, exc)
        except (UnicodeError, h11.LocalProtocolError) as exc:  # in headers that h11 lets through
            self._refuse("unreadable HTTP headers", 400, exc)
        if self._http.connection is None:
            self._refuse("the HTTP head is not of a WebSocket handshake", 400)
        return self._http.connection

    def _refuse(self, reason: str, status: int, cause: Exception | None = None) -> NoReturn:
        """Raises; a server has its answer ready then. Status 426 names the version that we speak."""
        if not self._client:
            self._outgoing = (
                f"HTTP/1.1 {status} WebSocket only\r\nSec-WebSocket-Version: 13\r\n"
                "Connection: close\r\nContent-Length: 0\r\n\r\n"
            ).encode("ascii")
        raise RemoteProtocolError(f"no WebSocket: {reason}") from cause
