"""Gossipsub over a host: streams in, streams out, subscriptions, one heartbeat.

    PeerIdentified → _Link: one task a peer that opens our stream, writes its outbox, opens it again
    inbound stream → _serve: reads RPCs until the stream ends or a newer one replaces it
    router.next_deadline → _run_timer

Everything that happens goes through `_handle`, which never awaits: between two checkpoints the router
and the outboxes are always consistent.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from p2p.errors import (
    ConnectionLost,
    DialFailed,
    LocalProtocolError,
    NegotiationFailed,
    RemoteProtocolError,
)
from p2p.events import PeerDisconnected, PeerIdentified
from p2p.framing import DelimitedReader
from p2p.gossipsub.events import (
    Action,
    Deliver,
    Event,
    InboundOpened,
    Join,
    Leave,
    PeerGone,
    Publish,
    Published,
    PubsubMessage,
    RpcReceived,
    SendRpc,
    StreamLost,
    StreamOpened,
    Validator,
    ValidatorFailed,
)
from p2p.gossipsub.intake import Counters
from p2p.gossipsub.outbox import Outbox
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.router import Router
from p2p.gossipsub.signing import MessageIdFunction, message_id_from_seqno
from p2p.gossipsub.wire import MAX_RPC, VERSIONS, Rpc, decode_rpc, slices
from p2p.peer_id import PeerId
from p2p.scope import open_scope
from p2p.stream import Stream

if TYPE_CHECKING:
    from p2p.host import Host

OPEN_TIMEOUT = 15.0  # seconds to open a stream on a connection
WRITE_TIMEOUT = 30.0  # seconds for one write; go
REOPEN_FIRST = 1.0  # seconds before a stream that failed is opened again, doubling
REOPEN_MAX = 30.0  # seconds; a stream that lived longer starts anew
CLOSE_GRACE = 0.5  # seconds to write what was published last
SUBSCRIPTION_QUEUE = 256  # messages a subscriber may lag behind
MESSAGES_AT_ONCE = 16  # messages of one RPC between two checkpoints: 1 ms of verifying signatures

logger = logging.getLogger(__name__)


class Subscription:
    """The messages of one topic, from now on. A slow reader loses the oldest; `dropped` counts them.

    Messages that wait come without a checkpoint in between: a reader keeps up with any writer.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.dropped = 0
        self._messages: deque[PubsubMessage] = deque()
        self._readers = trio.lowlevel.ParkingLot()
        self._closed = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> PubsubMessage:
        while not self._messages:
            if self._closed:
                raise StopAsyncIteration
            await self._readers.park()
        return self._messages.popleft()

    def put(self, message: PubsubMessage) -> None:
        """Adds a message, instead of the oldest when too many wait."""
        self._messages.append(message)
        if len(self._messages) > SUBSCRIPTION_QUEUE:
            self._messages.popleft()
            self.dropped += 1
        self._readers.unpark_all()

    def close(self) -> None:
        """Ends the iteration behind the messages that wait."""
        self._closed = True
        self._readers.unpark_all()


class _Link:
    """Our side of one peer: what is to be written, and whether the stream is worth another try."""

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.scope = trio.CancelScope()
        self.outbox = Outbox()  # each stream starts with a new one
        self.work = trio.Event()
        self.drained = trio.Event()
        self.drained.set()
        self.retry = trio.Event()  # do not wait for the back-off

    def send(self, rpc: Rpc) -> None:
        """Queues an RPC and kicks the writer."""
        self.outbox.push(rpc)
        if self.drained.is_set():
            self.drained = trio.Event()
        self.work.set()


class Pubsub:
    """Publish and subscribe on a host. Made by `open_gossipsub`."""

    def __init__(self, host: Host, nursery: trio.Nursery, router: Router) -> None:
        self._host = host
        self._nursery = nursery
        self._router = router
        self._links: dict[PeerId, _Link] = {}
        self._inbound: dict[PeerId, trio.CancelScope] = {}
        self._protected: set[PeerId] = set()  # from being trimmed, since they are in a mesh
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._waiting = trio.lowlevel.ParkingLot()  # for a change in who subscribes to what
        self._armed: float | None = None  # the deadline that the timer waits for
        self._rearm = trio.Event()
        self.bytes_sent = 0
        self._dropped = 0  # messages, on streams that ended

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
        self._handle(Join(topic=topic))
        self._subscriptions.setdefault(topic, []).append(subscription)
        try:
            yield subscription
        finally:
            subscription.close()
            self._subscriptions[topic].remove(subscription)
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
        return self._dropped + sum(link.outbox.messages_dropped for link in self._links.values())

    # The machine

    def _handle(self, event: Event) -> Sequence[Action]:
        return self._perform(self._router.handle(event, trio.current_time()))

    def _perform(self, actions: Sequence[Action]) -> Sequence[Action]:
        """Does what the router decided; returns it."""
        for action in actions:
            match action:
                case SendRpc(peer=peer, rpc=rpc):
                    self._links[peer].send(rpc)  # the router knows who has a stream
                case Deliver(message=message):
                    for subscription in self._subscriptions.get(message.topic, ()):
                        subscription.put(message)
                case ValidatorFailed(topic=topic, error=error):
                    logger.error("the validator of %s failed", topic, exc_info=error)
        if self._router.next_deadline() != self._armed:
            self._rearm.set()
        self._waiting.unpark_all()
        return actions

    async def _run_timer(self) -> None:
        """Calls the router whenever its deadline is reached; an earlier or first deadline wakes it."""
        while True:
            self._rearm = trio.Event()
            self._armed = self._router.next_deadline()
            with trio.move_on_at(math.inf if self._armed is None else self._armed):
                await self._rearm.wait()
            self._perform(self._router.handle_timer(trio.current_time()))
            self._protect({peer for topic in self._subscriptions for peer in self.mesh(topic)})

    def _protect(self, mesh: set[PeerId]) -> None:
        """Keeps the connections of the peers in our meshes when the host has too many."""
        manager = self._host.connection_manager
        for peer in mesh - self._protected:
            manager.protect(peer, "mesh")
        for peer in self._protected - mesh:
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
            self._links[peer].retry.set()  # it may be identified because it has a new connection
        else:
            self._links[peer] = _Link(peer)
            self._nursery.start_soon(self._run_link, self._links[peer])

    def _forget(self, peer: PeerId) -> None:
        link = self._links.pop(peer, None)
        if link is not None:
            self._close_link(link)
            link.scope.cancel()
        self._handle(PeerGone(peer=peer))

    async def _run_link(self, link: _Link) -> None:
        """Keeps our stream to the peer open as long as it is connected."""
        with link.scope:
            delay = REOPEN_FIRST
            while True:
                started = trio.current_time()
                try:
                    await self._write(link)
                except (ConnectionLost, DialFailed, NegotiationFailed, RemoteProtocolError) as exc:
                    logger.debug("pubsub stream to %s: %s", link.peer, exc)
                except trio.TooSlowError:
                    logger.info("%s is too slow for pubsub", link.peer)
                if trio.current_time() - started > REOPEN_MAX:
                    delay = REOPEN_FIRST
                with trio.move_on_after(delay):
                    await link.retry.wait()
                    link.retry = trio.Event()
                delay = min(2 * delay, REOPEN_MAX)

    async def _write(self, link: _Link) -> None:
        """Opens our stream and writes what is queued for it until it breaks."""
        if not self._host.is_connected(link.peer):
            raise ConnectionLost("not connected")  # and not for us to dial
        with trio.fail_after(OPEN_TIMEOUT):
            stream = await self._host.open_stream(link.peer, list(VERSIONS))
        try:
            await trio.lowlevel.checkpoint_if_cancelled()  # the peer may have gone meanwhile
            self._greet(stream)
            async with open_scope() as nursery:
                nursery.start_soon(_watch, stream, nursery.cancel_scope)
                while True:
                    while data := link.outbox.data_to_send():
                        with trio.fail_after(WRITE_TIMEOUT):
                            await stream.send_all(data)
                        self.bytes_sent += len(data)
                    link.drained.set()
                    link.work = trio.Event()
                    await link.work.wait()
        finally:
            stream.reset()
            if self._links.get(link.peer) is link:
                self._close_link(link)
                self._handle(StreamLost(peer=link.peer))

    def _greet(self, stream: Stream) -> None:
        """Our stream is open: the router says what we subscribe to, before anything else."""
        connection = self._host.connection(stream.peer)
        outbound = connection is not None and connection.outbound
        version = VERSIONS[stream.protocol]
        self._handle(StreamOpened(peer=stream.peer, version=version, outbound=outbound))

    def _close_link(self, link: _Link) -> None:
        self._dropped += link.outbox.messages_dropped
        link.outbox = Outbox()
        link.drained.set()

    async def _serve(self, stream: Stream) -> None:
        """Reads RPCs from a stream that a peer opened; nothing is ever written to it.

        A malformed one ends this stream and nothing else.
        """
        peer = stream.peer
        with trio.CancelScope() as scope:
            if peer in self._inbound:
                self._inbound[peer].cancel()  # the peer has lost the earlier stream
            self._inbound[peer] = scope
            self._handle(InboundOpened(peer=peer))
            try:
                reader = DelimitedReader(stream, MAX_RPC)
                while (message := await reader.receive()) is not None:
                    for part in slices(decode_rpc(message), MESSAGES_AT_ONCE):
                        self._handle(RpcReceived(peer=peer, rpc=part))
                        await trio.lowlevel.checkpoint()  # a burst from one peer holds up nobody else
                return
            except RemoteProtocolError as exc:
                logger.info("%s breaks the rules of pubsub: %s", peer, exc)
            finally:
                if self._inbound[peer] is scope:
                    del self._inbound[peer]
        stream.reset()

    async def _flush(self) -> None:
        """Returns when all that is queued is written, on streams that work."""
        for link in list(self._links.values()):
            await link.drained.wait()


async def _watch(stream: Stream, scope: trio.CancelScope) -> None:
    """Ends `scope` when the stream breaks, which a writer with nothing to write would not notice.

    The peer has no business writing here; that it closes its side is its right.
    """
    try:
        while await stream.receive_some():
            pass
    except ConnectionLost:
        scope.cancel()


@asynccontextmanager
async def open_gossipsub(
    host: Host,
    params: GossipsubParams | None = None,
    *,
    message_id: MessageIdFunction = message_id_from_seqno,
    seqno: int | None = None,
) -> AsyncIterator[Pubsub]:
    """Gossipsub on `host` while the body runs.

    `message_id` must be the same in the whole network. `seqno` is the first sequence number and must
    not go back when a peer starts again: the time in nanoseconds, unless it is given.
    """
    router = Router(
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
            pubsub._protect(set())
            for protocol in VERSIONS:
                host.unhandle(protocol)
            with trio.move_on_after(CLOSE_GRACE, shield=True):
                await pubsub._flush()
            for scope in list(pubsub._inbound.values()):
                scope.cancel()
