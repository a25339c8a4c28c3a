"""The four types of identity keys: how each is encoded, checked, verified and signed with.

Public halves become a `Verifier`, private ones a `Signer`. Whatever is not the one encoding that a
public key has is refused: a peer id is a hash of these bytes, and one key must not have two ids.
Source: libp2p/specs peer-ids/peer-ids.md, "Key Types"; RFC 8017, RFC 8032, SEC 1, RFC 5480, RFC 5915.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from p2p.errors import InvalidKey

ED25519_KEY = 32  # bytes, of a public key as of a seed
SECP256K1_PUBLIC = 33  # bytes of a compressed point
SECP256K1_PRIVATE = 32  # bytes
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # SEC 2, "2.4.1"
RSA_BITS = range(2048, 8192 + 1)  # go, rust; more is a way to burn the verifier's time (CVE-2023-39533)
RSA_EXPONENTS = range(3, 1 << 31, 2)  # go; a long exponent burns time like a long modulus
RSA_DER = range(292, 1063 + 1)  # bytes of a SubjectPublicKeyInfo with such a modulus and exponent
ECDSA_CURVES = (ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)  # those of go; rust: P-256 only
_UNLOADABLE = (ValueError, TypeError, UnsupportedAlgorithm)  # what cryptography raises for a bad key


class KeyType(IntEnum):
    """libp2p's key types by their number on the wire."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


class Verifier(Protocol):
    """A public key that can be verified with."""

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises `InvalidSignature` when `signature` is not this key's over `data`."""


class Signer(Protocol):
    """A private key that can be signed with."""

    @property
    def type(self) -> KeyType:
        """What kind of key it is."""

    def public_data(self) -> bytes:
        """The public key, encoded for its type."""

    def private_data(self) -> bytes:
        """The private key, encoded for its type."""

    def sign(self, data: bytes) -> bytes:
        """A signature over `data`."""


def load_verifier(key_type: KeyType, data: bytes) -> Verifier:
    """The public key that `data` encodes. Raises `InvalidKey` unless it is its one proper encoding."""
    match key_type:
        case KeyType.ED25519:
            check_ed25519(data)
            return Ed25519PublicKey.from_public_bytes(data)
        case KeyType.SECP256K1:
            return Secp256k1Verifier(data)
        case KeyType.ECDSA:
            return EcdsaVerifier(data)
        case KeyType.RSA:
            return RsaVerifier(data)


def load_signer(key_type: KeyType, data: bytes) -> Signer:
    """The private key that `data` encodes. Raises `InvalidKey`."""
    match key_type:
        case KeyType.ED25519:
            return _load_ed25519(data)
        case KeyType.SECP256K1:
            return _load_secp256k1(data)
        case KeyType.ECDSA:
            return _load_ecdsa(data)
        case KeyType.RSA:
            return _load_rsa(data)


def check_ed25519(data: bytes) -> None:
    """Raises `InvalidKey` when `data` has not the size of an Ed25519 public key.

    Whether it is a point shows in the first verification, which is false for any signature if not:
    finding out here would cost as much, for each id that somebody mentions. go does the same.
    """
    if len(data) != ED25519_KEY:
        raise InvalidKey(f"an Ed25519 public key has {ED25519_KEY} bytes, not {len(data)}")


class Ed25519Signer:
    """RFC 8032 signatures of 64 bytes."""

    type = KeyType.ED25519

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.sign = private.sign

    def public_data(self) -> bytes:
        """The 32-byte point."""
        return self._private.public_key().public_bytes_raw()

    def private_data(self) -> bytes:
        """seed ‖ point."""
        return self._private.private_bytes_raw() + self.public_data()


def _load_ed25519(data: bytes) -> Ed25519Signer:
    if len(data) not in (64, 96):  # 96: a legacy form with the public key twice
        raise InvalidKey(f"an Ed25519 private key has 64 bytes, not {len(data)}")
    signer = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(data[:ED25519_KEY]))
    public = signer.public_data()
    if any(data[at : at + ED25519_KEY] != public for at in range(ED25519_KEY, len(data), ED25519_KEY)):
        raise InvalidKey("the private key does not belong to the public key beside it")
    return signer


class Secp256k1Verifier:
    """ECDSA over SHA-256 as Bitcoin has it: of the two signatures (r, ±s) only the one with the low s.

    rust, js and py refuse the high one; go, which does not, never makes it.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) != SECP256K1_PUBLIC:
            raise InvalidKey(f"a secp256k1 public key has {SECP256K1_PUBLIC} bytes, not {len(data)}")
        try:
            self._public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data)
        except _UNLOADABLE as exc:
            raise InvalidKey("a secp256k1 public key is no point of its curve") from exc

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises `InvalidSignature`."""
        try:
            _, s = decode_dss_signature(signature)
        except ValueError as exc:
            raise InvalidSignature from exc
        if s > SECP256K1_ORDER // 2:
            raise InvalidSignature
        self._public.verify(signature, data, _ECDSA)


class Secp256k1Signer:
    """Makes the signatures that `Secp256k1Verifier` takes."""

    type = KeyType.SECP256K1

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private

    def public_data(self) -> bytes:
        """The compressed point, 33 bytes."""
        return self._private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    def private_data(self) -> bytes:
        """The scalar, 32 bytes."""
        return self._private.private_numbers().private_value.to_bytes(SECP256K1_PRIVATE, "big")

    def sign(self, data: bytes) -> bytes:
        """A DER signature of up to 71 bytes."""
        r, s = decode_dss_signature(self._private.sign(data, _ECDSA))
        return encode_dss_signature(r, min(s, SECP256K1_ORDER - s))


def _load_secp256k1(data: bytes) -> Secp256k1Signer:
    if len(data) != SECP256K1_PRIVATE:
        raise InvalidKey(f"a secp256k1 private key has {SECP256K1_PRIVATE} bytes, not {len(data)}")
    try:
        return Secp256k1Signer(ec.derive_private_key(int.from_bytes(data, "big"), ec.SECP256K1()))
    except _UNLOADABLE as exc:
        raise InvalidKey("a secp256k1 private key is out of range") from exc


class EcdsaVerifier:
    """ECDSA over SHA-256 on one of NIST's curves."""

    def __init__(self, data: bytes) -> None:
        public = _load_public(data, "ECDSA")
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise InvalidKey("an ECDSA public key holds a key of another type")
        _check_curve(public.curve)
        _check_canonical(public, data)
        self._public = public

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises `InvalidSignature`."""
        self._public.verify(signature, data, _ECDSA)


class EcdsaSigner:
    """Makes the signatures that `EcdsaVerifier` takes."""

    type = KeyType.ECDSA

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        _check_curve(private.curve)
        self._private = private

    def public_data(self) -> bytes:
        """A DER SubjectPublicKeyInfo."""
        return _public_der(self._private.public_key())

    def private_data(self) -> bytes:
        """A DER ECPrivateKey."""
        return _private_der(self._private)

    def sign(self, data: bytes) -> bytes:
        """A DER signature, of up to 72 bytes on P-256."""
        return self._private.sign(data, _ECDSA)


def _load_ecdsa(data: bytes) -> EcdsaSigner:
    private = _load_private(data, "ECDSA")
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise InvalidKey("an ECDSA private key holds a key of another type")
    return EcdsaSigner(private)


class RsaVerifier:
    """PKCS#1 v1.5 over SHA-256, with keys whose size keeps a verification cheap."""

    def __init__(self, data: bytes) -> None:
        if len(data) not in RSA_DER:  # before anything is computed with it
            raise InvalidKey(
                f"an RSA public key has {RSA_DER[0]} to {RSA_DER[-1]} bytes, not {len(data)}: keys of"
                f" {RSA_BITS[0]} to {RSA_BITS[-1]} bits are accepted"
            )
        public = _load_public(data, "RSA")
        if not isinstance(public, rsa.RSAPublicKey):
            raise InvalidKey("an RSA public key holds a key of another type")
        _check_rsa(public)
        _check_canonical(public, data)
        self._public = public

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises `InvalidSignature`."""
        self._public.verify(signature, data, _PKCS1, _SHA256)


class RsaSigner:
    """Makes the signatures that `RsaVerifier` takes."""

    type = KeyType.RSA

    def __init__(self, private: rsa.RSAPrivateKey) -> None:
        _check_rsa(private.public_key())
        self._private = private

    def public_data(self) -> bytes:
        """A DER SubjectPublicKeyInfo."""
        return _public_der(self._private.public_key())

    def private_data(self) -> bytes:
        """A DER RSAPrivateKey."""
        return _private_der(self._private)

    def sign(self, data: bytes) -> bytes:
        """A signature as long as the modulus."""
        return self._private.sign(data, _PKCS1, _SHA256)


def _load_rsa(data: bytes) -> RsaSigner:
    private = _load_private(data, "RSA")
    if not isinstance(private, rsa.RSAPrivateKey):
        raise InvalidKey("an RSA private key holds a key of another type")
    return RsaSigner(private)


_SHA256 = SHA256()
_ECDSA = ec.ECDSA(_SHA256)
_PKCS1 = PKCS1v15()


def _load_public(data: bytes, name: str) -> object:
    try:
        return load_der_public_key(data)
    except _UNLOADABLE as exc:
        raise InvalidKey(f"an {name} public key does not decode") from exc


def _load_private(data: bytes, name: str) -> object:
    try:
        return load_der_private_key(data, None)
    except _UNLOADABLE as exc:
        raise InvalidKey(f"an {name} private key does not decode") from exc


def _check_curve(curve: ec.EllipticCurve) -> None:
    if not isinstance(curve, ECDSA_CURVES):
        raise InvalidKey(f"ECDSA keys on the curve {curve.name} are not supported")


def _check_rsa(public: rsa.RSAPublicKey) -> None:
    if public.key_size not in RSA_BITS:
        raise InvalidKey(f"RSA keys have {RSA_BITS[0]} to {RSA_BITS[-1]} bits, not {public.key_size}")
    numbers = public.public_numbers()
    if numbers.e not in RSA_EXPONENTS or numbers.n % 2 == 0:
        raise InvalidKey("an RSA public key has an unusable exponent or modulus")


def _check_canonical(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, data: bytes) -> None:
    if _public_der(public) != data:
        raise InvalidKey("a public key is not in its canonical encoding")


def _public_der(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _private_der(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return private.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
