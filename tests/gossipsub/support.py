"""A network of routers without an event loop: a heap of deliveries, and everybody's deadlines."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable

from p2p.gossipsub.events import (
    Action,
    Deliver,
    Event,
    PeerGone,
    Publish,
    Published,
    RpcReceived,
    SendRpc,
    StreamOpened,
)
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.router import Router
from p2p.gossipsub.signing import MessageIdFunction, message_id_from_seqno, sign_message
from p2p.gossipsub.wire import Message, Rpc, Subscription, Version, decode_rpc, encode_rpc, split
from p2p.peer_id import PeerId
from tests.support import key_number

SEQNO = 1_700_000_000_000_000_000
LATENCY = 0.01  # seconds from router to router

Filter = Callable[[PeerId, PeerId, Rpc], Rpc | None]
Latency = Callable[[PeerId, PeerId, Rpc], float]  # seconds


def peer_number(number: int) -> PeerId:
    return PeerId.from_public_key(key_number(number).public)


def make_router(
    number: int = 1,
    params: GossipsubParams | None = None,
    message_id: MessageIdFunction = message_id_from_seqno,
    seed: int = 0,
) -> Router:
    return Router(
        key=key_number(number),
        rng=random.Random(seed * 1000 + number),
        seqno=SEQNO,
        params=params,
        message_id=message_id,
    )


def signed(number: int, topic: str, data: bytes, seqno: int = SEQNO) -> Message:
    return sign_message(key_number(number), topic=topic, data=data, seqno=seqno)


def open_peer(
    router: Router,
    number: int,
    topics: Iterable[str] = (),
    *,
    version: Version = Version.V1_2,
    outbound: bool = False,
    now: float = 0.0,
) -> PeerId:
    """Makes peer `number` known to `router`, with a stream to it, as a subscriber of `topics`."""
    peer = peer_number(number)
    router.handle(StreamOpened(peer=peer, version=version, outbound=outbound), now)
    subscriptions = tuple(Subscription(topic=topic, subscribe=True) for topic in topics)
    receive(router, peer, Rpc(subscriptions=subscriptions), now)
    return peer


def receive(router: Router, peer: PeerId, rpc: Rpc, now: float = 0.0) -> list[Action]:
    return router.handle(RpcReceived(peer=peer, rpc=rpc), now)


def sent(actions: Iterable[Action], peer: PeerId) -> list[Rpc]:
    return [action.rpc for action in actions if isinstance(action, SendRpc) and action.peer == peer]


def delivered(actions: Iterable[Action]) -> list[bytes]:
    return [action.message.data for action in actions if isinstance(action, Deliver)]


def heartbeat(router: Router) -> list[Action]:
    """Runs the next heartbeat at its time."""
    deadline = router.next_deadline()
    assert deadline is not None
    return router.handle_timer(deadline)


class Network:
    """Routers numbered from 1, joined by links; RPCs pass through the wire format."""

    def __init__(self, count: int, *, params: GossipsubParams | None = None, seed: int = 0) -> None:
        self.now = 0.0
        self._seed = seed
        self.filter: Filter = lambda origin, target, rpc: rpc
        self.latency: Latency = lambda origin, target, rpc: LATENCY
        self.routers = {
            peer_number(number): make_router(number, params, seed=seed) for number in range(1, count + 1)
        }
        self.peers = list(self.routers)
        self.delivered: dict[PeerId, list[bytes]] = {peer: [] for peer in self.peers}
        self.sent: list[tuple[float, PeerId, PeerId, Rpc]] = []
        self.trace: list[str] = []
        self._order = itertools.count()
        self._links: set[tuple[PeerId, PeerId]] = set()
        self._pending: list[tuple[float, int, PeerId, Event]] = []

    def router(self, number: int) -> Router:
        return self.routers[peer_number(number)]

    def link(self, dialer: PeerId, listener: PeerId, version: Version = Version.V1_2) -> None:
        self._links |= {(dialer, listener), (listener, dialer)}
        self.handle(dialer, StreamOpened(peer=listener, version=version, outbound=True))
        self.handle(listener, StreamOpened(peer=dialer, version=version, outbound=False))

    def link_all(self, version: Version = Version.V1_2) -> None:
        """Links everybody to everybody, one after the other in a random order."""
        pairs = list(itertools.combinations(self.peers, 2))
        rng = random.Random(self._seed)
        rng.shuffle(pairs)
        for pair in pairs:
            dialer, listener = rng.sample(pair, 2)
            self.link(dialer, listener, version)
            self.run(0.002)

    def unlink(self, one: PeerId, other: PeerId) -> None:
        self._links -= {(one, other), (other, one)}
        self.handle(one, PeerGone(peer=other))
        self.handle(other, PeerGone(peer=one))

    def handle(self, peer: PeerId, event: Event) -> None:
        self._perform(peer, self.routers[peer].handle(event, self.now))

    def publish(self, peer: PeerId, topic: str, data: bytes) -> bytes:
        actions = self.routers[peer].handle(Publish(topic=topic, data=data), self.now)
        self._perform(peer, actions)
        [published] = [action for action in actions if isinstance(action, Published)]
        return published.id

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while (step := self._next_step(until)) is not None:
            self.now, peer, event = step
            router = self.routers[peer]
            actions = router.handle_timer(self.now) if event is None else router.handle(event, self.now)
            self._perform(peer, actions)
        self.now = until

    def _next_step(self, until: float) -> tuple[float, PeerId, Event | None] | None:
        """What happens next, taken off the heap; deliveries go before timers of the same time."""
        timers = [
            (deadline, place)
            for place, peer in enumerate(self.peers)
            if (deadline := self.routers[peer].next_deadline()) is not None
        ]
        deadline, place = min(timers, default=(float("inf"), 0))
        if self._pending and self._pending[0][0] <= min(deadline, until):
            time, _, peer, event = heapq.heappop(self._pending)
            return time, peer, event
        return (deadline, self.peers[place], None) if deadline <= until else None

    def _perform(self, peer: PeerId, actions: Iterable[Action]) -> None:
        for action in actions:
            self.trace.append(f"{self.now:.6f} {peer} {action}")
            match action:
                case Deliver(message=message):
                    self.delivered[peer].append(message.data)
                case SendRpc(peer=target, rpc=rpc):
                    self._send(peer, target, rpc)

    def _send(self, origin: PeerId, target: PeerId, rpc: Rpc) -> None:
        kept = self.filter(origin, target, rpc)
        if (origin, target) not in self._links or kept is None:
            return
        for piece in split(kept):
            self.sent.append((self.now, origin, target, piece))
            event = RpcReceived(peer=origin, rpc=decode_rpc(encode_rpc(piece)))
            arrival = self.now + self.latency(origin, target, piece)
            heapq.heappush(self._pending, (arrival, next(self._order), target, event))
