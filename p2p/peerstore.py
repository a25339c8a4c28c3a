"""What we know of other peers: their addresses, each with an expiry, and the protocols they speak."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from multiaddr import Multiaddr

from p2p.address import decode_address
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId
from p2p.store import AddressRow

MAX_PEERS = 4096  # the least recently updated goes first
MAX_ADDRESSES = 32  # of one peer; go keeps 64, the newest win
MAX_PROTOCOLS = 1024  # of one peer; identify's cap

TTL_CONNECTED = 7 * 86400.0  # seconds; the peer told us itself over an authenticated connection
TTL_HEARD = 1800.0  # seconds; somebody else told us (kad: 30 min)


class PeerStore:
    """Bounded memory of peers. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._addresses: dict[PeerId, dict[Multiaddr, float]] = {}
        self._protocols: dict[PeerId, tuple[str, ...]] = {}

    def peers(self) -> list[PeerId]:
        """Everybody with at least one address, least recently updated first."""
        return [peer for peer in list(self._addresses) if self.addresses(peer)]

    def addresses(self, peer: PeerId) -> list[Multiaddr]:
        """The addresses of `peer` that have not expired, newest first, without /p2p/."""
        known = self._addresses.get(peer)
        if known is None:
            return []
        now = self._clock()
        for address in [address for address, expires in known.items() if expires <= now]:
            del known[address]
        if not known:
            del self._addresses[peer]
        return list(reversed(known))

    def add_addresses(self, peer: PeerId, addresses: Iterable[Multiaddr], ttl: float) -> None:
        """Remembers `addresses` for `ttl` seconds at least; the oldest go when there are too many."""
        expires = self._clock() + ttl
        known = self._addresses.pop(peer, {})
        for address in addresses:
            known[address] = max(expires, known.pop(address, 0.0))
        for address in list(known)[: max(0, len(known) - MAX_ADDRESSES)]:
            del known[address]
        if known:
            self._addresses[peer] = known
        while len(self._addresses) > MAX_PEERS:
            self._addresses.pop(next(iter(self._addresses)))

    def replace_addresses(self, peer: PeerId, addresses: Sequence[Multiaddr], ttl: float) -> None:
        """Forgets what was known and remembers `addresses`: the peer itself said where it listens."""
        self._addresses.pop(peer, None)
        self.add_addresses(peer, addresses, ttl)

    def protocols(self, peer: PeerId) -> tuple[str, ...]:
        """What `peer` said that it speaks; empty when it said nothing yet."""
        return self._protocols.get(peer, ())

    def set_protocols(self, peer: PeerId, protocols: Sequence[str]) -> None:
        """Replaces what `peer` speaks."""
        self._protocols.pop(peer, None)
        self._protocols[peer] = tuple(protocols[:MAX_PROTOCOLS])
        while len(self._protocols) > MAX_PEERS:
            self._protocols.pop(next(iter(self._protocols)))

    def export_rows(self, wall_time: float) -> list[AddressRow]:
        """All addresses as rows with unix expiry, for `AddressFile.save`; `wall_time` is now."""
        offset = wall_time - self._clock()
        return [
            (peer.raw, address.to_bytes(), expires + offset)
            for peer, known in self._addresses.items()
            for address, expires in known.items()
        ]

    def import_rows(self, rows: Iterable[AddressRow], wall_time: float) -> None:
        """Takes rows of an earlier process; rows that do not decode are dropped."""
        for raw, encoded, expires in rows:
            try:
                self.add_addresses(PeerId(raw), [decode_address(encoded)], expires - wall_time)
            except InvalidInput:
                continue
