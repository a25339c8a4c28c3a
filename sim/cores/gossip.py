"""One node's gossipsub router on the network of this rung: RPCs are handed over as they are.

Whoever forwards an RPC hands the same event to all, so that nothing is made for each copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    StreamOpened,
    Validator,
    ValidatorFailed,
)
from p2p.gossipsub.router import Router
from p2p.gossipsub.wire import Rpc, Version
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sim.cores.links import End
    from sim.cores.node import Life

FRAME = 35  # bytes around an RPC: its length, a yamux header, a noise frame
MESSAGE = 4  # bytes around a message in an RPC
ENTRY = 6  # bytes around an entry of control
ID = 2  # bytes around a message id


def rpc_size(rpc: Rpc) -> int:
    """Bytes that `rpc` takes on a connection, a few more or less for the larger ones."""
    size = FRAME
    for message in rpc.messages:
        size += len(message.raw) + MESSAGE
    for subscription in rpc.subscriptions:
        size += len(subscription.topic) + ENTRY
    for topic in rpc.graft:
        size += len(topic) + ENTRY
    for prune in rpc.prune:
        size += len(prune.topic) + ENTRY
    for have in rpc.ihave:
        size += len(have.topic) + ENTRY + sum(map(len, have.ids)) + ID * len(have.ids)
    for ids in (rpc.iwant, rpc.idontwant):
        size += sum(map(len, ids)) + ID * len(ids)
    return size


class Gossip:
    """The router of one life, its timer, and what the observer is told of it."""

    __slots__ = (
        "_beating",
        "_duplicates",
        "_ends",
        "_graylist",
        "_heap",
        "_life",
        "_listeners",
        "_meshes",
        "_network",
        "_number",
        "_peer",
        "_rejected",
        "door",
        "router",
    )

    def __init__(self, life: Life, router: type[Router]) -> None:
        world = life.world
        self._life = life
        self._number = life.number
        self._peer = world.peers[life.number]
        self._heap = world.heap
        self._network = world.network
        self.door = self.receive  # one object for all connections
        self.router = router(
            key=world.setup.keys[life.number],
            rng=world.gossip_rng,
            seqno=int(world.network.wall_clock(life.number) * 1e9),
            params=world.params,
            verify=world.verify,
        )
        self._ends: dict[PeerId, End] = {}
        self._meshes: dict[str, list[PeerId]] = {}  # as the observer knows them
        self._graylist: list[PeerId] = []  # likewise
        self._listeners: dict[str, Callable[[PubsubMessage], None]] = {}  # instead of the observer
        self._beating = False
        self._duplicates = self._rejected = 0  # that the observer knows of

    # What the node asks for

    def join(self, topic: str, rate: float = 0.0) -> None:
        """Subscribes to `topic`, and judges peers by its `rate` if that is not 0."""
        self._meshes.setdefault(topic, [])
        self.router.scores.expect_rate(topic, rate)
        self._handle(Join(topic=topic))
        self._life.world.observer.joined(self._number, topic)

    def leave(self, topic: str) -> None:
        """Ends the subscription to `topic`."""
        self._handle(Leave(topic=topic))
        self._compare_meshes()
        self._meshes.pop(topic, None)
        self._life.world.observer.left(self._number, topic)

    def publish(self, topic: str, data: bytes) -> None:
        """Publishes, and tells the observer before anybody else gets it."""
        size = len(data)
        actions = self.router.handle(Publish(topic=topic, data=data), self._heap.now)
        for action in actions:
            if isinstance(action, Published) and topic not in self._listeners:
                self._life.world.observer.published(self._number, topic, action.id, size)
        self._perform(actions)
        if not self._beating:  # nobody was there, and now there is a message to forget
            self._plan_heartbeat()

    def listen(self, topic: str, validator: Validator, listener: Callable[[PubsubMessage], None]) -> None:
        """Subscribes to a topic whose messages `validator` judges and `listener` gets, not the observer."""
        self.router.set_validator(topic, validator)
        self._listeners[topic] = listener
        self._handle(Join(topic=topic))

    # What happens

    def open(self, end: End) -> None:
        """There is a connection: the streams both ways are open."""
        peer = self._life.world.peers[end.other]
        self._ends[peer] = end
        self._handle(InboundOpened(peer=peer))
        address = self._life.world.addresses.get(end.other)
        self._handle(StreamOpened(peer=peer, version=Version.V1_2, outbound=end.outbound, address=address))
        self._compare_meshes()

    def lose(self, end: End) -> None:
        """The connection is gone."""
        peer = self._life.world.peers[end.other]
        self._ends.pop(peer, None)
        self._handle(PeerGone(peer=peer))
        self._compare_meshes()

    def receive(self, end: End, event: RpcReceived) -> None:
        """An RPC arrived at this end; it gets in once the node reads."""
        if not end.receiving:
            return
        network, number = self._network, self._number
        if not (network.all_read or network.reading(number)):
            network.when_reading(number, self.door, end, event)
            return
        try:
            actions = self.router.receive_rpc(event.peer, event.rpc, self._heap.now)
            if actions:
                self._perform(actions)
            if not event.rpc.messages:  # else there is no control in it
                self._compare_meshes()
        except Exception as error:
            self._life.fail(error)

    def _handle(self, event: Event) -> None:
        self._perform(self.router.handle(event, self._heap.now))
        if not self._beating:
            self._plan_heartbeat()

    def _perform(self, actions: Sequence[Action]) -> None:
        number, ends = self._number, self._ends
        send = self._network.send  # another one while something is wrong
        last: Rpc | None = None
        for action in actions:
            if isinstance(action, SendRpc):
                end = ends.get(action.peer)
                if end is None:
                    continue
                if action.rpc is not last:
                    last = action.rpc
                    size, event = rpc_size(last), RpcReceived(peer=self._peer, rpc=last)
                send(number, end.other, size, end.deliver, end.remote, event)
            elif isinstance(action, Deliver):
                self._deliver(action.message)
            elif isinstance(action, ValidatorFailed):
                self._life.world.observer.failed(number, action.error)

    def _deliver(self, message: PubsubMessage) -> None:
        world, topic = self._life.world, message.topic
        listener = self._listeners.get(topic)
        if listener is None:
            origin, source = world.numbers[message.sender], world.numbers[message.received_from]
            world.observer.delivered(self._number, topic, message.id, origin, source)
        else:
            listener(message)

    # The heartbeat

    def _plan_heartbeat(self) -> None:
        deadline = self.router.next_deadline()
        self._beating = deadline is not None
        if deadline is not None:
            self._heap.plan(deadline, self._beat)

    def _beat(self) -> None:
        if self._life.running:
            self._life.receive(self._heartbeat)

    def _heartbeat(self) -> None:
        self._perform(self.router.handle_timer(self._heap.now))
        self._plan_heartbeat()
        self._compare_meshes()
        counters, observer = self.router.counters, self._life.world.observer
        if counters.duplicates != self._duplicates:
            observer.duplicated(self._number, counters.duplicates - self._duplicates)
            self._duplicates = counters.duplicates
        if counters.rejected != self._rejected:
            observer.rejected(self._number, counters.rejected - self._rejected)
            self._rejected = counters.rejected

        graylist = self.router.scores.graylisted()
        if graylist != self._graylist:
            for peer in graylist:
                if peer not in self._graylist:
                    observer.graylisted(self._number, self._life.world.numbers[peer])
            self._graylist = graylist

    def _compare_meshes(self) -> None:
        """Tells the observer who entered and who left a mesh since it was told last."""
        for topic, known in self._meshes.items():
            members = self.router.mesh(topic)
            if members == known:
                continue
            numbers, observer = self._life.world.numbers, self._life.world.observer
            for peer in known:
                if peer not in members:
                    observer.pruned(self._number, numbers[peer], topic)
            for peer in members:
                if peer not in known:
                    observer.grafted(self._number, numbers[peer], topic)
            self._meshes[topic] = members
