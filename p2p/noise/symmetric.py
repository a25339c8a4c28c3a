"""The symmetric half of a Noise handshake: its running hash, its chaining key and its cipher.

Everything said so far goes into the hash, every shared secret into the chaining key. A message is
encrypted under a key of both, so it opens only for somebody who saw and computed the same.
Source: the Noise Protocol Framework, revision 34, "5.1. The CipherState object", "5.2. The
SymmetricState object" and "12. DH functions, cipher functions, and hash functions".
"""

from __future__ import annotations

from hashlib import sha256
from hmac import digest
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2p.errors import AuthenticationFailed

_NONCE = Struct("<4xQ")  # 4 zero bytes, then the counter


def hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Two keys of 32 bytes from both arguments; Noise, "4.3. Hash functions"."""
    temporary = digest(chaining_key, material, "sha256")
    first = digest(temporary, b"\x01", "sha256")
    return first, digest(temporary, first + b"\x02", "sha256")


class CipherState:
    """One key of a handshake, and how many messages it encrypted or decrypted."""

    def __init__(self, key: bytes) -> None:
        self._aead = ChaCha20Poly1305(key)
        self._nonce = 0  # a handshake uses each key at most twice

    def encrypt(self, plain: bytes, associated: bytes) -> bytes:
        """`plain` and 16 bytes that authenticate it and `associated`."""
        sealed = self._aead.encrypt(_NONCE.pack(self._nonce), plain, associated)
        self._nonce += 1
        return sealed

    def decrypt(self, sealed: bytes, associated: bytes) -> bytes:
        """What `encrypt` was given. Raises `AuthenticationFailed` when it was given something else."""
        try:
            plain = self._aead.decrypt(_NONCE.pack(self._nonce), sealed, associated)
        except InvalidTag as exc:
            raise AuthenticationFailed("a noise handshake message failed authentication") from exc
        self._nonce += 1
        return plain


class SymmetricState:
    """What both sides know of a handshake; they stay equal as long as nobody interferes."""

    def __init__(self, protocol_name: bytes, prologue: bytes = b"") -> None:
        size = sha256().digest_size
        self._hash = protocol_name.ljust(size, b"\0")
        if len(protocol_name) > size:
            self._hash = sha256(protocol_name).digest()
        self._chaining_key = self._hash
        self._cipher: CipherState | None = None
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        """Takes `data` into what both sides have seen."""
        self._hash = sha256(self._hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Takes a shared `secret` into the key of everything that follows."""
        self._chaining_key, key = hkdf(self._chaining_key, secret)
        self._cipher = CipherState(key)

    def encrypt_and_hash(self, plain: bytes) -> bytes:
        """`plain` as it goes out: encrypted once there is a key."""
        sealed = plain if self._cipher is None else self._cipher.encrypt(plain, self._hash)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        """What the other side gave to `encrypt_and_hash`. Raises `AuthenticationFailed`."""
        plain = sealed if self._cipher is None else self._cipher.decrypt(sealed, self._hash)
        self.mix_hash(sealed)
        return plain

    def split(self) -> tuple[bytes, bytes]:
        """The keys of the transport phase: (the initiator sends with, the responder sends with)."""
        return hkdf(self._chaining_key, b"")
