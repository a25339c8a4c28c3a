"""TLS 1.3 records sealed by hand with the secrets of a connection: what OpenSSL would never send.

Source: RFC 8446, "5.2. Record Payload Protection", "7.1. Key Schedule", "7.3. Traffic Key Calculation".
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

ALERT, HANDSHAKE, DATA = 21, 22, 23


def expand(secret: bytes, label: bytes, size: int) -> bytes:
    name = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\x00"
    return HKDFExpand(hashes.SHA256(), size, info).derive(secret)


class RecordSealer:
    """One direction of a connection with TLS_AES_128_GCM_SHA256; `sent` records went before."""

    def __init__(self, secret: bytes, *, sent: int = 0) -> None:
        self._secret = secret
        self._sent = sent

    def seal(self, content: bytes, kind: int = DATA, *, padding: int = 0) -> bytes:
        plain = content + bytes([kind]) + bytes(padding)
        header = b"\x17\x03\x03" + (len(plain) + 16).to_bytes(2, "big")
        iv = int.from_bytes(expand(self._secret, b"iv", 12), "big")
        nonce = (iv ^ self._sent).to_bytes(12, "big")
        self._sent += 1
        return header + AESGCM(expand(self._secret, b"key", 16)).encrypt(nonce, plain, header)

    def key_update(self, *, requested: bool) -> bytes:
        """The message that ends this direction's keys; what is sealed next uses the new ones."""
        record = self.seal(b"\x18\x00\x00\x01" + bytes([requested]), HANDSHAKE)
        self._secret = expand(self._secret, b"traffic upd", 32)
        self._sent = 0
        return record


class KeyLog:
    """Remembers the secrets that OpenSSL tells about the last connection."""

    def __init__(self) -> None:
        self.secrets: dict[str, bytes] = {}

    def __call__(self, connection: object, line: bytes) -> None:
        label, _, secret = line.decode("ascii").split(" ")
        self.secrets[label] = bytes.fromhex(secret)
