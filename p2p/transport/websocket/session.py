"""A WebSocket connection as one byte stream, without I/O.

    OPENING ── the heads are exchanged ──→ OPEN ── close frame ──→ ENDED
       └── refused ──→ FAILED ←── broken rules, text ──┘

Binary messages are pieces of one stream: their borders mean nothing, so a message is handed on as it
comes and is never held whole. Pings are answered by the latest pong only, as RFC 6455 5.5.3 allows, so
that a peer which does not read costs one pong.
Source: RFC 6455; libp2p/specs websockets/README.md.
"""

from __future__ import annotations

from enum import Enum, auto

from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from p2p.errors import RemoteProtocolError
from p2p.stream import Data
from p2p.transport.websocket.handshake import Handshake


class State(Enum):
    """Where a session is; see the drawing above."""

    OPENING = auto()
    OPEN = auto()
    ENDED = auto()
    FAILED = auto()


class Session:
    """One end: a client when it has the `authority` (host and port) that it asks for."""

    def __init__(self, authority: str | None = None) -> None:
        handshake = Handshake(authority)
        self._outgoing = handshake.data_to_send()
        self._handshake: Handshake | None = handshake
        self._connection: Connection | None = None
        self._pong: Pong | None = None
        self._failure = ""
        self.state = State.OPENING
        self.mid_message = False  # an end of the bytes here cuts a message

    def receive_data(self, data: Data) -> None:
        """Takes what came, for `next_data`. Raises `RemoteProtocolError` for a bad handshake."""
        if self._handshake is not None:
            self._receive_head(self._handshake, data)
        elif self.state is State.OPEN and self._connection is not None:
            self._connection.receive_data(bytes(data))

    def _receive_head(self, handshake: Handshake, data: Data) -> None:
        try:
            self._connection = handshake.receive_data(data)
            if self._connection is not None:
                self.state = State.OPEN
        except RemoteProtocolError as exc:
            self.state, self._failure = State.FAILED, str(exc)
            raise
        finally:
            if self.state is not State.OPENING:
                self._handshake = None  # several KiB that an idle connection can do without
                self._outgoing += handshake.data_to_send()

    def receive_end(self) -> None:
        """The peer's bytes are over, with or without a close frame."""
        if self.state is State.OPEN:
            self.state = State.ENDED

    def next_data(self) -> bytes | None:
        """The next bytes of the stream, or None when it needs more, or is at its end.

        Raises `RemoteProtocolError`, again and again once it did.
        """
        while self.state is State.OPEN and self._connection is not None:
            event = next(self._connection.events(), None)
            match event:
                case None:
                    return None
                case BytesMessage():
                    self.mid_message = not (event.frame_finished and event.message_finished)
                    if event.data:
                        return bytes(event.data)
                case Ping():
                    self._pong = event.response()
                case TextMessage():
                    self._fail("a text message", CloseReason.UNSUPPORTED_DATA)
                case CloseConnection() if self._connection.state is ConnectionState.REMOTE_CLOSING:
                    self._outgoing += self._connection.send(event.response())
                    self.state = State.ENDED
                case CloseConnection():  # wsproto's way to say that the peer broke the rules
                    self._fail(event.reason or "malformed frame", event.code)
        if self.state is State.FAILED:
            raise RemoteProtocolError(self._failure)
        return None

    def data_to_send(self) -> bytes:
        """What must be sent besides the stream's bytes: our part of the handshake, a pong, a close."""
        data, self._outgoing = self._outgoing, b""
        if self._pong is not None and self.state is State.OPEN and self._connection is not None:
            data += self._connection.send(self._pong)
            self._pong = None
        return data

    def encode(self, data: Data) -> bytes:
        """`data` as one binary message; only while the session is open."""
        assert self._connection is not None
        return self._connection.send(BytesMessage(data=bytes(data)))

    def close(self) -> None:
        """Says goodbye, if there is still somebody to say it to: see `data_to_send`."""
        if self.state is State.OPEN and self._connection is not None:
            self._outgoing += self._connection.send(CloseConnection(code=CloseReason.NORMAL_CLOSURE))
        self.state, self._handshake = State.ENDED, None

    def _fail(self, reason: str, code: int) -> None:
        assert self._connection is not None
        self.state, self._failure = State.FAILED, f"WebSocket: {reason}"
        self._outgoing += self._connection.send(CloseConnection(code=code))
