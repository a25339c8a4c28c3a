"""What a server replies: a function of the request, the routing table, known addresses and held values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from multiaddr import Multiaddr

from p2p.errors import InvalidKey
from p2p.kad.namespaces import InvalidRecord
from p2p.kad.providers import ProviderStore
from p2p.kad.records import RecordRefused, RecordStore
from p2p.kad.table import RoutingTable
from p2p.kad.wire import (
    AddProvider,
    Connectedness,
    FindNode,
    GetProviders,
    GetValue,
    KadMessage,
    PeerEntry,
    Ping,
    PutValue,
    Record,
)
from p2p.peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the driver knows of other peers: dialable addresses of each, and who is connected."""

    addresses: Callable[[PeerId], Sequence[Multiaddr]]
    is_connected: Callable[[PeerId], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Send `message`."""

    message: KadMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReply:
    """The protocol expects nothing in return; read on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Reset the stream: we do not do this."""


Answer = Reply | NoReply | Refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """What a server keeps of others, and when it is: `now` in seconds, `wall` in seconds since 1970."""

    store: RecordStore
    providers: ProviderStore
    now: float
    wall: float


Respond = Callable[[KadMessage, PeerId, RoutingTable, Known, Shelf | None], Answer]
"""How a server replies: `answer`, or in a simulation what an adversary does instead."""


def answer(
    request: KadMessage, requester: PeerId, table: RoutingTable, known: Known, shelf: Shelf | None = None
) -> Answer:
    """What to do about `request`. Without a `shelf` no value and no provider is kept or found.

    An announcement of a provider has no reply, also when it is not kept.
    """
    match request:
        case FindNode(key=key):
            return Reply(
                message=FindNode(closer=(*_target(key, known), *_closer(key, requester, table, known)))
            )
        case GetValue(key=key):
            record = None if shelf is None else shelf.store.get(key, shelf.now)
            closer = _closer(key, requester, table, known)
            return Reply(message=GetValue(key=key, record=record, closer=closer))
        case GetProviders(key=key):
            closer = _closer(key, requester, table, known)
            return Reply(
                message=GetProviders(key=key, providers=_providers(key, known, shelf), closer=closer)
            )
        case Ping():
            return Reply(message=Ping())
        case AddProvider(key=key, providers=providers):
            _keep_provider(key, providers, requester, shelf)
            return NoReply()
        case PutValue():
            return _keep(request, requester, shelf)


def _keep(request: PutValue, requester: PeerId, shelf: Shelf | None) -> Answer:
    """Holds the record and echoes it, without its date; refuses as go does: by a reset, with no reply."""
    record = request.record
    if shelf is None or record is None or record.key != request.key:
        return Refuse()
    try:
        shelf.store.put(record, requester, shelf.now, shelf.wall)
    except (InvalidRecord, RecordRefused):
        return Refuse()
    echo = Record(key=record.key, value=record.value)
    return Reply(message=PutValue(key=request.key, record=echo))


def _keep_provider(key: bytes, named: Sequence[PeerEntry], requester: PeerId, shelf: Shelf | None) -> None:
    """Holds that the requester provides the content. Nobody can say so of somebody else."""
    own = next((entry for entry in named if entry.peer == requester), None)
    if shelf is not None and own is not None:
        shelf.providers.add(key, requester, own.addresses, shelf.now)


def _providers(key: bytes, known: Known, shelf: Shelf | None) -> tuple[PeerEntry, ...]:
    """The providers that we hold; where one is, it told us with its announcement, if we know no better."""
    if shelf is None:
        return ()
    entries = []
    for peer in shelf.providers.providers(key, shelf.now):
        entry = _entry(peer, known)
        if not entry.addresses:
            entry = replace(entry, addresses=shelf.providers.addresses(peer, shelf.now))
        entries.append(entry)
    return tuple(entries)


def _target(key: bytes, known: Known) -> tuple[PeerEntry, ...]:
    """The peer whose id is `key`, when we know where it is: a client or the requester too."""
    target = _peer(key)
    entry = None if target is None else _entry(target, known)
    return (entry,) if entry is not None and entry.addresses else ()


def _closer(key: bytes, requester: PeerId, table: RoutingTable, known: Known) -> tuple[PeerEntry, ...]:
    """The k closest of our table, without the requester, the target, and peers without addresses."""
    entries = (_entry(peer, known) for peer in table.closest(key, exclude=(requester, _peer(key))))
    return tuple(entry for entry in entries if entry.addresses)


def _peer(key: bytes) -> PeerId | None:
    try:
        return PeerId(key)
    except InvalidKey:
        return None


def _entry(peer: PeerId, known: Known) -> PeerEntry:
    connected = known.is_connected(peer)
    return PeerEntry(
        peer=peer,
        addresses=tuple(known.addresses(peer)),
        connection=Connectedness.CONNECTED if connected else Connectedness.NOT_CONNECTED,
    )
