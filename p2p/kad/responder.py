"""What a server replies: a pure function of the request, the routing table and known addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multiaddr import Multiaddr

from p2p.errors import InvalidKey
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


def answer(request: KadMessage, requester: PeerId, table: RoutingTable, known: Known) -> Answer:
    """What to do about `request`.

    We hold no values and no provider records: asked for them we name closer peers, which the
    protocol allows. A value to keep is refused; an announcement of a provider has no reply anyway.
    """
    match request:
        case FindNode(key=key):
            return Reply(
                message=FindNode(closer=(*_target(key, known), *_closer(key, requester, table, known)))
            )
        case GetValue(key=key):
            return Reply(message=GetValue(key=key, closer=_closer(key, requester, table, known)))
        case GetProviders(key=key):
            return Reply(message=GetProviders(key=key, closer=_closer(key, requester, table, known)))
        case Ping():
            return Reply(message=Ping())
        case AddProvider():
            return NoReply()
        case PutValue():
            return Refuse()


def _target(key: bytes, known: Known) -> tuple[PeerEntry, ...]:
    """The peer whose id is `key`, when we know where it is: a client or the requester too."""
    try:
        entry = _entry(PeerId(key), known)
    except InvalidKey:
        return ()
    return (entry,) if entry.addresses else ()


def _closer(key: bytes, requester: PeerId, table: RoutingTable, known: Known) -> tuple[PeerEntry, ...]:
    """The k closest of our table, without the requester, the target, and peers without addresses."""
    exclude = {requester, *(peer for peer in table.peers() if peer.raw == key)}
    entries = (_entry(peer, known) for peer in table.closest(key, exclude=exclude))
    return tuple(entry for entry in entries if entry.addresses)


def _entry(peer: PeerId, known: Known) -> PeerEntry:
    connected = known.is_connected(peer)
    return PeerEntry(
        peer=peer,
        addresses=tuple(known.addresses(peer)),
        connection=Connectedness.CONNECTED if connected else Connectedness.NOT_CONNECTED,
    )
