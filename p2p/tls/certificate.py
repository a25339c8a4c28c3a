"""libp2p's X.509 certificates: made for us, verified for peers. No I/O, no clock.

A certificate carries a key that lives as long as a host, and one extension that ties it to an identity:
the identity key and its signature over the certificate's key. Nothing else in it means anything.
Source: libp2p/specs tls/tls.md, "Handshake Protocol" and "libp2p Public Key Extension".
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from p2p.errors import AuthenticationFailed, InvalidKey
from p2p.keys import KeyPair, PublicKey
from p2p.peer_id import PeerId

EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
SIGNATURE_PREFIX = b"libp2p-tls-handshake:"
MAX_CERTIFICATE = 8192  # bytes of DER; ours have about 400, an RSA-8192 identity and key need 5 KiB
MIN_RSA, MAX_RSA = 2048, 8192  # bits; longer keys burn our time (CVE-2023-39533)
_SEQUENCE, _OCTET_STRING = 0x30, 0x04  # DER tags
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "libp2p")])  # read by nobody


def make_certificate(
    identity: KeyPair,
    certificate_key: ec.EllipticCurvePrivateKey,
    *,
    serial: int,
    not_before: datetime,
    not_after: datetime,
) -> x509.Certificate:
    """The self-signed certificate of `identity` for the P-256 key `certificate_key`.

    It has no extension but libp2p's: others refuse a critical one that they do not know, and rust-libp2p
    refused certificates for a critical BasicConstraints. `serial` is positive, of at most 159 bits.
    """
    key = certificate_key.public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    value = _encode_identity(identity.public.encode(), identity.sign(SIGNATURE_PREFIX + spki))
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.UnrecognizedExtension(EXTENSION, value), critical=False)
        .sign(certificate_key, hashes.SHA256())
    )


def verify_certificate(der: bytes, now: datetime) -> tuple[PublicKey, PeerId]:
    """The identity that the certificate `der` proves, at the time `now` (with a time zone).

    That the peer holds the certificate's own key is what the TLS handshake proves.
    Raises `AuthenticationFailed` with the reason.
    """
    if len(der) > MAX_CERTIFICATE:
        raise AuthenticationFailed(
            f"the peer's certificate has {len(der)} bytes, over the limit of {MAX_CERTIFICATE}"
        )
    try:
        certificate = x509.load_der_x509_certificate(der)
        identity = _identity_extension(certificate)
        key = certificate.public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        not_before, not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        _check_self_signature(certificate, key)
    except AuthenticationFailed:
        raise
    except InvalidSignature as exc:
        raise AuthenticationFailed("the peer's certificate is not signed with its own key") from exc
    except Exception as exc:  # the parser raises whatever it meets, a warning made an error among it
        raise AuthenticationFailed(f"the peer's certificate is malformed: {exc}") from exc
    if now < not_before:
        raise AuthenticationFailed(f"the peer's certificate is not valid before {not_before}; it is {now}")
    if now > not_after:
        raise AuthenticationFailed(f"the peer's certificate expired at {not_after}; it is {now}")
    return _verify_identity(identity, spki)


def _identity_extension(certificate: x509.Certificate) -> bytes:
    """The content of libp2p's extension. A second one is refused by the parser."""
    value: bytes | None = None
    for extension in certificate.extensions:
        if extension.oid == EXTENSION:
            value = extension.value.public_bytes()
        elif extension.critical:
            raise AuthenticationFailed(
                f"the peer's certificate has the critical extension {extension.oid.dotted_string}"
            )
    if value is None:
        raise AuthenticationFailed("the peer's certificate does not have libp2p's extension")
    return value


def _check_self_signature(certificate: x509.Certificate, key: CertificatePublicKeyTypes) -> None:
    """Raises `InvalidSignature`, or `AuthenticationFailed` for an algorithm that nobody should use."""
    how = certificate.signature_algorithm_parameters
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    algorithm = certificate.signature_hash_algorithm
    if isinstance(key, ed25519.Ed25519PublicKey) and how is None:
        key.verify(signature, signed)
        return
    if isinstance(algorithm, _HASHES):
        if (
            isinstance(key, ec.EllipticCurvePublicKey)
            and isinstance(key.curve, _CURVES)
            and isinstance(how, ec.ECDSA)
        ):
            key.verify(signature, signed, how)
            return
        if (
            isinstance(key, rsa.RSAPublicKey)
            and MIN_RSA <= key.key_size <= MAX_RSA
            and isinstance(how, padding.PKCS1v15 | padding.PSS)
        ):
            key.verify(signature, signed, how, algorithm)
            return
    raise AuthenticationFailed(
        f"the peer's certificate is signed with {certificate.signature_algorithm_oid.dotted_string} "
        "by a key of a kind or size that we do not take"
    )


def _verify_identity(identity: bytes, spki: bytes) -> tuple[PublicKey, PeerId]:
    encoded, signature = _decode_identity(identity)
    try:
        key = PublicKey.decode(encoded)
        peer = PeerId.from_public_key(key)
        if not key.verify(SIGNATURE_PREFIX + spki, signature):
            raise AuthenticationFailed(f"{peer} did not sign the key of its certificate")
    except InvalidKey as exc:
        raise AuthenticationFailed(f"the peer's identity key cannot be used: {exc}") from exc
    return key, peer


def _encode_identity(key: bytes, signature: bytes) -> bytes:
    """SignedKey ::= SEQUENCE { publicKey OCTET STRING, signature OCTET STRING }, as DER."""
    return _der(_SEQUENCE, _der(_OCTET_STRING, key) + _der(_OCTET_STRING, signature))


def _decode_identity(value: bytes) -> tuple[bytes, bytes]:
    """(serialized public key, signature) of a SignedKey. Raises `AuthenticationFailed`."""
    content, behind = _read_der(_SEQUENCE, value)
    key, rest = _read_der(_OCTET_STRING, content)
    signature, surplus = _read_der(_OCTET_STRING, rest)
    if behind or surplus:
        raise AuthenticationFailed("libp2p's extension in the peer's certificate has too many fields")
    return key, signature


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _read_der(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """(content, what is behind) of the value at the beginning of `data`, in its only valid encoding."""
    if len(data) >= 2 and data[0] == tag:
        more = data[1] & 0x7F if data[1] & 0x80 else 0  # bytes of length behind the first
        start = 2 + more
        end = start + (int.from_bytes(data[2:start], "big") if more else data[1])
        content = data[start:end]
        if data[:end] == _der(tag, content):
            return content, data[end:]
    raise AuthenticationFailed("libp2p's extension in the peer's certificate is malformed")
