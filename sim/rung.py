"""What every rung of the simulator offers, and what it reports: the border between a run and its network.

    director (workloads, faults) ──→ Rung ──→ Observer (trace, figures, checks)

A rung is one way to run the same peers: `full` with every byte of the stack, `light` without encryption
and multiplexer, `cores` with the protocol machines alone. Nodes are numbers from 0. Every call is made
from an event of the heap and returns at once; what comes of it is told to the observer, then or later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from federated.manifest import TaskManifest
    from p2p.keys import KeyPair
    from sim.disk import SimDisk
    from sim.heap import EventHeap
    from sim.network import Network
    from sim.scenario.model import Adversary, Scenario

RungName = Literal["full", "light", "cores"]
Frame = Callable[[float, int, int, int, int], None]
"""Takes an arrival into the trace: when, source, target, bytes, checksum."""


class Rung(Protocol):
    """A network of nodes, none of which runs at first."""

    def start(self, node: int) -> None:
        """The node's process starts, from its disk. Nothing happens while it runs already."""

    def crash(self, node: int, *, keep_disk: bool = True, silently: bool = False) -> None:
        """kill -9; `silently` as when the power fails: nobody is told that its connections are gone."""

    def connect(self, node: int, other: int) -> None:
        """`node` dials `other`, unless they are connected."""

    def reset(self, node: int, other: int) -> None:
        """The connection between the two breaks, if there is one."""

    def subscribe(self, node: int, topic: str, rate: float = 0.0) -> None:
        """`node` joins the topic, now and after every restart; it is told the rate if that is not 0."""

    def unsubscribe(self, node: int, topic: str) -> None:
        """`node` leaves the topic."""

    def publish(self, node: int, topic: str, data: bytes) -> None:
        """`node` publishes; `Observer.published` has the message's id."""

    def find(self, node: int, target: int, operation: int) -> None:
        """`node` looks up the peers closest to `target`'s id; ends in `Observer.looked_up`."""

    def put(self, node: int, key: bytes, value: bytes, operation: int) -> None:
        """`node` stores a value in the DHT; ends in `Observer.looked_up`."""

    def get(self, node: int, key: bytes, operation: int) -> None:
        """`node` asks the DHT for a value; ends in `Observer.looked_up`, with the value as its result."""

    def join_task(self, node: int, name: str) -> None:
        """`node` takes part in the training task of that name, now and after every restart."""

    def run(self) -> None:
        """Lets everything happen that is planned, until the heap's `end`."""

    def disk(self, node: int) -> SimDisk:
        """The node's disk, which its crashes survive."""

    def alive(self, node: int) -> bool:
        """Whether the node's process runs."""

    def connected(self, node: int) -> Sequence[int]:
        """Whom the node is connected to, ascending."""

    def mesh(self, node: int, topic: str) -> Sequence[int]:
        """The node's mesh of the topic, ascending."""

    def scores(self, node: int) -> Mapping[int, float]:
        """What the node's gossipsub thinks of its peers."""


class Observer(Protocol):
    """Is told what happens, in the order in which it happens; the heap's `now` is the time of each."""

    def started(self, node: int) -> None:
        """The node's process runs."""

    def crashed(self, node: int) -> None:
        """The node's process is gone."""

    def connected(self, node: int, other: int) -> None:
        """`node` has a connection to `other`."""

    def disconnected(self, node: int, other: int) -> None:
        """`node` has no connection to `other` any more."""

    def joined(self, node: int, topic: str) -> None:
        """The node's router joined the topic."""

    def left(self, node: int, topic: str) -> None:
        """The node's router left the topic."""

    def grafted(self, node: int, other: int, topic: str) -> None:
        """`other` is in the node's mesh of the topic."""

    def pruned(self, node: int, other: int, topic: str) -> None:
        """`other` is in the node's mesh of the topic no more."""

    def graylisted(self, node: int, other: int) -> None:
        """The node's router hears nothing from `other` any more, for what it did."""

    def published(self, node: int, topic: str, message_id: bytes, size: int) -> None:
        """The node published a message of `size` payload bytes."""

    def delivered(self, node: int, topic: str, message_id: bytes, origin: int, received_from: int) -> None:
        """The node's application got a message for the first time."""

    def duplicated(self, node: int, count: int) -> None:
        """The node received `count` copies of messages that it had (told now and then, summed up)."""

    def rejected(self, node: int, count: int) -> None:
        """The node refused `count` messages (told now and then, summed up)."""

    def looked_up(
        self, node: int, operation: int, *, kind: str, ok: bool, seconds: float, hops: int, result: bytes
    ) -> None:
        """A DHT operation ended: `kind` is "find", "put" or "get"; `hops` are the queries that it took."""

    def finished_round(
        self,
        node: int,
        task: str,
        number: int,
        *,
        digest: bytes,
        skipped: bool,
        participants: int,
        measured: Mapping[str, float | None],
    ) -> None:
        """The node is through with a round; `measured` has the model's "accuracy" and "loss" if known."""

    def finished_task(self, node: int, task: str) -> None:
        """The node is through with the task."""

    def accused(self, node: int, other: int, rule: str) -> None:
        """The node says that `other` broke a rule."""

    def waiting(self, node: int, reason: str) -> None:
        """The node cannot go on and says why: its disk fails, for example."""

    def failed(self, node: int, error: BaseException) -> None:
        """A bug: an exception escaped from the node's own code. Never happens in a good run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every rung is made of."""

    scenario: Scenario
    seed: int
    heap: EventHeap
    network: Network
    observer: Observer
    keys: Sequence[KeyPair]  # of each node
    tasks: Mapping[str, TaskManifest]
    adversaries: Mapping[int, Adversary]  # the nodes that are not honest
    frame: Frame | None = None
