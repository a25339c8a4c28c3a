"""Identity keys: libp2p's protobuf encodings, signing and verifying.

Fresh identities are Ed25519; the other three types are understood, of peers and of an identity that
somebody brings along. The encodings are written by hand because a peer id is a hash of these bytes:
they must be canonical, and decoding must refuse whatever is not.
Source: libp2p/specs peer-ids/peer-ids.md, "Keys".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2p import varint
from p2p.errors import InvalidKey, RemoteProtocolError
from p2p.key_types import (
    Ed25519Signer,
    KeyType,
    Signer,
    Verifier,
    check_ed25519,
    load_signer,
    load_verifier,
)

__all__ = ["MAX_PRIVATE_KEY", "MAX_PUBLIC_KEY", "KeyPair", "KeyType", "PublicKey"]

MAX_PUBLIC_KEY = 2048  # bytes; an 8192-bit RSA key has about 1060
MAX_PRIVATE_KEY = 8192  # bytes; an 8192-bit RSA key has about 4700


def _encode(key_type: KeyType, data: bytes) -> bytes:
    return b"\x08" + varint.encode(key_type) + b"\x12" + varint.encode(len(data)) + data


def _decode(encoded: bytes, limit: int) -> tuple[KeyType, bytes]:
    """(type, data) of a serialized PublicKey or PrivateKey. Raises `InvalidKey`."""
    if len(encoded) > limit:
        raise InvalidKey(f"key of {len(encoded)} bytes is over the limit of {limit}")
    try:
        kind = varint.decode(encoded, 1) if encoded[:1] == b"\x08" else None
        if kind is None or encoded[kind[1] : kind[1] + 1] != b"\x12":
            raise InvalidKey("not a libp2p key")
        size = varint.decode(encoded, kind[1] + 1)
    except RemoteProtocolError as exc:
        raise InvalidKey(f"not a libp2p key: {exc}") from exc
    if size is None or len(encoded) != size[1] + size[0]:
        raise InvalidKey("not a libp2p key: wrong length")
    try:
        return KeyType(kind[0]), bytes(encoded[size[1] :])
    except ValueError as exc:
        raise InvalidKey(f"unknown key type {kind[0]}") from exc


@dataclass(frozen=True)
class PublicKey:
    """A peer's public key; `data` is encoded as its type has it (Ed25519: the 32-byte point)."""

    type: KeyType
    data: bytes

    @classmethod
    def decode(cls, encoded: bytes) -> PublicKey:
        """The key in a serialized `PublicKey`. Raises `InvalidKey` also when it cannot be used."""
        key = cls(*_decode(encoded, MAX_PUBLIC_KEY))
        if key.type is KeyType.ED25519:
            check_ed25519(key.data)
        else:
            key._verifier  # noqa: B018  (loads the key, and keeps it for later)
        return key

    def encode(self) -> bytes:
        """The canonical serialized `PublicKey`."""
        return _encode(self.type, self.data)

    @cached_property
    def _verifier(self) -> Verifier:
        return load_verifier(self.type, self.data)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `data`; never for a key that did not come from `decode`
        and is none.
        """
        try:
            self._verifier.verify(signature, data)
        except (InvalidSignature, InvalidKey):
            return False
        return True


class KeyPair:
    """An identity: it signs, and its public half names it."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.public = PublicKey(signer.type, signer.public_data())

    @classmethod
    def generate(cls) -> KeyPair:
        """A fresh Ed25519 identity from the system's entropy."""
        return cls(Ed25519Signer(Ed25519PrivateKey.generate()))

    @classmethod
    def from_seed(cls, seed: bytes) -> KeyPair:
        """The Ed25519 identity of a 32-byte secret seed; the same seed gives the same identity."""
        return cls(Ed25519Signer(Ed25519PrivateKey.from_private_bytes(seed)))

    @classmethod
    def decode(cls, encoded: bytes) -> KeyPair:
        """The pair in a serialized `PrivateKey`, of any type. Raises `InvalidKey`."""
        return cls(load_signer(*_decode(encoded, MAX_PRIVATE_KEY)))

    def encode(self) -> bytes:
        """The canonical serialized `PrivateKey`: keep it secret."""
        return _encode(self._signer.type, self._signer.private_data())

    def private_data(self) -> bytes:
        """The private key, encoded as its type has it (Ed25519: seed ‖ point): keep it secret."""
        return self._signer.private_data()

    def sign(self, data: bytes) -> bytes:
        """The signature over `data`: 64 bytes with Ed25519, up to 1024 with RSA."""
        return self._signer.sign(data)
