"""The placing of a record, or of an announcement, at the peers that a look-up found."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from p2p.kad.query import ALPHA, Action, Answered, Event, Finished, Machine
from p2p.kad.wire import AddProvider, PutValue
from p2p.peer_id import PeerId


class Placement(Machine):
    """Sends `request` to each of `peers`, at most alpha at once."""

    def __init__(self, request: PutValue | AddProvider, peers: Iterable[PeerId]) -> None:
        super().__init__()
        self._request = request
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
