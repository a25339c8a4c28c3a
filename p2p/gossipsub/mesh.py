"""Who is in the mesh of each topic that we joined, and who has to wait before it may come back.

    SUBSCRIBE or heartbeat below mesh_low → graft        GRAFT → accept │ refuse: backoff, full
    heartbeat above mesh_high → prune, backoff           PRUNE → remove, backoff

Mesh links are symmetric by agreement: whoever grafts or prunes says so. Nothing is sent here; methods
return who must be told. `candidates` are the peers that could be in the mesh of a topic (subscribed,
speaking gossipsub, with a stream from us), and whether we dialed them.
Source: libp2p/specs pubsub/gossipsub/gossipsub-v1.0.md "Control Messages", "Heartbeat";
gossipsub-v1.1.md "Prune Backoff", "Outbound Mesh Quotas".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2p.gossipsub.params import GossipsubParams
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

MAX_BACKOFFS = 20_000  # pairs of topic and peer; 160 connections in 100 topics, and a few that left

Candidates = Mapping[PeerId, bool]


class Backoffs:
    """Until when a peer that was pruned, by either side, may not be in a topic's mesh."""

    def __init__(self, slack: float, capacity: int = MAX_BACKOFFS) -> None:
        self._slack = slack
        self._capacity = capacity
        self._until: dict[tuple[str, PeerId], float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, topic: str, peer: PeerId, until: float) -> None:
        """Makes `peer` wait until then, or longer if it has to already."""
        until = max(until, self._until.pop((topic, peer), until))
        self._until[topic, peer] = until
        if len(self._until) > self._capacity:
            del self._until[next(iter(self._until))]

    def refuses(self, topic: str, peer: PeerId, now: float) -> bool:
        """Whether a GRAFT from `peer` comes too early."""
        return self._until.get((topic, peer), now) > now

    def forbids(self, topic: str, peer: PeerId, now: float) -> bool:
        """Whether our GRAFT might come too early for `peer`, whose clock started a little later."""
        return (topic, peer) in self._until and self._until[topic, peer] + self._slack > now

    def expire(self, now: float) -> None:
        """Forgets those that are over."""
        over = [key for key, until in self._until.items() if until + self._slack <= now]
        for key in over:
            del self._until[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Who has to be told that it entered or left a mesh."""

    grafted: tuple[PeerId, ...] = ()
    pruned: tuple[PeerId, ...] = ()


class Mesh:
    """The meshes of all topics that we joined."""

    def __init__(self, params: GossipsubParams, rng: Random) -> None:
        self._params = params
        self._rng = rng
        self._members: dict[str, dict[PeerId, None]] = {}
        self.backoffs = Backoffs(params.backoff_slack)

    @property
    def topics(self) -> list[str]:
        """The topics that we joined, in the order of joining."""
        return list(self._members)

    def joined(self, topic: str) -> bool:
        """Whether we subscribe to `topic`."""
        return topic in self._members

    def members(self, topic: str) -> list[PeerId]:
        """The peers in the mesh of `topic`."""
        return list(self._members.get(topic, ()))

    def contains(self, topic: str, peer: PeerId) -> bool:
        """Whether `peer` is in the mesh of `topic`."""
        return peer in self._members.get(topic, ())

    def join(
        self, topic: str, preferred: Iterable[PeerId], candidates: Candidates, now: float
    ) -> tuple[PeerId, ...]:
        """Starts the mesh of a topic from `preferred` and then others; returns who is grafted."""
        members = self._members[topic] = {}
        open_to_us = [peer for peer in candidates if not self.backoffs.forbids(topic, peer, now)]
        known = [peer for peer in preferred if peer in open_to_us][: self._params.mesh_size]
        rest = [peer for peer in open_to_us if peer not in known]
        members.update(dict.fromkeys(known + self._sample(rest, self._params.mesh_size - len(known))))
        return tuple(members)

    def leave(self, topic: str, now: float) -> tuple[PeerId, ...]:
        """Ends the mesh of a topic; returns who is pruned."""
        members = tuple(self._members.pop(topic))
        for peer in members:
            self.backoffs.add(topic, peer, now + self._params.unsubscribe_backoff)
        return members

    def admit(self, topic: str, peer: PeerId, now: float, *, back: bool = False) -> bool:
        """Takes in a new candidate at once when the mesh is too small; whether it is to be grafted.

        Without this nobody would be reached before the next heartbeat; rust and js do it too. A member
        that comes `back` after its stream was interrupted has a place as long as the mesh is not full.
        """
        members = self._members.get(topic)
        limit = self._params.mesh_high if back else self._params.mesh_low
        if members is None or peer in members or len(members) >= limit:
            return False
        if self.backoffs.forbids(topic, peer, now):
            return False
        members[peer] = None
        return True

    def handle_graft(self, topic: str, peer: PeerId, *, outbound: bool, now: float) -> bool:
        """Whether a GRAFT for a topic that we joined is accepted; if not, a PRUNE is due.

        A full mesh takes only peers that we dialed: nobody can push itself in by connecting often.
        """
        members = self._members[topic]
        if peer in members:
            return True
        full = len(members) >= self._params.mesh_high and not outbound
        if full or self.backoffs.refuses(topic, peer, now):
            self.backoffs.add(topic, peer, now + self._params.prune_backoff)
            return False
        members[peer] = None
        return True

    def handle_prune(self, topic: str, peer: PeerId, backoff: int | None, now: float) -> None:
        """Removes a peer that pruned us and obeys the backoff that it asks for, within reason."""
        members = self._members.get(topic)
        if members is None:
            return
        members.pop(peer, None)
        wait = min(backoff or self._params.prune_backoff, self._params.max_backoff)
        self.backoffs.add(topic, peer, now + wait)

    def remove(self, peer: PeerId, topic: str | None = None) -> list[str]:
        """Takes `peer` out of one topic, or all; returns the topics in whose mesh it was."""
        topics = self.topics if topic is None else [topic]
        left = [name for name in topics if self.contains(name, peer)]
        for name in left:
            del self._members[name][peer]
        return left

    def maintain(self, topic: str, candidates: Candidates, now: float) -> Change:
        """The heartbeat's work on one topic: neither too few members, nor too many, nor all inbound."""
        params, members = self._params, self._members[topic]
        pruned: tuple[PeerId, ...] = ()
        if len(members) > params.mesh_high:
            kept = self._select(list(members), candidates)
            pruned = tuple(peer for peer in members if peer not in kept)
            for peer in pruned:
                del members[peer]
                self.backoffs.add(topic, peer, now + params.prune_backoff)
        wanted = params.mesh_size - len(members) if len(members) < params.mesh_low else 0
        dialed = [peer for peer in members if candidates.get(peer)]
        if not wanted and len(dialed) >= params.mesh_outbound:
            return Change(pruned=pruned)
        fresh = [
            peer for peer in candidates if peer not in members and not self.backoffs.forbids(topic, peer, now)
        ]
        grafted = self._sample(fresh, wanted)
        ours = len(dialed) + sum(candidates[peer] for peer in grafted)
        spare = [peer for peer in fresh if candidates[peer] and peer not in grafted]
        grafted += self._sample(spare, params.mesh_outbound - ours)
        members.update(dict.fromkeys(grafted))
        return Change(grafted=tuple(grafted), pruned=pruned)

    def _select(self, members: list[PeerId], candidates: Candidates) -> dict[PeerId, None]:
        """Which `mesh_size` of too many members stay: any, but `mesh_outbound` that we dialed if possible."""
        self._rng.shuffle(members)
        ours = [peer for peer in members if candidates.get(peer, False)][: self._params.mesh_outbound]
        others = [peer for peer in members if peer not in ours]
        return dict.fromkeys((ours + others)[: self._params.mesh_size])

    def _sample(self, peers: list[PeerId], count: int) -> list[PeerId]:
        return self._rng.sample(peers, min(max(count, 0), len(peers)))
