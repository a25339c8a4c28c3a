"""Kademlia's messages: bytes ⇄ values. A request and its reply have the same shape.

What a peer sends is bounded here: the key, the record, the number of peers, and what one peer entry
may weigh. A bad peer entry or address costs only itself, never the message.
Source: libp2p/specs kad-dht/README.md, "RPC messages".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from multiaddr import Multiaddr

from p2p.address import decode_addresses
from p2p.errors import InvalidKey, LocalProtocolError, RemoteProtocolError
from p2p.kad import dht_pb2
from p2p.peer_id import PeerId
from p2p.protobuf import parse

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

K = 20  # peers of a bucket, and of a reply; kad-dht spec, "Replication parameter"
MAX_PEERS = 2 * K  # peers read from one list of a message; go-libp2p-kad-dht cuts there
MAX_MESSAGE = 256 << 10  # bytes read; k + 1 entries of go's 8 KiB, and a record
MAX_SENT = 16 << 10  # bytes; rust-libp2p reads no larger packet by default
MAX_KEY = 1024  # bytes; real ones (multihashes, /ipns/…) have fewer than 100
MAX_PROVIDER_KEY = 80  # bytes; go-libp2p-kad-dht takes multihashes of 1 to 80
MAX_VALUE = 65 << 10  # bytes; rust-libp2p's `max_value_bytes`
MAX_RECEIVED = 64  # bytes of an RFC 3339 date
MAX_ENTRY = 8 << 10  # bytes of a peer entry that is read; go-libp2p-kad-dht
MAX_REMEMBERED = 256  # bytes of a peer entry whose decoded form is kept, of up to 4096 peers
MAX_ENTRY_ADDRESSES = 25  # addresses read from an entry; js-libp2p dials no more of one peer
MAX_ENTRY_SENT = 720  # bytes of a peer entry that is sent: k + 1 of them and a key fit `MAX_SENT`
MAX_ADDRESSES_SENT = 10  # of one peer
MAX_PROVIDERS = K  # providers of one key; rust-libp2p `max_providers_per_key`
MAX_PROVIDERS_SENT = MAX_SENT // 2  # bytes; closer peers get the other half, or liars would starve look-ups
MAX_PROVIDER_SENT = MAX_PROVIDERS_SENT // MAX_PROVIDERS  # bytes of a provider's entry: all of them fit

_Type = dht_pb2.Message.MessageType


class Connectedness(IntEnum):
    """What the sender knows of its connection to a peer that it names."""

    NOT_CONNECTED = 0
    CONNECTED = 1
    CAN_CONNECT = 2
    CANNOT_CONNECT = 3


_CONNECTEDNESS = {state.value: state for state in Connectedness}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEntry:
    """A peer that a message names, with transport addresses (without /p2p/)."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...]
    connection: Connectedness = Connectedness.NOT_CONNECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A stored value; `received` is the date that its holder gave it, often empty."""

    key: bytes
    value: bytes
    received: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedValue:
    """What a peer signs: `value` is what it wants under `key`, until one with a larger `seq`."""

    key: bytes
    seq: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FindNode:
    """Who is closest to `key`? The reply has no key."""

    key: bytes = b""
    closer: tuple[PeerEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GetValue:
    """Which record is under `key`? The reply has it, or only closer peers."""

    key: bytes
    record: Record | None = None
    closer: tuple[PeerEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PutValue:
    """Keep this record; the reply is an echo."""

    key: bytes
    record: Record | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetProviders:
    """Who provides the content with this multihash? The reply names providers and closer peers."""

    key: bytes
    providers: tuple[PeerEntry, ...] = ()
    closer: tuple[PeerEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddProvider:
    """The sender provides the content with this multihash. There is no reply."""

    key: bytes
    providers: tuple[PeerEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Deprecated; answered by an echo."""


KadMessage = FindNode | GetValue | PutValue | GetProviders | AddProvider | Ping


def decode(data: bytes) -> KadMessage:
    """The message in `data`. Raises `RemoteProtocolError`."""
    message = parse(dht_pb2.Message, data, "not a Kademlia message")
    key = _checked("key", message.key, MAX_KEY)
    match message.type:
        case _Type.FIND_NODE:
            return FindNode(key=key, closer=_decode_peers(message.closer_peers))
        case _Type.GET_VALUE:
            return GetValue(
                key=key, record=_decode_record(message), closer=_decode_peers(message.closer_peers)
            )
        case _Type.PUT_VALUE:
            return PutValue(key=key, record=_decode_record(message))
        case _Type.GET_PROVIDERS:
            providers = _decode_peers(message.provider_peers)
            return GetProviders(
                key=_provider_key(key), providers=providers, closer=_decode_peers(message.closer_peers)
            )
        case _Type.ADD_PROVIDER:
            return AddProvider(key=_provider_key(key), providers=_decode_peers(message.provider_peers))
        case _Type.PING:
            return Ping()
        case unknown:
            raise RemoteProtocolError(f"Kademlia message of the unknown type {unknown}")


def encode(message: KadMessage) -> bytes:
    """`message` as bytes, at most `MAX_SENT`; `LocalProtocolError` when a record makes it larger.

    Of each peer go the first ten addresses that fit an entry. Peers without any are left out, except for
    providers: somebody else may know where they are. The last peers are cut when the record or the
    providers in front of them take their room.
    """
    out = dht_pb2.Message()
    match message:
        case FindNode(key=key, closer=closer):
            out.type, out.key = _Type.FIND_NODE, key
            _encode_peers(out, out.closer_peers, closer)
        case GetValue(key=key, record=record, closer=closer):
            out.type, out.key = _Type.GET_VALUE, key
            _encode_record(out, record)
            _encode_peers(out, out.closer_peers, closer)
        case PutValue(key=key, record=record):
            out.type, out.key = _Type.PUT_VALUE, key
            _encode_record(out, record)
        case GetProviders(key=key, providers=providers, closer=closer):
            out.type, out.key = _Type.GET_PROVIDERS, key
            _encode_providers(out, providers)
            _encode_peers(out, out.closer_peers, closer)
        case AddProvider(key=key, providers=providers):
            out.type, out.key = _Type.ADD_PROVIDER, key
            _encode_peers(out, out.provider_peers, providers)
        case Ping():
            out.type = _Type.PING
    encoded = out.SerializeToString()
    if len(encoded) > MAX_SENT:
        raise LocalProtocolError(f"Kademlia message of {len(encoded)} bytes is over the limit of {MAX_SENT}")
    return encoded


def encode_signed_value(signed: SignedValue) -> bytes:
    """The payload that is signed."""
    return dht_pb2.SignedValue(key=signed.key, seq=signed.seq, value=signed.value).SerializeToString()


def decode_signed_value(data: bytes) -> SignedValue:
    """What was signed. Raises `RemoteProtocolError`."""
    message = parse(dht_pb2.SignedValue, data, "not a signed value")
    return SignedValue(key=message.key, seq=message.seq, value=message.value)


def _checked(field: str, value: bytes, limit: int) -> bytes:
    if len(value) > limit:
        raise RemoteProtocolError(f"Kademlia {field} of {len(value)} bytes is over the limit of {limit}")
    return value


def _provider_key(key: bytes) -> bytes:
    if not key:
        raise RemoteProtocolError("Kademlia provider key is empty")
    return _checked("provider key", key, MAX_PROVIDER_KEY)


def _decode_record(message: dht_pb2.Message) -> Record | None:
    if not message.HasField("record"):
        return None
    record = message.record
    return Record(
        key=_checked("record key", record.key, MAX_KEY),
        value=_checked("record value", record.value, MAX_VALUE),
        received=_checked("record date", record.time_received, MAX_RECEIVED),
    )


def _encode_record(out: dht_pb2.Message, record: Record | None) -> None:
    if record is not None:
        out.record.key = record.key
        out.record.value = record.value
        out.record.time_received = record.received


def _decode_peers(peers: Sequence[dht_pb2.Message.Peer]) -> tuple[PeerEntry, ...]:
    entries = (_decode_peer(peer.SerializeToString()) for peer in peers[:MAX_PEERS])
    return tuple(entry for entry in entries if entry is not None)


def _decode_peer(encoded: bytes) -> PeerEntry | None:
    """The entry, or None for one that is too large or without a valid id."""
    if len(encoded) > MAX_ENTRY:
        return None
    return _decode_known(encoded) if len(encoded) <= MAX_REMEMBERED else _decode_entry(encoded)


def _decode_entry(encoded: bytes) -> PeerEntry | None:
    peer = dht_pb2.Message.Peer.FromString(encoded)
    try:
        peer_id = PeerId(peer.id)
    except InvalidKey:
        return None
    addresses = decode_addresses(list(peer.addrs), MAX_ENTRY_ADDRESSES)
    connection = _CONNECTEDNESS.get(peer.connection, Connectedness.NOT_CONNECTED)
    return PeerEntry(peer=peer_id, addresses=tuple(addresses), connection=connection)


# a look-up is told the same peers again and again: an entry that is known takes a tenth of the time
_decode_known = lru_cache(4096)(_decode_entry)


def _encode_peers(
    out: dht_pb2.Message,
    peers: RepeatedCompositeFieldContainer[dht_pb2.Message.Peer],
    entries: Iterable[PeerEntry],
) -> None:
    """Adds the first of `entries` to `peers`, a list of `out`, that have room there."""
    room = MAX_SENT - out.ByteSize()
    for entry in entries:
        addresses, size = _fitting(entry, MAX_ENTRY_SENT)
        room -= size
        if room < 0:
            return
        if addresses:
            peers.add(id=entry.peer.raw, addrs=addresses, connection=entry.connection.value)


def _encode_providers(out: dht_pb2.Message, entries: Iterable[PeerEntry]) -> None:
    """Adds the first of `entries` that have room in their half of the message."""
    room = MAX_PROVIDERS_SENT
    for entry in entries:
        addresses, size = _fitting(entry, MAX_PROVIDER_SENT)
        room -= size
        if room < 0:
            return
        out.provider_peers.add(id=entry.peer.raw, addrs=addresses, connection=entry.connection.value)


def _fitting(entry: PeerEntry, limit: int) -> tuple[list[bytes], int]:
    """The first addresses that an entry of `limit` bytes has room for, and how much it takes at most.

    A long address is passed over.
    """
    used = len(entry.peer.raw) + 8  # tag and length of the entry, tags and so on of id and connection
    fitting: list[bytes] = []
    for address in entry.addresses:
        encoded = address.to_bytes()
        size = len(encoded) + 3  # its tag and length
        if used + size <= limit and len(fitting) < MAX_ADDRESSES_SENT:
            fitting.append(encoded)
            used += size
    return fitting, used
