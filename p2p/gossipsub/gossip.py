"""The lazy half: who advertises, asks for and refuses which messages, each within its budget.

    heartbeat → IHAVE to some peers outside the mesh     IHAVE → IWANT for what we lack → the message
                                                         └ nobody sends it in time → a broken promise
    large message arrived → IDONTWANT to the mesh        IDONTWANT → it is not forwarded there

Budgets are a peer's for one heartbeat; they survive a reconnection within it.
Source: libp2p/specs pubsub/gossipsub/gossipsub-v1.0.md "Gossip"; gossipsub-v1.1.md "Spam Protection
Measures"; gossipsub-v1.2.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from p2p.gossipsub.cache import MessageHistory, SeenCache
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.wire import MAX_IDS, Message
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

MAX_PROMISES = 50_000  # ids asked for and awaited; ten peers' whole budgets
MAX_ASKED = 3  # peers asked for the same id at a time: one that never answers cannot withhold it
_MAX_KEY = 64  # bytes of an id kept as it is; default ids have 46, longer ones are kept as a hash


class _Promise(NamedTuple):
    until: float
    share: float  # of what was asked for at once


@dataclass(slots=True)
class _Budget:
    ihave: int = 0  # RPCs
    asked: int = 0  # ids
    answered: int = 0  # ids
    refused: int = 0  # ids


class Gossip:
    """Advertisements, promises and refusals of all peers."""

    def __init__(self, params: GossipsubParams, rng: Random) -> None:
        self._params = params
        self._rng = rng
        self._budgets: dict[PeerId, _Budget] = {}
        self._promises: dict[bytes, dict[PeerId, _Promise]] = {}  # id → whom we asked → until when
        self._refusals: dict[PeerId, dict[bytes, float]] = {}  # peer → ids, in the order of expiry

    def handle_ihave(
        self, peer: PeerId, ids: Iterable[bytes], seen: SeenCache, now: float
    ) -> tuple[bytes, ...]:
        """Which of the advertised ids to ask `peer` for: those that we lack, within its budget.

        The order is random, so that a truncated request is not the same everywhere.
        """
        budget = self._budget(peer)
        budget.ihave += 1
        if budget.ihave > self._params.max_ihave_messages:
            return ()
        room = min(self._params.max_ihave_ids - budget.asked, MAX_PROMISES - len(self._promises))
        wanted = [each for each in seen.missing(ids, now) if self._may_ask(each, peer)]
        self._rng.shuffle(wanted)
        del wanted[max(room, 0) :]
        budget.asked += len(wanted)
        if wanted:
            promise = _Promise(now + self._params.iwant_followup, 1.0 / len(wanted))
            for message_id in wanted:
                self._promises.setdefault(message_id, {})[peer] = promise
        return tuple(wanted)

    def _may_ask(self, message_id: bytes, peer: PeerId) -> bool:
        asked = self._promises.get(message_id, {})
        return peer not in asked and len(asked) < MAX_ASKED

    def handle_iwant(
        self, peer: PeerId, ids: Sequence[bytes], history: MessageHistory, now: float
    ) -> tuple[Message, ...]:
        """The messages to send for a request: what is there, not too often, within the peer's budget."""
        budget = self._budget(peer)
        heeded = ids[: max(self._params.max_ihave_ids - budget.answered, 0)]
        budget.answered += len(heeded)
        found = []
        for message_id in dict.fromkeys(heeded):
            if self.refuses(peer, message_id, now):
                continue
            message = history.retransmit(message_id, peer)
            if message is not None:
                found.append(message)
        return tuple(found)

    def handle_idontwant(self, peer: PeerId, ids: Sequence[bytes], now: float) -> None:
        """Notes which messages `peer` has already, within its budget."""
        budget = self._budget(peer)
        heeded = ids[: max(self._params.idontwant_ids - budget.refused, 0)]
        budget.refused += len(heeded)
        refusals = self._refusals.setdefault(peer, {})
        for message_id in heeded:
            refusals.setdefault(_key(message_id), now + self._params.idontwant_ttl)

    def willing(self, peers: Iterable[PeerId], message_id: bytes, now: float) -> Iterable[PeerId]:
        """Those of `peers` that did not say lately that they do not want this message."""
        if not self._refusals:
            return peers
        return [peer for peer in peers if not self.refuses(peer, message_id, now)]

    def refuses(self, peer: PeerId, message_id: bytes, now: float) -> bool:
        """Whether `peer` said lately that it does not want this message."""
        refusals = self._refusals.get(peer)
        return refusals is not None and refusals.get(_key(message_id), now) > now

    def arrived(self, message_id: bytes) -> None:
        """The message is here: nobody owes it to us any more."""
        self._promises.pop(message_id, None)

    def choose_peers(self, candidates: Sequence[PeerId], best: Sequence[PeerId] = ()) -> list[PeerId]:
        """Which of the peers outside the mesh get IHAVE this time: as many of the `best` as others by chance.

        By chance alone a peer goes without that has few honest neighbours among many others' Sybils.
        """
        count = max(self._params.gossip_size, int(self._params.gossip_factor * len(candidates)))
        chosen = list(best[: count // 2])
        others = [peer for peer in candidates if peer not in chosen] if chosen else candidates
        return chosen + self._rng.sample(others, min(count - len(chosen), len(others)))

    def choose_ids(self, ids: Sequence[bytes]) -> tuple[bytes, ...]:
        """Which of the recent ids one peer gets: all, or a random choice of as many as it may heed."""
        return tuple(ids) if len(ids) <= MAX_IDS else tuple(self._rng.sample(ids, MAX_IDS))

    def remove(self, peer: PeerId) -> None:
        """`peer` is gone, and what it does not want with it."""
        self._refusals.pop(peer, None)

    def handle_heartbeat(self, now: float) -> dict[PeerId, float]:
        """Starts new budgets and forgets what is over.

        Returns who broke promises: 1 for each request of which nothing came, from anybody, in time; go
        follows one id of each, so it expects the same.
        """
        self._budgets.clear()
        for peer, refusals in list(self._refusals.items()):
            while refusals and refusals[first := next(iter(refusals))] <= now:
                del refusals[first]
            if not refusals:
                del self._refusals[peer]
        broken: dict[PeerId, float] = {}
        for message_id, asked in list(self._promises.items()):
            while asked and asked[peer := next(iter(asked))].until <= now:
                broken[peer] = broken.get(peer, 0.0) + asked.pop(peer).share
            if not asked:
                del self._promises[message_id]
        return broken

    def _budget(self, peer: PeerId) -> _Budget:
        budget = self._budgets.get(peer)
        if budget is None:
            budget = self._budgets[peer] = _Budget()
        return budget


def _key(message_id: bytes) -> bytes:
    return message_id if len(message_id) <= _MAX_KEY else hashlib.sha256(message_id).digest()
