"""What the tests of TLS share: identities and contexts that are made once, bad certificates, two machines."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.scratch import Scratch
from p2p.tls.certificate import EXTENSION, SIGNATURE_PREFIX, _encode_identity, make_certificate
from p2p.tls.channel import drain
from p2p.tls.context import make_context
from p2p.tls.handshake import Handshake, HandshakeCompleted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE, AFTER = NOW - timedelta(hours=1), NOW + timedelta(days=36500)
YAMUX, MPLEX = "/yamux/1.0.0", "/mplex/6.7.0"
ALICE = KeyPair.from_seed(b"a" * 32)
BOB = KeyPair.from_seed(b"b" * 32)
ALICE_ID = PeerId.from_public_key(ALICE.public)
BOB_ID = PeerId.from_public_key(BOB.public)
CERTIFICATE_KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
CertificateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def certificate(
    identity: KeyPair = BOB,
    *,
    not_before: datetime = BEFORE,
    not_after: datetime = AFTER,
    key: CertificateKey = CERTIFICATE_KEY,
    signer: CertificateKey | None = None,
    algorithm: hashes.SHA256 | None = hashes.SHA256(),  # noqa: B008
    identity_value: bytes | None = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    with_identity: bool = True,
    critical: bool = False,
) -> x509.Certificate:
    """A certificate as `make_certificate` makes it, but for what is said."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    value = _encode_identity(identity.public.encode(), identity.sign(SIGNATURE_PREFIX + spki))
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    if with_identity:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(EXTENSION, identity_value or value), critical
        )
    return builder.sign(signer or key, algorithm)


def der(made: x509.Certificate) -> bytes:
    return made.public_bytes(Encoding.DER)


@cache
def context_of(identity: KeyPair) -> SSL.Context:
    made = make_certificate(identity, CERTIFICATE_KEY, serial=1, not_before=BEFORE, not_after=AFTER)
    return make_context(made, CERTIFICATE_KEY)


def make_client(
    context: SSL.Context | None = None,
    *,
    expected: PeerId | None = None,
    muxers: tuple[str, ...] = (YAMUX,),
    now: datetime = NOW,
) -> Handshake:
    """Alice's side, who dials."""
    return Handshake(
        context or context_of(ALICE),
        client=True,
        now=now,
        scratch=Scratch(),
        expected=expected,
        muxers=muxers,
    )


def make_server(
    context: SSL.Context | None = None, *, muxers: tuple[str, ...] = (YAMUX,), now: datetime = NOW
) -> Handshake:
    """Bob's side, who listens."""
    return Handshake(context or context_of(BOB), client=False, now=now, scratch=Scratch(), muxers=muxers)


def completed(machine: Handshake) -> HandshakeCompleted:
    event = machine.next_event()
    assert event is not None, "the handshake is not done"
    return event


def shake_hands(client: Handshake, server: Handshake) -> tuple[HandshakeCompleted, HandshakeCompleted]:
    """Both outcomes, when all goes well; the server's tickets are in the client's surplus."""
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    server.receive_data(client.data_to_send())
    ours, theirs = completed(client), completed(server)
    assert not ours.channel.open(memoryview(server.data_to_send()))
    return ours, theirs


class Stranger:
    """Somebody who uses OpenSSL as he likes: what an attacker or another implementation does."""

    def __init__(self, context: SSL.Context, *, client: bool, alpn: tuple[bytes, ...] = (b"libp2p",)) -> None:
        self.connection = SSL.Connection(context)
        if client:
            if alpn:
                self.connection.set_alpn_protos(list(alpn))
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()

    def step(self, data: bytes = b"") -> bytes:
        """Takes `data` and goes on; what he sends. Raises `SSL.Error`."""
        if data:
            self.connection.bio_write(data)
        with suppress(SSL.WantReadError):
            self.connection.do_handshake()
        return drain(self.connection)


def stranger_context(
    made: x509.Certificate | None = None,
    key: CertificateKey = CERTIFICATE_KEY,
    *,
    alpn: bytes | None = b"libp2p",
    maximum: int = SSL.TLS1_3_VERSION,
) -> SSL.Context:
    """Asks for no certificate unless told to, and checks nothing."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(maximum)
    if made is not None:
        context.use_certificate(made)
        context.use_privatekey(key)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if alpn is not None:
        context.set_alpn_select_callback(lambda *_: alpn)
    return context
