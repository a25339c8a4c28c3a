"""Identity keys: libp2p's protobuf encodings, signing and verifying.

Ed25519 only; the other key types are recognised and refused by name. The encodings are written by
hand because a peer id is a hash of these bytes: they must be canonical, and decoding must refuse
whatever is not. Source: libp2p/specs peer-ids/peer-ids.md, "Keys".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from p2p import varint
from p2p.errors import InvalidKey, RemoteProtocolError

MAX_PUBLIC_KEY = 2048  # bytes; an 8192-bit RSA key has about 1060
MAX_PRIVATE_KEY = 8192  # bytes; an 8192-bit RSA key has about 4700


class KeyType(IntEnum):
    """libp2p's key types by their number on the wire."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


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
    """A peer's public key: `data` is the 32-byte Ed25519 point."""

    type: KeyType
    data: bytes

    @classmethod
    def decode(cls, encoded: bytes) -> PublicKey:
        """The key in a serialized `PublicKey`. Raises `InvalidKey`."""
        key_type, data = _decode(encoded, MAX_PUBLIC_KEY)
        if key_type is KeyType.ED25519 and len(data) != 32:
            raise InvalidKey(f"an Ed25519 public key has 32 bytes, not {len(data)}")
        return cls(key_type, data)

    def encode(self) -> bytes:
        """The canonical serialized `PublicKey`."""
        return _encode(self.type, self.data)

    @cached_property
    def _verifier(self) -> Ed25519PublicKey:
        if self.type is not KeyType.ED25519:
            raise InvalidKey(f"{self.type.name} keys are not supported")
        return Ed25519PublicKey.from_public_bytes(self.data)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `data`. Raises `InvalidKey` for other key types."""
        try:
            self._verifier.verify(signature, data)
        except (InvalidSignature, ValueError) as exc:
            if isinstance(exc, InvalidKey):
                raise
            return False
        return True


class KeyPair:
    """An Ed25519 identity."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(KeyType.ED25519, private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> KeyPair:
        """A fresh identity from the system's entropy."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> KeyPair:
        """The identity of a 32-byte secret seed; the same seed gives the same identity."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def decode(cls, encoded: bytes) -> KeyPair:
        """The pair in a serialized `PrivateKey`. Raises `InvalidKey`."""
        key_type, data = _decode(encoded, MAX_PRIVATE_KEY)
        if key_type is not KeyType.ED25519:
            raise InvalidKey(f"{key_type.name} keys are not supported")
        if len(data) not in (64, 96):  # 96: a legacy form with the public key twice
            raise InvalidKey(f"an Ed25519 private key has 64 bytes, not {len(data)}")
        pair = cls.from_seed(data[:32])
        if any(data[at : at + 32] != pair.public.data for at in range(32, len(data), 32)):
            raise InvalidKey("the private key does not belong to the public key beside it")
        return pair

    def encode(self) -> bytes:
        """The canonical serialized `PrivateKey`: keep it secret."""
        return _encode(KeyType.ED25519, self._private.private_bytes_raw() + self.public.data)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature over `data`."""
        return self._private.sign(data)
