"""The pre-shared key of a private network: its file, as all implementations read it, and its fingerprint.

    /key/swarm/psk/1.0.0/
    /base16/
    64 hexadecimal digits

Source: libp2p/specs pnet/Private-Networks-PSK-V1.md; the other two encodings are those of go-libp2p.
"""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass, field

from p2p.errors import InvalidInput
from p2p.pnet.cipher import KEY_SIZE, salsa20_key_stream

HEADER = b"/key/swarm/psk/1.0.0/"
BASE16 = b"/base16/"
BASE64 = b"/base64/"
BINARY = b"/bin/"
MAX_FILE = 4096  # bytes; a key in base16 has 96
FINGERPRINT = 16  # bytes


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """The 32 secret bytes that the members of a private network share. Raises `InvalidInput`."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_SIZE:
            raise InvalidInput(f"a pre-shared key has {KEY_SIZE} bytes, not {len(self.secret)}")

    @classmethod
    def parse(cls, file: bytes | str) -> PreSharedKey:
        """The key in the content of a key file. Raises `InvalidInput`, which never shows the key."""
        content = file.encode() if isinstance(file, str) else file
        if len(content) > MAX_FILE:
            raise InvalidInput(f"a pre-shared key file has up to {MAX_FILE} bytes, not {len(content)}")
        header, _, rest = content.partition(b"\n")
        encoding, _, body = rest.partition(b"\n")
        if header.rstrip(b"\r") != HEADER:
            raise InvalidInput(f"a pre-shared key file begins with the line {HEADER.decode()}")
        return cls(_decode(encoding.rstrip(b"\r"), body))

    def encode(self) -> bytes:
        """The content of a key file: keep it secret."""
        return b"\n".join([HEADER, BASE16, self.secret.hex().encode(), b""])

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that tell keys apart and do not betray them; the same as in go and rust."""
        stream = salsa20_key_stream(self.secret, b"finprint", 64)
        return hashlib.shake_128(stream).hexdigest(FINGERPRINT)


def _decode(encoding: bytes, body: bytes) -> bytes:
    """The secret in `body`, of whatever length. Raises `InvalidInput`."""
    try:
        if encoding == BASE16:
            return binascii.unhexlify(body.strip())
        if encoding == BASE64:
            return binascii.a2b_base64(b"".join(body.split()), strict_mode=True)
        if encoding == BINARY:
            return body[:KEY_SIZE] if not body[KEY_SIZE:].strip() else body
    except binascii.Error as exc:
        raise InvalidInput(f"the pre-shared key is not in {encoding.decode()}: {exc}") from exc
    known = ", ".join(name.decode() for name in (BASE16, BASE64, BINARY))
    raise InvalidInput(f"the second line of a pre-shared key file is one of {known}")
