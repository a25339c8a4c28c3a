"""Many peers in simulated time, out of the machines alone: planner, table, look-up and responder.

Connections cost nothing and every message takes 2 to 20 ms; what is tested is who finds whom.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from p2p.discovery.planner import Action, Dial, DialEnded, Known, Planner, Search, Searched
from p2p.events import PeerConnected, PeerDisconnected, PeerIdentified
from p2p.kad import query as kad
from p2p.kad import responder
from p2p.kad.distance import common_prefix_length, position, random_key
from p2p.kad.lookup import Lookup
from p2p.kad.table import RoutingTable
from p2p.kad.wire import FindNode, K
from p2p.peer_id import PeerId
from tests.kad.peers import address, peer

PROTOCOL = "/test/kad"


class Network:
    """Peers 0 to n - 1; each but peer 0 knows only peer 0 when it starts."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.nodes: dict[PeerId, Node] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def start(self, number: int) -> None:
        self.nodes[peer(number)] = node = Node(self, number)
        node.carry_out(node.planner.handle_timer(self.now))

    def kill(self, number: int) -> None:
        dead = self.nodes.pop(peer(number))
        for other in list(dead.connected):
            self.nodes[other].lose(dead.id)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), call))

    def after_latency(self, call: Callable[[], None]) -> None:
        self.after(self.rng.uniform(0.002, 0.02), call)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, call = heapq.heappop(self._events)
            call()
        self.now = until

    def missing(self) -> int:
        """How many ordered pairs of peers are not connected."""
        count = len(self.nodes)
        return count * (count - 1) - sum(len(node.connected) for node in self.nodes.values())


class Node:
    """One peer: what the two drivers do, without I/O."""

    def __init__(self, network: Network, number: int) -> None:
        self.network = network
        self.id = peer(number)
        self.table = RoutingTable(self.id)
        self.connected: dict[PeerId, None] = {}
        self.addresses = {peer(0)} if number else set()
        self.planner = Planner(
            local=self.id,
            bootstrap=sorted(self.addresses),
            protocol=PROTOCOL,
            target_peers=64,
            rng=random.Random(number),
        )
        self.known = responder.Known(
            addresses=lambda other: [address(1)] if other in self.addresses else [],
            is_connected=self.connected.__contains__,
        )
        self._alarm: float | None = None

    @property
    def alive(self) -> bool:
        return self.network.nodes.get(self.id) is self

    def tell(self, event: object) -> None:
        self.carry_out(self.planner.handle(event, self.network.now))  # type: ignore[arg-type]

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Dial(peer=other):
                    self.network.after_latency(lambda other=other: self.dial(other))
                case Search():
                    self.look_up(self.id.raw, {}, self.look_up_buckets)
        deadline = self.planner.next_deadline()
        if deadline is not None and deadline != self._alarm:
            self._alarm = deadline
            self.network.after(max(0.0, deadline - self.network.now), lambda: self.ring(deadline))

    def ring(self, alarm: float) -> None:
        if alarm == self._alarm and self.alive:
            self._alarm = None
            self.carry_out(self.planner.handle_timer(self.network.now))

    def dial(self, other: PeerId) -> None:
        if self.alive:
            self.tell(DialEnded(peer=other, connected=self.connect(other)))

    def connect(self, other: PeerId) -> bool:
        node = self.network.nodes.get(other)
        if node is None or other in self.connected:
            return node is not None
        for one, two, outbound in ((self, node, True), (node, self, False)):
            one.connected[two.id] = None
            one.addresses.add(two.id)
            one.tell(PeerConnected(peer=two.id, outbound=outbound))
            self.network.after_latency(lambda one=one, two=two: one.identify(two.id))
        return True

    def identify(self, other: PeerId) -> None:
        if other in self.connected:
            self.table.handle_seen(other)
            self.tell(PeerIdentified(peer=other, protocols=(PROTOCOL,), agent=""))

    def lose(self, other: PeerId) -> None:
        del self.connected[other]
        self.tell(PeerDisconnected(peer=other))

    def look_up_buckets(self, nearest: tuple[PeerId, ...], heard: dict[PeerId, None]) -> None:
        origin, prefixes = position(self.id.raw), []
        if len(nearest) == K:
            edge = common_prefix_length(origin, position(nearest[-1].raw))
            prefixes = [prefix for prefix in self.table.prefixes_to_refresh() if prefix <= edge]
        running = len(prefixes)

        def end(_: tuple[PeerId, ...], heard: dict[PeerId, None]) -> None:
            nonlocal running
            running -= 1
            if running <= 0:
                self.tell(Known(peers=sorted(self.addresses)))
                self.tell(Searched(heard=list(heard)))

        for prefix in prefixes:
            self.look_up(random_key(origin, prefix, self.network.rng), heard, end)
        if not prefixes:
            end((), heard)

    def look_up(
        self,
        key: bytes,
        heard: dict[PeerId, None],
        end: Callable[[tuple[PeerId, ...], dict[PeerId, None]], None],
    ) -> None:
        lookup = Lookup(key, local=self.id, seeds=self.table.closest(key))

        def act(actions: list[kad.Action]) -> None:
            for action in actions:
                match action:
                    case kad.Learned(peer=other):
                        heard[other] = None
                        self.addresses.add(other)
                    case kad.Query(peer=other):
                        self.network.after_latency(lambda other=other: ask(other))
                    case kad.Finished(closest=closest):
                        end(closest, heard)

        def ask(other: PeerId) -> None:
            if not self.alive:
                return
            event: kad.Event = kad.Failed(peer=other)
            if self.connect(other):
                node = self.network.nodes[other]
                answer = responder.answer(FindNode(key=key), self.id, node.table, node.known)
                assert isinstance(answer, responder.Reply)
                event = kad.Answered(peer=other, closer=answer.message.closer)
            else:
                self.table.remove(other)
            act(lookup.handle(event, self.network.now))

        act(lookup.start(self.network.now))
