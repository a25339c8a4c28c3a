"""Who is in the mesh of each topic that we joined, and who has to wait before it may come back.

    SUBSCRIBE or heartbeat below mesh_low → graft        GRAFT → accept │ refuse: backoff, full, bad score
    heartbeat above mesh_high → prune, backoff           PRUNE → remove, backoff
    heartbeat with a bad score → prune, backoff          every 60 heartbeats → graft better ones

Mesh links are symmetric by agreement: whoever grafts or prunes says so. Nothing is sent here; methods
return who must be told. `candidates` are the peers that could be in the mesh of a topic (subscribed,
speaking gossipsub, with a stream from us), and whether we dialed them.
Source: libp2p/specs pubsub/gossipsub/gossipsub-v1.0.md "Control Messages", "Heartbeat";
gossipsub-v1.1.md "Prune Backoff", "Outbound Mesh Quotas", "Heartbeat Maintenance", "Opportunistic
Grafting".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2p.gossipsub.backoffs import Backoffs
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.score import PeerScores
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

Candidates = Mapping[PeerId, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Who has to be told that it entered or left a mesh."""

    grafted: tuple[PeerId, ...] = ()
    pruned: tuple[PeerId, ...] = ()


class Mesh:
    """The meshes of all topics that we joined. `scores` is asked who may be in them, and told who is."""

    def __init__(self, params: GossipsubParams, rng: Random, scores: PeerScores) -> None:
        self._params = params
        self._rng = rng
        self._scores = scores
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
        open_to_us = [peer for peer in candidates if self._is_open(topic, peer, now)]
        known = [peer for peer in preferred if peer in open_to_us][: self._params.mesh_size]
        rest = [peer for peer in open_to_us if peer not in known]
        for peer in known + self._sample(rest, self._params.mesh_size - len(known)):
            self._add(topic, peer, now)
        return tuple(members)

    def leave(self, topic: str, now: float) -> tuple[PeerId, ...]:
        """Ends the mesh of a topic; returns who is pruned."""
        members = tuple(self._members.pop(topic))
        for peer in members:
            self._scores.handle_pruned(topic, peer)
            self.backoffs.add(topic, peer, self._params.unsubscribe_backoff, now)
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
        if not self._is_open(topic, peer, now):
            return False
        self._add(topic, peer, now)
        return True

    def handle_graft(
        self, topic: str, peer: PeerId, *, outbound: bool, met: float, now: float
    ) -> float | None:
        """None when a GRAFT for a topic that we joined is accepted, else the backoff of the PRUNE due.

        A full mesh takes only peers that we dialed: nobody can push itself in by connecting often. One
        that comes before its time breaks a rule, unless its time was told before we `met`; one with a bad
        score has lost its place anyhow.
        """
        members, params = self._members[topic], self._params
        if peer in members:
            return None
        if self.backoffs.refuses(topic, peer, now):
            rest = self.backoffs.remind(topic, peer, met, now)
            if rest is not None:
                return rest
            guilt = self.backoffs.guilt(topic, peer, params, now)
            if guilt:
                self._scores.handle_misbehaviour(peer, guilt, now)
        elif not self._scores.is_negative(peer) and (outbound or len(members) < params.mesh_high):
            self._add(topic, peer, now)
            return None
        self.backoffs.add(topic, peer, params.prune_backoff, now)
        return params.prune_backoff

    def handle_prune(self, topic: str, peer: PeerId, backoff: int | None, now: float) -> None:
        """Removes a peer that pruned us and obeys the backoff that it asks for, within reason."""
        members = self._members.get(topic)
        if members is None:
            return
        self.remove(peer, topic)
        wait = min(backoff or self._params.prune_backoff, self._params.max_backoff)
        self.backoffs.add(topic, peer, wait, now)

    def remove(self, peer: PeerId, topic: str | None = None) -> list[str]:
        """Takes `peer` out of one topic, or all; returns the topics in whose mesh it was."""
        topics = self.topics if topic is None else [topic]
        left = [name for name in topics if self.contains(name, peer)]
        for name in left:
            del self._members[name][peer]
            self._scores.handle_pruned(name, peer)
        return left

    def maintain(
        self, topic: str, candidates: Candidates, now: float, *, opportunistic: bool = False
    ) -> Change:
        """The heartbeat's work on one topic: neither too few members, nor too many, bad or all inbound.

        `opportunistic`: it is time to see whether others are better.
        """
        params, members = self._params, self._members[topic]
        pruned = [peer for peer in members if self._scores.is_negative(peer)] if self._scores.bad else []
        if len(members) - len(pruned) > params.mesh_high:
            kept = self._select([peer for peer in members if peer not in pruned], candidates)
            pruned = [peer for peer in members if peer not in kept]
        for peer in pruned:
            self.remove(peer, topic)
            self.backoffs.add(topic, peer, params.prune_backoff, now)
        grafted = self._missing(topic, candidates, now)
        if opportunistic:
            grafted += self._better(topic, [peer for peer in candidates if peer not in grafted], now)
        for peer in grafted:
            self._add(topic, peer, now)
        return Change(grafted=tuple(grafted), pruned=tuple(pruned))

    def _missing(self, topic: str, candidates: Candidates, now: float) -> list[PeerId]:
        """Whom a mesh needs that is too small, or has too few that we dialed."""
        params, members = self._params, self._members[topic]
        wanted = params.mesh_size - len(members) if len(members) < params.mesh_low else 0
        dialed = [peer for peer in members if candidates.get(peer)]
        if not wanted and len(dialed) >= params.mesh_outbound:
            return []
        fresh = [peer for peer in candidates if peer not in members and self._is_open(topic, peer, now)]
        grafted = self._sample(fresh, wanted)
        ours = len(dialed) + sum(candidates[peer] for peer in grafted)
        spare = [peer for peer in fresh if candidates[peer] and peer not in grafted]
        return grafted + self._sample(spare, params.mesh_outbound - ours)

    def _better(self, topic: str, candidates: Iterable[PeerId], now: float) -> list[PeerId]:
        """Some with a score above the median of the mesh, if that is a poor one."""
        score, members = self._scores.score, self._members[topic]
        ordered = sorted(score(peer) for peer in members)
        if not ordered:
            return []
        median = ordered[len(ordered) // 2]
        if median >= self._params.score.opportunistic_threshold:
            return []
        better = [
            peer
            for peer in candidates
            if peer not in members and score(peer) > median and self._is_open(topic, peer, now)
        ]
        return self._sample(better, self._params.opportunistic_grafts)

    def _select(self, members: list[PeerId], candidates: Candidates) -> dict[PeerId, None]:
        """Which `mesh_size` of too many members stay: the best few, others by chance.

        Among them are `mesh_outbound` that we dialed, if there are as many, instead of the last chosen.
        """
        params = self._params
        self._rng.shuffle(members)
        best = sorted(members, key=self._scores.score, reverse=True)[: params.mesh_best]
        ordered = best + [peer for peer in members if peer not in best]
        ours = [peer for peer in ordered if candidates.get(peer, False)][: params.mesh_outbound]
        kept = [peer for peer in ordered if peer not in ours][: params.mesh_size - len(ours)]
        return dict.fromkeys(ours + kept)

    def _is_open(self, topic: str, peer: PeerId, now: float) -> bool:
        """Whether we may graft `peer`, and want to."""
        return not self._scores.is_negative(peer) and not self.backoffs.forbids(topic, peer, now)

    def _add(self, topic: str, peer: PeerId, now: float) -> None:
        self._members[topic][peer] = None
        self._scores.handle_grafted(topic, peer, now)

    def _sample(self, peers: list[PeerId], count: int) -> list[PeerId]:
        return self._rng.sample(peers, min(max(count, 0), len(peers)))
