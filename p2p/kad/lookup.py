"""Iterative look-ups, of peers and of values, and the placing of a record at what they found.

    heard ──Query──→ asked ──Answered──→ answered
                       ├──Failed───────→ failed
                       └──deadline─────→ failed (GiveUp)

A `Lookup` asks ever closer peers, at most alpha at once, until each of the k closest candidates that
did not fail has answered; when it gathers values, until there are enough. A response is a claim by a
stranger: it may add candidates and valid values, nothing else. A `Placement` asks each of its peers
to keep a record. To get a value is a look-up, and a placement at those that have none or an older one;
to put one is a look-up, and a placement at the closest.
Source: libp2p/specs kad-dht/README.md, "Peer routing" and "Value storage and retrieval"; Maymounkov
and Mazières 2002, section 2.3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice

from multiaddr import Multiaddr

from p2p.errors import RemoteProtocolError
from p2p.kad.distance import position
from p2p.kad.records import Gathered
from p2p.kad.wire import MAX_PEERS, FindNode, GetValue, K, KadMessage, PeerEntry, PutValue, Record
from p2p.peer_id import PeerId

ALPHA = 10  # requests at once; kad-dht spec, "Concurrency parameter"
REQUEST_DEADLINE = 10.0  # seconds for one peer, dialing included; kad-dht spec, "Timeouts"
MAX_QUERIES = 10 * K  # peers asked by one look-up, whatever they invent
MAX_CANDIDATES = 20 * K  # peers remembered by one look-up; the farthest are forgotten first

Request = FindNode | GetValue | PutValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """`peer` replied: it named `closer`, and gave the `record` that it holds."""

    peer: PeerId
    closer: Sequence[PeerEntry] = ()
    record: Record | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """`peer` cannot be reached, does not speak the protocol as it should, or refuses the record."""

    peer: PeerId


Event = Answered | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Somebody claims that `peer` is at `addresses`; comes before a `Query` of it."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Send `request` to `peer`; report `Answered` (see `read_reply`) or `Failed`."""

    peer: PeerId
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """`peer` was silent for too long: end its request. What it still says is ignored."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """It is over; requests that still run are needed no longer.

    Of a look-up, `closest` are the live peers closest to the key, nearest first, and `hops` the length
    of the longest chain of peers, each named by the one before, to one of them or to the `value`. The
    `outdated` should be told of that. Of a placement, `closest` are the peers that took the record.
    """

    closest: tuple[PeerId, ...]
    queries: int  # requests that were sent
    hops: int = 0
    value: bytes | None = None
    outdated: tuple[PeerId, ...] = ()


Action = Learned | Query | GiveUp | Finished


def read_reply(peer: PeerId, request: Request, reply: KadMessage) -> Answered:
    """What `reply` of `peer` says about `request`. Raises `RemoteProtocolError` when it is none."""
    match request, reply:
        case FindNode(), FindNode(closer=closer):
            return Answered(peer=peer, closer=closer)
        case GetValue(), GetValue(record=record, closer=closer):
            return Answered(peer=peer, closer=closer, record=record)
        case PutValue(record=Record(value=sent)), PutValue(record=Record(value=kept)) if sent == kept:
            return Answered(peer=peer)
    raise RemoteProtocolError(f"{peer} answers {type(request).__name__} with {type(reply).__name__}")


class Machine(ABC):
    """Requests to peers, each with its deadline. `start` it, then `handle` what happens."""

    def __init__(self) -> None:
        self.finished = False
        self.queries = 0
        self._deadlines: dict[PeerId, float] = {}  # of the peers that are being asked, the soonest first

    def start(self, now: float) -> list[Action]:
        """The first queries; without anybody to ask it is finished at once."""
        return self._advance(now)

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about the end of a request. Peers that are not being asked are ignored."""
        if self._deadlines.pop(event.peer, None) is None:
            return []
        return [*self._take(event), *self._advance(now)]

    def next_deadline(self) -> float | None:
        """When `handle_timer` must be called, or None."""
        return next(iter(self._deadlines.values()), None)

    def handle_timer(self, now: float) -> list[Action]:
        """Gives up on the peers that had their time."""
        overdue = [peer for peer, deadline in self._deadlines.items() if deadline <= now]
        if not overdue:
            return []
        for peer in overdue:
            del self._deadlines[peer]
            self._take(Failed(peer=peer))
        return [*(GiveUp(peer=peer) for peer in overdue), *self._advance(now)]

    def _ask(self, peer: PeerId, request: Request, now: float) -> Query:
        self._deadlines[peer] = now + REQUEST_DEADLINE
        self.queries += 1
        return Query(peer=peer, request=request)

    def _finish(self, result: Finished) -> Finished:
        self.finished = True
        self._deadlines.clear()
        return result

    @abstractmethod
    def _take(self, event: Event) -> list[Action]:
        """Takes note of the end of a request."""

    @abstractmethod
    def _advance(self, now: float) -> list[Action]:
        """Asks whom there is to ask; finishes when nobody is left to wait for."""


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
    """One look-up of `key` that begins at `seeds`; with `values` it asks for those as well.

    The `values` may have the one that we hold ourselves; they may be enough from the start.
    """

    def __init__(
        self, key: bytes, *, local: PeerId, seeds: Iterable[PeerId], values: Gathered | None = None
    ) -> None:
        super().__init__()
        self.key = key
        self._request: Request = FindNode(key=key) if values is None else GetValue(key=key)
        self._values = values
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
            case Answered(closer=closer, record=record):
                candidate.state = State.ANSWERED
                if self._values is not None and self._values.take(event.peer, record):
                    self._value_hops = candidate.hops
                return self._learn(closer, candidate.hops + 1)
            case Failed():
                candidate.state = State.FAILED
                return []

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
        if self._values is not None and self._values.enough:
            return [self._finish(self._result(shortlist))]
        actions: list[Action] = []
        for candidate in shortlist:
            if len(self._deadlines) >= ALPHA or self.queries >= MAX_QUERIES:
                break
            if candidate.state is State.HEARD:
                candidate.state = State.ASKED
                actions.append(self._ask(candidate.peer, self._request, now))
        if self._is_settled(shortlist):
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


class Placement(Machine):
    """Asks each of `peers` to keep `record`."""

    def __init__(self, record: Record, peers: Iterable[PeerId]) -> None:
        super().__init__()
        self._request = PutValue(key=record.key, record=record)
        self._waiting = deque(dict.fromkeys(peers))
        self._taken: list[PeerId] = []

    def _take(self, event: Event) -> list[Action]:
        if isinstance(event, Answered):
            self._taken.append(event.peer)
        return []

    def _advance(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._waiting and len(self._deadlines) < ALPHA:
            actions.append(self._ask(self._waiting.popleft(), self._request, now))
        if not self._deadlines:
            actions.append(self._finish(Finished(closest=tuple(self._taken), queries=self.queries)))
        return actions
