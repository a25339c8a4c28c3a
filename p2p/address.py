"""Multiaddrs at our border: py-multiaddr does the coding, this module refuses what it lets through.

py-multiaddr 0.2 takes truncated binary (`04 01` becomes /ip4/0.0.0.1), the empty address and doubled
slashes; a round trip through the other form finds all of them.
Source: libp2p/specs addressing/README.md, multiformats/multiaddr.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from multiaddr import Multiaddr

from p2p.errors import InvalidAddress, InvalidKey
from p2p.peer_id import PeerId

MAX_ADDRESS = 1024  # bytes or characters; the longest useful ones (relayed webtransport) are near 300

_SLOPPY_NUMBER = re.compile(r"/(?:tcp|udp|memory)/(?![0-9]+(?:/|\Z))")  # int() takes " 1", "+1", "1_0", "١"
_PEER_PART = re.compile(r"/(?:p2p|ipfs)/([^/]+)")  # CID forms become the multihash, as go and js write it


@lru_cache(4096)
def parse_address(text: str) -> Multiaddr:
    """The address written as `text`. Raises `InvalidAddress` with the reason."""
    sloppy = not text.startswith("/") or text.endswith("/") or "//" in text or _SLOPPY_NUMBER.search(text)
    if sloppy or len(text) > MAX_ADDRESS:
        raise InvalidAddress(f"not a multiaddr: {text[:80]!r} (write it like /ip4/127.0.0.1/tcp/4001)")
    try:
        address = Multiaddr(_PEER_PART.sub(lambda part: f"/p2p/{PeerId.parse(part[1])}", text))
        Multiaddr(address.to_bytes())
    except Exception as exc:  # its codecs raise whatever they meet
        raise InvalidAddress(f"not a multiaddr: {text!r}: {exc}") from exc
    return address


@lru_cache(4096)
def decode_address(data: bytes) -> Multiaddr:
    """The address in its binary form; its text is one that `parse_address` takes.

    Raises `InvalidAddress` for anything truncated or unknown.
    """
    if not 0 < len(data) <= MAX_ADDRESS:
        raise InvalidAddress(f"not a multiaddr: {len(data)} bytes")
    try:
        address = parse_address(str(Multiaddr(data)))
        exact = address.to_bytes() == data
    except Exception as exc:  # its codecs raise whatever they meet
        raise InvalidAddress(f"not a multiaddr: {data[:40].hex()}") from exc
    if not exact:
        raise InvalidAddress(f"not a multiaddr: {data[:40].hex()}")
    return address


def decode_addresses(encoded: list[bytes], limit: int) -> list[Multiaddr]:
    """The valid ones among the first `limit` of a peer's addresses, in order, each once.

    A bad address costs only itself, never the message that carried it (wire rule of identify and kad).
    """
    found: dict[Multiaddr, None] = {}
    for data in encoded[:limit]:
        try:
            found[decode_address(bytes(data))] = None
        except InvalidAddress:
            continue
    return list(found)


@lru_cache(4096)
def split_peer(address: Multiaddr) -> tuple[Multiaddr | None, PeerId | None]:
    """(the transport part, the id of a final /p2p/ part); either is None when it is absent."""
    parts = str(address).rsplit("/p2p/", 1)
    if len(parts) == 1:
        return address, None
    if "/" in parts[1]:
        raise InvalidAddress(f"/p2p/ is not the last part of {address}")
    try:
        peer = PeerId.parse(parts[1])
    except InvalidKey as exc:
        raise InvalidAddress(f"{address}: {exc}") from exc
    return (parse_address(parts[0]) if parts[0] else None), peer


def with_peer(address: Multiaddr, peer: PeerId) -> Multiaddr:
    """`address` followed by /p2p/<peer>."""
    return address.encapsulate(parse_address(f"/p2p/{peer}"))


@lru_cache(4096)
def ip_of(address: Multiaddr) -> IPv4Address | IPv6Address | None:
    """The IP address that `address` begins with, zone or not; None for names, relays, memory and the like."""
    text = str(address)
    parts = text.split("/")
    if parts[1] == "ip6zone":
        del parts[1:3]
    if parts[1] not in ("ip4", "ip6") or "/p2p-circuit" in text:
        return None
    return ip_address(parts[2])


def tcp_address(host: str, port: int) -> Multiaddr:
    """The multiaddr of a TCP socket's address; IPv4-mapped IPv6 becomes IPv4."""
    ip = ip_address(host.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    return parse_address(f"/ip{ip.version}/{ip}/tcp/{port}")


@lru_cache(4096)
def tcp_endpoint(address: Multiaddr) -> tuple[str, int]:
    """(host, port) of an /ip4|ip6|dns…/tcp address, without what follows a /p2p/.

    Raises `InvalidAddress` for any other kind of address.
    """
    if str(address).startswith("/ip6zone/"):
        raise InvalidAddress(
            f"cannot use {address}: a link-local address with a zone has no meaning elsewhere"
        )
    transport, _ = split_peer(address)
    parts = str(transport).split("/")[1:] if transport is not None else []
    if len(parts) != 4 or parts[0] not in ("ip4", "ip6", "dns", "dns4", "dns6") or parts[2] != "tcp":
        raise InvalidAddress(f"cannot use {address}: only addresses like /ip4/1.2.3.4/tcp/4001 are supported")
    return parts[1], int(parts[3])
