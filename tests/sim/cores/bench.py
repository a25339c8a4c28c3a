"""A small network of this rung, watched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sim.cores import CoresRung
from sim.heap import EventHeap
from sim.identity import key_of, rng_of
from sim.network import Network
from sim.rung import Setup
from sim.scenario.model import Adversary, Scenario
from sim.task import manifest_of

SEED = 1
TOPIC = "topic"


class Watcher:
    """Remembers what it is told; an exception of a node fails the test unless it is expected."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.published_ids: list[bytes] = []
        self.deliveries: Counter[bytes] = Counter()
        self.receivers: dict[bytes, list[int]] = {}
        self.meshes: dict[tuple[int, str], set[int]] = {}
        self.links: set[tuple[int, int]] = set()
        self.duplicates = 0
        self.refused = 0
        self.failures: list[BaseException] = []
        self.operations: dict[int, dict[str, Any]] = {}
        self.rounds: dict[int, list[dict[str, Any]]] = {}
        self.finished: list[int] = []
        self.accusations: list[tuple[int, int, str]] = []
        self.reasons: list[str] = []

    def started(self, node: int) -> None:
        self.told.append(("started", node))

    def crashed(self, node: int) -> None:
        self.told.append(("crashed", node))
        self.links = {link for link in self.links if link[0] != node}

    def connected(self, node: int, other: int) -> None:
        assert (node, other) not in self.links
        self.links.add((node, other))

    def disconnected(self, node: int, other: int) -> None:
        self.links.remove((node, other))

    def joined(self, node: int, topic: str) -> None:
        self.told.append(("joined", node, topic))

    def left(self, node: int, topic: str) -> None:
        self.told.append(("left", node, topic))

    def grafted(self, node: int, other: int, topic: str) -> None:
        members = self.meshes.setdefault((node, topic), set())
        members.add(other)

    def pruned(self, node: int, other: int, topic: str) -> None:
        self.meshes[node, topic].remove(other)

    def published(self, node: int, topic: str, message_id: bytes, size: int) -> None:
        self.published_ids.append(message_id)

    def delivered(self, node: int, topic: str, message_id: bytes, origin: int, received_from: int) -> None:
        self.deliveries[message_id] += 1
        self.receivers.setdefault(message_id, []).append(node)

    def duplicated(self, node: int, count: int) -> None:
        self.duplicates += count

    def rejected(self, node: int, count: int) -> None:
        self.refused += count

    def graylisted(self, node: int, other: int) -> None:
        self.told.append(("graylisted", node, other))

    def looked_up(self, node: int, operation: int, **fields: Any) -> None:
        assert operation not in self.operations
        self.operations[operation] = fields

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
        entry = {"round": number, "digest": digest, "skipped": skipped, "measured": dict(measured)}
        self.rounds.setdefault(node, []).append(entry)

    def finished_task(self, node: int, task: str) -> None:
        self.finished.append(node)

    def accused(self, node: int, other: int, rule: str) -> None:
        self.accusations.append((node, other, rule))

    def waiting(self, node: int, reason: str) -> None:
        self.reasons.append(reason)

    def failed(self, node: int, error: BaseException) -> None:
        self.failures.append(error)


class Bench:
    """A network of `peers` nodes; `links` are dialed at once, everybody runs and subscribes at once."""

    def __init__(
        self,
        peers: int,
        links: Sequence[tuple[int, int]] = (),
        *,
        adversaries: Mapping[int, Adversary] | None = None,
        **scenario: Any,
    ) -> None:
        self.heap = EventHeap()
        self.scenario = Scenario.model_validate({"name": "test", "rung": "cores", "peers": peers, **scenario})
        self.network = Network(self.heap, rng_of(SEED, "network"), self.scenario.network, peers)
        self.watcher = Watcher()
        keys = [key_of(SEED, node) for node in range(peers)]
        setup = Setup(
            scenario=self.scenario,
            seed=SEED,
            heap=self.heap,
            network=self.network,
            observer=self.watcher,
            keys=keys,
            tasks={},
            adversaries=adversaries or {},
        )
        peer_ids = CoresRung(setup)._world.peers
        tasks = {load.name: manifest_of(load, SEED, peer_ids[: load.members]) for load in self.scenario.task}
        self.rung = CoresRung(
            Setup(
                scenario=self.scenario,
                seed=SEED,
                heap=self.heap,
                network=self.network,
                observer=self.watcher,
                keys=keys,
                tasks=tasks,
                adversaries=adversaries or {},
            )
        )
        self.peers = peer_ids
        for node in range(peers):
            self.rung.start(node)
        for one, other in links:
            self.rung.connect(one, other)

    def subscribe(self) -> None:
        """Everybody joins the topic."""
        for node in range(self.scenario.peers):
            self.rung.subscribe(node, TOPIC)

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        self.heap.end = self.heap.now + seconds
        self.rung.run()


def ring(peers: int, chords: int = 2) -> list[tuple[int, int]]:
    """Everybody is linked to the next `chords` nodes."""
    return [(node, (node + step) % peers) for node in range(peers) for step in range(1, chords + 1)]


def full(peers: int) -> list[tuple[int, int]]:
    """Everybody is linked to everybody."""
    return [(node, other) for node in range(peers) for other in range(node)]
