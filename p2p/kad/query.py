"""What the asking machines of Kademlia have in common: requests to peers, each with its deadline.

    waiting ──Query──→ asked ──Answered──→ done with it
                         ├──Failed───────→ done with it
                         └──deadline─────→ done with it (GiveUp)

A `Lookup` asks ever closer peers, a `Placement` a list of peers. The driver carries out their actions and
tells them what comes of it.
Source: libp2p/specs kad-dht/README.md, "RPC messages".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from multiaddr import Multiaddr

from p2p.errors import RemoteProtocolError
from p2p.kad.wire import (
    AddProvider,
    FindNode,
    GetProviders,
    GetValue,
    KadMessage,
    PeerEntry,
    PutValue,
    Record,
)
from p2p.peer_id import PeerId

ALPHA = 10  # requests at once; kad-dht spec, "Concurrency parameter"
REQUEST_DEADLINE = 10.0  # seconds for one peer, dialing included; kad-dht spec, "Timeouts"

Request = FindNode | GetValue | GetProviders | PutValue | AddProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """`peer` replied: it named `closer` and `providers`, and gave the `record` that it holds."""

    peer: PeerId
    closer: Sequence[PeerEntry] = ()
    record: Record | None = None
    providers: Sequence[PeerEntry] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """`peer` cannot be reached, does not speak the protocol as it should, or refuses the record."""

    peer: PeerId


Event = Answered | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Somebody claims that `peer` is at `addresses`; comes before a `Query` or `Found` of it."""

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
class Found:
    """Somebody claims that `peer` provides the content; each peer once."""

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


Action = Learned | Query | GiveUp | Found | Finished


def read_reply(peer: PeerId, request: Request, reply: KadMessage) -> Answered:
    """What `reply` of `peer` says about `request`. Raises `RemoteProtocolError` when it is none.

    An `AddProvider` has no reply.
    """
    match request, reply:
        case FindNode(), FindNode(closer=closer):
            return Answered(peer=peer, closer=closer)
        case GetValue(), GetValue(record=record, closer=closer):
            return Answered(peer=peer, closer=closer, record=record)
        case GetProviders(), GetProviders(providers=providers, closer=closer):
            return Answered(peer=peer, closer=closer, providers=providers)
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
