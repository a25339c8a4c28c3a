"""Peers for the topics that we publish to without joining them, kept as long as we publish.

Source: libp2p/specs pubsub/gossipsub/gossipsub-v1.0.md, "Fanout".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from p2p.gossipsub.params import GossipsubParams
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

MAX_FANOUT = 1000  # topics; as many as we keep of a peer


class Fanout:
    """For each topic when we last published, and to whom."""

    def __init__(self, params: GossipsubParams, rng: Random) -> None:
        self._params = params
        self._rng = rng
        self._published: dict[str, float] = {}  # oldest publication first
        self._peers: dict[str, dict[PeerId, None]] = {}

    @property
    def topics(self) -> list[str]:
        """The topics that we published to lately."""
        return list(self._published)

    def publish(self, topic: str, candidates: Iterable[PeerId], now: float) -> list[PeerId]:
        """Notes a publication now; returns the peers for it, as many as a mesh has if there are."""
        self._published.pop(topic, None)
        self._published[topic] = now
        if len(self._published) > MAX_FANOUT:
            self.leave(next(iter(self._published)))
        return self.maintain(topic, candidates)

    def maintain(self, topic: str, candidates: Iterable[PeerId]) -> list[PeerId]:
        """Drops the peers of `topic` that are no candidates any more and adds others instead."""
        found = list(candidates)
        kept = {peer: None for peer in self._peers.get(topic, ()) if peer in found}
        fresh = [peer for peer in found if peer not in kept]
        missing = min(self._params.mesh_size - len(kept), len(fresh))
        kept.update(dict.fromkeys(self._rng.sample(fresh, missing)))
        self._peers[topic] = kept
        return list(kept)

    def leave(self, topic: str) -> list[PeerId]:
        """Forgets `topic`, because we join it or no longer publish; returns its peers."""
        self._published.pop(topic, None)
        return list(self._peers.pop(topic, ()))

    def expire(self, now: float) -> None:
        """Forgets topics without a publication for `fanout_ttl`."""
        for topic, last in list(self._published.items()):
            if last + self._params.fanout_ttl <= now:
                self.leave(topic)
