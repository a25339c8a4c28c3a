"""TLS over a byte stream: the identity of a host, and two functions that secure a stream with it.

The caller bounds the handshake, once around the whole upgrade, and closes the raw stream when it fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from p2p.encrypted import EncryptedStream
from p2p.handshake import run_handshake
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.reading import thread_scratch
from p2p.stream import ByteStream
from p2p.tls.certificate import make_certificate
from p2p.tls.context import make_context
from p2p.tls.handshake import Handshake

CLOCK_SKEW = timedelta(hours=1)  # how far behind a peer's clock may be; go-libp2p's figure
VALIDITY = timedelta(days=100 * 365)  # a certificate lives as long as its process; go-libp2p's figure


class TlsIdentity:
    """What one host shows in TLS: a certificate for a key made now, tied to its identity `key`.

    To be made once per host and used in one thread: making it takes a millisecond, and all its
    connections share a context of OpenSSL.
    """

    def __init__(self, key: KeyPair) -> None:
        certificate_key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        self.certificate = make_certificate(
            key,
            certificate_key,
            serial=x509.random_serial_number(),
            not_before=now - CLOCK_SKEW,
            not_after=now + VALIDITY,
        )
        self.context = make_context(self.certificate, certificate_key)


async def secure_outbound(
    raw: ByteStream, identity: TlsIdentity, expected: PeerId | None, *, muxers: Sequence[str] = ()
) -> EncryptedStream:
    """`raw` encrypted, its other end proven to be `expected` (anybody when None); we dialed.

    A wrong peer is left before it learns our identity. The peer verifies us after this returns: when it
    refuses us, the first read raises `AuthenticationFailed`. Raises `AuthenticationFailed`,
    `NegotiationFailed`, `RemoteProtocolError`, `ConnectionLost`; the caller then closes `raw`.
    """
    handshake = Handshake(
        identity.context,
        client=True,
        now=datetime.now(UTC),
        scratch=thread_scratch(),
        expected=expected,
        muxers=muxers,
    )
    return await _secure(raw, handshake)


async def secure_inbound(
    raw: ByteStream, identity: TlsIdentity, *, muxers: Sequence[str] = ()
) -> EncryptedStream:
    """`raw` encrypted, its other end proven to be the stream's `remote_peer`; they dialed.

    Raises `AuthenticationFailed`, `NegotiationFailed`, `RemoteProtocolError`, `ConnectionLost`; the
    caller then closes `raw`.
    """
    handshake = Handshake(
        identity.context,
        client=False,
        now=datetime.now(UTC),
        scratch=thread_scratch(),
        muxers=muxers,
    )
    return await _secure(raw, handshake)


async def _secure(raw: ByteStream, handshake: Handshake) -> EncryptedStream:
    completed = await run_handshake(raw, handshake)
    return EncryptedStream(
        raw,
        completed.channel,
        remote_key=completed.remote_key,
        early_muxer=completed.early_muxer,
        surplus=completed.surplus,
    )
