import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.kad import providers
from p2p.kad.namespaces import MAX_RECORD, Namespaces, content_key
from p2p.kad.providers import ProviderStore
from p2p.kad.records import MAX_AGE, MAX_PER_PEER, RecordStore
from p2p.kad.responder import Known, NoReply, Refuse, Reply, Shelf, answer
from p2p.kad.table import RoutingTable
from p2p.kad.wire import (
    MAX_SENT,
    AddProvider,
    Connectedness,
    FindNode,
    GetProviders,
    GetValue,
    K,
    PeerEntry,
    Ping,
    PutValue,
    Record,
    decode,
    encode,
)
from tests.kad.peers import address, by_distance, entry, peer

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


# Providers


def provide(here, requester=REQUESTER, *entries, key=b"k"):
    request = AddProvider(key=key, providers=entries or (entry(7),))
    return answer(request, requester, table_of(0), known({}), here)


def providers_of(here, addresses, connected=(), key=b"k"):
    reply = answer(GetProviders(key=key), peer(8), table_of(30), known(addresses, connected), here)
    return reply.message.providers


def test_an_announced_provider_is_named_with_closer_peers():
    here = shelf()
    assert provide(here) == NoReply()
    reply = answer(GetProviders(key=b"k"), peer(8), table_of(30), known(ADDRESSES), here)
    assert reply.message.key == b"k"
    assert reply.message.providers == (PeerEntry(peer=REQUESTER, addresses=tuple(ADDRESSES[REQUESTER])),)
    assert len(reply.message.closer) == K
    assert providers_of(here, ADDRESSES, key=b"other") == ()


@pytest.mark.parametrize("entries", [(entry(8),), (entry(7, addresses=0),), (entry(8), entry(9))])
def test_nobody_announces_another_peer_or_one_without_addresses(entries):
    here = shelf()
    assert provide(here, REQUESTER, *entries) == NoReply()
    assert len(here.providers) == 0


def test_of_many_entries_the_one_of_the_sender_counts():
    here = shelf()
    assert provide(here, REQUESTER, entry(8), entry(7), entry(9)) == NoReply()
    assert [one.peer for one in providers_of(here, {})] == [REQUESTER]


def test_announced_addresses_are_named_while_we_know_no_better():
    here = shelf()
    provide(here)
    assert providers_of(here, {}) == (entry(7),)
    better = {REQUESTER: [address(70)]}
    connected = PeerEntry(peer=REQUESTER, addresses=(address(70),), connection=Connectedness.CONNECTED)
    assert providers_of(here, better, {REQUESTER}) == (connected,)
    later = shelf(now=providers.ADDRESS_AGE, providers=here.providers)
    assert providers_of(later, {}) == (PeerEntry(peer=REQUESTER, addresses=()),)
    assert providers_of(shelf(now=providers.MAX_AGE, providers=here.providers), {}) == ()


def test_without_a_shelf_no_provider_is_kept_or_named():
    assert provide(None) == NoReply()
    assert providers_of(None, ADDRESSES) == ()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([peer(n) for n in range(5)]),
            st.binary(min_size=1, max_size=80),
            st.lists(st.builds(entry, st.integers(0, 5), st.integers(0, 30)), max_size=5),
        ),
        max_size=20,
    )
)
def test_whatever_is_announced_everybody_speaks_for_itself_and_replies_fit(announcements):
    here = shelf()
    for sender, key, entries in announcements:
        message = decode(encode(AddProvider(key=key, providers=tuple(entries))))
        assert answer(message, sender, table_of(0), known(ADDRESSES), here) == NoReply()
    said = {
        (key, sender) for sender, key, entries in announcements if sender in [one.peer for one in entries]
    }
    for _, key, _ in announcements:
        reply = answer(GetProviders(key=key), peer(8), table_of(30), known(ADDRESSES), here)
        data = encode(reply.message)
        assert len(data) <= MAX_SENT
        assert {(key, one.peer) for one in decode(data).providers} <= said


# Values

VALUE = b"value"
RECORD = Record(key=content_key(VALUE), value=VALUE)
PUT = PutValue(key=RECORD.key, record=RECORD)


def shelf(store=None, now=0.0, providers=None):
    return Shelf(
        store=store or RecordStore(Namespaces()),
        providers=providers or ProviderStore(LOCAL),
        now=now,
        wall=1_700_000_000.0 + now,
    )


def ask(request, shelf, requester=REQUESTER, count=0):
    return answer(request, requester, table_of(count), known(ADDRESSES), shelf)


def test_a_value_to_keep_is_echoed_and_found_again():
    here = shelf()
    assert ask(PUT, here) == Reply(message=PUT)
    reply = ask(GetValue(key=RECORD.key), here, count=100).message
    assert reply.record == Record(key=RECORD.key, value=VALUE, received=b"2023-11-14T22:13:20.000000Z")
    assert len(reply.closer) == K


def test_the_date_of_a_value_to_keep_is_dropped():
    here = shelf()
    dated = Record(key=RECORD.key, value=VALUE, received=b"2099-01-01T00:00:00Z")
    assert ask(PutValue(key=RECORD.key, record=dated), here) == Reply(message=PUT)
    assert here.store.get(RECORD.key, 0.0).received.startswith(b"2023")


def test_a_value_that_is_too_old_is_not_named():
    here = shelf()
    ask(PUT, here)
    reply = ask(GetValue(key=RECORD.key), shelf(here.store, MAX_AGE), count=10).message
    assert reply.record is None
    assert reply.closer


@pytest.mark.parametrize(
    "request_",
    [
        PutValue(key=RECORD.key),
        PutValue(key=b"/v/other", record=RECORD),
        PutValue(key=RECORD.key, record=Record(key=RECORD.key, value=b"poison")),
        PutValue(key=b"/ns/x", record=Record(key=b"/ns/x", value=b"x")),
        PutValue(key=b"", record=Record(key=b"", value=b"")),
    ],
    ids=["no record", "key mismatch", "poison", "unknown namespace", "empty"],
)
def test_a_value_that_its_key_does_not_allow_is_refused(request_):
    here = shelf()
    assert ask(request_, here) == Refuse()
    assert len(here.store) == 0


def test_a_value_that_is_too_large_is_refused():
    value = bytes(MAX_RECORD + 1)
    key = content_key(value)
    assert ask(PutValue(key=key, record=Record(key=key, value=value)), shelf()) == Refuse()


def test_a_flood_of_values_from_one_peer_is_refused_and_nobody_else_is():
    here = shelf()
    answers = []
    for number in range(MAX_PER_PEER + 50):
        value = b"%d" % number
        record = Record(key=content_key(value), value=value)
        answers.append(ask(PutValue(key=record.key, record=record), here))
    assert answers.count(Refuse()) == 50
    assert len(here.store) == MAX_PER_PEER
    assert ask(PUT, here, peer(8)) == Reply(message=PUT)


def test_the_largest_value_still_leaves_room_for_closer_peers():
    here = shelf()
    value = bytes(MAX_RECORD)
    key = content_key(value)
    ask(PutValue(key=key, record=Record(key=key, value=value)), here)
    data = encode(ask(GetValue(key=key), here, count=200).message)
    assert len(data) <= MAX_SENT
    reply = decode(data)
    assert reply.record.value == value
    assert len(reply.closer) == K


def test_without_a_shelf_no_value_is_kept_or_found():
    assert answer(PUT, REQUESTER, table_of(0), known({})) == Refuse()
    reply = answer(GetValue(key=RECORD.key), REQUESTER, table_of(0), known({}))
    assert reply == Reply(message=GetValue(key=RECORD.key))
