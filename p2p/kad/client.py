"""The asking side of Kademlia: runs look-ups and placements over a host's streams.

A machine runs in its caller's task, with one more task for each request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio
from multiaddr import Multiaddr

from p2p.errors import ConnectionLost, DialFailed, NegotiationFailed, RemoteProtocolError, StreamReset
from p2p.framing import encode_delimited
from p2p.host import Host
from p2p.kad.lookup import Lookup
from p2p.kad.providers import Sought
from p2p.kad.query import (
    ALPHA,
    Action,
    Answered,
    Event,
    Failed,
    Finished,
    Found,
    GiveUp,
    Learned,
    Machine,
    Query,
    Request,
    read_reply,
)
from p2p.kad.records import Gathered
from p2p.kad.table import RoutingTable
from p2p.kad.wire import MAX_MESSAGE, AddProvider, PutValue, decode, encode
from p2p.peer_id import PeerId
from p2p.peerstore import TTL_HEARD
from p2p.request_response import request
from p2p.scope import open_scope, reset_on_error

logger = logging.getLogger(__name__)

REQUEST_ERRORS = (DialFailed, NegotiationFailed, ConnectionLost, RemoteProtocolError)


class Client:
    """Asks peers in `protocol`, those of `table` first.

    It says who is alive (`on_answer`) and who fails (`on_failure`).
    """

    def __init__(
        self,
        host: Host,
        protocol: str,
        table: RoutingTable,
        *,
        on_answer: Callable[[PeerId], None],
        on_failure: Callable[[PeerId], None],
    ) -> None:
        self._host = host
        self._protocols = [protocol]
        self._table = table
        self._on_answer = on_answer
        self._on_failure = on_failure

    async def look_up(
        self,
        key: bytes,
        *,
        values: Gathered | None = None,
        sought: Sought | None = None,
        heard: dict[PeerId, None] | None = None,
        on_found: Callable[[PeerId], None] | None = None,
    ) -> Finished:
        """The result of a look-up of `key`; the rest as in `run`."""
        lookup = Lookup(
            key, local=self._host.peer_id, seeds=self._table.closest(key), values=values, sought=sought
        )
        return await self.run(lookup, heard, on_found)

    async def run(
        self,
        machine: Machine,
        heard: dict[PeerId, None] | None = None,
        on_found: Callable[[PeerId], None] | None = None,
    ) -> Finished:
        """The result of `machine`; requests that it needs no longer are cancelled at its end.

        Who was heard of on the way is added to `heard`, and to the peerstore. `on_found` is called with
        each provider.
        """
        requests: dict[PeerId, trio.CancelScope] = {}
        results, events = trio.open_memory_channel[Event](ALPHA)
        async with open_scope() as nursery:
            actions = machine.start(trio.current_time())
            while True:
                for action in actions:
                    match action:
                        case Learned(peer=peer, addresses=addresses):
                            self.learn(peer, addresses)
                            if heard is not None:
                                heard[peer] = None
                        case Query(peer=peer, request=query):
                            requests[peer] = trio.CancelScope()
                            nursery.start_soon(self._report, peer, query, requests[peer], results)
                        case GiveUp(peer=peer):
                            requests[peer].cancel()
                            self._on_failure(peer)
                        case Found(peer=peer):
                            if on_found is not None:
                                on_found(peer)
                        case Finished():
                            return action
                actions = await _next_actions(machine, events)

    async def ask(self, peer: PeerId, query: Request) -> Answered:
        """What `peer` answers. The caller sets the deadline.

        Two dials that cross close one connection and its streams, so a lost stream is tried once more;
        not when the peer resets it instead of keeping a record: that is how it refuses.
        Raises `DialFailed`, `NegotiationFailed`, `ConnectionLost`, `RemoteProtocolError`.
        """
        try:
            answered = await self._exchange(peer, query)
        except ConnectionLost as exc:
            if _is_refusal(query, exc):
                raise
            answered = await self._exchange(peer, query)
        self._on_answer(peer)
        return answered

    async def _report(
        self,
        peer: PeerId,
        query: Request,
        scope: trio.CancelScope,
        results: trio.MemorySendChannel[Event],
    ) -> None:
        """One request of a machine, which gives up by cancelling `scope`."""
        with scope:
            event: Event = Failed(peer=peer)
            try:
                event = await self.ask(peer, query)
            except REQUEST_ERRORS as exc:
                logger.info("%s fails: %s: %s", type(query).__name__, peer, exc)
                if not _is_refusal(query, exc):
                    self._on_failure(peer)
            await results.send(event)

    async def _exchange(self, peer: PeerId, query: Request) -> Answered:
        if isinstance(query, AddProvider):
            await self._announce(peer, query)
            return Answered(peer=peer)
        reply = await request(self._host, peer, self._protocols, encode(query), max_answer=MAX_MESSAGE)
        return read_reply(peer, query, decode(reply))

    async def _announce(self, peer: PeerId, message: AddProvider) -> None:
        """Sends what has no reply, and waits until `peer` ends the stream: it has read it all then.

        js-libp2p ends it by a reset, also when all is well.
        """
        stream = await self._host.open_stream(peer, self._protocols)
        with reset_on_error(stream):
            await stream.send_all(encode_delimited(encode(message)))
            await stream.send_eof()
            try:
                while await stream.receive_some():
                    pass  # py-libp2p sends an echo
            except StreamReset:
                return
            await stream.aclose()

    def learn(self, peer: PeerId, addresses: Sequence[Multiaddr]) -> None:
        """Keeps what a stranger claims about `peer`, unless we are connected and know better."""
        if not self._host.is_connected(peer):
            self._host.peerstore.add_addresses(peer, addresses, TTL_HEARD)


def _is_refusal(query: Request, error: Exception) -> bool:
    """Whether `error` says that a peer does not want a record, which is nothing against it."""
    return isinstance(query, PutValue) and isinstance(error, StreamReset)


async def _next_actions(machine: Machine, events: trio.MemoryReceiveChannel[Event]) -> list[Action]:
    deadline = machine.next_deadline()
    with trio.move_on_at(deadline if deadline is not None else float("inf")):
        event = await events.receive()
        return machine.handle(event, trio.current_time())
    return machine.handle_timer(trio.current_time())
