"""What we know of other peers, each thing until it expires: addresses, signed records, protocols, latency.

A peer's own signed record comes before what others say of it: its addresses are listed first, and
gossip about the peer never pushes them out. Everything is bounded, connected peers are never evicted,
and `collect` lets expired peers go that nobody asks for (CVE-2023-40583).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from multiaddr import Multiaddr

from p2p.address import decode_address
from p2p.errors import InvalidInput, InvalidKey, P2PError
from p2p.keys import PublicKey
from p2p.peer_id import PeerId
from p2p.peer_record import SignedRecord, open_record

if TYPE_CHECKING:
    from p2p.store import AddressRow, RecordRow  # SQLite is for hosts that keep a file

MAX_PEERS = 4096  # the least recently updated goes first, connected ones stay
MAX_ADDRESSES = 32  # of one peer; go keeps 64, the newest win
MAX_PROTOCOLS = 1024  # of one peer; identify's cap
MAX_RECORDS = 1024  # signed records of all peers, of at most 8 KiB each
LATENCY_WEIGHT = 0.1  # of a new measurement in the moving average, as go's LatencyEWMASmoothing

# seconds; go-libp2p core/peerstore/peerstore.go
TTL_CONNECTED = math.inf  # as long as the connection lives, then `TTL_RECENTLY_CONNECTED`
TTL_RECENTLY_CONNECTED = 1800.0
TTL_TEMPORARY = 120.0  # an address to be tried once
TTL_HEARD = 1800.0  # somebody else told us (kad: 30 min)
TTL_SAVED = 7 * 86400.0  # in the file: how long a peer may be off and still find those it was connected to


@dataclass(slots=True)
class _Entry:
    """All about one peer; `addresses` maps to the time of expiry, oldest first."""

    updated: float
    connected: bool = False
    addresses: dict[Multiaddr, float] = field(default_factory=dict)
    record: SignedRecord | None = None
    seq: int = -1  # of the last record that was taken, also once it is gone
    protocols: tuple[str, ...] = ()
    agent: str = ""
    key: PublicKey | None = None
    latency: float | None = None

    @property
    def certified(self) -> frozenset[Multiaddr]:
        return frozenset(self.record.record.addresses if self.record is not None else ())

    def expire(self, now: float) -> None:
        """Drops addresses whose time has come, and the record that they came with after the last one."""
        gone = [address for address, expires in self.addresses.items() if expires <= now]
        for address in gone:
            del self.addresses[address]
        if gone and self.record is not None and self.certified.isdisjoint(self.addresses):
            self.record = None

    def trim(self) -> None:
        """Keeps `MAX_ADDRESSES`: what others say goes first, the oldest of it before all."""
        excess = len(self.addresses) - MAX_ADDRESSES
        if excess > 0:
            certified = self.certified
            for address in sorted(self.addresses, key=certified.__contains__)[:excess]:
                del self.addresses[address]


class PeerStore:
    """Bounded memory of peers. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[PeerId, _Entry] = {}  # least recently updated first
        self._with_record: dict[PeerId, None] = {}  # oldest record first

    # Addresses

    def peers(self) -> list[PeerId]:
        """Everybody with at least one address, least recently updated first."""
        return [peer for peer in list(self._entries) if self._live(peer).addresses]

    def addresses(self, peer: PeerId) -> list[Multiaddr]:
        """The addresses of `peer` that have not expired, without /p2p/.

        Those that it signed come first, then what is known in another way; the newest first in each.
        """
        entry = self._live(peer)
        certified = entry.certified
        newest_first = list(reversed(entry.addresses))
        return sorted(newest_first, key=lambda address: address not in certified)

    def add_addresses(self, peer: PeerId, addresses: Iterable[Multiaddr], ttl: float) -> None:
        """Remembers `addresses` for `ttl` seconds at least; the oldest go when there are too many."""
        addresses = list(addresses)
        if not addresses:
            return
        entry = self._touch(peer)
        if ttl == TTL_CONNECTED and not entry.connected:
            ttl = TTL_RECENTLY_CONNECTED  # it left while its message was on the way
        expires = entry.updated + ttl
        for address in addresses:
            entry.addresses[address] = max(expires, entry.addresses.pop(address, 0.0))
        entry.trim()

    def replace_addresses(self, peer: PeerId, addresses: Sequence[Multiaddr], ttl: float) -> None:
        """Forgets what was known and remembers `addresses`: the peer itself said where it listens."""
        if (entry := self._entries.get(peer)) is not None:
            entry.addresses.clear()
            self._drop_record(peer)
        self.add_addresses(peer, addresses, ttl)

    # Signed records

    def add_record(
        self, signed: SignedRecord, ttl: float, addresses: Iterable[Multiaddr] | None = None
    ) -> bool:
        """Takes a peer's record, which replaces what was known of its addresses; whether it was taken.

        Taken is only a larger `seq` than the last, or the same record again, which lives on for `ttl`.
        With `addresses` only those of the record that are among them are remembered. The record goes
        when the last of its addresses expires.
        """
        record = signed.record
        peer = record.peer
        known = self._peek(peer)
        again = known.record is not None and known.record.envelope == signed.envelope
        if record.seq <= known.seq and not again:
            return False
        allowed = set(record.addresses if addresses is None else addresses)
        kept = [address for address in record.addresses if address in allowed]
        if again:
            self.add_addresses(peer, kept, ttl)
        else:  # also when a stranger passes it on: as long as the peer is here, its word holds
            self.replace_addresses(peer, kept, TTL_CONNECTED if known.connected else ttl)
        entry = self._touch(peer)
        entry.seq = record.seq
        if kept:
            entry.record = signed
            self._with_record[peer] = None
            self._evict_records()
        return True

    def record(self, peer: PeerId) -> bytes | None:
        """The envelope of the newest record of `peer` as it came, to be passed on; None without one."""
        record = self._live(peer).record
        return record.envelope if record is not None else None

    def signed_record(self, peer: PeerId) -> SignedRecord | None:
        """The newest record of `peer`, or None."""
        return self._live(peer).record

    # The rest that is known of a peer

    def set_connected(self, peer: PeerId, connected: bool) -> None:
        """Notes that a connection is open, or that the last one is gone: addresses stay 30 minutes then."""
        if not connected and peer not in self._entries:
            return
        entry = self._touch(peer)
        entry.connected = connected
        if not connected:
            last = entry.updated + TTL_RECENTLY_CONNECTED
            for address, expires in entry.addresses.items():
                if expires == math.inf:
                    entry.addresses[address] = last

    def protocols(self, peer: PeerId) -> tuple[str, ...]:
        """What `peer` said that it speaks; empty when it said nothing yet."""
        return self._peek(peer).protocols

    def set_protocols(self, peer: PeerId, protocols: Sequence[str]) -> None:
        """Replaces what `peer` speaks."""
        self._touch(peer).protocols = tuple(protocols[:MAX_PROTOCOLS])

    def agent(self, peer: PeerId) -> str:
        """The program that `peer` says it is; empty when it said nothing."""
        return self._peek(peer).agent

    def set_agent(self, peer: PeerId, agent: str) -> None:
        """Replaces what `peer` says that it is; the caller bounds the text."""
        self._touch(peer).agent = agent

    def public_key(self, peer: PeerId) -> PublicKey | None:
        """The key of `peer`, from its id or from what it proved; None when it is not known."""
        return self._peek(peer).key or peer.public_key()

    def add_public_key(self, peer: PeerId, key: PublicKey) -> None:
        """Remembers the key of `peer`. Raises `InvalidKey` when it is another peer's."""
        if PeerId.from_public_key(key) != peer:
            raise InvalidKey(f"that is not the key of {peer}")
        if peer.public_key() is None:
            self._touch(peer).key = key

    def latency(self, peer: PeerId) -> float | None:
        """The moving average of the round trips to `peer` in seconds; None before the first."""
        return self._peek(peer).latency

    def record_latency(self, peer: PeerId, seconds: float) -> None:
        """Takes one measured round trip into the average."""
        if not 0 <= seconds < math.inf:
            return
        entry = self._touch(peer)
        before = seconds if entry.latency is None else entry.latency
        entry.latency = (1 - LATENCY_WEIGHT) * before + LATENCY_WEIGHT * seconds

    def collect(self) -> None:
        """Lets go of all that has expired, and of peers of whom nothing is left but old words."""
        now = self._clock()
        for peer, entry in list(self._entries.items()):
            entry.expire(now)
            if entry.record is None:
                self._with_record.pop(peer, None)
            idle = now - entry.updated >= TTL_RECENTLY_CONNECTED
            if idle and not entry.connected and not entry.addresses:
                del self._entries[peer]

    # What outlives the process

    def export_addresses(self, wall_time: float) -> list[AddressRow]:
        """All addresses as rows with unix expiry, for `PeerFile.save`; `wall_time` is now."""
        now = self._clock()
        rows = []
        for peer, entry in self._entries.items():
            for address, expires in entry.addresses.items():
                left = TTL_SAVED if expires == math.inf else expires - now
                if left > 0:
                    rows.append((peer.raw, address.to_bytes(), wall_time + left))
        return rows

    def export_records(self) -> list[RecordRow]:
        """All signed records as rows, for `PeerFile.save`; each lives as long as the peer's addresses."""
        return [
            (peer.raw, record.envelope)
            for peer in list(self._with_record)
            if (record := self._live(peer).record) is not None
        ]

    def import_rows(
        self, addresses: Iterable[AddressRow], records: Iterable[RecordRow], wall_time: float
    ) -> None:
        """Takes rows of an earlier process; rows that do not decode or verify are dropped."""
        for raw, encoded, expires in addresses:
            ttl = min(expires - wall_time, TTL_SAVED)  # a clock that was wrong makes nothing immortal
            try:
                self.add_addresses(PeerId(raw), [decode_address(encoded)], ttl)
            except InvalidInput:
                continue
        for raw, envelope in records:
            try:
                signed = open_record(envelope)
                entry = self._live(PeerId(raw))
            except P2PError:
                continue
            if signed.record.peer.raw == raw and not set(signed.record.addresses).isdisjoint(entry.addresses):
                entry.record, entry.seq = signed, signed.record.seq
                self._with_record[signed.record.peer] = None
        self._evict_records()

    # Entries

    def _peek(self, peer: PeerId) -> _Entry:
        """What is known of `peer`; an entry of nobody, which is not kept, when that is nothing."""
        return self._entries.get(peer) or _Entry(0.0)

    def _live(self, peer: PeerId) -> _Entry:
        """As `_peek`, without what has expired."""
        entry = self._peek(peer)
        entry.expire(self._clock())
        return entry

    def _touch(self, peer: PeerId) -> _Entry:
        """The entry of `peer`, made when there is none, as the most recently updated."""
        now = self._clock()
        entry = self._entries.pop(peer, None) or _Entry(now)
        entry.updated = now
        self._entries[peer] = entry
        for _ in range(len(self._entries) - MAX_PEERS):
            self._evict_one()
        return entry

    def _evict_one(self) -> None:
        newest = next(reversed(self._entries))
        for peer, entry in self._entries.items():
            if not entry.connected and peer != newest:
                del self._entries[peer]
                self._with_record.pop(peer, None)
                return

    def _drop_record(self, peer: PeerId) -> None:
        self._entries[peer].record = None
        self._with_record.pop(peer, None)

    def _evict_records(self) -> None:
        for peer in list(self._with_record)[: max(0, len(self._with_record) - MAX_RECORDS)]:
            self._drop_record(peer)
