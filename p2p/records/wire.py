"""Envelopes and peer records: bytes ⇄ fields. Nothing is checked here beyond the protobuf itself.

Source: libp2p/specs RFC/0002-signed-envelopes.md, RFC/0003-routing-records.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2p.protobuf import parse
from p2p.records import records_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeFields:
    """A signed payload; `public_key` is the serialized key of the signer."""

    public_key: bytes
    payload_type: bytes
    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRecordFields:
    """What a peer record says; `addresses` are multiaddrs in binary."""

    peer_id: bytes
    seq: int
    addresses: Sequence[bytes]


def encode_envelope(fields: EnvelopeFields) -> bytes:
    """The serialized envelope, its fields in the order of their numbers as everybody writes them."""
    return pb.Envelope(
        public_key=fields.public_key,
        payload_type=fields.payload_type,
        payload=fields.payload,
        signature=fields.signature,
    ).SerializeToString()


def decode_envelope(data: bytes) -> EnvelopeFields:
    """The fields of a serialized envelope. Raises `RemoteProtocolError`."""
    message = parse(pb.Envelope, data, "envelope does not decode")
    return EnvelopeFields(
        public_key=message.public_key,
        payload_type=message.payload_type,
        payload=message.payload,
        signature=message.signature,
    )


def encode_peer_record(fields: PeerRecordFields) -> bytes:
    """The serialized peer record."""
    return pb.PeerRecord(
        peer_id=fields.peer_id,
        seq=fields.seq,
        addresses=[pb.PeerRecord.AddressInfo(multiaddr=address) for address in fields.addresses],
    ).SerializeToString()


def decode_peer_record(data: bytes, max_addresses: int) -> PeerRecordFields:
    """The fields of a serialized record with its first `max_addresses`. Raises `RemoteProtocolError`."""
    message = parse(pb.PeerRecord, data, "peer record does not decode")
    return PeerRecordFields(
        peer_id=message.peer_id,
        seq=message.seq,
        addresses=[info.multiaddr for info in message.addresses[:max_addresses]],
    )
