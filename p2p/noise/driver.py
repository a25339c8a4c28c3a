"""Noise over a byte stream: two functions that secure it, and the stream they return.

The caller bounds the handshake, once around the whole upgrade, and closes the raw stream when it fails.
"""

from __future__ import annotations

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2p.errors import ConnectionLost, LocalProtocolError
from p2p.keys import KeyPair, PublicKey
from p2p.noise.cipher import Cipher
from p2p.noise.handshake import Handshake, HandshakeCompleted
from p2p.noise.wire import HEADER, MAX_MESSAGE, MAX_PLAINTEXT
from p2p.peer_id import PeerId
from p2p.stream import ByteStream, Data

READ_SIZE = 4 * (
    HEADER + MAX_MESSAGE
)  # bytes; four full frames: few system calls, and most frames arrive whole
SEND_SIZE = (
    16 * MAX_PLAINTEXT
)  # bytes of plaintext; sixteen full frames: bounds the ciphertext that a write holds
HANDSHAKE_READ_SIZE = 4096  # bytes; a whole handshake has fewer


async def secure_outbound(raw: ByteStream, key: KeyPair, expected: PeerId | None) -> NoiseStream:
    """`raw` encrypted, its other end proven to be `expected` (anybody when None); we dialed.

    A wrong peer is left before it learns our identity. Raises `AuthenticationFailed`,
    `RemoteProtocolError`, `ConnectionLost`; the caller then closes `raw`.
    """
    return await _secure(raw, key, initiator=True, expected=expected)


async def secure_inbound(raw: ByteStream, key: KeyPair) -> NoiseStream:
    """`raw` encrypted, its other end proven to be the stream's `remote_peer`; they dialed.

    Raises `AuthenticationFailed`, `RemoteProtocolError`, `ConnectionLost`; the caller then closes `raw`.
    """
    return await _secure(raw, key, initiator=False, expected=None)


async def _secure(raw: ByteStream, key: KeyPair, *, initiator: bool, expected: PeerId | None) -> NoiseStream:
    handshake = Handshake(
        initiator=initiator,
        key=key,
        static=X25519PrivateKey.generate(),
        ephemeral=X25519PrivateKey.generate(),
        expected=expected,
    )
    while True:
        if data := handshake.data_to_send():
            await raw.send_all(data)
        if (completed := handshake.next_event()) is not None:
            return NoiseStream(raw, completed)
        received = await raw.receive_some(HANDSHAKE_READ_SIZE)
        if not received:
            raise ConnectionLost("the peer closed the connection within the noise handshake")
        handshake.receive_data(received)


class NoiseStream:
    """An encrypted stream to a proven peer: one task reads, one task writes."""

    def __init__(self, raw: ByteStream, completed: HandshakeCompleted) -> None:
        self._raw = raw
        self._remote_key = completed.remote_key
        self._remote_peer = completed.remote_peer
        self._cipher = Cipher(send_key=completed.send_key, receive_key=completed.receive_key)
        self._plaintext = memoryview(self._cipher.receive_data(completed.surplus))  # not yet taken
        self._sending = False
        self._broken = False

    @property
    def remote_peer(self) -> PeerId:
        """Who is at the other end."""
        return self._remote_peer

    @property
    def remote_key(self) -> PublicKey:
        """The identity key that the other end proved to hold."""
        return self._remote_key

    async def receive_some(self, max_bytes: int | None = None) -> Data:
        """At least one byte and at most `max_bytes` (all that is there when None), or b"" at the end.

        Raises `AuthenticationFailed` when somebody changed the stream, `RemoteProtocolError`, and
        `ConnectionLost` also when the stream ends within a frame.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}, it must be 1 or more")
        if self._plaintext:
            await trio.lowlevel.checkpoint()
        while not self._plaintext:
            data = await self._raw.receive_some(READ_SIZE)
            if not data:
                if self._cipher.mid_frame:
                    raise ConnectionLost("the connection ended within a noise frame")
                return b""
            self._plaintext = memoryview(self._cipher.receive_data(data))
        taken = self._plaintext[:max_bytes]
        self._plaintext = self._plaintext[len(taken) :]
        return taken

    async def send_all(self, data: Data) -> None:
        """Sends `data` in full frames, several a write.

        Raises `ConnectionLost`, also when an earlier send was cancelled: half a frame may be out, so
        nothing can follow. Raises `LocalProtocolError` while another task is sending.
        """
        if self._sending:
            raise LocalProtocolError("another task is sending on this connection")
        if self._broken:
            raise ConnectionLost("an earlier send on this connection did not finish")
        self._sending = True
        self._broken = True  # until all is out
        try:
            await self._send(memoryview(data))
            self._broken = False
        finally:
            self._sending = False

    async def _send(self, plain: memoryview) -> None:
        if not plain:
            await trio.lowlevel.checkpoint()
        for at in range(0, len(plain), SEND_SIZE):
            await self._raw.send_all(self._cipher.encrypt(plain[at : at + SEND_SIZE]))

    async def aclose(self) -> None:
        """Closes the raw stream; there is no farewell in Noise."""
        await self._raw.aclose()
