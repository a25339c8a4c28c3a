"""Scenario `gossip`: real gossipsub routers on a random graph, publishing to one topic.

Everything between two routers is real as well: outbox, framing, protobuf, signatures. Checked at the end:
every message reached every peer, nobody got one twice, and every peer has a mesh within its bounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from p2p.framing import DelimitedDecoder
from p2p.gossipsub.events import (
    Action,
    Deliver,
    Event,
    InboundOpened,
    Join,
    Publish,
    Published,
    RpcReceived,
    SendRpc,
    StreamOpened,
)
from p2p.gossipsub.outbox import Outbox
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.router import Router
from p2p.gossipsub.wire import MAX_RPC, Version, decode_rpc
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from sim.actor import Actor
from sim.graph import random_graph
from sim.heap import EventHeap
from sim.network import LinkModel, Network, Partition
from sim.report import Check, Figure, Result, Step, Trace, percentile

if TYPE_CHECKING:
    from random import Random

TOPIC = "sim"
DEGREE = 8  # connections of a peer on average; as in the evaluation of gossipsub 1.1, rounded down from 20
JOINING = 1.0  # seconds in which the peers come
WARM_UP = 5.0  # seconds until the first message: a few heartbeats, so that the meshes stand
DRAIN = 10.0  # seconds after the last message, or after the partition, for everything to arrive
PAYLOAD = 200  # bytes of a message


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipSettings:
    """What to simulate. `rate` is of the whole network, in messages a second."""

    peers: int
    seed: int
    rate: float = 10.0
    seconds: float = 10.0
    links: LinkModel = field(default_factory=LinkModel)
    partition: Partition | None = None

    @property
    def messages(self) -> int:
        """How many messages are published."""
        return max(1, round(self.rate * self.seconds))

    @property
    def end(self) -> float:
        """The virtual second at which the run ends."""
        healed = self.partition.end if self.partition is not None else 0.0
        return max(WARM_UP + self.seconds, healed) + DRAIN


def run_gossip(settings: GossipSettings, rng: Random, step: Step) -> Result:
    """Simulates gossip; `rng` is seeded by the caller and is the only source of randomness.

    `step` is told every virtual second how far it is.
    """
    return _Gossip(settings, rng).run(step)


class _Peer:
    """One router with an outbox for each neighbour."""

    def __init__(self, number: int, run: _Gossip) -> None:
        self.number = number
        self._run = run
        key = KeyPair.from_seed(run.settings.seed.to_bytes(16, "big") + number.to_bytes(16, "big"))
        self.router = Router(key=key, rng=run.rng, seqno=1, params=run.params)
        self.actor: Actor[Event, Action] = Actor(self.router, run.heap, self._perform)
        self.outboxes: dict[int, Outbox] = {}
        self.decoders: dict[int, DelimitedDecoder] = {}

    @property
    def peer_id(self) -> PeerId:
        """Who the router is."""
        return self.router.peer_id

    def connect(self, other: _Peer, outbound: bool) -> None:
        """The streams to and from `other` are open."""
        self.outboxes[other.number] = Outbox()
        self.decoders[other.number] = DelimitedDecoder(MAX_RPC)
        self.actor.handle(InboundOpened(peer=other.peer_id))
        self.actor.handle(StreamOpened(peer=other.peer_id, version=Version.V1_2, outbound=outbound))

    def receive(self, source: int, data: bytes) -> None:
        """Bytes of the stream from `source` came."""
        decoder, peer = self.decoders[source], self._run.peers[source].peer_id
        decoder.receive_data(data)
        while (message := decoder.next_event()) is not None:
            self.actor.handle(RpcReceived(peer=peer, rpc=decode_rpc(message)))

    def _perform(self, actions: Sequence[Action]) -> None:
        written: dict[int, None] = {}
        for action in actions:
            match action:
                case SendRpc(peer=peer, rpc=rpc):
                    target = self._run.numbers[peer]
                    self.outboxes[target].push(rpc)
                    written[target] = None
                case Deliver(message=message):
                    self._run.delivered(self.number, message.id)
                case Published(id=message_id):
                    self._run.published(self.number, message_id)
        for target in written:
            while data := self.outboxes[target].data_to_send():
                self._run.network.send(self.number, target, data)


class _Gossip:
    """One run: the peers, what they published and who got it."""

    def __init__(self, settings: GossipSettings, rng: Random) -> None:
        self.settings, self.rng = settings, rng
        self.params = GossipsubParams()
        self.heap = EventHeap()
        self.trace = Trace()
        self.network = Network(self.heap, rng, settings.links, self._arrive, settings.partition)
        self.peers = [_Peer(number, self) for number in range(settings.peers)]
        self.numbers = {peer.peer_id: peer.number for peer in self.peers}
        self._published: dict[bytes, float] = {}  # message id → when
        self._received: dict[bytes, Counter[int]] = {}  # message id → how often each peer got it
        self._latencies: list[float] = []

    def run(self, step: Step) -> Result:
        """The whole run."""
        for one, other in random_graph(self.settings.peers, DEGREE, self.rng):
            self.heap.plan(self.rng.uniform(0.0, JOINING), partial(self._connect, one, other))
        for peer in self.peers:
            self.heap.plan(self.rng.uniform(0.0, JOINING), partial(peer.actor.handle, Join(topic=TOPIC)))
        for index in range(self.settings.messages):
            publish = Publish(topic=TOPIC, data=self.rng.randbytes(PAYLOAD))
            at = WARM_UP + index * self.settings.seconds / self.settings.messages
            self.heap.plan(at, partial(self.rng.choice(self.peers).actor.handle, publish))
        while self.heap.now < self.settings.end:
            self.heap.run(min(self.heap.now + 1.0, self.settings.end))
            step(self._progress())
        return self._result()

    def _connect(self, one: int, other: int) -> None:
        self.trace.add(self.heap.now, "connect", one, other)
        self.peers[one].connect(self.peers[other], outbound=True)
        self.peers[other].connect(self.peers[one], outbound=False)

    def _arrive(self, source: int, target: int, data: bytes) -> None:
        self.trace.add(self.heap.now, "arrive", source, target, data)
        self.peers[target].receive(source, data)

    def published(self, number: int, message_id: bytes) -> None:
        """Peer `number` published a message."""
        self.trace.add(self.heap.now, "publish", number, message_id)
        self._published[message_id] = self.heap.now
        self._received[message_id] = Counter()

    def delivered(self, number: int, message_id: bytes) -> None:
        """Peer `number` got a message."""
        self.trace.add(self.heap.now, "deliver", number, message_id)
        self._received[message_id][number] += 1
        self._latencies.append(self.heap.now - self._published[message_id])

    def _progress(self) -> dict[str, Figure]:
        return {
            "time": self.heap.now,
            "published": len(self._published),
            "delivered": len(self._latencies),
            "bytes_sent": self.network.bytes_sent,
        }

    def _result(self) -> Result:
        settings = self.settings
        return Result(
            scenario="gossip",
            seed=settings.seed,
            peers=settings.peers,
            virtual_seconds=self.heap.now,
            events=self.heap.events,
            trace_hash=self.trace.digest(),
            figures=self._figures(),
            checks=self._checks(),
        )

    def _figures(self) -> dict[str, Figure]:
        latencies = sorted(self._latencies) or [0.0]
        duplicates = sum(peer.router.counters.duplicates for peer in self.peers)
        return {
            "messages": len(self._published),
            "deliveries": len(self._latencies),
            "latency_p50_ms": 1000 * percentile(latencies, 0.5),
            "latency_p99_ms": 1000 * percentile(latencies, 0.99),
            "latency_max_ms": 1000 * latencies[-1],
            "copies_per_delivery": (duplicates + len(self._latencies)) / max(1, len(self._latencies)),
            "bytes_per_peer_second": self.network.bytes_sent / self.settings.peers / self.heap.now,
        }

    def _checks(self) -> list[Check]:
        expected = self.settings.messages * (self.settings.peers - 1)
        reached = sum(len(counts) for counts in self._received.values())
        twice = sum(count > 1 for counts in self._received.values() for count in counts.values())
        sizes = sorted(len(peer.router.mesh(TOPIC)) for peer in self.peers)
        return [
            Check(
                name="every message reaches every peer",
                holds=reached == expected and len(self._published) == self.settings.messages,
                seen=f"{reached} of {expected} deliveries",
            ),
            Check(name="nobody gets a message twice", holds=not twice, seen=f"{twice} repeated"),
            Check(
                name="every mesh is within its bounds",
                holds=sizes[0] >= 1 and sizes[-1] <= self.params.mesh_high,
                seen=f"{sizes[0]} to {sizes[-1]} peers",
            ),
        ]
