from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.address import parse_address
from p2p.errors import AuthenticationFailed
from p2p.identify.trust import Reach, believable, check_record, group_of, is_local, reach_of
from p2p.peer_id import PeerId
from p2p.peer_record import sign_record
from tests.support import key_number

ONE, OTHER = (PeerId.from_public_key(key_number(number).public) for number in (1, 2))
LOOPBACK = ["/ip4/127.0.0.1/tcp/1", "/ip4/127.9.9.9/udp/1/quic-v1", "/ip6/::1/tcp/1"]
PRIVATE = ["/ip4/10.1.1.1/tcp/1", "/ip4/192.168.1.1/tcp/1", "/ip4/100.64.0.1/tcp/1", "/ip4/169.254.1.1/tcp/1"]
PRIVATE += ["/ip6/fd00::1/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip4/224.0.1.1/tcp/1"]
PUBLIC = ["/ip4/1.2.3.4/tcp/1", "/ip4/8.8.8.8/tcp/1/ws", "/ip6/2a00:1450::1/tcp/1"]
NAMED = ["/dns4/example.org/tcp/1", "/memory/7", f"/ip4/1.2.3.4/tcp/1/p2p/{OTHER}/p2p-circuit"]


@pytest.mark.parametrize(
    ("texts", "reach"),
    [(LOOPBACK, Reach.LOOPBACK), (PRIVATE, Reach.PRIVATE), (PUBLIC, Reach.PUBLIC), (NAMED, None)],
)
def test_an_address_has_the_reach_of_its_ip(texts, reach):
    assert [reach_of(parse_address(text)) for text in texts] == [reach] * len(texts)


def test_an_address_with_a_zone_has_the_reach_of_its_ip():
    assert reach_of(parse_address("/ip6zone/eth0/ip6/fe80::1/tcp/1")) is Reach.PRIVATE


@pytest.mark.parametrize(
    ("remotes", "believed"),
    [
        (PUBLIC, PUBLIC + NAMED),
        (PRIVATE, PRIVATE + PUBLIC + NAMED),
        (LOOPBACK, LOOPBACK + PRIVATE + PUBLIC + NAMED),
        (NAMED, LOOPBACK + PRIVATE + PUBLIC + NAMED),
    ],
)
def test_addresses_that_make_no_sense_where_the_peer_is_are_not_believed(remotes, believed):
    offered = [parse_address(text) for text in LOOPBACK + PRIVATE + PUBLIC + NAMED]
    for remote in remotes:
        assert [str(address) for address in believable(offered, parse_address(remote))] == believed


def test_only_this_machine_is_local():
    local = [text for text in LOOPBACK + PRIVATE + PUBLIC + NAMED if is_local(parse_address(text))]
    assert local == [*LOOPBACK, "/memory/7"]


def test_observers_are_grouped_by_what_one_owner_holds():
    def group(text):
        return group_of(parse_address(text))

    assert group("/ip4/1.2.3.4/tcp/1") == group("/ip4/1.2.3.4/tcp/2/ws") != group("/ip4/1.2.3.5/tcp/1")
    assert group("/ip6/2a00:0:0:11ff::1/tcp/1") == group("/ip6/2a00:0:0:1100:9::9/tcp/1")
    assert group("/ip6/2a00:0:0:11ff::1/tcp/1") != group("/ip6/2a00:0:0:1200::1/tcp/1")
    assert [group(text) for text in NAMED] == [None] * 3


def test_a_record_is_believed_of_the_peer_that_shows_it_alone():
    envelope = sign_record(key_number(1), 1, [parse_address(PUBLIC[0])]).envelope
    signed = check_record(ONE, envelope)
    assert signed is not None
    assert signed.envelope == envelope
    with pytest.raises(AuthenticationFailed, match="as its own"):
        check_record(OTHER, envelope)
    with pytest.raises(AuthenticationFailed):
        check_record(ONE, envelope[:-1] + bytes([envelope[-1] ^ 1]))


@given(st.binary(max_size=200))
def test_junk_instead_of_a_record_counts_as_none(envelope):
    assert check_record(ONE, envelope) is None
