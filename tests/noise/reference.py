"""Noise_XX_25519_ChaChaPoly_SHA256 once more, from the specification alone: the other end in tests.

It shares nothing with the implementation but the primitives, and may lie: its payloads, its static
public key and its ephemeral public key are what a test says.
Source: the Noise Protocol Framework, revision 34, "5. Processing rules".
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    temporary = hmac.digest(chaining_key, material, "sha256")
    first = hmac.digest(temporary, b"\x01", "sha256")
    return first, hmac.digest(temporary, first + b"\x02", "sha256")


def nonce(counter: int) -> bytes:
    return bytes(4) + counter.to_bytes(8, "little")


class ReferenceXX:
    """One side of the handshake; write and read messages in the order of the pattern."""

    def __init__(self, static: bytes, ephemeral: bytes, *, initiator: bool) -> None:
        self.initiator = initiator
        self.static = X25519PrivateKey.from_private_bytes(static)
        self.ephemeral = X25519PrivateKey.from_private_bytes(ephemeral)
        self.static_public = self.static.public_key().public_bytes_raw()
        self.ephemeral_public = self.ephemeral.public_key().public_bytes_raw()
        self.remote_static = b""
        self.remote_ephemeral = b""
        self.hash = b"Noise_XX_25519_ChaChaPoly_SHA256"  # exactly as long as a hash, so not hashed
        self.chaining_key = self.hash
        self.key: bytes | None = None
        self.counter = 0
        self.mix_hash(b"")  # the prologue

    def mix_hash(self, data: bytes) -> None:
        self.hash = sha256(self.hash + data)

    def mix_key(self, private: X25519PrivateKey, public: bytes) -> None:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        self.chaining_key, self.key = hkdf(self.chaining_key, shared)
        self.counter = 0

    def seal(self, data: bytes) -> bytes:
        if self.key is not None:
            data = ChaCha20Poly1305(self.key).encrypt(nonce(self.counter), data, self.hash)
            self.counter += 1
        self.mix_hash(data)
        return data

    def open(self, sealed: bytes) -> bytes:
        data = sealed
        if self.key is not None:
            data = ChaCha20Poly1305(self.key).decrypt(nonce(self.counter), sealed, self.hash)
            self.counter += 1
        self.mix_hash(sealed)
        return data

    def write_1(self, payload: bytes = b"") -> bytes:
        self.mix_hash(self.ephemeral_public)
        return self.ephemeral_public + self.seal(payload)

    def read_1(self, message: bytes) -> bytes:
        self.remote_ephemeral = message[:32]
        self.mix_hash(self.remote_ephemeral)
        return self.open(message[32:])

    def write_2(self, payload: bytes = b"") -> bytes:
        self.mix_hash(self.ephemeral_public)
        self.mix_key(self.ephemeral, self.remote_ephemeral)
        static = self.seal(self.static_public)
        self.mix_key(self.static, self.remote_ephemeral)
        return self.ephemeral_public + static + self.seal(payload)

    def read_2(self, message: bytes) -> bytes:
        self.remote_ephemeral = message[:32]
        self.mix_hash(self.remote_ephemeral)
        self.mix_key(self.ephemeral, self.remote_ephemeral)
        self.remote_static = self.open(message[32:80])
        self.mix_key(self.ephemeral, self.remote_static)
        return self.open(message[80:])

    def write_3(self, payload: bytes = b"") -> bytes:
        static = self.seal(self.static_public)
        self.mix_key(self.static, self.remote_ephemeral)
        return static + self.seal(payload)

    def read_3(self, message: bytes) -> bytes:
        self.remote_static = self.open(message[:48])
        self.mix_key(self.ephemeral, self.remote_static)
        return self.open(message[48:])

    def split(self) -> tuple[bytes, bytes]:
        """(key that this side sends with, key that it receives with)."""
        first, second = hkdf(self.chaining_key, b"")
        return (first, second) if self.initiator else (second, first)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message
