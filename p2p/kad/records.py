"""The records that one peer holds, and the values that one look-up gathers.

    PUT ──→ too fast, invalid, older ──→ refused
        └─→ valid ──room, or the greediest peer has more──→ held ──48 hours──→ gone

Space is shared out by who asked for it: a peer has its own limit, and when all is full the oldest
record of the peer with the most makes room for those who have fewer. What we put ourselves is apart,
and stays.
Source: libp2p/specs kad-dht/README.md, "Value storage and retrieval"; limits of rust-libp2p `MemoryStore`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from p2p.errors import P2PError
from p2p.kad.namespaces import InvalidRecord, Namespaces
from p2p.kad.wire import Record
from p2p.peer_id import PeerId

MAX_AGE = 48 * 3600.0  # seconds; go-libp2p-kad-dht `MaxRecordAge`
MAX_RECORDS = 1024  # of others, of at most 11 KiB with the key; rust-libp2p `max_records`
MAX_PER_PEER = 128  # records that one peer may have us hold: an eighth
PUT_BURST = MAX_PER_PEER  # requests at once: all that a peer may have here
PUT_RATE = 10.0  # requests a second after that; a signature takes some 0.1 ms, so that is 0.1 % of a core
MAX_RATES = MAX_RECORDS  # peers whose rate is remembered; one that is forgotten has its burst again


class RecordRefused(P2PError):
    """A valid record that we do not keep: there is no room for it, or its sender asks too often."""


class OutdatedRecord(RecordRefused):
    """We hold a better value under the same key."""


@dataclass(slots=True)
class _Held:
    record: Record
    source: PeerId | None  # who asked for it first; None: ourselves
    expires: float  # seconds


class RecordStore:
    """At most `MAX_RECORDS` records of others, with our own beside them; each the best value that came."""

    def __init__(self, namespaces: Namespaces) -> None:
        self.namespaces = namespaces
        self._held: dict[bytes, _Held] = {}
        self._sources: dict[PeerId, dict[bytes, None]] = {}  # the keys of each, oldest first
        self._count = 0  # of others
        self._rates: dict[PeerId, tuple[float, float]] = {}  # requests left, counted when; oldest first

    def __len__(self) -> int:
        return len(self._held)

    def put(self, record: Record, source: PeerId | None, now: float, wall: float) -> None:
        """Holds `record` of `source` from `now` for 48 hours, and one of ourselves (None) for good.

        `wall`, in seconds since 1970, is the date that it gets; the one it came with is dropped.
        Raises `InvalidRecord`, `OutdatedRecord`, `RecordRefused`.
        """
        if source is not None:
            self._admit(source, now)
        held = self._held.get(record.key)
        if held is not None and held.expires <= now:
            self._remove(record.key)
            held = None
        if held is None or held.record.value != record.value:
            self.namespaces.validate(record.key, record.value)
            if held is not None and not self.namespaces.is_better(
                record.key, record.value, held.record.value
            ):
                raise OutdatedRecord("we hold a better value under that key")
        if held is None:
            self._make_room(source, now)
        else:
            source = None if source is None else held.source
            self._remove(record.key)
        stamped = Record(key=record.key, value=record.value, received=rfc3339(wall))
        self._add(_Held(stamped, source, inf if source is None else now + MAX_AGE))

    def get(self, key: bytes, now: float) -> Record | None:
        """The record under `key`, unless it is too old."""
        held = self._held.get(key)
        return held.record if held is not None and now < held.expires else None

    def expire(self, now: float) -> None:
        """Forgets what is too old."""
        for key in [key for key, held in self._held.items() if held.expires <= now]:
            self._remove(key)

    def _admit(self, source: PeerId, now: float) -> None:
        """Counts a request. Raises `RecordRefused` for one too many."""
        left, counted = self._rates.pop(source, (float(PUT_BURST), now))
        left = min(float(PUT_BURST), left + (now - counted) * PUT_RATE)
        admitted = left >= 1.0
        self._rates[source] = (left - 1.0 if admitted else left, now)
        if len(self._rates) > MAX_RATES:
            del self._rates[next(iter(self._rates))]
        if not admitted:
            raise RecordRefused(f"more than {PUT_RATE:g} requests a second")

    def _make_room(self, source: PeerId | None, now: float) -> None:
        """Makes room for one more of `source`. Raises `RecordRefused`."""
        if source is None:
            return
        if self._count >= MAX_RECORDS:
            self.expire(now)
        own = len(self._sources.get(source, ()))
        if own >= MAX_PER_PEER:
            raise RecordRefused(f"one peer has {MAX_PER_PEER} records here at most")
        if self._count >= MAX_RECORDS:
            greediest = max(self._sources.values(), key=len)
            if len(greediest) <= own + 1:
                raise RecordRefused(f"all {MAX_RECORDS} records are taken")
            self._remove(next(iter(greediest)))

    def _add(self, held: _Held) -> None:
        self._held[held.record.key] = held
        if held.source is not None:
            self._sources.setdefault(held.source, {})[held.record.key] = None
            self._count += 1

    def _remove(self, key: bytes) -> None:
        source = self._held.pop(key).source
        if source is not None:
            keys = self._sources[source]
            del keys[key]
            if not keys:
                del self._sources[source]
            self._count -= 1


class Gathered:
    """The valid values of `key` that were found, and who has which.

    `quorum` of them are enough; with 0 nothing is: everybody who may know is asked. Raises
    `InvalidRecord` for a key that is in no namespace.
    """

    def __init__(self, key: bytes, namespaces: Namespaces, quorum: int = 0) -> None:
        namespaces.validator(key)
        self.key = key
        self.best: bytes | None = None
        self._namespaces = namespaces
        self._quorum = quorum
        self._values: dict[PeerId, bytes] = {}

    def take(self, peer: PeerId, record: Record | None) -> bool:
        """Takes what `peer` holds; whether that is the best so far. What is invalid counts for nothing."""
        if record is None or record.key != self.key:
            return False
        value = record.value
        if value == self.best:
            self._values[peer] = value
            return False
        try:
            self._namespaces.validate(self.key, value)
        except InvalidRecord:
            return False
        self._values[peer] = value
        if self.best is not None and not self._namespaces.is_better(self.key, value, self.best):
            return False
        self.best = value
        return True

    @property
    def enough(self) -> bool:
        """Whether nobody else must be asked."""
        return 0 < self._quorum <= len(self._values)

    def has_best(self, peer: PeerId) -> bool:
        """Whether `peer` gave the best value."""
        return self.best is not None and self._values.get(peer) == self.best

    def outdated(self) -> tuple[PeerId, ...]:
        """Who gave a value that is valid, but not the best."""
        return tuple(peer for peer, value in self._values.items() if value != self.best)


def rfc3339(wall: float) -> bytes:
    """The moment `wall`, in seconds since 1970, as records carry it."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
