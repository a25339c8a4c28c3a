"""How much of what a peer says of itself is believed, by where its connection comes from.

An address has a reach: this machine, a private network, or the whole internet. Over the internet
nobody can use a private address, so nobody is made to remember or dial one.
Source: go-libp2p p2p/protocol/identify, `filterAddrs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv6Address, ip_network

from multiaddr import Multiaddr

from p2p.address import ip_of
from p2p.errors import AuthenticationFailed, P2PError
from p2p.peer_id import PeerId
from p2p.peer_record import SignedRecord, open_record

IPV6_GROUP = 56  # bits of an IPv6 address that one owner holds, as go-libp2p groups observers


class Reach(IntEnum):
    """From how far an address can be dialed."""

    LOOPBACK = 0
    PRIVATE = 1
    PUBLIC = 2


@lru_cache(1024)  # the text of a multiaddr is made anew each time
def reach_of(address: Multiaddr) -> Reach | None:
    """The reach of an address that begins with an IP address; None for any other."""
    ip = ip_of(address)
    if ip is None:
        return None
    if ip.is_loopback:
        return Reach.LOOPBACK
    return Reach.PUBLIC if ip.is_global and not ip.is_multicast else Reach.PRIVATE


def is_local(address: Multiaddr) -> bool:
    """Whether `address` never leaves this machine: go exempts such peers from rates, and so do we."""
    reach = reach_of(address)
    return reach is Reach.LOOPBACK or (reach is None and str(address).startswith("/memory/"))


def group_of(address: Multiaddr) -> str | None:
    """One text for all addresses that one owner is likely to hold: the IPv4 address, or the IPv6 /56."""
    ip = ip_of(address)
    if isinstance(ip, IPv6Address):
        return str(ip_network((int(ip), IPV6_GROUP), strict=False))
    return str(ip) if ip is not None else None


def believable(addresses: Iterable[Multiaddr], remote: Multiaddr) -> list[Multiaddr]:
    """Those of a peer's `addresses` that make sense for a peer whose connection comes from `remote`.

    Over the internet no private ones, over a private network no loopback; names are taken as they are.
    """
    least = reach_of(remote) or Reach.LOOPBACK
    return [address for address in addresses if (reach := reach_of(address)) is None or reach >= least]


def check_record(peer: PeerId, envelope: bytes) -> SignedRecord | None:
    """The record in `envelope`, shown by `peer`; None when it is no peer record that we understand.

    Raises `AuthenticationFailed` when its signature is wrong, or it is about or by anybody but `peer`.
    """
    try:
        signed = open_record(envelope)
    except AuthenticationFailed:
        raise
    except P2PError:
        return None  # as an address that does not decode: it costs only itself
    if signed.record.peer != peer:
        raise AuthenticationFailed(f"{peer} shows the record of {signed.record.peer} as its own")
    return signed
