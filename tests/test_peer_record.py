from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.address import parse_address
from p2p.envelope import seal
from p2p.errors import AuthenticationFailed, P2PError, RemoteProtocolError
from p2p.peer_id import PeerId
from p2p.peer_record import (
    DOMAIN,
    MAX_ADDRESS_BYTES,
    MAX_ADDRESSES,
    PAYLOAD_TYPE,
    open_record,
    own_addresses,
    sign_record,
)
from tests.support import key_number

KEY = key_number(1)
ME = PeerId.from_public_key(KEY.public)
OTHER = PeerId.from_public_key(key_number(2).public)
ADDRESSES = tuple(parse_address(f"/ip4/1.2.3.4/tcp/{port}") for port in range(1, 401))


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


def record_by_hand(subject: bytes, seq: bytes, *addresses: bytes) -> bytes:
    infos = b"".join(field(3, field(1, address)) for address in addresses)
    return field(1, subject) + b"\x10" + seq + infos


def test_the_constants_are_those_in_use_and_not_those_of_the_rfc():
    assert ("libp2p-peer-record", bytes([3, 1])) == (DOMAIN, PAYLOAD_TYPE)


def test_the_layout_is_the_one_of_the_specification():
    payload = record_by_hand(ME.raw, b"\xac\x02", bytes.fromhex("04 01020304 06 0001"))
    public = b"\x08\x01\x12\x20" + KEY.public.data
    signature = KEY.sign(
        bytes([18]) + b"libp2p-peer-record" + b"\x02\x03\x01" + bytes([len(payload)]) + payload
    )
    by_hand = field(1, public) + field(2, b"\x03\x01") + field(3, payload) + field(5, signature)
    signed = sign_record(KEY, 300, ADDRESSES[:1])
    assert signed.envelope == by_hand
    assert open_record(by_hand) == signed


def test_a_record_whose_signer_is_not_its_subject_is_refused():
    payload = record_by_hand(OTHER.raw, b"\x01", ADDRESSES[0].to_bytes())
    with pytest.raises(AuthenticationFailed, match="another peer"):
        open_record(seal(DOMAIN, PAYLOAD_TYPE, payload, KEY))


def test_a_record_signed_for_the_domain_of_the_rfc_is_refused():
    payload = record_by_hand(ME.raw, b"\x01")
    with pytest.raises(AuthenticationFailed):
        open_record(seal("libp2p-routing-state", PAYLOAD_TYPE, payload, KEY))


@pytest.mark.parametrize("payload", [b"", b"\xff", field(1, b"junk")])
def test_a_signed_payload_that_is_no_record_is_refused(payload):
    with pytest.raises(RemoteProtocolError):
        open_record(seal(DOMAIN, PAYLOAD_TYPE, payload, KEY))


def test_a_bad_address_costs_only_itself():
    good = ADDRESSES[0]
    payload = record_by_hand(ME.raw, b"\x01", b"\x04\x01", b"", good.to_bytes(), b"\xff" * 9)
    assert open_record(seal(DOMAIN, PAYLOAD_TYPE, payload, KEY)).record.addresses == (good,)


def test_addresses_are_bounded_on_both_sides():
    signed = sign_record(KEY, 1, ADDRESSES)
    assert signed.record.addresses == ADDRESSES[:MAX_ADDRESSES]
    payload = record_by_hand(ME.raw, b"\x01", *(address.to_bytes() for address in ADDRESSES))
    taken = open_record(seal(DOMAIN, PAYLOAD_TYPE, payload, KEY)).record.addresses
    assert taken == ADDRESSES[:MAX_ADDRESSES]
    long = [parse_address(f"/dns4/{'x' * 60}.{number}.example/tcp/1") for number in range(60)]
    few = sign_record(KEY, 1, long)
    assert 10 < len(few.record.addresses) < 60
    assert sum(len(address.to_bytes()) for address in few.record.addresses) <= MAX_ADDRESS_BYTES


def test_the_peers_own_id_behind_an_address_is_cut_off_and_another_one_costs_the_address():
    plain = parse_address("/ip4/1.2.3.4/tcp/1")
    with_own = parse_address(f"/ip4/1.2.3.4/tcp/1/p2p/{ME}")
    foreign = parse_address(f"/ip4/1.2.3.4/tcp/2/p2p/{OTHER}")
    relayed = parse_address(f"/ip4/1.2.3.4/tcp/3/p2p/{OTHER}/p2p-circuit")
    bare = parse_address(f"/p2p/{ME}")
    assert own_addresses(ME, [with_own, plain, foreign, relayed, bare]) == (plain, relayed)


@given(st.integers(0, 2**64 - 1), st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=MAX_ADDRESSES))
def test_a_record_survives_the_round_trip(seq, addresses):
    signed = sign_record(KEY, seq, addresses)
    assert open_record(signed.envelope) == signed
    assert signed.record.addresses == tuple(addresses)


@given(st.binary(max_size=200))
def test_signed_junk_gives_a_record_or_a_typed_error(payload):
    try:
        signed = open_record(seal(DOMAIN, PAYLOAD_TYPE, payload, KEY))
    except P2PError:
        return
    assert signed.record.peer == ME
