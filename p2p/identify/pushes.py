"""Who is to be told of our changes, and when: a machine; `now` is in seconds.

    changed ──→ behind, for every peer that takes pushes
    behind ──→ in flight (32 at once, each peer at its rate) ──→ told of what was true when it began

However many changes fall between two pushes to a peer, it gets one message with the newest state.
Source: go-libp2p and js-libp2p push to 32 peers at once; go lets through 0.2 pushes a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from p2p.peer_id import PeerId

MAX_IN_FLIGHT = 32  # pushes at once, as go and js
PUSH_RATE = 0.2  # pushes of one peer a second, as go's limiter
PUSH_BURST = 10  # pushes of one peer at once, as go's limiter


@dataclass(slots=True)
class PushRate:
    """How many pushes of one peer are let through: a token bucket."""

    tokens: float = PUSH_BURST
    counted_at: float = -math.inf

    def ready_at(self, now: float) -> float:
        """When the next push is let through; not after `now` when that may be at once."""
        self.tokens = min(PUSH_BURST, self.tokens + PUSH_RATE * (now - self.counted_at))
        self.counted_at = now
        return now + max(0.0, 1.0 - self.tokens) / PUSH_RATE

    def take(self, now: float) -> bool:
        """Counts one push; False when it is one too many."""
        if self.ready_at(now) > now:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class _Peer:
    told: int  # the version of us that the peer knows
    limited: bool
    takes_pushes: bool = False
    rate: PushRate = field(default_factory=PushRate)


class PushPlanner:
    """Decides which peers get a push now."""

    def __init__(self) -> None:
        self._version = 0
        self._peers: dict[PeerId, _Peer] = {}
        self._in_flight: dict[PeerId, None] = {}

    def handle_changed(self) -> None:
        """What we say of ourselves is no longer what we said."""
        self._version += 1

    def handle_connected(self, peer: PeerId, *, limited: bool) -> None:
        """`peer` is there, and will ask who we are; `limited` when we keep to the usual rate."""
        self._peers[peer] = _Peer(self._version, limited)

    def handle_told(self, peer: PeerId) -> None:
        """`peer` was given our newest state because it asked."""
        if peer in self._peers:
            self._peers[peer].told = self._version

    def handle_identified(self, peer: PeerId, *, takes_pushes: bool) -> None:
        """`peer` said whether it speaks the protocol of pushes."""
        if peer in self._peers:
            self._peers[peer].takes_pushes = takes_pushes

    def handle_done(self, peer: PeerId) -> None:
        """The push to `peer` ended in one way or the other; it is not repeated."""
        self._in_flight.pop(peer, None)

    def handle_disconnected(self, peer: PeerId) -> None:
        """`peer` is gone."""
        self._peers.pop(peer, None)

    def start(self, now: float) -> list[PeerId]:
        """The peers to which a push begins now; each of them ends with `handle_done`."""
        started = []
        for peer, state in self._peers.items():
            if len(self._in_flight) >= MAX_IN_FLIGHT:
                break
            if self._waits(peer) and (not state.limited or state.rate.take(now)):
                state.told = self._version
                self._in_flight[peer] = None
                started.append(peer)
        return started

    def next_deadline(self, now: float) -> float | None:
        """When a peer that waits for its rate may get its push."""
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            return None
        waiting = [state.rate.ready_at(now) for peer, state in self._peers.items() if self._waits(peer)]
        return min(waiting, default=None)

    def _waits(self, peer: PeerId) -> bool:
        state = self._peers[peer]
        return state.takes_pushes and state.told != self._version and peer not in self._in_flight
