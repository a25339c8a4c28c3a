"""Servers of the DHT that harm who asks."""

from __future__ import annotations

import pytest

from p2p.kad.namespaces import Namespaces, content_key
from p2p.kad.providers import ProviderStore
from p2p.kad.records import RecordStore
from p2p.kad.responder import Known, NoReply, Reply, Shelf, answer
from p2p.kad.table import RoutingTable
from p2p.kad.wire import (
    FindNode,
    GetProviders,
    GetValue,
    K,
    KadMessage,
    Ping,
    PutValue,
    Record,
    decode,
    encode,
)
from sim.adversaries.dht import answer_nothing, answer_with_nobody, answer_with_poison
from tests.kad.peers import address, peer

LOCAL, REQUESTER = peer(0), peer(7)
TABLE = RoutingTable(LOCAL)
for _number in range(1, 30):
    TABLE.handle_seen(peer(_number))
KNOWN = Known(addresses=lambda one: [address(1)], is_connected=lambda one: False)
REAL = {peer(number) for number in range(30)}


@pytest.mark.parametrize("request_", [FindNode(key=b"k"), GetValue(key=b"k"), Ping(), PutValue(key=b"k")])
def test_the_silent_never_answer(request_: KadMessage) -> None:
    assert answer_nothing(request_, REQUESTER, TABLE, KNOWN) == NoReply()


@pytest.mark.parametrize("kind", [FindNode, GetValue, GetProviders])
def test_a_liar_names_peers_that_do_not_exist_and_the_same_ones_again(
    kind: type[FindNode | GetValue | GetProviders],
) -> None:
    reply = answer_with_nobody(kind(key=b"key"), REQUESTER, TABLE, KNOWN)
    assert reply == answer_with_nobody(kind(key=b"key"), REQUESTER, TABLE, KNOWN)
    assert isinstance(reply, Reply)
    assert isinstance(reply.message, kind)
    named = reply.message.closer
    assert len({entry.peer for entry in named}) == K
    assert not {entry.peer for entry in named} & REAL
    on_the_wire = decode(encode(reply.message))
    assert isinstance(on_the_wire, kind)
    assert [entry.peer for entry in on_the_wire.closer] == [entry.peer for entry in named]
    other = answer_with_nobody(kind(key=b"other"), REQUESTER, TABLE, KNOWN)
    assert other != reply


def test_a_liar_does_otherwise_what_everybody_does() -> None:
    assert answer_with_nobody(Ping(), REQUESTER, TABLE, KNOWN) == Reply(message=Ping())


def test_a_poisoner_has_a_wrong_value_for_every_key() -> None:
    store = RecordStore(Namespaces())
    shelf = Shelf(store=store, providers=ProviderStore(LOCAL), now=1.0, wall=1.7e9)
    value = b"what somebody put"
    key = content_key(value)
    record = Record(key=key, value=value)
    put = PutValue(key=key, record=record)
    assert answer_with_poison(put, REQUESTER, TABLE, KNOWN, shelf) == Reply(message=put)
    found = answer_with_poison(GetValue(key=key), REQUESTER, TABLE, KNOWN, shelf)
    honest = answer(GetValue(key=key), REQUESTER, TABLE, KNOWN, shelf)
    assert isinstance(found, Reply)
    assert isinstance(honest, Reply)
    assert isinstance(found.message, GetValue)
    assert isinstance(honest.message, GetValue)
    assert found.message.record is not None
    assert honest.message.record is not None
    assert honest.message.record.value == value != found.message.record.value
    assert found.message.closer == honest.message.closer
    invented = answer_with_poison(GetValue(key=b"/x/unknown"), REQUESTER, TABLE, KNOWN, shelf)
    assert isinstance(invented, Reply)
    assert isinstance(invented.message, GetValue)
    assert invented.message.record == Record(key=b"/x/unknown", value=b"poison")
    assert answer_with_poison(Ping(), REQUESTER, TABLE, KNOWN) == Reply(message=Ping())
