"""The machine that turns names into addresses: fed by hand, no DNS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.address import parse_address
from p2p.dialing.resolver import (
    MAX_LEVELS,
    MAX_QUERIES,
    MAX_REASONS,
    MAX_RESULTS,
    Query,
    Record,
    Resolution,
    has_name,
    with_ip,
)
from p2p.errors import InvalidAddress
from p2p.peer_id import PeerId
from tests.support import key_number

PEER, OTHER = (PeerId.from_public_key(key_number(number).public) for number in (1, 2))


def resolve(zone, *texts, peer=None):
    """Answers every query from `zone`, {(record, name): values}; what is missing fails."""
    resolution = Resolution([parse_address(text) for text in texts], peer)
    found, asked = [], []
    while queries := resolution.queries():
        for query in queries:
            asked.append(query)
            values = zone.get((query.record.value, query.name))
            if values is None:
                resolution.handle_failure(query, "no such name")
            else:
                resolution.handle_answer(query, values)
        found += [str(address) for address in resolution.take()]
    found += [str(address) for address in resolution.take()]
    assert resolution.done
    return found, resolution.reasons, asked


@pytest.mark.parametrize(
    ("text", "record", "ip", "result"),
    [
        ("/dns4/example.org/tcp/80", "dns4", "1.2.3.4", "/ip4/1.2.3.4/tcp/80"),
        ("/dns6/example.org/tcp/80", "dns6", "2001:db8::1", "/ip6/2001:db8::1/tcp/80"),
        ("/dns/example.org/tcp/80", "dns", "2001:db8::1", "/ip6/2001:db8::1/tcp/80"),
        ("/dns/example.org/tcp/80/ws", "dns", "1.2.3.4", "/ip4/1.2.3.4/tcp/80/ws"),
        ("/dns4/example.org/udp/9/quic-v1", "dns4", "1.2.3.4", "/ip4/1.2.3.4/udp/9/quic-v1"),
        (
            "/dns4/example.org/tcp/443/tls/ws",
            "dns4",
            "1.2.3.4",
            "/ip4/1.2.3.4/tcp/443/tls/sni/example.org/ws",
        ),
        ("/dns4/example.org/tcp/443/wss", "dns4", "1.2.3.4", "/ip4/1.2.3.4/tcp/443/tls/sni/example.org/ws"),
        (
            "/dns4/example.org/tcp/443/tls/sni/inner.org/ws",
            "dns4",
            "1.2.3.4",
            "/ip4/1.2.3.4/tcp/443/tls/sni/inner.org/ws",
        ),
        (f"/dns4/example.org/tcp/1/p2p/{PEER}", "dns4", "1.2.3.4", f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}"),
    ],
)
def test_a_name_gives_its_place_to_an_ip_address_and_stays_for_tls(text, record, ip, result):
    assert has_name(parse_address(text))
    found, reasons, _ = resolve({(record, "example.org"): [ip]}, text)
    assert (found, reasons) == ([result], [])


def test_an_address_without_a_name_is_its_own_result():
    assert not has_name(parse_address("/ip4/1.2.3.4/tcp/1"))
    assert not has_name(parse_address("/memory/1"))
    assert resolve({}, "/ip4/1.2.3.4/tcp/1", "/memory/1") == (["/ip4/1.2.3.4/tcp/1", "/memory/1"], [], [])


def test_only_a_name_can_be_replaced_and_only_by_an_ip_address():
    with pytest.raises(InvalidAddress):
        with_ip(parse_address("/dns4/example.org/tcp/1"), "fe80::1%eth0")


def test_addresses_of_the_wrong_family_and_of_one_link_are_left_out():
    zone = {
        ("dns4", "a.org"): ["::1", "1.2.3.4"],
        ("dns6", "a.org"): ["fe80::1%eth0", "1.2.3.4", "::1"],
        ("dns4", "b.org"): ["::1"],
    }
    found, reasons, _ = resolve(zone, "/dns4/a.org/tcp/1", "/dns6/a.org/tcp/1", "/dns4/b.org/tcp/1")
    assert found == ["/ip4/1.2.3.4/tcp/1", "/ip6/::1/tcp/1"]
    assert reasons == ["/dns4/b.org/tcp/1: b.org has no such address"]


def test_a_name_is_asked_for_once_however_many_addresses_have_it():
    zone = {("dns4", "a.org"): ["1.2.3.4"], ("dnsaddr", "_dnsaddr.z"): ["dnsaddr=/dns4/a.org/tcp/3"]}
    found, _, asked = resolve(zone, "/dns4/a.org/tcp/1", "/dns4/a.org/tcp/2", "/dnsaddr/z")
    assert found == [f"/ip4/1.2.3.4/tcp/{port}" for port in (1, 2, 3)]
    assert asked == [Query(Record.IP4, "a.org"), Query(Record.TEXT, "_dnsaddr.z")]


def test_a_name_that_fails_costs_its_own_addresses_only():
    found, reasons, _ = resolve({("dns", "b"): ["1.2.3.4"]}, "/dns/a/tcp/1", "/dns/b/tcp/1")
    assert found == ["/ip4/1.2.3.4/tcp/1"]
    assert reasons == ["/dns/a/tcp/1: no such name"]


def test_a_name_that_failed_is_not_asked_for_again():
    zone = {("dnsaddr", "_dnsaddr.z"): ["dnsaddr=/dns/a/tcp/2"]}
    found, reasons, asked = resolve(zone, "/dns/a/tcp/1", "/dnsaddr/z")
    assert reasons == ["/dns/a/tcp/1: no such name", "/dnsaddr/z: no such name"]
    assert (found, len(asked)) == ([], 2)


def test_dnsaddr_records_are_followed_and_other_texts_ignored():
    zone = {
        ("dnsaddr", "_dnsaddr.example.org"): [
            "v=spf1 -all",
            "dnsaddr=not a multiaddr",
            f"dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit",
            f"dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/{PEER}",
            "dnsaddr=/ip6/::1/tcp/2",
            "dnsaddr=/dnsaddr/deeper.example.org",
        ],
        ("dnsaddr", "_dnsaddr.deeper.example.org"): ["dnsaddr=/dns4/example.org/tcp/3"],
        ("dns4", "example.org"): ["5.6.7.8"],
    }
    found, reasons, _ = resolve(zone, "/dnsaddr/example.org", peer=PEER)
    assert found == [f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}", "/ip6/::1/tcp/2", "/ip4/5.6.7.8/tcp/3"]
    assert reasons == []


def test_only_records_of_the_peer_that_was_asked_for_are_kept():
    zone = {
        ("dnsaddr", "_dnsaddr.a"): [
            f"dnsaddr=/ip4/1.1.1.1/tcp/1/p2p/{OTHER}",
            f"dnsaddr=/ip4/2.2.2.2/tcp/1/p2p/{PEER}",
            "dnsaddr=/ip4/3.3.3.3/tcp/1",
            "dnsaddr=/dnsaddr/b",
            f"dnsaddr=/dnsaddr/c/p2p/{OTHER}",
        ],
        ("dnsaddr", "_dnsaddr.b"): [
            f"dnsaddr=/ip4/4.4.4.4/tcp/1/p2p/{PEER}",
            f"dnsaddr=/ip4/5.5.5.5/tcp/1/p2p/{OTHER}",
        ],
    }
    found, _, asked = resolve(zone, f"/dnsaddr/a/p2p/{PEER}")
    assert found == [f"/ip4/{ip}/tcp/1/p2p/{PEER}" for ip in ("2.2.2.2", "4.4.4.4")]
    assert [query.name for query in asked] == ["_dnsaddr.a", "_dnsaddr.b"]
    found, _, _ = resolve(zone, "/dnsaddr/a", peer=OTHER)
    assert found == [
        f"/ip4/1.1.1.1/tcp/1/p2p/{OTHER}",
        "/ip4/3.3.3.3/tcp/1",
        f"/ip4/5.5.5.5/tcp/1/p2p/{OTHER}",
    ]


def test_a_zone_without_an_address_of_the_peer_says_so():
    zone = {("dnsaddr", "_dnsaddr.a"): [f"dnsaddr=/ip4/1.1.1.1/tcp/1/p2p/{OTHER}"]}
    assert resolve(zone, "/dnsaddr/a", peer=PEER)[:2] == (
        [],
        ["/dnsaddr/a: _dnsaddr.a has no address of this peer"],
    )


def test_what_lies_behind_a_relay_names_no_peer_of_its_own():
    zone = {("dnsaddr", "_dnsaddr.a"): ["dnsaddr=/ip4/1.2.3.4/tcp/1"]}
    assert resolve(zone, f"/dnsaddr/a/p2p/{OTHER}/p2p-circuit")[0] == ["/ip4/1.2.3.4/tcp/1"]


def test_a_loop_of_dnsaddr_ends():
    zone = {
        ("dnsaddr", "_dnsaddr.a"): ["dnsaddr=/dnsaddr/b", "dnsaddr=/dnsaddr/a"],
        ("dnsaddr", "_dnsaddr.b"): ["dnsaddr=/dnsaddr/a", "dnsaddr=/ip4/1.2.3.4/tcp/1"],
    }
    found, _, asked = resolve(zone, "/dnsaddr/a")
    assert found == ["/ip4/1.2.3.4/tcp/1"]
    assert len(asked) == 2


def test_dnsaddr_is_followed_four_levels_deep():
    zone = {("dnsaddr", f"_dnsaddr.{level}"): [f"dnsaddr=/dnsaddr/{level + 1}"] for level in range(10)}
    found, reasons, asked = resolve(zone, "/dnsaddr/0")
    assert found == []
    assert len(asked) == MAX_LEVELS
    assert reasons == ["/dnsaddr/0: more than 4 levels of /dnsaddr"]


def test_a_dial_asks_a_bounded_number_of_questions():
    links = [f"dnsaddr=/dns4/{number}.org/tcp/1" for number in range(1000)]
    zone = {("dnsaddr", "_dnsaddr.a"): links}
    found, reasons, asked = resolve(zone, "/dnsaddr/a")
    assert (len(found), len(asked), len(reasons)) == (0, MAX_QUERIES, MAX_REASONS)


def test_a_dial_has_a_bounded_number_of_results():
    zone = {("dnsaddr", "_dnsaddr.a"): [f"dnsaddr=/ip4/1.2.3.4/tcp/{port}" for port in range(1, 1000)]}
    found, _, _ = resolve(zone, "/dnsaddr/a")
    assert len(found) == MAX_RESULTS


def test_what_is_not_answered_by_the_deadline_is_named():
    resolution = Resolution([parse_address("/dns/a/tcp/1"), parse_address("/dnsaddr/b")])
    resolution.queries()
    assert not resolution.done
    resolution.handle_deadline()
    assert resolution.done
    assert resolution.reasons == [
        "/dns/a/tcp/1: no answer about a",
        "/dnsaddr/b: no answer about _dnsaddr.b",
    ]


NAMES = st.sampled_from(["a", "b", "c", "d.e"])
LINKS = st.one_of(
    st.builds("dnsaddr=/dnsaddr/{}".format, NAMES),
    st.builds("dnsaddr=/dnsaddr/{}/p2p/{}".format, NAMES, st.sampled_from([PEER, OTHER])),
    st.builds(
        "dnsaddr=/{}/{}/tcp/{}/tls/ws".format, st.sampled_from(["dns", "dns4", "dns6"]), NAMES, st.just(1)
    ),
    st.builds(
        "dnsaddr=/ip4/1.2.3.{}/tcp/1/p2p/{}".format, st.integers(0, 255), st.sampled_from([PEER, OTHER])
    ),
    st.text(max_size=20),
    st.text(max_size=20).map("dnsaddr=".__add__),
)
IPS = st.lists(st.ip_addresses().map(str) | st.just("fe80::1%eth0") | st.text(max_size=5), max_size=5)


@given(
    st.dictionaries(
        st.tuples(st.just("dnsaddr"), NAMES.map("_dnsaddr.{}".format)), st.lists(LINKS, max_size=30)
    ),
    st.dictionaries(st.tuples(st.sampled_from(["dns", "dns4", "dns6"]), NAMES), IPS),
    st.sampled_from([None, PEER]),
)
def test_any_zone_ends_within_the_bounds_and_yields_addresses_without_names(texts, hosts, peer):
    found, reasons, asked = resolve(texts | hosts, "/dnsaddr/a", "/dns/b/tcp/1", peer=peer)
    assert len(found) <= MAX_RESULTS
    assert len(set(asked)) == len(asked) <= MAX_QUERIES
    assert len(reasons) <= MAX_REASONS
    for text in found:
        assert not has_name(parse_address(text))
        assert peer is None or str(OTHER) not in text
