"""TLS as web servers speak it, over a byte stream: what makes /ws into /wss.

Nothing in libp2p relies on it; it is there for proxies and browsers. Peers prove their identity above.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress

import trio

from p2p.errors import AuthenticationFailed, ConnectionLost, InvalidAddress, RemoteProtocolError
from p2p.reading import receive_each
from p2p.stream import ByteStream, Data
from p2p.transport.websocket.outgoing import Outgoing

READ_SIZE = 64 * 1024  # bytes of one read, and so of records that wait to be decrypted
MAX_RECORD = 16 * 1024  # bytes of plaintext; RFC 8446, section 5.1
MAX_UNREAD = 256 * 1024  # bytes of our answers (to key updates) that a peer may leave unread


class TlsLayer:
    """A `ByteStream` encrypted over another one, which it owns; a client when it has `server_name`.

    The handshake happens in the first operation.
    """

    def __init__(self, raw: ByteStream, context: ssl.SSLContext, server_name: str | None = None) -> None:
        self._raw = raw
        self._outgoing = Outgoing(raw)
        self._incoming = ssl.MemoryBIO()
        self._records = ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(
                self._incoming, self._records, server_side=server_name is None, server_hostname=server_name
            )
        except ValueError as exc:
            raise InvalidAddress(f"{server_name!r} is not a host that TLS can name") from exc
        self._opening = trio.Lock()
        self._open = False

    async def open(self) -> None:
        """Completes the handshake.

        Raises `ConnectionLost`, `RemoteProtocolError`, and `AuthenticationFailed` for a certificate
        that does not prove the server's name.
        """
        if self._open:
            return
        async with self._opening:
            while not self._open:
                done = self._shake_hands()
                try:
                    while not self._outgoing.flush():
                        await self._raw.wait_writable()
                except ConnectionLost:
                    if not done:  # otherwise the peer spoke and left: what it said can still be read
                        raise
                if not done:
                    await self._fill()
                self._open = done

    async def receive_some(self, max_bytes: int | None = None) -> Data:
        """At least one byte, or b"" at the end.

        Raises `ConnectionLost`, also when the peer left without a goodbye, and `RemoteProtocolError`.
        """
        buffer = memoryview(bytearray(min(max_bytes or READ_SIZE, READ_SIZE)))
        return buffer[: await self.receive_into(buffer)]

    async def receive_into(self, buffer: memoryview) -> int:
        """Fills the beginning of `buffer`, with as many records as are here; 0 at the end.

        Raises as `receive_some` does.
        """
        await self.open()
        waited = False
        while (count := self._decrypt(buffer)) is None:
            await self._fill()
            waited = True
        if not waited:
            await trio.lowlevel.checkpoint()
        return count

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        """Calls `handle` with every piece that comes, until the end; each is good during the call only.

        Raises `ConnectionLost`, `RemoteProtocolError`, and what `handle` raises.
        """
        await receive_each(self, handle)

    def send_nowait(self, data: Data) -> int:
        """Sends the beginning of `data`; what is not counted must be offered again, first.

        Raises `ConnectionLost`.
        """
        return self._outgoing.send_nowait(data, self._encrypt) if self._open else 0

    async def wait_writable(self) -> None:
        """Returns when `send_nowait` is likely to take something. Raises as `open` does."""
        await self.open()
        await self._raw.wait_writable()

    async def send_all(self, data: Data) -> None:
        """Sends all of `data`. Raises as `open` does."""
        await self.open()
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        try:
            while view := view[self.send_nowait(view) :]:
                await self._raw.wait_writable()
        except BaseException:
            self._outgoing.abandon()
            raise

    async def aclose(self) -> None:
        """Says goodbye if that leaves without waiting, and closes the transport."""
        with suppress(ssl.SSLError, ConnectionLost):
            try:
                self._tls.unwrap()
            finally:
                self._outgoing.append(self._records.read())
        await self._raw.aclose()

    def _shake_hands(self) -> bool:
        """Whether the handshake is complete on our side; what we have to say waits in `_outgoing`."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as exc:
            raise AuthenticationFailed(f"certificate refused: {exc.verify_message}") from exc
        except ssl.SSLError as exc:
            raise RemoteProtocolError(f"TLS: {exc.reason or exc}") from exc
        finally:
            with suppress(ConnectionLost):  # the next operation meets it, and this one may know more
                self._outgoing.append(self._records.read())
        return True

    async def _fill(self) -> None:
        """One read of the transport for the next try to decrypt."""
        data = await self._raw.receive_some(READ_SIZE)
        if not data:
            raise ConnectionLost("the peer closed the connection without TLS's goodbye")
        self._incoming.write(data)

    def _decrypt(self, buffer: memoryview) -> int | None:
        """How many bytes were put into `buffer`, 0 at the end, or None when more is needed."""
        filled = 0
        try:
            while filled < len(buffer):
                data = self._tls.read(min(len(buffer) - filled, MAX_RECORD))
                if not data:
                    break
                buffer[filled : filled + len(data)] = data
                filled += len(data)
        except ssl.SSLWantReadError:
            return filled or None
        except ssl.SSLError as exc:
            if not filled:
                raise RemoteProtocolError(f"TLS: {exc.reason or exc}") from exc
        finally:
            self._answer()
        return filled

    def _answer(self) -> None:
        """Sends what TLS itself has to say, as far as that goes."""
        with suppress(ConnectionLost):  # a peer may have stopped listening, and what it sent still counts
            self._outgoing.append(self._records.read())
        if len(self._outgoing) > MAX_UNREAD:
            raise RemoteProtocolError(f"the peer left {MAX_UNREAD} bytes of TLS's answers unread")

    def _encrypt(self, data: Data) -> bytes:
        try:
            self._tls.write(data)
        except ssl.SSLError as exc:
            raise ConnectionLost(f"TLS: {exc.reason or exc}") from exc
        return self._records.read()
