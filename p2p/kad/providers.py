"""Who provides which content: what a server was told, and what one look-up is told.

    ADD_PROVIDER ──no address, no room──→ dropped
               └──→ kept ──announced again within 48 hours──→ kept
                      ├──48 hours──→ gone
                      └──26 hours, and another one wants the place──→ gone

A record says nothing but that a peer, whose connection proves its id, claims to have the content. Of
one key the first 20 that come are kept, as long as they announce it about daily: content is announced first
by who made it, so those who flood the key afterwards do not push that one out. All together the
records are shared out by who sent them: a peer has its own limit, and when all is full the oldest one
of the peer with the most makes room for those who have fewer. What we provide ourselves is apart.
Source: libp2p/specs kad-dht/README.md, "Content provider advertisement and discovery".
"""

from __future__ import annotations

from collections.abc import Sequence

from multiaddr import Multiaddr

from p2p.errors import LocalProtocolError
from p2p.kad.distance import MULTIHASH_SHA256
from p2p.kad.wire import MAX_ADDRESSES_SENT, MAX_PEERS, MAX_PROVIDERS, PeerEntry
from p2p.peer_id import PeerId

MAX_AGE = 48 * 3600.0  # seconds; kad-dht spec
MAX_SILENCE = 26 * 3600.0  # seconds until it may be replaced; js-libp2p repeats it after 24 to 25 hours
ADDRESS_AGE = 1800.0  # seconds; kad-dht spec, "Content provider advertisement"
MAX_RECORDS = 8192  # of all peers; some 500 bytes each, so 4 MiB
MAX_PER_PEER = MAX_RECORDS // 8  # of one peer, as for values
MAX_ADDRESSED = 1024  # peers whose addresses are kept, of at most 8 KiB each; others are found by a look-up
SHARE = 4  # one answer fills a quarter of what a look-up seeks before the others are heard


def provider_key(root: bytes) -> bytes:
    """The key of content whose hash, or root of a tree of hashes, is the SHA-256 digest `root`: a multihash.

    Raises `LocalProtocolError` unless `root` has 32 bytes.
    """
    if len(root) != 32:
        raise LocalProtocolError(f"a SHA-256 digest has 32 bytes, not {len(root)}")
    return MULTIHASH_SHA256 + root


class ProviderStore:
    """At most `MAX_RECORDS` announcements of others, and the keys that `local` provides itself."""

    def __init__(self, local: PeerId) -> None:
        self._local = local
        self._own: dict[bytes, None] = {}
        self._announced: dict[tuple[bytes, PeerId], float] = {}  # when, in seconds; the oldest first
        self._by_key: dict[bytes, dict[PeerId, None]] = {}  # the oldest announcement of each first
        self._by_peer: dict[PeerId, dict[bytes, None]] = {}  # so too
        self._by_count: dict[int, dict[PeerId, None]] = {}  # the peers with so many records
        self._most = 0  # records of one peer
        self._addresses: dict[PeerId, tuple[float, tuple[Multiaddr, ...]]] = {}  # until when; oldest first

    def __len__(self) -> int:
        return len(self._announced)

    def provide(self, key: bytes) -> None:
        """From now on we are among the providers of `key`."""
        self._own[key] = None

    def withdraw(self, key: bytes) -> None:
        """We provide `key` no longer."""
        self._own.pop(key, None)

    def add(self, key: bytes, peer: PeerId, addresses: Sequence[Multiaddr], now: float) -> bool:
        """Keeps that `peer`, which said so itself, provides `key` and is at `addresses`; whether it did."""
        if peer == self._local or not addresses:
            return False
        self.expire(now)
        if (key, peer) in self._announced:
            self._remove(key, peer)
        elif not self._make_room(key, peer, now):
            return False
        self._announced[key, peer] = now
        self._by_key.setdefault(key, {})[peer] = None
        keys = self._by_peer.setdefault(peer, {})
        keys[key] = None
        self._count(peer, len(keys) - 1, len(keys))
        self._addresses.pop(peer, None)
        self._addresses[peer] = (now + ADDRESS_AGE, tuple(addresses[:MAX_ADDRESSES_SENT]))
        if len(self._addresses) > MAX_ADDRESSED:
            del self._addresses[next(iter(self._addresses))]
        return True

    def providers(self, key: bytes, now: float) -> list[PeerId]:
        """Who provides `key`: ourselves first, then who announced it last; at most 20."""
        self.expire(now)
        own = [self._local] if key in self._own else []
        return [*own, *reversed(self._by_key.get(key, {}))][:MAX_PROVIDERS]

    def addresses(self, peer: PeerId, now: float) -> tuple[Multiaddr, ...]:
        """Where `peer` said that it is, less than 30 minutes ago."""
        until, addresses = self._addresses.get(peer, (now, ()))
        return addresses if now < until else ()

    def expire(self, now: float) -> None:
        """Forgets what is too old; costs nothing when nothing is."""
        while self._announced:
            (key, peer), announced = next(iter(self._announced.items()))
            if now < announced + MAX_AGE:
                break
            self._remove(key, peer)
        while self._addresses:
            peer, (until, _) = next(iter(self._addresses.items()))
            if now < until:
                break
            del self._addresses[peer]

    def _make_room(self, key: bytes, peer: PeerId, now: float) -> bool:
        """Makes room for a new record; False when there is none."""
        count = len(self._by_peer.get(peer, ()))
        if count >= MAX_PER_PEER:
            return False
        holders = self._by_key.get(key, {})
        if len(holders) >= MAX_PROVIDERS:
            oldest = next(iter(holders))
            if now < self._announced[key, oldest] + MAX_SILENCE:
                return False
            self._remove(key, oldest)
        if len(self._announced) >= MAX_RECORDS:
            if self._most <= count + 1:
                return False
            greediest = next(iter(self._by_count[self._most]))
            self._remove(next(iter(self._by_peer[greediest])), greediest)
        return True

    def _remove(self, key: bytes, peer: PeerId) -> None:
        del self._announced[key, peer]
        holders, keys = self._by_key[key], self._by_peer[peer]
        del holders[peer], keys[key]
        if not holders:
            del self._by_key[key]
        if not keys:
            del self._by_peer[peer]
        self._count(peer, len(keys) + 1, len(keys))

    def _count(self, peer: PeerId, before: int, after: int) -> None:
        """`peer` had so many records, and has so many now: one more, or one less."""
        if before:
            del self._by_count[before][peer]
            if not self._by_count[before]:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[peer] = None
        self._most = max(self._most, after)
        if self._most not in self._by_count:
            self._most -= 1  # the one that had the most has one less


class Sought:
    """The providers that one look-up finds: at most `limit`, each once, never `local`.

    Anybody may claim anything, so one answer alone does not fill the list: what it names beyond its
    share waits, until another one names it too or everybody was asked.
    """

    def __init__(self, local: PeerId, limit: int) -> None:
        self._local = local
        self._limit = limit
        self._found: dict[PeerId, None] = {}
        self._waiting: dict[PeerId, None] = {}  # at most `limit`

    def __contains__(self, peer: object) -> bool:
        return peer in self._found or peer in self._waiting

    @property
    def enough(self) -> bool:
        """Whether nobody else must be asked."""
        return len(self._found) >= self._limit

    def take(self, named: Sequence[PeerEntry]) -> list[PeerId]:
        """Takes the providers that one peer names; those that count as found from now on."""
        return self._take([entry.peer for entry in named[:MAX_PEERS]], max(1, self._limit // SHARE))

    def take_held(self, peers: Sequence[PeerId]) -> list[PeerId]:
        """As `take`, of those that announced themselves to us: there is no share."""
        return self._take(peers, self._limit)

    def take_waiting(self) -> list[PeerId]:
        """Everybody was asked: those that waited, as far as there is room."""
        return self._take(list(self._waiting), self._limit)

    def _take(self, peers: Sequence[PeerId], share: int) -> list[PeerId]:
        found: list[PeerId] = []
        for peer in peers:
            if peer == self._local or peer in self._found:
                continue
            if len(found) < share and not self.enough:
                self._waiting.pop(peer, None)
                self._found[peer] = None
                found.append(peer)
            elif len(self._waiting) < self._limit:
                self._waiting[peer] = None
        return found
