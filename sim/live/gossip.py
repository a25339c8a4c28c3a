"""What a run is told of one process's gossipsub, and what the process is told to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from p2p.gossipsub import Pubsub
from p2p.gossipsub.events import Action, PubsubMessage, SendRpc

if TYPE_CHECKING:
    from p2p.peer_id import PeerId
    from sim.live.node import Node


class Gossip:
    """The pubsub of one life, observed."""

    def __init__(self, node: Node, pubsub: Pubsub) -> None:
        self.pubsub = pubsub
        self._number = node.number
        self._numbers = node.rung.numbers
        self._observer = node.rung.setup.observer
        self._open: dict[str, ExitStack] = {}
        self._meshes: dict[str, list[PeerId]] = {}  # as the observer knows them
        self._graylist: list[PeerId] = []  # likewise
        self._duplicates = self._rejected = 0  # that the observer knows of
        pubsub.observers.append(self._watch)

    def subscribe(self, topic: str, rate: float = 0.0) -> None:
        """Joins the topic, and judges peers by its `rate` if that is not 0."""
        if topic not in self._open:
            self._meshes[topic] = []
            self.pubsub.expect_rate(topic, rate)
            opened = self._open[topic] = ExitStack()
            opened.enter_context(self.pubsub.subscribe_each(topic, self._deliver))
            self._observer.joined(self._number, topic)

    def unsubscribe(self, topic: str) -> None:
        """Leaves the topic."""
        if topic in self._open:
            self._open.pop(topic).close()
            self._compare_meshes()
            del self._meshes[topic]
            self._observer.left(self._number, topic)

    def close(self) -> None:
        """Leaves all topics; nobody is told any more."""
        for opened in self._open.values():
            opened.close()

    def publish(self, topic: str, data: bytes) -> None:
        """Publishes; nobody gets it before the observer is told."""
        message_id = self.pubsub.publish(topic, data)
        self._observer.published(self._number, topic, message_id, len(data))

    def _deliver(self, message: PubsubMessage) -> None:
        origin, source = self._numbers[message.sender], self._numbers[message.received_from]
        self._observer.delivered(self._number, message.topic, message.id, origin, source)

    def _watch(self, actions: Sequence[Action]) -> None:
        """After each step of the router: where control was sent, a mesh may be another one."""
        self._compare_graylists()
        for action in actions:
            if isinstance(action, SendRpc) and not action.rpc.messages:
                self._compare_meshes()
                self._tell_counters()
                return

    def _compare_meshes(self) -> None:
        for topic, known in self._meshes.items():
            members = self.pubsub.mesh(topic)
            if members != known:
                self._meshes[topic] = members
                for peer in known:
                    if peer not in members:
                        self._observer.pruned(self._number, self._numbers[peer], topic)
                for peer in members:
                    if peer not in known:
                        self._observer.grafted(self._number, self._numbers[peer], topic)

    def _compare_graylists(self) -> None:
        graylist = self.pubsub.graylisted()
        if graylist != self._graylist:
            for peer in graylist:
                if peer not in self._graylist:
                    self._observer.graylisted(self._number, self._numbers[peer])
            self._graylist = graylist

    def _tell_counters(self) -> None:
        counters = self.pubsub.counters
        if counters.duplicates != self._duplicates:
            self._observer.duplicated(self._number, counters.duplicates - self._duplicates)
            self._duplicates = counters.duplicates
        if counters.rejected != self._rejected:
            self._observer.rejected(self._number, counters.rejected - self._rejected)
            self._rejected = counters.rejected
