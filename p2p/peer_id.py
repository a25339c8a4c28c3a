"""Peer ids: the multihash of a public key, and its two text forms.

Source: libp2p/specs peer-ids/peer-ids.md, "Peer Ids".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import base58
import multibase

from p2p.errors import InvalidKey
from p2p.keys import PublicKey

IDENTITY = 0x00
SHA2_256 = 0x12
MAX_INLINE_KEY = 42  # bytes; keys up to this size are the id itself
CIDV1_LIBP2P_KEY = b"\x01\x72"
MAX_TEXT = 128  # characters; the longest valid form has fewer than 80


@dataclass(frozen=True, slots=True, order=True)
class PeerId:
    """The identity of a peer; `raw` is the multihash, which is what travels on the wire."""

    raw: bytes

    def __post_init__(self) -> None:
        raw = self.raw
        if raw[:2] == b"\x12\x20" and len(raw) == 34:
            return
        if raw[:1] == b"\x00" and 2 <= len(raw) <= MAX_INLINE_KEY + 2 and raw[1] == len(raw) - 2:
            PublicKey.decode(raw[2:])
            return
        raise InvalidKey(f"not a peer id: {raw[:48].hex() or 'empty'}")

    @classmethod
    def from_public_key(cls, key: PublicKey) -> PeerId:
        """The id of `key`: the key itself when it is short, its SHA-256 otherwise."""
        encoded = key.encode()
        if len(encoded) <= MAX_INLINE_KEY:
            return cls(bytes([IDENTITY, len(encoded)]) + encoded)
        return cls(bytes([SHA2_256, 32]) + hashlib.sha256(encoded).digest())

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """The id in base58 (`12D3KooW…`, `Qm…`) or as a CID (`bafz…`). Raises `InvalidKey`."""
        if len(text) > MAX_TEXT or text.split() != [text]:  # the base58 decoder would skip spaces
            raise InvalidKey(f"not a peer id: {text[:MAX_TEXT]!r}")
        try:
            if text.startswith(("1", "Qm")):
                return cls(base58.b58decode(text))
            cid = multibase.decode(text)
        except InvalidKey:
            raise
        except Exception as exc:  # the two decoders raise whatever they meet
            raise InvalidKey(f"not a peer id: {text!r}") from exc
        if cid[:2] != CIDV1_LIBP2P_KEY:
            raise InvalidKey(f"not a peer id: {text!r} is another kind of CID")
        return cls(cid[2:])

    def public_key(self) -> PublicKey | None:
        """The key, when the id contains it (Ed25519, secp256k1); otherwise None."""
        return PublicKey.decode(self.raw[2:]) if self.contains_key else None

    @property
    def contains_key(self) -> bool:
        """Whether the id is the key itself and not a hash of it."""
        return self.raw[0] == IDENTITY

    def __hash__(self) -> int:
        return hash(self.raw)  # half the time of the generated one, and every table of peers asks for it

    def __str__(self) -> str:
        return _text(self.raw)

    def __repr__(self) -> str:
        return f"PeerId({self})"

    @property
    def short(self) -> str:
        """The last eight characters, for logs and progress lines."""
        return _text(self.raw)[-8:]


@lru_cache(4096)
def _text(raw: bytes) -> str:
    return base58.b58encode(raw).decode("ascii")
