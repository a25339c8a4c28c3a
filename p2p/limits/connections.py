"""The connection manager: which connections go when there are more than the host wants to keep.

    count ≤ high ──(one more is opened)──→ over high ──(grace and silence passed)──→ trimmed to low

Whoever has a use for a peer tags it with a value, or protects it altogether. Protected peers and
young connections stay; of the rest go those with the lowest sum of tags first, idle ones before
those with streams, older ones before younger ones. Source: go-libp2p p2p/net/connmgr.
"""

from __future__ import annotations

from collections.abc import Callable

from p2p.peer_id import PeerId

LOW_WATER = 160  # connections left by a trim; go-libp2p
HIGH_WATER = 192  # connections above which a trim begins; go-libp2p
GRACE = 60.0  # seconds a new connection is left alone
SILENCE = 10.0  # seconds between two trims; go-libp2p
MAX_TAGGED = 4096  # peers with tags; the ones tagged first are forgotten first


class ConnectionManager:
    """Tags, protection and trimming of one host's connections; the caller closes what `trim` names."""

    def __init__(
        self,
        *,
        low_water: int = LOW_WATER,
        high_water: int = HIGH_WATER,
        grace: float = GRACE,
        silence: float = SILENCE,
    ) -> None:
        self._low_water = min(low_water, high_water)
        self._high_water = high_water
        self._grace = grace
        self._silence = silence
        self._opened: dict[PeerId, float] = {}  # when, oldest first
        self._tags: dict[PeerId, dict[str, int]] = {}
        self._protections: dict[PeerId, set[str]] = {}
        self._silent_until = float("-inf")

    # What protocols say about peers

    def tag(self, peer: PeerId, name: str, value: int) -> None:
        """Makes `peer` worth `value` more (less, when it is negative); again: replaces the value.

        The tags of a peer are forgotten when its connection ends.
        """
        self._tags.setdefault(peer, {})[name] = value
        if len(self._tags) > MAX_TAGGED:
            del self._tags[next(iter(self._tags))]

    def untag(self, peer: PeerId, name: str) -> None:
        """Takes a tag away; nothing happens when there is none."""
        tags = self._tags.get(peer, {})
        tags.pop(name, None)
        if not tags:
            self._tags.pop(peer, None)

    def value(self, peer: PeerId) -> int:
        """The sum of the tags of `peer`."""
        return sum(self._tags.get(peer, {}).values())

    def protect(self, peer: PeerId, tag: str) -> None:
        """Keeps the connections of `peer`, now and later, until `unprotect` for every `tag`."""
        self._protections.setdefault(peer, set()).add(tag)

    def unprotect(self, peer: PeerId, tag: str) -> bool:
        """Takes one protection back; whether another one is left."""
        protections = self._protections.get(peer, set())
        protections.discard(tag)
        if not protections:
            self._protections.pop(peer, None)
        return bool(protections)

    def is_protected(self, peer: PeerId) -> bool:
        """Whether `peer` is never trimmed."""
        return peer in self._protections

    # What the swarm says about connections

    def handle_opened(self, peer: PeerId, now: float) -> None:
        """`peer` has a connection (a new one may take the place of an old one)."""
        self._opened.pop(peer, None)
        self._opened[peer] = now

    def handle_closed(self, peer: PeerId) -> None:
        """`peer` has no connection any more; its protection stays."""
        self._opened.pop(peer, None)
        self._tags.pop(peer, None)

    def next_deadline(self) -> float | None:
        """When to call `trim`; None while there are not too many, or all are protected."""
        if len(self._opened) <= self._high_water:
            return None
        oldest = next(
            (opened for peer, opened in self._opened.items() if peer not in self._protections), None
        )
        return None if oldest is None else max(self._silent_until, oldest + self._grace)

    def trim(self, now: float, num_streams: Callable[[PeerId], int]) -> list[PeerId]:
        """The peers to let go of, the least useful first; none before `next_deadline`."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return []
        self._silent_until = now + self._silence
        old_enough = [
            peer
            for peer, opened in self._opened.items()
            if peer not in self._protections and opened + self._grace <= now
        ]
        old_enough.sort(key=lambda peer: (self.value(peer), num_streams(peer) > 0))  # stable: oldest first
        return old_enough[: len(self._opened) - self._low_water]
