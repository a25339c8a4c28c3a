import pytest

from p2p.kad.responder import Known, NoReply, Refuse, Reply, answer
from p2p.kad.table import RoutingTable
from p2p.kad.wire import (
    MAX_SENT,
    AddProvider,
    Connectedness,
    FindNode,
    GetProviders,
    GetValue,
    K,
    Ping,
    PutValue,
    encode,
)
from tests.kad.peers import address, by_distance, peer

LOCAL, REQUESTER, CLIENT = peer(0), peer(7), peer(900)
ADDRESSES = {peer(n): [address(n + (i << 16)) for i in range(12)] for n in range(200)}


def table_of(count):
    table = RoutingTable(LOCAL)
    for number in range(1, count):
        table.handle_seen(peer(number))
    return table


def known(addresses, connected=()):
    return Known(addresses=lambda one: addresses.get(one, []), is_connected=connected.__contains__)


def closer_peers(request, table, addresses=ADDRESSES):
    reply = answer(request, REQUESTER, table, known(addresses))
    assert isinstance(reply, Reply)
    return [entry.peer for entry in reply.message.closer]


@pytest.mark.parametrize("kind", [FindNode, GetValue, GetProviders])
def test_the_k_closest_of_the_table_are_named_without_the_requester(kind):
    table = table_of(100)
    expected = [one for one in by_distance(table.peers(), b"key") if one != REQUESTER][:K]
    assert closer_peers(kind(key=b"key"), table) == expected


def test_the_target_comes_first_although_it_is_a_client():
    addresses = {**ADDRESSES, CLIENT: [address(900)]}
    found = closer_peers(FindNode(key=CLIENT.raw), table_of(100), addresses)
    assert found[0] == CLIENT
    assert len(found) == K + 1


@pytest.mark.parametrize("target", [LOCAL, REQUESTER, peer(3)])
def test_ourselves_the_requester_and_members_can_be_the_target(target):
    found = closer_peers(FindNode(key=target.raw), table_of(100))
    assert found[0] == target
    assert found.count(target) == 1
    assert len(found) == K + 1


def test_a_target_without_addresses_is_not_named():
    assert CLIENT not in closer_peers(FindNode(key=CLIENT.raw), table_of(100))


def test_peers_without_addresses_are_dropped():
    assert closer_peers(FindNode(key=b"k"), table_of(10), {peer(2): [address(2)]}) == [peer(2)]


def test_an_empty_table_gives_an_empty_reply():
    assert answer(FindNode(key=b"k"), REQUESTER, table_of(0), known({})) == Reply(message=FindNode())


def test_the_reply_tells_who_is_connected():
    reply = answer(FindNode(key=b"k"), REQUESTER, table_of(3), known(ADDRESSES, {peer(1)}))
    assert isinstance(reply, Reply)
    states = {entry.peer: entry.connection for entry in reply.message.closer}
    assert states == {peer(1): Connectedness.CONNECTED, peer(2): Connectedness.NOT_CONNECTED}


def test_the_fullest_reply_fits_the_cap():
    reply = answer(FindNode(key=peer(3).raw), REQUESTER, table_of(200), known(ADDRESSES))
    assert isinstance(reply, Reply)
    assert len(encode(reply.message)) <= MAX_SENT


def test_a_ping_is_echoed():
    assert answer(Ping(), REQUESTER, table_of(0), known({})) == Reply(message=Ping())


def test_an_announced_provider_gets_no_reply():
    assert answer(AddProvider(key=b"k"), REQUESTER, table_of(0), known({})) == NoReply()


def test_a_value_to_keep_is_refused():
    assert answer(PutValue(key=b"k"), REQUESTER, table_of(0), known({})) == Refuse()
