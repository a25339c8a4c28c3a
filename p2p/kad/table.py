"""The routing table: buckets of at most k peers, by how many leading bits they share with us.

    seen ──→ room in the bucket ──→ member, at its tail (most recently seen)
         └─→ bucket full ─────────→ candidate; the member at the head is to be probed by the caller
    removed (failed a request, stopped serving) ──→ out; the newest candidate takes the place

A live member is never evicted for a newcomer: old peers tend to stay, and nobody can push honest
peers out by making many ids. Source: Maymounkov and Mazières 2002, sections 2.2 and 4.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from p2p.kad.distance import common_prefix_length, position
from p2p.kad.wire import K
from p2p.peer_id import PeerId

MAX_CANDIDATES = K  # waiting peers of one bucket, so a table holds at most 256 × 40 peers
MAX_REFRESH_PREFIX = 15  # bits; go-libp2p-kad-dht's table refresh goes no deeper


class _Bucket:
    """Members and candidates, both least recently seen first."""

    __slots__ = ("candidates", "members")

    def __init__(self) -> None:
        self.members: dict[PeerId, int] = {}  # with their positions
        self.candidates: dict[PeerId, None] = {}


class RoutingTable:
    """The peers that serve the protocol, bounded, arranged around the id of `local`."""

    def __init__(self, local: PeerId) -> None:
        self._local = local
        self._origin = position(local.raw)
        self._buckets: dict[int, _Bucket] = {}  # by common prefix length

    def __len__(self) -> int:
        return sum(len(bucket.members) for bucket in self._buckets.values())

    def __contains__(self, peer: object) -> bool:
        return isinstance(peer, PeerId) and peer in self._bucket(peer).members

    def peers(self) -> list[PeerId]:
        """All members, the farthest buckets first, each least recently seen first."""
        return [peer for prefix in sorted(self._buckets) for peer in self._buckets[prefix].members]

    def handle_seen(self, peer: PeerId) -> PeerId | None:
        """Takes note that `peer` is alive and serves the protocol.

        When its bucket is full it waits as a candidate, and the least recently seen member is
        returned: probe that one, and report `handle_seen` or `remove` of it.
        """
        if peer == self._local:
            return None
        place = position(peer.raw)
        prefix = common_prefix_length(self._origin, place)
        bucket = self._buckets.setdefault(prefix, _Bucket())
        if peer in bucket.members:
            del bucket.members[peer]
        elif len(bucket.members) >= K:
            bucket.candidates.pop(peer, None)
            bucket.candidates[peer] = None
            if len(bucket.candidates) > MAX_CANDIDATES:
                del bucket.candidates[next(iter(bucket.candidates))]
            return next(iter(bucket.members))
        bucket.members[peer] = place
        return None

    def remove(self, peer: PeerId) -> None:
        """Drops `peer`, which failed or stopped serving; the newest candidate follows it."""
        bucket = self._bucket(peer)
        bucket.candidates.pop(peer, None)
        if peer not in bucket.members:
            return
        del bucket.members[peer]
        if bucket.candidates:
            newest, _ = bucket.candidates.popitem()
            bucket.members[newest] = position(newest.raw)

    def closest(self, key: bytes, count: int = K, exclude: Collection[PeerId | None] = ()) -> list[PeerId]:
        """Up to `count` members nearest to `key`, nearest first, without those in `exclude`."""
        target = position(key)
        found: list[PeerId] = []
        for group in self._by_nearness(common_prefix_length(self._origin, target)):
            members = [
                (place ^ target, peer)
                for bucket in group
                for peer, place in bucket.members.items()
                if peer not in exclude
            ]
            members.sort()
            found.extend(peer for _, peer in members[: count - len(found)])
            if len(found) >= count:
                break
        return found

    def _by_nearness(self, prefix: int) -> Iterator[list[_Bucket]]:
        """Groups of buckets, each nearer than the next to a key that shares `prefix` bits with us.

        Members of that very bucket share more bits with the key; those of the deeper ones exactly
        `prefix`, as we do; those of the others fewer and fewer.
        """
        if prefix in self._buckets:
            yield [self._buckets[prefix]]
        yield [bucket for depth, bucket in self._buckets.items() if depth > prefix]
        for depth in range(prefix - 1, -1, -1):
            if depth in self._buckets:
                yield [self._buckets[depth]]

    def prefixes_to_refresh(self) -> list[int]:
        """The numbers of the buckets with members and of their neighbours, up to 15."""
        wanted = {
            near
            for prefix, bucket in self._buckets.items()
            if bucket.members
            for near in (prefix - 1, prefix, prefix + 1)
        }
        return [prefix for prefix in range(MAX_REFRESH_PREFIX + 1) if prefix in wanted]

    def _bucket(self, peer: PeerId) -> _Bucket:
        """The bucket of `peer`, made up when there is none."""
        prefix = common_prefix_length(self._origin, position(peer.raw))
        return self._buckets.get(prefix) or _Bucket()
