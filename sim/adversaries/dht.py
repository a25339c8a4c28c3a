"""Replies of servers in the DHT that harm who asks; called like `p2p.kad.responder.answer`."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from hashlib import sha256

from multiaddr import Multiaddr

from p2p.kad.responder import Answer, Known, NoReply, Reply, Shelf, answer
from p2p.kad.table import RoutingTable
from p2p.kad.wire import FindNode, GetProviders, GetValue, K, KadMessage, PeerEntry, Record
from p2p.peer_id import PeerId

ED25519_ID = bytes.fromhex("002408011220")  # what the id of an Ed25519 key begins with: the key follows
NOWHERE = "/ip4/192.0.2.{}/tcp/4001"  # addresses that are nobody's; RFC 5737, TEST-NET-1


def answer_nothing(
    request: KadMessage, requester: PeerId, table: RoutingTable, known: Known, shelf: Shelf | None = None
) -> Answer:
    """Nothing, ever: who asks waits until its deadline."""
    return NoReply()


def answer_with_nobody(
    request: KadMessage, requester: PeerId, table: RoutingTable, known: Known, shelf: Shelf | None = None
) -> Answer:
    """Whoever is asked for, peers that do not exist; what it is to keep it says that it has kept."""
    match request:
        case FindNode(key=key):
            return Reply(message=FindNode(closer=_nobody(key)))
        case GetValue(key=key):
            return Reply(message=GetValue(key=key, closer=_nobody(key)))
        case GetProviders(key=key):
            return Reply(message=GetProviders(key=key, closer=_nobody(key)))
        case _:
            return answer(request, requester, table, known, shelf)


def answer_with_poison(
    request: KadMessage, requester: PeerId, table: RoutingTable, known: Known, shelf: Shelf | None = None
) -> Answer:
    """For every key a value: the one that was put, but changed, or an invented one."""
    honest = answer(request, requester, table, known, shelf)
    match request, honest:
        case GetValue(key=key), Reply(message=GetValue(record=record) as reply):
            value = b"poison"
            if record is not None and record.value:
                value = bytes([record.value[0] ^ 1]) + record.value[1:]
            return Reply(message=replace(reply, record=Record(key=key, value=value)))
        case _:
            return honest


@lru_cache(1024)
def _nobody(key: bytes) -> tuple[PeerEntry, ...]:
    """As many peers as fit a reply, the same for the same key, none of which exists."""
    return tuple(
        PeerEntry(
            peer=PeerId(ED25519_ID + sha256(key + bytes([number])).digest()),
            addresses=(Multiaddr(NOWHERE.format(number + 1)),),
        )
        for number in range(K)
    )
