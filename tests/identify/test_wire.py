from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.address import parse_address
from p2p.errors import RemoteProtocolError
from p2p.identify.identify_pb2 import Identify
from p2p.identify.wire import (
    MAX_ADDRESSES,
    MAX_PROTOCOLS,
    MAX_SENT,
    MAX_TEXT,
    SPLIT_ABOVE,
    PeerInfo,
    decode,
    encode,
    with_observed,
)
from tests.support import key_number

INFO = PeerInfo(
    public_key=key_number(1).public,
    listen=(parse_address("/ip4/127.0.0.1/tcp/1"), parse_address("/ip6/::1/tcp/2")),
    protocols=("/a", "/b"),
    observed=parse_address("/ip4/10.0.0.1/tcp/3"),
    agent="atcp/2.0",
)


def test_a_message_survives_the_round_trip():
    assert decode(encode(INFO)) == INFO


def test_an_empty_answer_says_nothing():
    assert decode([]) == PeerInfo()


def test_parts_are_merged_as_go_splits_them():
    record_only = Identify(signedPeerRecord=b"envelope").SerializeToString()
    more = Identify(protocols=["/c"]).SerializeToString()
    merged = decode([*encode(INFO), record_only, more])
    assert merged.protocols == ("/a", "/b", "/c")
    assert merged.listen == INFO.listen
    assert merged.record == b"envelope"


def test_a_bad_address_costs_only_itself():
    addresses = [b"\x04\x01", INFO.listen[0].to_bytes(), b"", b"\xff" * 40]
    message = Identify(listenAddrs=addresses, observedAddr=b"\x04").SerializeToString()
    assert decode([message]) == PeerInfo(listen=INFO.listen[:1])


def test_a_bad_key_is_the_peers_fault():
    with pytest.raises(RemoteProtocolError, match="bad key"):
        decode([Identify(publicKey=b"junk").SerializeToString()])


def test_everything_a_peer_sends_is_bounded():
    message = Identify(
        listenAddrs=[parse_address(f"/ip4/1.2.3.4/tcp/{port}").to_bytes() for port in range(500)],
        protocols=[f"/{number}" for number in range(5000)],
        agentVersion="x" * 5000,
    )
    info = decode([message.SerializeToString()])
    assert (len(info.listen), len(info.protocols), len(info.agent)) == (
        MAX_ADDRESSES,
        MAX_PROTOCOLS,
        MAX_TEXT,
    )


MANY = PeerInfo(
    public_key=INFO.public_key,
    listen=tuple(parse_address(f"/ip4/1.2.3.4/tcp/{port}") for port in range(1000)),
    protocols=tuple(f"/protocol/{number}" for number in range(1000)),
)


def test_what_we_send_is_small_enough_for_rust():
    encoded = encode(replace(MANY, record=b"r" * 2500))
    assert [len(part) <= MAX_SENT for part in encoded] == [True, True]
    assert decode(encoded).public_key == INFO.public_key


def test_a_small_message_has_its_record_with_it():
    info = replace(INFO, record=b"r" * 200)
    [message] = encode(info)
    assert Identify.FromString(message).signedPeerRecord == info.record
    assert decode([message]) == info


def test_a_large_message_travels_without_its_record_which_follows_alone():
    info = replace(INFO, record=b"r" * SPLIT_ABOVE)
    first, second = encode(info)
    assert not Identify.FromString(first).HasField("signedPeerRecord")
    assert second == b"\x42\x80\x10" + b"r" * SPLIT_ABOVE
    assert decode([first, second]) == info


def test_a_record_that_fits_no_message_is_left_out():
    assert decode(encode(replace(INFO, record=b"r" * MAX_SENT))) == INFO


def test_the_observed_address_is_added_to_what_is_encoded():
    [message] = encode(replace(INFO, observed=None))
    assert decode([with_observed(message, INFO.observed)]) == INFO
    full = b"x" * (MAX_SENT - 5)
    assert with_observed(full, INFO.observed) == full


@given(
    st.lists(st.sampled_from(MANY.listen), unique=True, max_size=MAX_ADDRESSES),
    st.lists(st.text(max_size=60), unique=True, max_size=30),
    st.text(max_size=40),
    st.none() | st.binary(min_size=1, max_size=3000),
)
def test_whatever_we_say_arrives(listen, protocols, agent, record):
    info = PeerInfo(listen=tuple(listen), protocols=tuple(protocols), agent=agent, record=record)
    assert decode(encode(info)) == info


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_random_bytes_give_a_value_or_a_typed_error(parts):
    with contextlib.suppress(RemoteProtocolError):
        decode(parts)
