"""An iterative look-up: asks ever closer peers until the k closest that live have answered.

    heard ──Query──→ asked ──Answered──→ answered
                       ├──Failed───────→ failed
                       └──deadline─────→ failed (GiveUp)

At most alpha peers are asked at once. The look-up ends when each of the k closest candidates that
did not fail has answered. A response is a claim by a stranger: it may add candidates, nothing else.
Source: libp2p/specs kad-dht/README.md, "Peer routing"; Maymounkov and Mazières 2002, section 2.3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from multiaddr import Multiaddr

from p2p.kad.distance import position
from p2p.kad.wire import MAX_PEERS, K, PeerEntry
from p2p.peer_id import PeerId

ALPHA = 10  # requests at once; kad-dht spec, "Concurrency parameter"
REQUEST_DEADLINE = 10.0  # seconds for one peer, dialing included; kad-dht spec, "Timeouts"
MAX_QUERIES = 10 * K  # peers asked by one look-up, whatever they invent
MAX_CANDIDATES = 20 * K  # peers remembered by one look-up; the farthest are forgotten first


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """`peer` replied and named `closer`."""

    peer: PeerId
    closer: Sequence[PeerEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """`peer` cannot be reached, or does not speak the protocol as it should."""

    peer: PeerId


Event = Answered | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Somebody claims that `peer` is at `addresses`; comes before a `Query` of it."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Ask `peer` for the peers closest to the key; report `Answered` or `Failed`."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """`peer` was silent for too long: end its request. What it still says is ignored."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The look-up is over: these live peers are the closest, nearest first."""

    closest: tuple[PeerId, ...]


Action = Learned | Query | GiveUp | Finished


class State(Enum):
    """How far the look-up is with one candidate."""

    HEARD = auto()
    ASKED = auto()
    ANSWERED = auto()
    FAILED = auto()


@dataclass(slots=True)
class _Candidate:
    peer: PeerId
    distance: int
    state: State = field(default=State.HEARD)
    deadline: float = 0.0


class Lookup:
    """One look-up of `key` that begins at `seeds`. `start` it, then `handle` what happens."""

    def __init__(self, key: bytes, *, local: PeerId, seeds: Iterable[PeerId]) -> None:
        self.key = key
        self.finished = False
        self._target = position(key)
        self._local = local
        self._candidates: dict[PeerId, _Candidate] = {}
        self._nearest: list[_Candidate] = []  # the same, by distance
        self._queries = 0
        for peer in seeds:
            self._add(peer)

    def start(self, now: float) -> list[Action]:
        """The first queries; a look-up without seeds is finished at once."""
        return self._advance(now)

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about the end of a request. Peers that are not being asked are ignored."""
        candidate = self._candidates.get(event.peer)
        if self.finished or candidate is None or candidate.state is not State.ASKED:
            return []
        match event:
            case Answered(closer=closer):
                candidate.state = State.ANSWERED
                return [*self._learn(closer), *self._advance(now)]
            case Failed():
                candidate.state = State.FAILED
                return self._advance(now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` must be called, or None."""
        return min((candidate.deadline for candidate in self._asked()), default=None)

    def handle_timer(self, now: float) -> list[Action]:
        """Gives up on the peers that had their time."""
        overdue = [candidate for candidate in self._asked() if candidate.deadline <= now]
        if not overdue:
            return []
        for candidate in overdue:
            candidate.state = State.FAILED
        return [*(GiveUp(peer=candidate.peer) for candidate in overdue), *self._advance(now)]

    def _asked(self) -> list[_Candidate]:
        if self.finished:
            return []
        return [candidate for candidate in self._nearest if candidate.state is State.ASKED]

    def _learn(self, closer: Sequence[PeerEntry]) -> list[Action]:
        """Takes the credible entries of a response: not ourselves, with addresses, each once."""
        claims: dict[PeerId, tuple[Multiaddr, ...]] = {}
        for entry in closer[:MAX_PEERS]:
            if entry.addresses and entry.peer != self._local:
                claims.setdefault(entry.peer, entry.addresses)
        for peer in claims:
            self._add(peer)
        kept = [(peer, addresses) for peer, addresses in claims.items() if peer in self._candidates]
        return [Learned(peer=peer, addresses=addresses) for peer, addresses in kept]

    def _add(self, peer: PeerId) -> None:
        if peer == self._local or peer in self._candidates:
            return
        candidate = _Candidate(peer, position(peer.raw) ^ self._target)
        at = bisect_left(self._nearest, candidate.distance, key=lambda other: other.distance)
        self._nearest.insert(at, candidate)
        self._candidates[peer] = candidate
        if len(self._nearest) > MAX_CANDIDATES:
            self._forget_farthest()

    def _forget_farthest(self) -> None:
        """There is always one to forget: fewer are asked than remembered."""
        for index in range(len(self._nearest) - 1, -1, -1):
            if self._nearest[index].state is State.HEARD:
                del self._candidates[self._nearest.pop(index).peer]
                return

    def _advance(self, now: float) -> list[Action]:
        """Asks the closest that were not asked yet; finishes when nobody is left to wait for."""
        shortlist = [candidate for candidate in self._nearest if candidate.state is not State.FAILED][:K]
        free = ALPHA - len(self._asked())
        actions: list[Action] = []
        for candidate in shortlist:
            if free > 0 and candidate.state is State.HEARD and self._queries < MAX_QUERIES:
                candidate.state = State.ASKED
                candidate.deadline = now + REQUEST_DEADLINE
                actions.append(Query(peer=candidate.peer))
                self._queries += 1
                free -= 1
        if self._is_settled(shortlist):
            self.finished = True
            answered = (c.peer for c in shortlist if c.state is State.ANSWERED)
            actions.append(Finished(closest=tuple(answered)))
        return actions

    def _is_settled(self, shortlist: Sequence[_Candidate]) -> bool:
        """Whether no answer that may still come can change the result.

        Peers that nobody may be asked about any more (the budget is spent) do not hold it up.
        """
        if any(candidate.state is State.ASKED for candidate in shortlist):
            return False
        waiting = any(candidate.state is State.HEARD for candidate in shortlist)
        return not waiting or (self._queries >= MAX_QUERIES and not self._asked())
