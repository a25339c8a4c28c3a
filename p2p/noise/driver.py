"""Noise over a byte stream: two functions that run the handshake and return the encrypted stream.

The caller bounds the handshake, once around the whole upgrade, and closes the raw stream when it fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2p.encrypted import EncryptedStream, thread_scratch
from p2p.errors import ConnectionLost
from p2p.keys import KeyPair
from p2p.noise.cipher import Cipher
from p2p.noise.handshake import Handshake, HandshakeCompleted
from p2p.peer_id import PeerId
from p2p.stream import ByteStream

HANDSHAKE_READ_SIZE = 4096  # bytes; a whole handshake has fewer


async def secure_outbound(
    raw: ByteStream, key: KeyPair, expected: PeerId | None, *, muxers: Sequence[str] = ()
) -> EncryptedStream:
    """`raw` encrypted, its other end proven to be `expected` (anybody when None); we dialed.

    `muxers` are offered for early negotiation, the preferred one first. A wrong peer is left before
    it learns our identity. Raises `AuthenticationFailed`, `RemoteProtocolError`, `ConnectionLost`;
    the caller then closes `raw`.
    """
    return await _secure(raw, _handshake(key, muxers, initiator=True, expected=expected))


async def secure_inbound(raw: ByteStream, key: KeyPair, *, muxers: Sequence[str] = ()) -> EncryptedStream:
    """`raw` encrypted, its other end proven to be the stream's `remote_peer`; they dialed.

    Raises `AuthenticationFailed`, `RemoteProtocolError`, `ConnectionLost`; the caller then closes `raw`.
    """
    return await _secure(raw, _handshake(key, muxers, initiator=False, expected=None))


def _handshake(key: KeyPair, muxers: Sequence[str], *, initiator: bool, expected: PeerId | None) -> Handshake:
    return Handshake(
        initiator=initiator,
        key=key,
        static=X25519PrivateKey.generate(),
        ephemeral=X25519PrivateKey.generate(),
        expected=expected,
        muxers=tuple(muxers),
    )


async def _secure(raw: ByteStream, handshake: Handshake) -> EncryptedStream:
    while True:
        if data := handshake.data_to_send():
            await raw.send_all(data)
        if (completed := handshake.next_event()) is not None:
            return _encrypted(raw, completed)
        received = await raw.receive_some(HANDSHAKE_READ_SIZE)
        if not received:
            raise ConnectionLost("the peer closed the connection within the noise handshake")
        handshake.receive_data(received)


def _encrypted(raw: ByteStream, completed: HandshakeCompleted) -> EncryptedStream:
    cipher = Cipher(send_key=completed.send_key, receive_key=completed.receive_key, scratch=thread_scratch())
    return EncryptedStream(
        raw,
        cipher,
        remote_key=completed.remote_key,
        early_muxer=completed.early_muxer,
        surplus=completed.surplus,
    )
