"""A WebSocket connection over a byte stream: moves bytes between the transport and a `Session`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from p2p.errors import ConnectionLost, LocalProtocolError
from p2p.reading import receive_each
from p2p.stream import ByteStream, Data
from p2p.transport.websocket.outgoing import Outgoing
from p2p.transport.websocket.session import Session, State

READ_SIZE = 64 * 1024  # bytes of one read, and so of frames that wait to be handed on


class WebSocketStream:
    """A `ByteStream` in WebSocket messages over another one, which it owns.

    The opening handshake happens in the first operation (`open`, a read or a wait to write), so that
    whoever accepts connections does not wait for a slow stranger.
    """

    def __init__(self, raw: ByteStream, session: Session) -> None:
        self._raw = raw
        self._session = session
        self._outgoing = Outgoing(raw)
        self._received = memoryview(b"")
        self._opening = trio.Lock()
        self._sending = False
        self._closed = False

    async def open(self) -> None:
        """Completes the opening handshake. Raises `ConnectionLost`, `RemoteProtocolError`."""
        if self._session.state is not State.OPENING:
            return
        async with self._opening:  # a reader and a writer may both be first
            while self._session.state is State.OPENING:
                await self._flush()
                await self._fill()
            await self._flush()

    async def receive_some(self, max_bytes: int | None = None) -> Data:
        """At least one byte, or b"" at the end. Raises `ConnectionLost`, `RemoteProtocolError`."""
        if not await self._wait_for_data():
            return b""
        data = self._received[:max_bytes]
        self._received = self._received[len(data) :]
        return data

    async def receive_into(self, buffer: memoryview) -> int:
        """Fills the beginning of `buffer`, with as many messages as are here; 0 at the end.

        Raises `ConnectionLost`, `RemoteProtocolError`.
        """
        if not await self._wait_for_data():
            return 0
        filled = 0
        while filled < len(buffer) and (self._received or self._pull()):
            piece = self._received[: len(buffer) - filled]
            buffer[filled : filled + len(piece)] = piece
            self._received = self._received[len(piece) :]
            filled += len(piece)
        return filled

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        """Calls `handle` with every piece that comes, until the end; each is good during the call only.

        Raises `ConnectionLost`, `RemoteProtocolError`, and what `handle` raises.
        """
        await receive_each(self, handle)

    def send_nowait(self, data: Data) -> int:
        """Sends the beginning of `data`; what is not counted must be offered again, first.

        Raises `ConnectionLost`, and `LocalProtocolError` while another task is in `send_all`.
        """
        self._check_alone()
        return self._send(data)

    def _send(self, data: Data) -> int:
        if self._session.state is State.OPENING:
            return 0
        self._check_sendable()
        self._answer()
        return self._outgoing.send_nowait(data, self._session.encode)

    async def wait_writable(self) -> None:
        """Returns when `send_nowait` is likely to take something.

        Raises `ConnectionLost`, and `RemoteProtocolError` for a bad handshake.
        """
        await self.open()
        self._check_sendable()
        await self._raw.wait_writable()

    async def send_all(self, data: Data) -> None:
        """Sends all of `data`. Raises `ConnectionLost`, and `RemoteProtocolError` for a bad handshake."""
        self._check_alone()
        self._sending = True
        try:
            await self.open()
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            while view := view[self._send(view) :]:
                await self.wait_writable()
        except BaseException:
            self._outgoing.abandon()
            raise
        finally:
            self._sending = False

    async def aclose(self) -> None:
        """Says goodbye if that leaves without waiting, and closes the transport."""
        if not self._closed:
            self._closed = True
            self._session.close()
            self._received = self._received[:0]
            self._answer()
        await self._raw.aclose()

    # Between the transport and the session

    async def _wait_for_data(self) -> bool:
        """Whether `_received` has something; False at the end."""
        await self.open()
        waited = False
        while not self._received and not self._pull():
            if self._closed:
                raise ConnectionLost("the connection is closed")
            if self._session.state is State.ENDED:
                return False
            await self._fill()
            waited = True
        if not waited:
            await trio.lowlevel.checkpoint()
        return True

    async def _fill(self) -> None:
        """One read of the transport into the session."""
        data = await self._raw.receive_some(READ_SIZE)
        if data:
            try:
                self._session.receive_data(data)
            finally:
                self._answer()
        elif self._session.state is State.OPENING:
            raise ConnectionLost("the peer closed the connection during the WebSocket handshake")
        elif self._session.mid_message:
            raise ConnectionLost("the peer closed the connection within a message")
        else:
            self._session.receive_end()

    def _pull(self) -> bool:
        """Whether the session had something to put into `_received`."""
        try:
            data = self._session.next_data()
        finally:
            self._answer()
        if data is None:
            return False
        self._received = memoryview(data)
        return True

    def _answer(self) -> None:
        """Sends what the session has to say, as far as that goes; the latest pong waits in there."""
        with suppress(ConnectionLost):  # a peer may have stopped listening, and what it sent still counts
            if self._outgoing.flush():
                self._outgoing.append(self._session.data_to_send())

    async def _flush(self) -> None:
        """Returns when everything has left."""
        self._answer()
        while not self._outgoing.flush():
            await self._raw.wait_writable()
            self._answer()

    def _check_alone(self) -> None:
        if self._sending:
            raise LocalProtocolError("another task is sending on this connection")

    def _check_sendable(self) -> None:
        if self._session.state is not State.OPEN:
            raise ConnectionLost("the WebSocket connection is closed")
