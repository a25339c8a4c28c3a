"""Iterative look-ups: of peers, of values, and of the providers of content.

    heard ──Query──→ asked ──Answered──→ answered
                       ├──Failed───────→ failed
                       └──deadline─────→ failed (GiveUp)

A look-up asks ever closer peers, at most alpha at once, until each of the k closest candidates that did
not fail has answered; when it gathers values or providers, until there are enough. A response is a
claim by a stranger: it may add candidates, valid values and claimed providers, nothing else. To get a
value is a look-up, and a placement at those that have none or an older one; to put one, or to provide
content, is a look-up, and a placement at the closest.
Source: libp2p/specs kad-dht/README.md, "Peer routing", "Value storage and retrieval" and "Content
provider advertisement and discovery"; Maymounkov and Mazières 2002, section 2.3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice

from multiaddr import Multiaddr

from p2p.kad.distance import position
from p2p.kad.providers import Sought
from p2p.kad.query import (
    ALPHA,
    Action,
    Answered,
    Event,
    Failed,
    Finished,
    Found,
    Learned,
    Machine,
    Request,
)
from p2p.kad.records import Gathered
from p2p.kad.wire import MAX_PEERS, FindNode, GetProviders, GetValue, K, PeerEntry
from p2p.peer_id import PeerId

MAX_QUERIES = 10 * K  # peers asked by one look-up, whatever they invent
MAX_CANDIDATES = 20 * K  # peers remembered by one look-up; the farthest are forgotten first


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
    hops: int  # requests, one after the other, that it takes to ask it
    state: State = field(default=State.HEARD)


class Lookup(Machine):
    """One look-up of `key` that begins at `seeds`; with `values` or `sought` it asks for those as well.

    These may have what we hold ourselves; that may be enough from the start.
    """

    def __init__(
        self,
        key: bytes,
        *,
        local: PeerId,
        seeds: Iterable[PeerId],
        values: Gathered | None = None,
        sought: Sought | None = None,
    ) -> None:
        super().__init__()
        self.key = key
        self._request = _request(key, values, sought)
        self._values = values
        self._sought = sought
        self._value_hops = 0  # of the peer that gave the best value
        self._target = position(key)
        self._local = local
        self._candidates: dict[PeerId, _Candidate] = {}
        self._nearest: list[_Candidate] = []  # the same, by distance
        for peer in seeds:
            self._add(peer, 1)

    def _take(self, event: Event) -> list[Action]:
        candidate = self._candidates[event.peer]
        match event:
            case Answered(closer=closer, record=record, providers=providers):
                candidate.state = State.ANSWERED
                if self._values is not None and self._values.take(event.peer, record):
                    self._value_hops = candidate.hops
                found = [] if self._sought is None else self._find(self._sought, providers)
                return [*found, *self._learn(closer, candidate.hops + 1)]
            case Failed():
                candidate.state = State.FAILED
                return []

    def _find(self, sought: Sought, providers: Sequence[PeerEntry]) -> list[Action]:
        """Takes the providers that a response names; where they are is of use also when they wait."""
        found = sought.take(providers)
        learned = [
            Learned(peer=entry.peer, addresses=entry.addresses)
            for entry in providers
            if entry.addresses and entry.peer in sought
        ]
        return [*learned, *(Found(peer=peer) for peer in found)]

    def _learn(self, closer: Sequence[PeerEntry], hops: int) -> list[Action]:
        """Takes the credible entries of a response: not ourselves, with addresses, each once."""
        claims: dict[PeerId, tuple[Multiaddr, ...]] = {}
        for entry in closer[:MAX_PEERS]:
            if entry.addresses and entry.peer != self._local:
                claims.setdefault(entry.peer, entry.addresses)
        for peer in claims:
            self._add(peer, hops)
        kept = [(peer, addresses) for peer, addresses in claims.items() if peer in self._candidates]
        return [Learned(peer=peer, addresses=addresses) for peer, addresses in kept]

    def _add(self, peer: PeerId, hops: int) -> None:
        if peer == self._local or peer in self._candidates:
            return
        candidate = _Candidate(peer, position(peer.raw) ^ self._target, hops)
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
        shortlist = list(islice((c for c in self._nearest if c.state is not State.FAILED), K))
        if any(wanted is not None and wanted.enough for wanted in (self._values, self._sought)):
            return [self._finish(self._result(shortlist))]
        actions: list[Action] = []
        for candidate in shortlist:
            if len(self._deadlines) >= ALPHA or self.queries >= MAX_QUERIES:
                break
            if candidate.state is State.HEARD:
                candidate.state = State.ASKED
                actions.append(self._ask(candidate.peer, self._request, now))
        if self._is_settled(shortlist):
            if self._sought is not None:
                actions += [Found(peer=peer) for peer in self._sought.take_waiting()]
            actions.append(self._finish(self._result(shortlist)))
        return actions

    def _is_settled(self, shortlist: Sequence[_Candidate]) -> bool:
        """Whether no answer that may still come can change the result.

        Peers that nobody may be asked about any more (the budget is spent) do not hold it up.
        """
        if any(candidate.state is State.ASKED for candidate in shortlist):
            return False
        waiting = any(candidate.state is State.HEARD for candidate in shortlist)
        return not waiting or (self.queries >= MAX_QUERIES and not self._deadlines)

    def _result(self, shortlist: Sequence[_Candidate]) -> Finished:
        """The best value goes to the closest that lack it when all of those were asked, as in go;

        otherwise only to peers that gave an older one: the others may not be the ones to keep it.
        """
        answered = [candidate for candidate in shortlist if candidate.state is State.ANSWERED]
        closest = tuple(candidate.peer for candidate in answered)
        hops = max((candidate.hops for candidate in answered), default=0)
        values = self._values
        if values is None or values.best is None:
            return Finished(closest=closest, queries=self.queries, hops=hops)
        if values.enough:
            outdated = tuple(peer for peer in values.outdated() if peer != self._local)
        else:
            outdated = tuple(peer for peer in closest if not values.has_best(peer))
        return Finished(
            closest=closest,
            queries=self.queries,
            hops=self._value_hops,
            value=values.best,
            outdated=outdated,
        )


def _request(key: bytes, values: Gathered | None, sought: Sought | None) -> Request:
    """What each peer is asked."""
    if values is not None:
        return GetValue(key=key)
    return FindNode(key=key) if sought is None else GetProviders(key=key)
