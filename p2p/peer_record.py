"""Peer records: where a peer listens, signed by itself, so that anybody may pass it on.

Source: libp2p/specs RFC/0003-routing-records.md for the layout. Domain and type are those that go, js,
rust and py use; the ones in the text of the RFC are used by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multiaddr import Multiaddr

from p2p import envelope
from p2p.address import decode_addresses, parse_address
from p2p.errors import AuthenticationFailed, InvalidKey, RemoteProtocolError
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.records.wire import PeerRecordFields, decode_peer_record, encode_peer_record

DOMAIN = "libp2p-peer-record"
PAYLOAD_TYPE = b"\x03\x01"
MAX_ADDRESSES = 64  # of one record; go keeps as many of a peer
MAX_ADDRESS_BYTES = 2048  # bytes of addresses that we sign: the envelope must fit an identify message


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRecord:
    """`peer` listens on `addresses` (without /p2p/); of two records the one with the larger `seq` holds."""

    peer: PeerId
    seq: int
    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRecord:
    """A record that was checked, and `envelope`, the bytes that prove it to others."""

    record: PeerRecord
    envelope: bytes


def sign_record(key: KeyPair, seq: int, addresses: Iterable[Multiaddr]) -> SignedRecord:
    """The record of the peer that `key` is: the first of its `addresses`, up to 64 and 2 KiB."""
    chosen: list[Multiaddr] = []
    room = MAX_ADDRESS_BYTES
    for address in addresses:
        room -= len(address.to_bytes())
        if room < 0 or len(chosen) == MAX_ADDRESSES:
            break
        chosen.append(address)
    record = PeerRecord(peer=PeerId.from_public_key(key.public), seq=seq, addresses=tuple(chosen))
    payload = encode_peer_record(
        PeerRecordFields(
            peer_id=record.peer.raw, seq=seq, addresses=[address.to_bytes() for address in chosen]
        )
    )
    return SignedRecord(record=record, envelope=envelope.seal(DOMAIN, PAYLOAD_TYPE, payload, key))


def open_record(data: bytes) -> SignedRecord:
    """The record in the envelope `data`, which its subject must have signed.

    An address that does not decode costs only itself; one that names another peer is dropped.
    Raises `RemoteProtocolError`, and `AuthenticationFailed` for a wrong signature or signer.
    """
    signer, payload = envelope.unseal(data, DOMAIN, PAYLOAD_TYPE)
    fields = decode_peer_record(payload, MAX_ADDRESSES)
    try:
        peer = PeerId(fields.peer_id)
    except InvalidKey as exc:
        raise RemoteProtocolError(f"peer record of nobody: {exc}") from exc
    if PeerId.from_public_key(signer) != peer:
        raise AuthenticationFailed(f"a peer record of {peer} is signed by another peer")
    addresses = own_addresses(peer, decode_addresses(list(fields.addresses), MAX_ADDRESSES))
    return SignedRecord(record=PeerRecord(peer=peer, seq=fields.seq, addresses=addresses), envelope=data)


def own_addresses(peer: PeerId, addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """`addresses` without a final /p2p/<peer>, each once; those that end in another peer are left out."""
    found: dict[Multiaddr, None] = {}
    suffix = f"/p2p/{peer}"
    for address in addresses:
        text = str(address)
        if text.endswith(suffix):
            if len(text) > len(suffix):
                found[parse_address(text.removesuffix(suffix))] = None
        elif "/" in text.rpartition("/p2p/")[2]:  # no /p2p/ at all, or one that more follows (a relay)
            found[address] = None
    return tuple(found)
