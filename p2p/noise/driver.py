"""Noise over a byte stream: two functions that run the handshake and return the encrypted stream.

The caller bounds the handshake, once around the whole upgrade, and closes the raw stream when it fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2p.encrypted import EncryptedStream
from p2p.handshake import run_handshake
from p2p.keys import KeyPair
from p2p.noise.cipher import Cipher
from p2p.noise.handshake import KEY, Handshake
from p2p.peer_id import PeerId
from p2p.reading import thread_scratch
from p2p.stream import ByteStream


async def secure_outbound(
    raw: ByteStream,
    key: KeyPair,
    expected: PeerId | None,
    *,
    muxers: Sequence[str] = (),
    entropy: Callable[[int], bytes] = os.urandom,
) -> EncryptedStream:
    """`raw` encrypted, its other end proven to be `expected` (anybody when None); we dialed.

    `muxers` are offered for early negotiation, the preferred one first. A wrong peer is left before
    it learns our identity. Raises `AuthenticationFailed`, `RemoteProtocolError`, `ConnectionLost`;
    the caller then closes `raw`.
    """
    return await _secure(raw, _handshake(key, muxers, entropy, initiator=True, expected=expected))


async def secure_inbound(
    raw: ByteStream,
    key: KeyPair,
    *,
    muxers: Sequence[str] = (),
    entropy: Callable[[int], bytes] = os.urandom,
) -> EncryptedStream:
    """`raw` encrypted, its other end proven to be the stream's `remote_peer`; they dialed.

    Raises `AuthenticationFailed`, `RemoteProtocolError`, `ConnectionLost`; the caller then closes `raw`.
    """
    return await _secure(raw, _handshake(key, muxers, entropy, initiator=False, expected=None))


def _handshake(
    key: KeyPair,
    muxers: Sequence[str],
    entropy: Callable[[int], bytes],
    *,
    initiator: bool,
    expected: PeerId | None,
) -> Handshake:
    return Handshake(
        initiator=initiator,
        key=key,
        static=X25519PrivateKey.from_private_bytes(entropy(KEY)),
        ephemeral=X25519PrivateKey.from_private_bytes(entropy(KEY)),
        expected=expected,
        muxers=tuple(muxers),
    )


async def _secure(raw: ByteStream, handshake: Handshake) -> EncryptedStream:
    completed = await run_handshake(raw, handshake)
    cipher = Cipher(send_key=completed.send_key, receive_key=completed.receive_key, scratch=thread_scratch())
    return EncryptedStream(
        raw,
        cipher,
        remote_key=completed.remote_key,
        early_muxer=completed.early_muxer,
        surplus=completed.surplus,
    )
