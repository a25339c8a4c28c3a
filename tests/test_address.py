from contextlib import suppress
from ipaddress import ip_address

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from p2p import varint
from p2p.address import (
    MAX_ADDRESS,
    decode_address,
    decode_addresses,
    ip_of,
    parse_address,
    split_peer,
    tcp_address,
    tcp_endpoint,
    with_peer,
)
from p2p.errors import InvalidAddress
from p2p.peer_id import PeerId

PEER = PeerId.parse("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
TCP = "/ip4/127.0.0.1/tcp/4001"

BINARY = {
    TCP: "047f000001060fa1",
    "/ip6/::1/tcp/1": "2900000000000000000000000000000001060001",
    "/ip4/1.2.3.4/udp/443/quic-v1": "0401020304910201bbcd03",
    "/ip4/1.2.3.4/tcp/443/tls/ws": "04010203040601bbc003dd03",
    "/ip4/1.2.3.4/tcp/443/wss": "04010203040601bbde03",
    "/dns4/example.com/tcp/80": "360b6578616d706c652e636f6d060050",
    "/dnsaddr/example.com": "380b6578616d706c652e636f6d",
    "/memory/7": "89060000000000000007",
    "/unix/run/x": "90030572756e2f78",
    f"/p2p/{PEER}": "a50326" + PEER.raw.hex(),
    f"{TCP}/p2p/{PEER}/p2p-circuit": "047f000001060fa1a50326" + PEER.raw.hex() + "a202",
}


@pytest.mark.parametrize("text", BINARY)
def test_an_address_has_the_bytes_of_the_specification(text: str) -> None:
    address = parse_address(text)
    assert address.to_bytes().hex() == BINARY[text]
    assert str(address) == text
    assert decode_address(address.to_bytes()) == address


@pytest.mark.parametrize("written", ["/ipfs/{base58}", "/p2p/{cid}", "/ipfs/{cid}"])
def test_other_ways_to_write_a_peer_become_the_usual_one(written: str) -> None:
    cid = "f0172" + PEER.raw.hex()
    assert str(parse_address(written.format(base58=PEER, cid=cid))) == f"/p2p/{PEER}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "//",
        "ip4/127.0.0.1/tcp/1",
        f"{TCP}/",
        "/ip4//tcp/1",
        "/ip4/127.0.0.1/tcp",
        "/ip4/127.0.0.1/tcp/65536",
        "/ip4/127.0.0.1/tcp/-1",
        "/ip4/127.0.0.1/tcp/+1",
        "/ip4/127.0.0.1/tcp/ 1",
        "/ip4/127.0.0.1/tcp/1 ",
        "/ip4/127.0.0.1/tcp/1\n",
        "/ip4/127.0.0.1/tcp/1_0",
        "/ip4/127.0.0.1/tcp/٣",
        "/ip4/127.0.0.1/tcp/http",
        "/ip4/127.0.0.256/tcp/1",
        "/ip4/0177.0.0.1/tcp/1",
        "/ip4/localhost/tcp/1",
        "/ip6/fe80::1%eth0/tcp/1",
        "/dns/ex ample/tcp/1",
        "/dns/a\x00b/tcp/1",
        "/foo/1",
        "/memory/-1",
        "/memory/18446744073709551616",
        f"{TCP}/p2p/Qm",
        f"{TCP}/p2p/{PEER}x",
        "127.0.0.1:4001",
        "/dns/" + "a" * MAX_ADDRESS,
    ],
)
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidAddress, match="not a multiaddr"):
        parse_address(text)


def test_every_truncation_of_a_binary_address_is_refused_or_ends_at_a_part() -> None:
    whole = parse_address(f"{TCP}/p2p/{PEER}/p2p-circuit").to_bytes()
    ends = [size for size in range(len(whole)) if _decodes(whole[:size])]
    assert ends == [5, 8, len(whole) - 2]


def _decodes(data: bytes) -> bool:
    try:
        decode_address(data)
    except InvalidAddress:
        return False
    return True


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "0401",
        "04",
        "ff",
        "00",
        "060fa1ff",
        "9003022f2f",  # /unix with slashes in front
        "84007f000001",  # a code that is not minimal
        "a503021220",
        "a503421340" + "00" * 64,  # a multihash of SHA-512
        "a503221120" + "00" * 32,  # a multihash of sha1 type and a wrong size
        "3600",
        "3603610a62",  # a newline in a name
        "3604612f2f62",
        "dd03" * (MAX_ADDRESS // 2 + 1),
        "a202" * (MAX_ADDRESS // 2),  # within the limit in bytes, six times that as text
    ],
)
def test_a_malformed_binary_address_is_refused(encoded: str) -> None:
    with pytest.raises(InvalidAddress, match="not a multiaddr"):
        decode_address(bytes.fromhex(encoded))


CODES = [4, 41, 42, 6, 273, 33, 53, 54, 55, 56, 132, 301, 302, 400, 421, 290, 443, 444, 445, 446, 447, 448]
CODES += [449, 460, 461, 465, 466, 477, 478, 479, 480, 481, 280, 281, 777, 54321]


@st.composite
def almost_addresses(draw: st.DrawFn) -> bytes:
    """Parts with real codes and any value."""
    out = b""
    for code in draw(st.lists(st.sampled_from(CODES), min_size=1, max_size=4)):
        value = draw(st.binary(max_size=40))
        if draw(st.booleans()):
            value = bytes([len(value)]) + value
        out += varint.encode(code) + value
    return out


@given(almost_addresses() | st.binary(max_size=60))
def test_random_bytes_are_an_address_that_can_be_written_or_a_typed_error(data: bytes) -> None:
    try:
        address = decode_address(data)
    except InvalidAddress:
        return
    assert address.to_bytes() == data
    assert parse_address(str(address)) == address
    assert with_peer(address, PEER).to_bytes()[: len(data)] == data
    with suppress(InvalidAddress):
        split_peer(address)
        tcp_endpoint(address)


WORDS = st.sampled_from(
    ["ip4", "ip6", "tcp", "dns", "p2p", "127.0.0.1", "::1", "80", "a.b", str(PEER), "x", ""]
)


@given(st.text(max_size=40) | st.lists(WORDS, max_size=7).map(lambda parts: "/" + "/".join(parts)))
def test_random_text_is_an_address_or_a_typed_error(text: str) -> None:
    try:
        address = parse_address(text)
    except InvalidAddress:
        return
    assert parse_address(str(address)) == address


def test_a_bad_address_among_a_peers_addresses_costs_only_itself() -> None:
    good = [parse_address(TCP), parse_address("/ip6/::1/tcp/2")]
    encoded = [good[0].to_bytes(), b"\x04\x01", b"", good[1].to_bytes(), good[0].to_bytes()]
    assert decode_addresses(encoded, limit=10) == good
    assert decode_addresses(encoded, limit=3) == good[:1]
    assert decode_addresses(encoded, limit=0) == []


def test_the_peer_is_split_off_and_put_back() -> None:
    address = parse_address(TCP)
    assert split_peer(with_peer(address, PEER)) == (address, PEER)
    assert split_peer(address) == (address, None)
    assert split_peer(parse_address(f"/p2p/{PEER}")) == (None, PEER)
    assert str(with_peer(address, PEER)) == f"{TCP}/p2p/{PEER}"


def test_a_long_address_can_still_name_its_peer() -> None:
    longest = parse_address("/unix/" + "a" * (MAX_ADDRESS - 6))
    assert str(with_peer(longest, PEER)).endswith(str(PEER))


def test_a_relay_address_has_no_final_peer() -> None:
    with pytest.raises(InvalidAddress, match="not the last part"):
        split_peer(parse_address(f"{TCP}/p2p/{PEER}/p2p-circuit"))


def test_a_peer_that_only_py_multiaddr_accepts_is_refused() -> None:
    no_key = base58.b58encode(b"\x00\x03abc").decode()
    with pytest.raises(InvalidAddress, match="not a libp2p key"):
        split_peer(Multiaddr(f"{TCP}/p2p/{no_key}"))
    with pytest.raises(InvalidAddress, match="not a libp2p key"):
        parse_address(f"{TCP}/p2p/{no_key}")


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("127.0.0.1", "/ip4/127.0.0.1/tcp/1"),
        ("::1", "/ip6/::1/tcp/1"),
        ("::ffff:10.0.0.1", "/ip4/10.0.0.1/tcp/1"),
        ("fe80::1%eth0", "/ip6/fe80::1/tcp/1"),
    ],
)
def test_a_socket_address_becomes_a_multiaddr(host: str, text: str) -> None:
    assert str(tcp_address(host, 1)) == text


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        (TCP, ("127.0.0.1", 4001)),
        (f"{TCP}/p2p/{PEER}", ("127.0.0.1", 4001)),
        ("/ip6/::1/tcp/0", ("::1", 0)),
        ("/dns/example.com/tcp/80", ("example.com", 80)),
        ("/dns4/example.com/tcp/80", ("example.com", 80)),
        ("/dns6/example.com/tcp/80", ("example.com", 80)),
    ],
)
def test_a_tcp_address_becomes_host_and_port(text: str, endpoint: tuple[str, int]) -> None:
    assert tcp_endpoint(parse_address(text)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/1.2.3.4",
        "/ip4/1.2.3.4/udp/1",
        "/ip4/1.2.3.4/tcp/1/ws",
        "/memory/1",
        "/dnsaddr/example.com",
        f"/p2p/{PEER}",
        f"{TCP}/p2p/{PEER}/p2p-circuit",
        "/ip6zone/eth0/ip6/fe80::1/tcp/1",
    ],
)
def test_other_addresses_are_no_tcp_endpoints(text: str) -> None:
    with pytest.raises(InvalidAddress):
        tcp_endpoint(parse_address(text))


def test_the_ip_address_in_front_is_found() -> None:
    assert ip_of(parse_address(TCP)) == ip_address("127.0.0.1")
    assert ip_of(parse_address("/ip6/::1")) == ip_address("::1")
    assert ip_of(parse_address("/dns4/example.com/tcp/80")) is None
    assert ip_of(parse_address("/memory/7")) is None
    assert ip_of(parse_address("/ip6zone/eth0/ip6/fe80::1/tcp/1")) == ip_address("fe80::1")
    assert ip_of(parse_address(f"{TCP}/p2p/{PEER}/p2p-circuit")) is None


def test_an_address_of_one_link_is_refused_with_its_reason() -> None:
    with pytest.raises(InvalidAddress, match="link-local"):
        tcp_endpoint(parse_address("/ip6zone/eth0/ip6/fe80::1/tcp/1"))
