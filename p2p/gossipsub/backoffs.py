"""Who was pruned from a topic's mesh, and has to wait before it may come back.

    PRUNE, by either side → add        GRAFT too early → refuses: remind who cannot know, else guilt

Source: libp2p/specs pubsub/gossipsub/gossipsub-v1.1.md "Prune Backoff".
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from p2p.gossipsub.params import GossipsubParams
from p2p.peer_id import PeerId

MAX_BACKOFFS = 20_000  # pairs of topic and peer; 160 connections in 100 topics, and a few that left


@dataclass(slots=True)
class _Backoff:
    since: float  # when the peer was pruned
    until: float
    grace: bool = True  # a GRAFT that comes now may have crossed our PRUNE


class Backoffs:
    """Until when a peer that was pruned, by either side, may not be in a topic's mesh."""

    def __init__(self, slack: float, capacity: int = MAX_BACKOFFS) -> None:
        self._slack = slack
        self._capacity = capacity
        self._backoffs: dict[tuple[str, PeerId], _Backoff] = {}

    def __len__(self) -> int:
        return len(self._backoffs)

    def add(self, topic: str, peer: PeerId, seconds: float, now: float) -> None:
        """Makes `peer` wait for `seconds`, or longer if it has to already."""
        backoff = self._backoffs.pop((topic, peer), None)
        if backoff is None or backoff.until <= now:
            backoff = _Backoff(since=now, until=now)
        backoff.until = max(backoff.until, now + seconds)
        self._backoffs[topic, peer] = backoff
        if len(self._backoffs) > self._capacity:
            del self._backoffs[next(iter(self._backoffs))]

    def refuses(self, topic: str, peer: PeerId, now: float) -> bool:
        """Whether a GRAFT from `peer` comes too early."""
        backoff = self._backoffs.get((topic, peer))
        return backoff is not None and backoff.until > now

    def remind(self, topic: str, peer: PeerId, met: float, now: float) -> int | None:
        """Seconds that `peer` has to be told to wait, which does not know: it may have restarted since.

        None when it knows, having been there when the backoff began: `met` is since when it is.
        """
        backoff = self._backoffs[topic, peer]
        if backoff.since >= met:
            return None
        backoff.since, backoff.grace = now, True
        return ceil(backoff.until - now)

    def guilt(self, topic: str, peer: PeerId, params: GossipsubParams, now: float) -> float:
        """How much of a rule a GRAFT that is refused breaks; the first may have crossed our PRUNE."""
        backoff = self._backoffs.get((topic, peer))
        if backoff is None or backoff.until <= now:
            return 0.0
        age, grace, backoff.grace = now - backoff.since, backoff.grace, False
        if grace and age < params.graft_grace:
            return 0.0
        return 2.0 if age < params.graft_flood else 1.0

    def forbids(self, topic: str, peer: PeerId, now: float) -> bool:
        """Whether our GRAFT might come too early for `peer`, whose clock started a little later."""
        backoff = self._backoffs.get((topic, peer))
        return backoff is not None and backoff.until + self._slack > now

    def expire(self, now: float) -> None:
        """Forgets those that are over."""
        over = [key for key, backoff in self._backoffs.items() if backoff.until + self._slack <= now]
        for key in over:
            del self._backoffs[key]
