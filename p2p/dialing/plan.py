"""Happy eyeballs: in which order the addresses of a peer are tried, and when each attempt starts.

        add ──→ queue ──(250 ms after the last start, or a failure)──→ in flight ──→ failed | won
                  └ sorted anew with every add                          └ at most 8

Order: networks that we share with the peer, the internet, private networks of others; in each TCP
before WebSocket, and IPv6 and IPv4 by turns. Source: RFC 8305; go-libp2p's dial ranker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from itertools import chain, zip_longest
from math import inf

from multiaddr import Multiaddr

from p2p.address import ip_of

ATTEMPT_DELAY = 0.25  # seconds between two starts; RFC 8305 "Connection Attempt Delay", go-libp2p
MAX_IN_FLIGHT = 8  # attempts to one peer at once; go-libp2p, "DefaultPerPeerRateLimit"
MAX_DIALED_ADDRESSES = 25  # of one peer in one dial, as js-libp2p

Interface = IPv4Interface | IPv6Interface


def order(addresses: Iterable[Multiaddr], interfaces: Sequence[Interface] = ()) -> list[Multiaddr]:
    """`addresses` as they should be tried; equally good ones keep their order.

    `interfaces` are our own addresses with their networks: a private address is worth trying first
    where we are in its network, and loopback where the peer has an address of this machine.
    """
    candidates = list(addresses)
    own = {interface.ip for interface in interfaces}
    same_machine = any(ip in own and not ip.is_loopback for ip in map(ip_of, candidates) if ip is not None)
    groups: dict[tuple[int, int], list[Multiaddr]] = {}
    for address in candidates:
        rank = _scope(address, interfaces, same_machine), _transport(address)
        groups.setdefault(rank, []).append(address)
    return [address for rank in sorted(groups) for address in _by_turns(groups[rank])]


def _scope(address: Multiaddr, interfaces: Sequence[Interface], same_machine: bool) -> int:
    ip = ip_of(address)
    if ip is None or ip.is_global:
        return 1
    if ip.is_loopback:
        return 0 if same_machine else 2
    return 0 if any(ip in interface.network for interface in interfaces) else 2


def _transport(address: Multiaddr) -> int:
    parts = str(address).split("/")
    return 1 if "ws" in parts or "wss" in parts else 0


def _by_turns(addresses: list[Multiaddr]) -> list[Multiaddr]:
    sixes = [address for address in addresses if str(address).startswith("/ip6/")]
    others = [address for address in addresses if not str(address).startswith("/ip6/")]
    pairs = chain.from_iterable(zip_longest(sixes, others))
    return [address for address in pairs if address is not None]


class DialPlan:
    """When to try which address of one peer. The caller reports failures; a success ends the dial."""

    def __init__(self, interfaces: Sequence[Interface] = ()) -> None:
        self._interfaces = interfaces
        self._known: set[Multiaddr] = set()
        self._queue: list[Multiaddr] = []
        self._next_start = -inf
        self.in_flight: dict[Multiaddr, None] = {}
        self.left_out = 0  # addresses over `MAX_DIALED_ADDRESSES`

    @property
    def idle(self) -> bool:
        """Whether there is nothing to wait for: no attempt runs and none is left."""
        return not self._queue and not self.in_flight

    def add(self, addresses: Iterable[Multiaddr]) -> None:
        """More addresses to try; those that are known already do not count again."""
        for address in addresses:
            if address in self._known:
                continue
            if len(self._known) >= MAX_DIALED_ADDRESSES:
                self.left_out += 1
                continue
            self._known.add(address)
            self._queue.append(address)
        self._queue = order(self._queue, self._interfaces)

    def start(self, now: float) -> Multiaddr | None:
        """The address to try now, which is in flight from here on; None while it is too early."""
        if not self._queue or now < self._next_start or len(self.in_flight) >= MAX_IN_FLIGHT:
            return None
        address = self._queue.pop(0)
        self.in_flight[address] = None
        self._next_start = now + ATTEMPT_DELAY
        return address

    def handle_failure(self, address: Multiaddr) -> None:
        """The attempt at `address` failed: the next may start at once."""
        self.in_flight.pop(address, None)
        self._next_start = -inf

    def next_deadline(self) -> float | None:
        """When `start` has the next address, or None when it waits for something else than time."""
        if not self._queue or len(self.in_flight) >= MAX_IN_FLIGHT:
            return None
        return self._next_start
