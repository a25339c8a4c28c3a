"""Signed envelopes: a payload, its kind, and the signature of whoever vouches for it.

The signature is over the domain, the type and the payload, each behind its length. The domain does
not travel, so a signature made for one purpose is worthless for any other.
Source: libp2p/specs RFC/0002-signed-envelopes.md.
"""

from __future__ import annotations

from p2p import varint
from p2p.errors import AuthenticationFailed, InvalidKey, MessageTooLarge, RemoteProtocolError
from p2p.keys import KeyPair, PublicKey
from p2p.records.wire import EnvelopeFields, decode_envelope, encode_envelope

MAX_ENVELOPE = 8192  # bytes; what one identify message holds, and what go keeps of a peer


def seal(domain: str, payload_type: bytes, payload: bytes, key: KeyPair) -> bytes:
    """`payload`, of the kind `payload_type`, in an envelope signed by `key` for `domain`."""
    return encode_envelope(
        EnvelopeFields(
            public_key=key.public.encode(),
            payload_type=payload_type,
            payload=payload,
            signature=key.sign(signed_bytes(domain, payload_type, payload)),
        )
    )


def unseal(envelope: bytes, domain: str, payload_type: bytes) -> tuple[PublicKey, bytes]:
    """(signer, payload) of an envelope of the wanted kind, whose signature holds for `domain`.

    The payload is unread so far: no byte of it was parsed before the signature was checked. Whoever
    passes an envelope on sends the bytes that came. Raises `MessageTooLarge`, `RemoteProtocolError`
    for what does not decode or is of another kind, `AuthenticationFailed` for a wrong signature.
    """
    if len(envelope) > MAX_ENVELOPE:
        raise MessageTooLarge(len(envelope), MAX_ENVELOPE)
    fields = decode_envelope(envelope)
    if fields.payload_type != payload_type:
        raise RemoteProtocolError(f"envelope of another kind: {fields.payload_type[:16].hex() or 'none'}")
    try:
        signer = PublicKey.decode(fields.public_key)
        valid = signer.verify(signed_bytes(domain, payload_type, fields.payload), fields.signature)
    except InvalidKey as exc:
        raise RemoteProtocolError(f"envelope with an unusable key: {exc}") from exc
    if not valid:
        raise AuthenticationFailed("the signature of the envelope is wrong")
    return signer, fields.payload


def signed_bytes(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """What the signature of an envelope is over."""
    parts = (domain.encode(), payload_type, payload)
    return b"".join(varint.encode(len(part)) + part for part in parts)
