"""Noise on the wire: the sizes of frames, and the payload that proves an identity.

Every message, of the handshake and behind it, is a 2-byte big-endian length and that many bytes.
Source: libp2p/specs noise/README.md, "Wire Format" and "The libp2p Handshake Payload".
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from p2p.noise import payload_pb2 as pb
from p2p.protobuf import parse

PROTOCOL_ID = "/noise"
LENGTH = Struct(">H")  # in front of every message
HEADER = LENGTH.size  # bytes
MAX_MESSAGE = (
    65535  # bytes of one message, without its length; the Noise Protocol Framework, "3. Message format"
)
TAG = 16  # bytes that the cipher adds to a plaintext
MAX_PLAINTEXT = MAX_MESSAGE - TAG  # bytes in one transport frame
MAX_HANDSHAKE_MESSAGE = 8192  # bytes; ours are below 250, an RSA-8192 identity needs 2.2 KiB
MAX_STREAM_MUXERS = 100  # entries; go-libp2p ignores longer lists
SIGNATURE_PREFIX = b"noise-libp2p-static-key:"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakePayload:
    """Who somebody says they are; `identity_signature` ties it to their Noise static key."""

    identity_key: bytes  # a serialized PublicKey, not yet looked at
    identity_signature: bytes
    stream_muxers: tuple[str, ...] = ()


def encode_payload(payload: HandshakePayload) -> bytes:
    """The serialized `NoiseHandshakePayload`; no extensions when there are no muxers to offer."""
    message = pb.NoiseHandshakePayload(
        identity_key=payload.identity_key, identity_sig=payload.identity_signature
    )
    if payload.stream_muxers:
        message.extensions.stream_muxers.extend(payload.stream_muxers)
    return message.SerializeToString()


def decode_payload(data: bytes) -> HandshakePayload:
    """The payload in `data`; unknown fields are skipped. Raises `RemoteProtocolError`."""
    message = parse(pb.NoiseHandshakePayload, data, "the noise handshake payload is malformed")
    muxers = message.extensions.stream_muxers
    return HandshakePayload(
        identity_key=message.identity_key,
        identity_signature=message.identity_sig,
        stream_muxers=tuple(muxers) if len(muxers) <= MAX_STREAM_MUXERS else (),
    )
