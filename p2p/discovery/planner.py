"""Whom to dial and when to look for more peers, so that a peer with one bootstrap address finds all.

    known ──→ waiting ──Dial──→ dialing ──→ connected
                 ↑                 │            │ lost
                 └──── back-off ←──┴────────────┘
    too many failures ──→ left alone until somebody mentions the peer again

Bootstrap peers are never left alone while we have fewer peers than we want. Later a connection to one of
them is kept all the same: peers that were cut off from the others, and have enough of each other, would
otherwise stay a network of their own. A search (`Refresh`) follows the first peer and each return of a
bootstrap peer at once, other changes soon, and otherwise comes every half minute while below the
target: nobody tells old peers about a newcomer, so the newcomer has to find them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from p2p.events import HostEvent, PeerConnected, PeerDisconnected, PeerIdentified
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

MAX_DIALS = 8  # at once, as go-libp2p's limit of concurrent dials
MAX_TARGETS = 1024  # peers remembered; those left alone are forgotten first
MAX_FAILURES = 8  # in a row, before a peer is left alone: about three minutes
BACKOFF_FIRST = 1.0  # seconds, doubling with each failure
BACKOFF_MAX = 60.0  # seconds
JITTER = 0.25  # of a back-off or interval, at most, on top
STABLE = 30.0  # seconds a connection must have lived to clear the failures before it
SEARCH_FIRST = 2.0  # seconds from a search that was worth it to the next, doubling when it was not
SEARCH_MAX = 30.0  # seconds
SEARCH_SOON = 5.0  # seconds after a peer came to us or was lost
MEET_AGAIN = 15.0  # seconds without any bootstrap peer until we dial one though we have enough peers


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """These peers are in the peerstore; no reason to try again where trying has failed."""

    peers: Sequence[PeerId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A search ended, and others mentioned these peers in it."""

    heard: Sequence[PeerId]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialEnded:
    """The dial of `peer` ended; `connected` is whether there is a connection at this moment.

    `PeerConnected` tells of it too, sooner or later.
    """

    peer: PeerId
    connected: bool


Event = HostEvent | Known | Searched | DialEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Connect to `peer`; report `DialEnded`."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Look for peers; report `Known` and `Searched`."""


Action = Dial | Search


@dataclass(slots=True)
class _Target:
    """What the planner thinks of one peer."""

    rank: float  # random: who comes first among equals, so that not everybody dials the same peers
    bootstrap: bool
    failures: int = 0  # in a row
    not_before: float = 0.0
    dialing: bool = False
    connected_at: float | None = None
    was_connected: bool = False
    is_serving: bool = False  # it said so on the present connection

    @property
    def connected(self) -> bool:
        return self.connected_at is not None

    @property
    def is_left_alone(self) -> bool:
        return self.failures >= MAX_FAILURES and not self.bootstrap and not self.connected

    @property
    def is_waiting(self) -> bool:
        return not (self.connected or self.dialing or self.is_left_alone)

    @property
    def is_first_contact(self) -> bool:
        """A bootstrap peer is to be met once, however many others we know from earlier."""
        return self.bootstrap and not self.was_connected

    @property
    def is_forgettable(self) -> bool:
        return not (self.connected or self.dialing or self.bootstrap)

    @property
    def priority(self) -> tuple[bool, int, bool, float]:
        return not self.bootstrap, self.failures, not self.was_connected, self.rank


class Planner:
    """Decides whom to dial. `protocol` is what a peer must speak to be worth a search."""

    def __init__(
        self,
        *,
        local: PeerId,
        bootstrap: Iterable[PeerId],
        protocol: str,
        target_peers: int,
        rng: Random,
    ) -> None:
        self._local = local
        self._protocol = protocol
        self._target_peers = target_peers
        self._rng = rng
        self._searching = False
        self._has_searched = False
        self._search_at = inf
        self._search_interval = SEARCH_FIRST
        self._meet_again_at = inf  # since when a bootstrap peer is wanted, however many others there are
        self._targets = {
            peer: _Target(rng.random(), bootstrap=True) for peer in dict.fromkeys(bootstrap) if peer != local
        }

    def connected(self) -> list[PeerId]:
        """The peers that we are connected to, as far as events told."""
        return [peer for peer, target in self._targets.items() if target.connected]

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`."""
        match event:
            case PeerConnected(peer=peer, outbound=outbound):
                self._handle_connected(peer, outbound, now)
            case PeerIdentified(peer=peer, protocols=protocols) if self._protocol in protocols:
                self._handle_serving(peer, now)
            case PeerIdentified():
                pass
            case PeerDisconnected(peer=peer):
                self._handle_lost(peer, now)
            case DialEnded(peer=peer, connected=connected):
                self._handle_dial_ended(peer, connected, now)
            case Known(peers=peers):
                for peer in peers:
                    self._add(peer, forgettable=MAX_FAILURES)
            case Searched(heard=heard):
                self._handle_searched(heard, now)
        return self.handle_timer(now)

    def handle_timer(self, now: float) -> list[Action]:
        """Everything that is due at `now`."""
        actions: list[Action] = []
        free, missing = self._room()
        for peer, target in self._due(now):
            if free > 0 and (missing > 0 or self._wanted_at(target) <= now):
                target.dialing = True
                free, missing = free - 1, missing - 1
                actions.append(Dial(peer=peer))
        if self._search_at <= now and self._may_search():
            self._searching = self._has_searched = True
            self._search_at = inf
            actions.append(Search())
        return actions

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do if nothing happens before, or None."""
        free, missing = self._room()
        deadline = self._search_at if self._may_search() else inf
        for target in self._targets.values():
            if target.is_waiting and free > 0:
                wanted_at = target.not_before if missing > 0 else self._wanted_at(target)
                deadline = min(deadline, max(wanted_at, target.not_before))
        return deadline if deadline < inf else None

    # Events

    def _handle_connected(self, peer: PeerId, outbound: bool, now: float) -> None:
        target = self._add(peer, forgettable=0)
        if target is None or target.connected:
            return
        target.connected_at, target.was_connected = now, True
        if target.bootstrap:
            self._meet_again_at = inf
        if outbound and self._has_searched:  # what the last search told was news
            self._search_interval = SEARCH_FIRST
            self._search_by(now + SEARCH_FIRST)

    def _handle_serving(self, peer: PeerId, now: float) -> None:
        """Identify may come several times on a connection; the first one counts."""
        target = self._targets.get(peer)
        if target is None or target.is_serving:
            return
        target.is_serving = True
        self._search_by(now if target.bootstrap or not self._has_searched else now + SEARCH_SOON)

    def _handle_lost(self, peer: PeerId, now: float) -> None:
        target = self._targets.get(peer)
        if target is None or target.connected_at is None:
            return
        target.failures = 0 if now - target.connected_at >= STABLE else target.failures + 1
        target.connected_at, target.is_serving = None, False
        target.not_before = now + self._backoff(target.failures)
        if target.bootstrap and not any(
            other.bootstrap for other in self._targets.values() if other.connected
        ):
            self._meet_again_at = now + self._jittered(MEET_AGAIN)
        if self._has_searched:
            self._search_by(now + SEARCH_SOON)

    def _handle_dial_ended(self, peer: PeerId, connected: bool, now: float) -> None:
        target = self._targets[peer]
        target.dialing = False
        if connected:
            self._handle_connected(peer, True, now)
        elif not target.connected:
            target.failures += 1
            target.not_before = now + self._backoff(target.failures)

    def _handle_searched(self, heard: Sequence[PeerId], now: float) -> None:
        """A peer that was left alone gets one more try: others may see it better than we do."""
        for peer in heard:
            target = self._add(peer, forgettable=MAX_FAILURES)
            if target is not None and target.is_left_alone:
                target.failures = MAX_FAILURES - 1
        self._searching = False
        self._search_by(now + self._jittered(self._search_interval))
        self._search_interval = min(SEARCH_MAX, self._search_interval * 2)

    # Targets

    def _add(self, peer: PeerId, *, forgettable: int) -> _Target | None:
        """The target for `peer`, or None: for ourselves, and when there is no room.

        Room is made by forgetting a peer that failed at least `forgettable` times.
        """
        target = self._targets.get(peer)
        if target is not None or peer == self._local:
            return target
        if len(self._targets) >= MAX_TARGETS:
            waiting = [item for item in self._targets.items() if item[1].is_forgettable]
            worst = max(waiting, key=lambda item: item[1].failures, default=None)
            if worst is None or worst[1].failures < forgettable:
                return None
            del self._targets[worst[0]]
        self._targets[peer] = _Target(self._rng.random(), bootstrap=False)
        return self._targets[peer]

    def _room(self) -> tuple[int, int]:
        """(how many more dials may run, how many more peers are wanted)."""
        dialing = sum(target.dialing for target in self._targets.values())
        connected = sum(target.connected for target in self._targets.values())
        return MAX_DIALS - dialing, self._target_peers - connected - dialing

    def _due(self, now: float) -> list[tuple[PeerId, _Target]]:
        """Who may be dialed now, the most promising first."""
        due = [item for item in self._targets.items() if item[1].is_waiting and item[1].not_before <= now]
        return sorted(due, key=lambda item: item[1].priority)

    # Times

    def _wanted_at(self, target: _Target) -> float:
        """When `target` is to be dialed though we have enough peers."""
        if target.is_first_contact:
            return -inf
        return self._meet_again_at if target.bootstrap else inf

    def _may_search(self) -> bool:
        """Whether a search is wanted and there is somebody to ask."""
        return not self._searching and 0 < len(self.connected()) < self._target_peers

    def _search_by(self, time: float) -> None:
        self._search_at = min(self._search_at, time)

    def _backoff(self, failures: int) -> float:
        return self._jittered(min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(max(failures - 1, 0), 10)))

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + JITTER * self._rng.random())
