"""Happy eyeballs: in which order the addresses of a peer are tried, and when each attempt starts.

        add ──→ queue ──(250 ms after the last start, or a failure)──→ in flight ──→ failed | won
                  └ sorted anew with every add                          └ at most 8

Order: networks that we share with the peer, the internet, private networks of others; in each TCP
before WebSocket, and IPv6 and IPv4 by turns. Source: RFC 8305; go-libp2p's dial ranker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from itertools import chain, zip_longest
from math import inf

from multiaddr import Multiaddr

from p2p.address import ip_of

ATTEMPT_DELAY = 0.25  # seconds between two starts; RFC 8305 "Connection Attempt Delay", go-libp2p
MAX_IN_FLIGHT = 8  # attempts to one peer at once; go-libp2p, "DefaultPerPeerRateLimit"
MAX_DIALED_ADDRESSES = 25  # of one peer in one dial, as js-libp2p

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class _Traits:
    """What decides the place of an address."""

    ip: IPv4Address | IPv6Address | None
    everywhere: bool  # it means the same place from wherever it is dialed
    transport: int  # 0 for TCP, 1 for WebSocket

    def scope(self, interfaces: Sequence[Interface], same_machine: bool) -> int:
        """0 for a network that we share, 1 for the internet, 2 for networks of others."""
        ip = self.ip
        if ip is None or self.everywhere:
            return 1
        if ip.is_loopback:
            return 0 if same_machine else 2
        shared = not ip.is_link_local and any(ip in interface.network for interface in interfaces)
        return 0 if shared else 2  # a link-local address says nothing without its zone


@lru_cache(4096)
def _traits(address: Multiaddr) -> _Traits:
    ip, parts = ip_of(address), str(address).split("/")
    return _Traits(ip, ip is None or ip.is_global, 1 if "ws" in parts or "wss" in parts else 0)


def order(addresses: Iterable[Multiaddr], interfaces: Sequence[Interface] = ()) -> list[Multiaddr]:
    """`addresses` as they should be tried; equally good ones keep their order.

    `interfaces` are our own addresses with their networks: a private address is worth trying first
    where we are in its network, and loopback where the peer has an address of this machine.
    """
    candidates = [(address, _traits(address)) for address in addresses]
    own = {interface.ip for interface in interfaces if not interface.ip.is_loopback}
    same_machine = any(traits.ip in own for _, traits in candidates)
    groups: dict[tuple[int, int], tuple[list[Multiaddr], list[Multiaddr]]] = {}
    for address, traits in candidates:
        rank = traits.scope(interfaces, same_machine), traits.transport
        sixes, others = groups.setdefault(rank, ([], []))
        (sixes if isinstance(traits.ip, IPv6Address) else others).append(address)
    return [address for rank in sorted(groups) for address in _by_turns(*groups[rank])]


def _by_turns(sixes: list[Multiaddr], others: list[Multiaddr]) -> list[Multiaddr]:
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

    def only(self) -> Multiaddr | None:
        """The address to try when there is just one, or None."""
        return self._queue[0] if len(self._queue) == 1 and not self.in_flight else None

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
        if len(self._queue) > 1:
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
