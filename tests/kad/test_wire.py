from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.address import parse_address
from p2p.errors import LocalProtocolError, RemoteProtocolError
from p2p.kad import dht_pb2, wire
from p2p.kad.wire import (
    AddProvider,
    Connectedness,
    FindNode,
    GetProviders,
    GetValue,
    PeerEntry,
    Ping,
    PutValue,
    Record,
    SignedValue,
    decode,
    decode_signed_value,
    encode,
    encode_signed_value,
)
from tests.kad.peers import address, entry, peer

keys = st.binary(min_size=1, max_size=wire.MAX_PROVIDER_KEY)
entries = st.builds(
    PeerEntry,
    peer=st.integers(0, 1000).map(peer),
    addresses=st.lists(st.integers(0, 1000).map(address), min_size=1, max_size=10, unique=True).map(tuple),
    connection=st.sampled_from(Connectedness),
)
lists = st.lists(entries, max_size=10).map(tuple)
records = st.builds(Record, key=keys, value=st.binary(max_size=1000), received=st.binary(max_size=30))
messages = st.one_of(
    st.builds(FindNode, key=keys, closer=lists),
    st.builds(GetValue, key=keys, record=st.none() | records, closer=lists),
    st.builds(PutValue, key=keys, record=st.none() | records),
    st.builds(GetProviders, key=keys, providers=lists, closer=lists),
    st.builds(AddProvider, key=keys, providers=lists),
    st.just(Ping()),
)


def raw_message(kind: int, **fields: object) -> bytes:
    return dht_pb2.Message(type=kind, **fields).SerializeToString()


@given(messages)
def test_every_message_survives_the_wire(message):
    assert decode(encode(message)) == message


@given(st.binary(max_size=400))
def test_random_bytes_are_a_message_or_a_protocol_error(data):
    with suppress(RemoteProtocolError):
        decode(data)


@given(messages, st.integers(0, 5000), st.integers(0, 255))
def test_a_flipped_byte_is_a_message_or_a_protocol_error(message, at, value):
    data = bytearray(encode(message))
    data[at % len(data)] = value
    with suppress(RemoteProtocolError):
        decode(bytes(data))


@given(messages, st.integers(0, 5000))
def test_a_cut_message_is_a_message_or_a_protocol_error(message, length):
    with suppress(RemoteProtocolError):
        decode(encode(message)[:length])


def test_a_find_node_request_has_the_bytes_of_the_specification():
    assert encode(FindNode(key=b"abc")) == bytes.fromhex("0804 1203 616263")


def test_the_type_put_value_is_written_although_it_is_zero():
    assert encode(PutValue(key=b"k")).startswith(b"\x08\x00")


def test_a_missing_type_means_put_value():
    assert decode(bytes.fromhex("1201 6b")) == PutValue(key=b"k")


def test_an_unknown_type_is_a_protocol_error():
    with pytest.raises(RemoteProtocolError, match="unknown type 9"):
        decode(b"\x08\x09")


def test_unknown_fields_are_skipped():
    cluster_level = b"\x50\x0a"  # clusterLevelRaw = 10, as rust sends it
    assert decode(encode(FindNode(key=b"k")) + cluster_level) == FindNode(key=b"k")


def test_a_connection_type_from_the_future_counts_as_not_connected():
    raw = (
        dht_pb2.Message.Peer(id=peer(1).raw, addrs=[address(1).to_bytes()]).SerializeToString() + b"\x18\x07"
    )
    message = bytes.fromhex("0804") + b"\x42" + bytes([len(raw)]) + raw
    assert decode(message) == FindNode(closer=(entry(1),))


def test_a_date_that_is_not_text_does_not_cost_the_record():
    raw = raw_message(1, key=b"k", record=dht_pb2.Record(key=b"k", value=b"v", time_received=b"\xff"))
    assert decode(raw) == GetValue(key=b"k", record=Record(key=b"k", value=b"v", received=b"\xff"))


@pytest.mark.parametrize("kind", [2, 3])
@pytest.mark.parametrize("key", [b"", bytes(wire.MAX_PROVIDER_KEY + 1)])
def test_a_provider_key_of_a_bad_length_is_a_protocol_error(kind, key):
    with pytest.raises(RemoteProtocolError, match="provider key"):
        decode(raw_message(kind, key=key))


@pytest.mark.parametrize(
    "fields",
    [
        {"key": bytes(wire.MAX_KEY + 1)},
        {"record": dht_pb2.Record(key=bytes(wire.MAX_KEY + 1))},
        {"record": dht_pb2.Record(value=bytes(wire.MAX_VALUE + 1))},
        {"record": dht_pb2.Record(time_received=bytes(wire.MAX_RECEIVED + 1))},
    ],
)
def test_an_oversized_field_is_a_protocol_error(fields):
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        decode(raw_message(0, **fields))


def test_peers_over_twice_k_are_cut():
    raw = raw_message(
        4, closer_peers=[{"id": peer(n).raw, "addrs": [address(n).to_bytes()]} for n in range(100)]
    )
    decoded = decode(raw)
    assert isinstance(decoded, FindNode)
    assert [one.peer for one in decoded.closer] == [peer(n) for n in range(40)]


def test_a_bad_peer_id_costs_only_its_entry():
    raw = raw_message(4, closer_peers=[{"id": b"\x12\x20short"}, {"id": peer(1).raw}])
    assert decode(raw) == FindNode(closer=(PeerEntry(peer=peer(1), addresses=()),))


def test_a_bad_address_costs_only_itself():
    addresses = [b"\x04\x01", address(1).to_bytes(), b"", address(1).to_bytes()]
    raw = raw_message(4, closer_peers=[{"id": peer(1).raw, "addrs": addresses}])
    assert decode(raw) == FindNode(closer=(entry(1),))


def test_an_entry_over_eight_kibibytes_is_dropped():
    fat = {"id": peer(1).raw, "addrs": [bytes(1000)] * 9}
    raw = raw_message(4, closer_peers=[fat, {"id": peer(2).raw}])
    assert decode(raw) == FindNode(closer=(PeerEntry(peer=peer(2), addresses=()),))


def test_addresses_read_of_one_peer_are_bounded():
    addresses = [address(n).to_bytes() for n in range(60)]
    decoded = decode(raw_message(4, closer_peers=[{"id": peer(1).raw, "addrs": addresses}]))
    assert isinstance(decoded, FindNode)
    assert decoded.closer[0].addresses == tuple(address(n) for n in range(wire.MAX_ENTRY_ADDRESSES))


def test_ten_addresses_of_a_peer_are_sent():
    decoded = decode(encode(FindNode(closer=(entry(1, addresses=30),))))
    assert decoded == FindNode(closer=(entry(1, addresses=10),))


def test_a_peer_without_addresses_is_not_sent():
    assert decode(encode(FindNode(closer=(entry(1, addresses=0), entry(2))))) == FindNode(closer=(entry(2),))


def test_the_largest_reply_fits_what_rust_reads():
    long = parse_address("/dns/" + "x" * 60 + "/tcp/4001")
    worst = [PeerEntry(peer=peer(n), addresses=(*entry(n, addresses=30).addresses, long)) for n in range(21)]
    longest = [
        PeerEntry(peer=peer(n), addresses=tuple(_long_address(i) for i in range(20))) for n in range(21)
    ]
    for closer in (worst, longest):
        assert len(encode(GetValue(key=bytes(wire.MAX_KEY), closer=tuple(closer)))) <= 16 * 1024


def _long_address(number: int):
    return parse_address(f"/dns/{str(number).rjust(62, 'a')}/tcp/4001")


def test_an_address_too_long_for_an_entry_is_passed_over():
    name = ".".join(["x" * 60] * 4)
    huge = parse_address(f"/dns/{name}/tcp/1/tls/sni/{name}/ws/http/dns/{name}")
    message = FindNode(closer=(PeerEntry(peer=peer(1), addresses=(huge, address(1))),))
    assert decode(encode(message)) == FindNode(closer=(entry(1),))


def test_a_record_that_nobody_would_read_is_our_own_error():
    with pytest.raises(LocalProtocolError, match="over the limit"):
        encode(PutValue(key=b"k", record=Record(key=b"k", value=bytes(17 << 10))))


def test_peers_are_cut_where_the_record_takes_their_room():
    closer = tuple(entry(n, addresses=10) for n in range(20))
    message = GetValue(key=b"k", record=Record(key=b"k", value=bytes(14 << 10)), closer=closer)
    data = encode(message)
    assert len(data) <= wire.MAX_SENT
    assert decode(data) == GetValue(key=b"k", record=message.record, closer=closer[:13])


def test_two_full_lists_of_peers_are_cut_to_what_rust_reads():
    many = tuple(entry(n, addresses=10) for n in range(200))
    data = encode(GetProviders(key=b"k", providers=many[:100], closer=many))
    assert wire.MAX_SENT - 800 < len(data) <= wire.MAX_SENT
    halves = dht_pb2.Message.FromString(data)
    assert len(halves.provider_peers) > 40
    assert len(halves.closer_peers) > 40


def test_a_provider_without_addresses_is_sent_and_a_closer_peer_is_not():
    bare = entry(1, addresses=0)
    assert decode(encode(GetProviders(key=b"k", providers=(bare,), closer=(bare,)))) == GetProviders(
        key=b"k", providers=(bare,)
    )


def test_all_providers_fit_whatever_addresses_they_have_and_leave_room_for_closer_peers():
    fat = [PeerEntry(peer=peer(n), addresses=tuple(_long_address(i) for i in range(20))) for n in range(60)]
    data = encode(GetProviders(key=bytes(80), providers=tuple(fat[:20]), closer=tuple(fat[20:])))
    assert len(data) <= wire.MAX_SENT
    reply = decode(data)
    assert isinstance(reply, GetProviders)
    assert [one.peer for one in reply.providers] == [peer(n) for n in range(20)]
    assert all(one.addresses for one in reply.providers)
    assert len(reply.closer) >= 10


@given(st.binary(max_size=50), st.integers(0, 2**64 - 1), st.binary(max_size=500))
def test_a_signed_value_survives_the_wire(key, seq, value):
    signed = SignedValue(key=key, seq=seq, value=value)
    assert decode_signed_value(encode_signed_value(signed)) == signed
