"""The asking side of Kademlia on this rung: runs the machines of `p2p.kad.lookup` over connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from p2p.errors import RemoteProtocolError
from p2p.kad.query import (
    Action,
    Answered,
    Failed,
    Finished,
    GiveUp,
    Learned,
    Machine,
    Request,
    read_reply,
)
from p2p.kad.query import Query as Ask
from p2p.kad.wire import FindNode, GetProviders, GetValue, KadMessage, PutValue
from sim.cores.timer import Timer

if TYPE_CHECKING:
    from p2p.peer_id import PeerId
    from sim.cores.kad import Kad
    from sim.cores.links import End

OVERHEAD = 90  # bytes around a message: opening a stream, a key, frames
ENTRY = 64  # bytes of a peer entry: its id, an address, tags
ATTEMPTS = 2  # a lost connection is tried once more, as the driver does


def message_size(message: KadMessage) -> int:
    """Bytes that `message` takes on a connection, about."""
    size = OVERHEAD
    if isinstance(message, FindNode | GetValue | GetProviders):
        size += ENTRY * len(message.closer)
    if isinstance(message, GetProviders):
        size += ENTRY * len(message.providers)
    if isinstance(message, GetValue | PutValue) and message.record is not None:
        size += len(message.record.key) + len(message.record.value)
    return size


class Query:
    """One request to one peer; `ended` gets the answer, or None when there is none."""

    __slots__ = ("_attempts", "_client", "_ended", "_request", "end", "peer", "refusal")

    def __init__(
        self,
        client: Client,
        peer: PeerId,
        request: Request,
        ended: Callable[[Query, Answered | None], None],
    ) -> None:
        self._client = client
        self._request = request
        self._ended: Callable[[Query, Answered | None], None] | None = ended
        self._attempts = 0
        self.peer = peer
        self.end: End | None = None  # of the connection on which it was asked
        self.refusal = False

    def start(self) -> None:
        """Dials the peer if need be, and asks."""
        self._attempts += 1
        life = self._client.kad.life
        number = life.world.numbers.get(self.peer)
        if number is None:  # somebody made it up
            life.world.heap.plan(life.world.heap.now, self._finish, None)
        else:
            life.links.dial(life, number, partial(self._dialed, number))

    def _dialed(self, number: int, connected: bool) -> None:
        end = self._client.kad.life.ends.get(number) if connected else None
        if self._ended is None:
            return
        if end is None:
            self._finish(None)
            return
        self.end = end
        self._client.asked[self] = None
        server = end.remote.life.kad
        if server is not None:
            end.send(message_size(self._request), server.serve, end.remote, self._request, self)

    def replied(self, message: KadMessage) -> None:
        """The answer arrived."""
        try:
            self._finish(read_reply(self.peer, self._request, message))
        except RemoteProtocolError:
            self._finish(None)

    def refused(self) -> None:
        """The peer reset the stream: it does not want the record."""
        self.refusal = True
        self._finish(None)

    def lost(self) -> None:
        """The connection broke."""
        self._client.asked.pop(self, None)
        self.end = None
        if self._attempts < ATTEMPTS:
            self.start()
        else:
            self._finish(None)

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self._ended = None
        self._client.asked.pop(self, None)

    def expire(self) -> None:
        """Its time is over, if it still runs."""
        self._finish(None)

    def _finish(self, answered: Answered | None) -> None:
        ended, self._ended = self._ended, None
        self._client.asked.pop(self, None)
        if ended is not None and self._client.kad.life.running:
            ended(self, answered)


class Client:
    """What is being asked by one node."""

    def __init__(self, kad: Kad) -> None:
        self.kad = kad
        self.asked: dict[Query, None] = {}

    def lose(self, end: End) -> None:
        """A connection broke."""
        for query in [query for query in self.asked if query.end is end]:
            query.lost()


class Run:
    """One machine at work; `done` gets its result. Who is heard of is added to `heard`."""

    def __init__(
        self,
        client: Client,
        machine: Machine,
        done: Callable[[Finished], None],
        heard: dict[PeerId, None] | None,
    ) -> None:
        self._client = client
        self._machine = machine
        self._done = done
        self._heard = heard
        self._queries: dict[PeerId, Query] = {}
        self._timer = Timer(client.kad.life, machine.next_deadline, self._due)

    def start(self) -> None:
        """The first queries."""
        self._perform(self._machine.start(self._client.kad.now))

    def _due(self, now: float) -> None:
        self._perform(self._machine.handle_timer(now))

    def _ended(self, query: Query, answered: Answered | None) -> None:
        kad, peer = self._client.kad, query.peer
        self._queries.pop(peer, None)
        if answered is not None:
            kad.note(peer)
        elif not query.refusal:
            kad.drop(peer)
        if not self._machine.finished:
            self._perform(self._machine.handle(answered or Failed(peer=peer), kad.now))

    def _perform(self, actions: list[Action]) -> None:
        kad = self._client.kad
        for action in actions:
            match action:
                case Learned(peer=peer):
                    kad.learn(peer)
                    if self._heard is not None:
                        self._heard[peer] = None
                case Ask(peer=peer, request=request):
                    query = self._queries[peer] = Query(self._client, peer, request, self._ended)
                    query.start()
                case GiveUp(peer=peer):
                    self._queries.pop(peer).cancel()
                    kad.drop(peer)
                case Finished():
                    for query in self._queries.values():
                        query.cancel()
                    self._queries.clear()
                    self._done(action)
        self._timer.arm()
