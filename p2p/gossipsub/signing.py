"""Message authenticity (StrictSign) and message ids.

Every message carries its origin's peer id, a sequence number and a signature; the key only when the
id does not contain it. The signature is over "libp2p-pubsub:" ‖ the message without signature and
key: that is what go, rust and js sign, where the specification says "without the signature".
Source: libp2p/specs pubsub/README.md, "Message Signing", "Message Identification".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache

from p2p.errors import InvalidKey
from p2p.gossipsub.wire import Message, encode_message, signed_part
from p2p.keys import KeyPair, PublicKey
from p2p.peer_id import PeerId

PREFIX = b"libp2p-pubsub:"
SEQNO_SIZE = 8  # bytes, big endian; rust refuses any other size
MAX_SIGNATURE = 1024  # bytes; that of an 8192-bit RSA key

MessageIdFunction = Callable[[Message], bytes]
Verify = Callable[[Message], PeerId | None]


def message_id_from_seqno(message: Message) -> bytes:
    """origin ‖ seqno: the specification's default. rust and js have others: with them choose one for all."""
    return message.address


def sha256_message_id(message: Message) -> bytes:
    """SHA-256 of the data, whoever published it: easy to agree on between implementations.

    The same data published twice within the seen TTL is one message.
    """
    return hashlib.sha256(message.data).digest()


def sign_message(key: KeyPair, *, topic: str, data: bytes, seqno: int) -> Message:
    """A signed message of the identity `key`, with the low 64 bits of `seqno`."""
    peer = PeerId.from_public_key(key.public)
    beside = b"" if peer.contains_key else key.public.encode()
    number = (seqno % (1 << 64)).to_bytes(SEQNO_SIZE, "big")
    unsigned = encode_message(origin=peer.raw, data=data, seqno=number, topic=topic)
    signature = key.sign(PREFIX + unsigned)
    raw = encode_message(
        origin=peer.raw, data=data, seqno=number, topic=topic, signature=signature, key=beside
    )
    return Message(
        raw=raw, origin=peer.raw, data=data, seqno=number, topic=topic, signature=signature, key=beside
    )


def has_valid_form(message: Message) -> bool:
    """Whether what StrictSign demands is there; cheap, to be asked before the signature is."""
    return len(message.seqno) == SEQNO_SIZE and 0 < len(message.signature) <= MAX_SIGNATURE


def verify_message(message: Message) -> PeerId | None:
    """The origin that provably signed `message`, or None."""
    try:
        origin, key = _signer(message.origin, message.key)
        return origin if key.verify(PREFIX + signed_part(message), message.signature) else None
    except InvalidKey:
        return None


@lru_cache(1024)
def _signer(raw_id: bytes, encoded_key: bytes) -> tuple[PeerId, PublicKey]:
    """The origin and its key, from the id itself or from beside it. Raises `InvalidKey`."""
    origin = PeerId(raw_id)
    key = PublicKey.decode(encoded_key) if encoded_key else origin.public_key()
    if key is None or PeerId.from_public_key(key) != origin:
        raise InvalidKey(f"no key of {origin} in the message")
    return origin, key
