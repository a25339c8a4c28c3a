"""A byte stream of a private network: everything on it is under the key stream of the pre-shared key.

    nonce (24 bytes, in the clear) ‖ XSalsa20(key, nonce) over all that follows          each way

Who has another key, or none, hears noise and says noise: the next layer ends that within the deadline
that the caller has set over the whole upgrade.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2p.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from p2p.pnet.cipher import NONCE_SIZE, XSalsa20
from p2p.pnet.wire import PreSharedKey
from p2p.reading import receive_each
from p2p.stream import ByteStream, Data

CHUNK = 1 << 17  # bytes encrypted ahead of what the socket takes: what a full socket makes us do again


async def protect(raw: ByteStream, psk: PreSharedKey, nonce: bytes) -> PrivateStream:
    """`raw` within the private network of `psk`; `nonce` must be 24 fresh random bytes.

    Sends our nonce; the peer's is read with the first bytes, so no round trip is spent on it.
    Raises `ConnectionLost`; the caller then closes `raw`.
    """
    if len(nonce) != NONCE_SIZE:
        raise LocalProtocolError(f"the nonce of a private network has {NONCE_SIZE} bytes, not {len(nonce)}")
    stream = PrivateStream(raw, psk, nonce)
    await raw.send_all(nonce)
    return stream


class PrivateStream:
    """A `ByteStream` whose bytes are under the key stream of a private network: one reader, one writer."""

    def __init__(self, raw: ByteStream, psk: PreSharedKey, nonce: bytes) -> None:
        self._raw = raw
        self._psk = psk
        self._nonce = nonce
        self._outbound = XSalsa20(psk.secret, nonce)
        self._inbound: XSalsa20 | None = None  # until the peer's nonce is there
        self._remote_nonce = b""  # as much of it as came

    async def receive_some(self, max_bytes: int | None = None) -> Data:
        """At least one byte, or b"" at the end. Raises `ConnectionLost`, `RemoteProtocolError`."""
        cipher = await self._inbound_cipher()
        if cipher is None:
            return b""
        return cipher.apply(await self._raw.receive_some(max_bytes))

    async def receive_into(self, buffer: memoryview) -> int:
        """How many bytes came into the beginning of `buffer`, 0 at the end.

        Raises `ConnectionLost`, `RemoteProtocolError`.
        """
        cipher = await self._inbound_cipher()
        if cipher is None:
            return 0
        size = await self._raw.receive_into(buffer)
        cipher.apply_in_place(buffer[:size])
        return size

    async def _inbound_cipher(self) -> XSalsa20 | None:
        """The peer's key stream; reads its nonce first. None when the peer left without a word."""
        if self._inbound is None:
            while missing := NONCE_SIZE - len(self._remote_nonce):
                received = await self._raw.receive_some(missing)
                if not received and not self._remote_nonce:
                    return None
                if not received:
                    raise ConnectionLost("the connection ended within the nonce of a private network")
                self._remote_nonce += received
            if self._remote_nonce == self._nonce:  # somebody without the key says what we say
                raise RemoteProtocolError("the peer echoes our nonce")
            self._inbound = XSalsa20(self._psk.secret, self._remote_nonce)
        return self._inbound

    async def receive_each(self, handle: Callable[[memoryview], None]) -> None:
        """Calls `handle` with every piece that comes, until the end; each is good during the call only.

        Raises `ConnectionLost`, `RemoteProtocolError`, and what `handle` raises.
        """
        await receive_each(self, handle)

    def send_nowait(self, data: Data) -> int:
        """How many bytes of the beginning of `data` left without waiting. Raises `ConnectionLost`."""
        plain = memoryview(data)
        sent = 0
        while sent < len(plain):
            chunk = plain[sent : sent + CHUNK]
            sealed = memoryview(self._outbound.apply(chunk))
            taken = self._raw.send_nowait(sealed)
            sent += taken
            if taken < len(sealed):
                self._outbound.give_back(chunk[taken:], sealed[taken:])
                break
        return sent

    async def wait_writable(self) -> None:
        """Returns when `send_nowait` is likely to take something. Raises `ConnectionLost`."""
        await self._raw.wait_writable()

    async def send_all(self, data: Data) -> None:
        """Sends all of `data`. Raises `ConnectionLost`; a cancellation leaves the key streams in step."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest := rest[self.send_nowait(rest) :]:
            await self.wait_writable()

    async def aclose(self) -> None:
        """Closes the raw stream."""
        await self._raw.aclose()
