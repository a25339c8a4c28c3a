"""Bytes for one member alone, sealed to the key that its id contains.

    X25519 of an ephemeral key and the member's ─→ HKDF-SHA256 (what for, both keys) ─→ ChaCha20-Poly1305
    sealed: ephemeral key 32 │ ciphertext │ tag 16

The Ed25519 keys of members are points of the curve that X25519 uses in other coordinates, so who signs with
one can be sealed to: u = (1 + y) / (1 − y), and the secret scalar is the hash of the seed. age does the same
for keys of ssh. The ephemeral key is an argument, as all randomness is; that is why this is not HPKE as the
library offers it, which draws its own. An ephemeral key is used once, so the nonce can be 0.
Source: RFC 7748 sections 4.1 and 6.1; RFC 8032 section 5.1.5; Thormarker 2021, "On using the same key pair
for Ed25519 and an X25519 based KEM".
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federated.errors import CodecError
from p2p.keys import KeyPair, KeyType
from p2p.peer_id import PeerId

KEY = 32  # bytes; of an X25519 key, and of its seed
OVERHEAD = KEY + 16  # bytes of a sealed text beside its plaintext; the tag has 16

_CURVE = (1 << 255) - 19
_SIGN = 1 << 255
_LABEL = b"atcp/sums/seal/1\n"
_NONCE = bytes(12)
_PROBE = bytes([64]) * KEY  # a scalar; any is as good to find out what a point is


@lru_cache(maxsize=1024)
def exchange_key(peer: PeerId) -> bytes | None:
    """The X25519 key of `peer`, None when nothing can be sealed to it: a key of another type, or no key."""
    key = peer.public_key()
    if key is None or key.type is not KeyType.ED25519:
        return None
    y = int.from_bytes(key.data, "little") % _SIGN
    u = (1 + y) * pow(1 - y, -1, _CURVE) % _CURVE if (1 - y) % _CURVE else 0
    found = u.to_bytes(KEY, "little")
    try:
        X25519PrivateKey.from_private_bytes(_PROBE).exchange(X25519PublicKey.from_public_bytes(found))
    except ValueError:  # one of the few points whose secrets everybody knows
        return None
    return found


def secret_exchange_key(pair: KeyPair) -> bytes:
    """The secret that belongs to the `exchange_key` of an Ed25519 identity."""
    return hashlib.sha512(pair.private_data()[:KEY]).digest()[:KEY]


def seal(plain: bytes, peer: PeerId, purpose: bytes, ephemeral: bytes) -> bytes:
    """`plain` for `peer` alone, as long as `ephemeral`, 32 secret bytes, is used for nothing else.

    Raises `ValueError` for a peer to which nothing can be sealed.
    """
    known = exchange_key(peer)
    if known is None:
        raise ValueError(f"nothing can be sealed to {peer}")
    private = X25519PrivateKey.from_private_bytes(ephemeral)
    public = private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(known))
    return public + _cipher(shared, purpose, public + known).encrypt(_NONCE, plain, None)


def unseal(sealed: bytes, pair: KeyPair, purpose: bytes) -> bytes:
    """What was sealed to this identity for this purpose. Raises `CodecError` with the rule `seal`."""
    private = X25519PrivateKey.from_private_bytes(secret_exchange_key(pair))
    public = sealed[:KEY]
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        both = public + private.public_key().public_bytes_raw()
        return _cipher(shared, purpose, both).decrypt(_NONCE, sealed[KEY:], None)
    except (ValueError, InvalidTag) as exc:
        raise CodecError("seal", "not sealed to this peer for this purpose") from exc


def _cipher(shared: bytes, purpose: bytes, keys: bytes) -> ChaCha20Poly1305:
    derived = HKDF(SHA256(), 32, salt=None, info=_LABEL + keys + purpose).derive(shared)
    return ChaCha20Poly1305(derived)
