"""What OpenSSL is told: once per host in a context, and per handshake in a `PeerCheck`.

OpenSSL's own verification is switched to asking for a certificate, insisting on one, and accepting any:
it knows authorities, and libp2p has none. The two callbacks of a context find the `PeerCheck` of their
connection in its app data, and there libp2p's rules decide. No callback ever ran means nobody was
verified, and `Handshake` then fails.
Source: libp2p/specs tls/tls.md; connections/inlined-muxer-negotiation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from p2p.errors import AuthenticationFailed, NegotiationFailed
from p2p.keys import PublicKey
from p2p.peer_id import PeerId
from p2p.tls.certificate import verify_certificate

LIBP2P = b"libp2p"  # the ALPN protocol that says: negotiate the muxer later
# All three of TLS 1.3 are good; this one is the fastest wherever processors have AES instructions.
CIPHER_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384"
_PARTIAL_WRITE = 0x1  # SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets and does not export


class PeerCheck:
    """What one handshake asks of its peer, and what was found."""

    def __init__(self, *, expected: PeerId | None, muxers: Sequence[str], now: datetime) -> None:
        self.protocols = [*(muxer.encode() for muxer in muxers), LIBP2P]  # ALPN, the best first
        self.verified: tuple[PublicKey, PeerId] | None = None
        self.failure: AuthenticationFailed | None = None
        self._expected = expected
        self._now = now

    def accepts(self, der: bytes) -> bool:
        """Whether the certificate `der` is that of the peer we want; remembers why not."""
        try:
            key, peer = verify_certificate(der, self._now)
            if self._expected is not None and peer != self._expected:
                raise AuthenticationFailed(f"reached {peer} instead of {self._expected}")
        except AuthenticationFailed as exc:
            self.failure = exc
            return False
        self.verified = key, peer
        return True

    def choose(self, theirs: Sequence[bytes]) -> bytes:
        """The protocol for a client that offers `theirs`, by its order. Raises `NegotiationFailed`."""
        for protocol in theirs:
            if protocol in self.protocols:
                return protocol
        names = ", ".join(name.decode("ascii", "backslashreplace") for name in theirs)
        raise NegotiationFailed(f"the peer offers only {names or 'nothing'} behind TLS")


def make_context(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> SSL.Context:
    """The settings of one host: TLS 1.3, mutual, and nothing of a connection survives it.

    OpenSSL still sends tickets that no server remembers, and pyOpenSSL cannot tell it otherwise; who
    tries to resume with one gets a whole handshake.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHER_SUITES)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 26 KiB less for each idle connection
    context.clear_mode(_PARTIAL_WRITE)  # one call encrypts everything: the memory BIO is never full
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
    context.set_alpn_select_callback(_select)
    return context


def _verify(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
    """OpenSSL asks about each problem that it sees, at least that nobody issued the certificate.

    Refusing here makes OpenSSL tell the peer by an alert, before it sends our own certificate; at the
    first question, because that alert names its problem, where later ones say "internal error".
    """
    check: PeerCheck = connection.get_app_data()
    if depth:
        check.failure = AuthenticationFailed("the peer sent more than one certificate")
        return False
    if check.verified is None:
        return check.accepts(certificate.to_cryptography().public_bytes(Encoding.DER))
    return True


def _select(connection: SSL.Connection, theirs: list[bytes]) -> bytes:
    """An error raised here reaches the peer as an alert and our caller as it is."""
    check: PeerCheck = connection.get_app_data()
    return check.choose(theirs)
