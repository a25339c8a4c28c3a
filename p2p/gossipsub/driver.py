"""Gossipsub over a host: streams in, streams out, subscriptions, one heartbeat.

    PeerIdentified → Link: opens our stream, and opens it again
    inbound stream → _serve: its RPCs go from the connection's reader straight into the router
    router.next_deadline → _run_timer
    peers that a trusted one names → introductions: dialed, a few at a time
    what the router decides → Link: straight to the stream, or by a task while the peer is slow

Everything that happens goes through `_handle`, which never awaits: between two checkpoints the router
and the outboxes are always consistent. A message passes through without a single task switch.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from p2p.errors import LocalProtocolError, RemoteProtocolError
from p2p.events import PeerDisconnected, PeerIdentified
from p2p.gossipsub.events import (
    Action,
    Deliver,
    Event,
    InboundOpened,
    Introduced,
    Join,
    Leave,
    PeerGone,
    Publish,
    Published,
    PubsubMessage,
    SendRpc,
    Validator,
    ValidatorFailed,
)
from p2p.gossipsub.intake import Counters
from p2p.gossipsub.introductions import Introductions
from p2p.gossipsub.link import Link
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.reading import receive_rpcs
from p2p.gossipsub.router import Router
from p2p.gossipsub.signing import MessageIdFunction, message_id_from_seqno
from p2p.gossipsub.subscription import Subscription
from p2p.gossipsub.wire import VERSIONS, Rpc
from p2p.peer_id import PeerId
from p2p.scope import open_scope
from p2p.stream import Stream

if TYPE_CHECKING:
    from p2p.host import Host

CLOSE_GRACE = 0.5  # seconds to write what was published last

logger = logging.getLogger(__name__)


class Pubsub:
    """Publish and subscribe on a host. Made by `open_gossipsub`."""

    def __init__(self, host: Host, nursery: trio.Nursery, router: Router) -> None:
        self._host = host
        self._nursery = nursery
        self._router = router
        self._links: dict[PeerId, Link] = {}
        self._inbound: dict[PeerId, Stream] = {}
        self._protected: dict[PeerId, None] = {}  # from being trimmed, since they are in a mesh
        self._subscriptions: dict[str, list[Callable[[PubsubMessage], None]]] = {}
        self._waiting = trio.lowlevel.ParkingLot()  # for a change in who subscribes to what
        self._armed: float | None = None  # the deadline that the timer waits for
        self._rearm = trio.Event()
        self._bytes_sent = 0  # to peers that are gone
        self._dropped = 0  # messages to peers that are gone
        self._introductions = Introductions(host, nursery)
        self.observers: list[Callable[[Sequence[Action]], None]] = []  # of all that the router decides

    # What applications call

    def publish(self, topic: str, data: bytes) -> bytes:
        """Sends `data` to the subscribers of `topic`, ourselves not included; returns the message's id.

        Nothing is awaited: a slow peer's queue drops messages (`messages_dropped`), it holds up nobody.
        Raises `LocalProtocolError` when the message is over the size limit.
        """
        actions = self._handle(Publish(topic=topic, data=data))
        [published] = [action for action in actions if isinstance(action, Published)]
        return published.id

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[Subscription]:
        """The messages of `topic` while the body runs. Raises `LocalProtocolError` for an unusable topic."""
        subscription = Subscription(topic)
        with self.subscribe_each(topic, subscription.put):
            try:
                yield subscription
            finally:
                subscription.close()

    @contextmanager
    def subscribe_each(self, topic: str, handle: Callable[[PubsubMessage], None]) -> Iterator[None]:
        """Calls `handle` with each message of `topic` while the body runs, as soon as it has passed on.

        As `subscribe`, without a queue and a task; it must be quick, and there may be no current task.
        """
        self._handle(Join(topic=topic))
        self._subscriptions.setdefault(topic, []).append(handle)
        try:
            yield
        finally:
            self._subscriptions[topic].remove(handle)
            if not self._subscriptions[topic]:
                del self._subscriptions[topic]
                self._handle(Leave(topic=topic))

    def add_validator(self, topic: str, validator: Validator) -> None:
        """Lets `validator` decide which messages of `topic` count; the topic's earlier one is replaced.

        It is called on the event loop for each message that is new and truly signed: it must be quick.
        A validator that raises drops the message. Raises `LocalProtocolError` for an async function.
        """
        if inspect.iscoroutinefunction(validator):
            raise LocalProtocolError("a validator is a plain function: nothing would await it")
        self._router.set_validator(topic, validator)

    def peers(self, topic: str) -> list[PeerId]:
        """The peers known to subscribe to `topic` that we can reach."""
        return self._router.subscribers(topic)

    def mesh(self, topic: str) -> list[PeerId]:
        """The peers that we exchange all messages of `topic` with."""
        return self._router.mesh(topic)

    def set_application_score(self, peer: PeerId, value: float) -> None:
        """Adds `value`, which may be negative, to the score of `peer` from now on; zero takes it back.

        Below zero a peer is in no mesh, below -80 nothing is heard from it (`ScoreParams`). It holds for
        `peer` whether it is connected or not; of more than 4096 peers the one set first is forgotten.
        """
        self._router.scores.set_application_score(peer, value)

    def score(self, peer: PeerId) -> float:
        """What we think of `peer`; 0 when it is not connected."""
        return self._router.scores.score(peer)

    def scores(self) -> dict[PeerId, float]:
        """What we think of each connected peer."""
        return self._router.scores.scores()

    def graylisted(self) -> list[PeerId]:
        """The peers that are not heard."""
        return self._router.scores.graylisted()

    def expect_rate(self, topic: str, rate: float) -> None:
        """Lets peers in the mesh of `topic` lose score that withhold its messages, `rate` a second.

        For topics on which many publish, and every peer has several links; 0 ends it. Raises
        `LocalProtocolError` for more than 64 topics.
        """
        if not self._router.scores.expect_rate(topic, rate):
            raise LocalProtocolError("too many topics have a rate")

    async def wait_for_peers(self, topic: str, count: int) -> None:
        """Returns once `peers(topic)` has at least `count`: what is published then reaches them."""
        await trio.lowlevel.checkpoint()
        while len(self.peers(topic)) < count:
            await self._waiting.park()

    @property
    def counters(self) -> Counters:
        """What became of messages since the start."""
        return self._router.counters

    @property
    def messages_dropped(self) -> int:
        """Messages, our own and others', that were not sent because a peer was too slow."""
        return self._dropped + sum(link.messages_dropped for link in self._links.values())

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to our streams so far."""
        return self._bytes_sent + sum(link.bytes_sent for link in self._links.values())

    # The machine

    def _handle(self, event: Event) -> Sequence[Action]:
        now = trio.current_time()
        return self._perform(self._router.handle(event, now), now)

    def _perform(self, actions: Sequence[Action], now: float) -> Sequence[Action]:
        """Does what the router decided; returns it.

        What it sends leaves when all of it is known, so control goes ahead of messages; applications
        come last: what their code does, the network has had its due.
        """
        delivered = self._carry_out(actions, now) if actions else ()  # mostly nothing follows
        if self._router.next_deadline() != self._armed:
            self._rearm.set()
        if self._waiting:
            self._waiting.unpark_all()
        for message in delivered:
            for handle in tuple(self._subscriptions.get(message.topic, ())):
                handle(message)
        if actions:
            for observe in self.observers:
                observe(actions)
        return actions

    def _carry_out(self, actions: Sequence[Action], now: float) -> list[PubsubMessage]:
        """Sends what is to be sent; returns what is for our applications."""
        written: dict[Link, None] = {}
        delivered: list[PubsubMessage] = []
        for action in actions:
            match action:
                case SendRpc(peer=peer, rpc=rpc):
                    link = self._links[peer]  # the router knows who has a stream
                    link.push(rpc)
                    written[link] = None
                case Deliver(message=message):
                    delivered.append(message)
                case Introduced(records=records):
                    self._introductions.handle(records)
                case ValidatorFailed(topic=topic, error=error):
                    logger.error("the validator of %s failed", topic, exc_info=error)
        for link in written:
            link.write_at_once(now)
        return delivered

    async def _run_timer(self) -> None:
        """Calls the router whenever its deadline is reached; an earlier or first deadline wakes it."""
        while True:
            self._rearm = trio.Event()
            self._armed = self._router.next_deadline()
            with trio.move_on_at(math.inf if self._armed is None else self._armed):
                await self._rearm.wait()
            now = trio.current_time()
            self._perform(self._router.handle_timer(now), now)
            self._protect(dict.fromkeys(peer for topic in self._subscriptions for peer in self.mesh(topic)))

    def _protect(self, mesh: dict[PeerId, None]) -> None:
        """Keeps the connections of the peers in our meshes when the host has too many."""
        manager = self._host.connection_manager
        for peer in mesh:
            if peer not in self._protected:
                manager.protect(peer, "mesh")
        for peer in self._protected:
            if peer not in mesh:
                manager.unprotect(peer, "mesh")
        self._protected = mesh

    # Peers

    async def _follow_host(self) -> None:
        """Keeps a link to every connected peer that speaks pubsub."""
        with self._host.events() as events:
            async for event in events:
                match event:
                    case PeerIdentified(peer=peer, protocols=protocols):
                        if any(protocol in VERSIONS for protocol in protocols):
                            self._open_link(peer)
                    case PeerDisconnected(peer=peer):
                        self._forget(peer)

    def _open_link(self, peer: PeerId) -> None:
        if peer in self._links:
            self._links[peer].retry()  # it may be identified because it has a new connection
        else:
            link = self._links[peer] = Link(self._host, self._nursery, peer, self._handle)
            self._nursery.start_soon(link.open)

    def _forget(self, peer: PeerId) -> None:
        link = self._links.pop(peer, None)
        if link is not None:
            link.close()
            self._dropped += link.messages_dropped
            self._bytes_sent += link.bytes_sent
        self._handle(PeerGone(peer=peer))

    async def _serve(self, stream: Stream) -> None:
        """Reads RPCs from a stream that a peer opened; nothing is ever written to it.

        A malformed one ends this stream and nothing else.
        """
        peer = stream.peer
        if peer in self._inbound:
            self._inbound[peer].reset()  # the peer has lost the earlier stream
        self._inbound[peer] = stream
        self._handle(InboundOpened(peer=peer))
        try:
            unheard = partial(self._router.scores.is_graylisted, peer)
            await receive_rpcs(stream, partial(self._receive, peer), unheard)
        except RemoteProtocolError as exc:
            logger.info("%s breaks the rules of pubsub: %s", peer, exc)
            stream.reset()
        finally:
            if self._inbound[peer] is stream:
                del self._inbound[peer]

    def _receive(self, peer: PeerId, rpc: Rpc, now: float) -> None:
        self._perform(self._router.receive_rpc(peer, rpc, now), now)

    async def _flush(self) -> None:
        """Returns when all that is queued is written, on streams that work."""
        for link in list(self._links.values()):
            await link.flush()


@asynccontextmanager
async def open_gossipsub(
    host: Host,
    params: GossipsubParams | None = None,
    *,
    message_id: MessageIdFunction = message_id_from_seqno,
    seqno: int | None = None,
    make_router: Callable[..., Router] = Router,
) -> AsyncIterator[Pubsub]:
    """Gossipsub on `host` while the body runs.

    `message_id` must be the same in the whole network. `seqno` is the first sequence number and must
    not go back when a peer starts again: the time in nanoseconds, unless it is given. `make_router` is
    called with what `Router` takes: simulated peers have routers that misbehave.
    """
    router = make_router(
        key=host.key,
        rng=host.rng,
        seqno=time.time_ns() if seqno is None else seqno,
        params=params,
        message_id=message_id,
    )
    async with open_scope() as nursery:
        pubsub = Pubsub(host, nursery, router)
        nursery.start_soon(pubsub._run_timer)
        nursery.start_soon(pubsub._follow_host)
        for protocol in VERSIONS:
            host.handle(protocol, pubsub._serve)
        try:
            yield pubsub
        finally:
            pubsub._protect({})
            for protocol in VERSIONS:
                host.unhandle(protocol)
            with trio.move_on_after(CLOSE_GRACE, shield=True):
                await pubsub._flush()
            for link in pubsub._links.values():
                link.close()
            for stream in list(pubsub._inbound.values()):
                stream.reset()
