"""Doubles for parts of a run: a rung that only remembers what it was asked, and books to write it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sim.director import Director, Trouble, adversaries_of, members_of
from sim.heap import EventHeap
from sim.identity import rng_of
from sim.network import Network
from sim.rung import Setup
from sim.scenario.model import Scenario
from sim.scenario.timing import planned_end

if TYPE_CHECKING:
    from sim.disk import SimDisk
    from sim.rung import Observer

Call = tuple[Any, ...]  # time, name, arguments


@dataclass
class FakeDisk:
    """A disk whose switches are all there is."""

    full: bool = False
    error_share: float = 0.0


class FakeRung:
    """Implements `sim.rung.Rung`. `calls` has what it was asked; every dial succeeds at once."""

    def __init__(self, heap: EventHeap, peers: int) -> None:
        self.heap = heap
        self.calls: list[Call] = []
        self.disks = [FakeDisk() for _ in range(peers)]
        self.running = [False] * peers
        self.others: list[dict[int, None]] = [{} for _ in range(peers)]
        self.on_put: Callable[[int], None] = lambda operation: None  # told of each put

    def said(self, *names: str) -> list[Call]:
        """The calls of these names, in order."""
        return [call for call in self.calls if call[1] in names]

    def _note(self, name: str, *arguments: Any) -> None:
        self.calls.append((self.heap.now, name, *arguments))

    def start(self, node: int) -> None:
        assert not self.running[node]
        self.running[node] = True
        self._note("start", node)

    def crash(self, node: int, *, keep_disk: bool = True, silently: bool = False) -> None:
        assert self.running[node]
        self.running[node] = False
        for other in self.others[node]:
            del self.others[other][node]
        self.others[node] = {}
        self._note("crash", node, keep_disk, silently)

    def connect(self, node: int, other: int) -> None:
        self._note("connect", node, other)
        if self.running[node] and self.running[other]:
            self.others[node][other] = self.others[other][node] = None

    def reset(self, node: int, other: int) -> None:
        self._note("reset", node, other)
        self.others[node].pop(other, None)
        self.others[other].pop(node, None)

    def subscribe(self, node: int, topic: str, rate: float = 0.0) -> None:
        self._note("subscribe", node, topic, *([rate] if rate else []))

    def unsubscribe(self, node: int, topic: str) -> None:
        self._note("unsubscribe", node, topic)

    def publish(self, node: int, topic: str, data: bytes) -> None:
        assert self.running[node]
        self._note("publish", node, topic, data)

    def find(self, node: int, target: int, operation: int) -> None:
        self._note("find", node, target, operation)

    def put(self, node: int, key: bytes, value: bytes, operation: int) -> None:
        self._note("put", node, key, value, operation)
        self.on_put(operation)

    def get(self, node: int, key: bytes, operation: int) -> None:
        self._note("get", node, key, operation)

    def join_task(self, node: int, name: str) -> None:
        assert self.running[node]
        self._note("join_task", node, name)

    def run(self) -> None:
        self.heap.run()

    def disk(self, node: int) -> SimDisk:
        return cast("SimDisk", self.disks[node])

    def alive(self, node: int) -> bool:
        return self.running[node]

    def connected(self, node: int) -> Sequence[int]:
        return sorted(self.others[node])

    def mesh(self, node: int, topic: str) -> Sequence[int]:
        return []

    def scores(self, node: int) -> Mapping[int, float]:
        return {}


class FakeBooks:
    """Remembers which DHT operations began, who entered which task, and who lost its disk."""

    def __init__(self) -> None:
        self.operations: dict[int, tuple[int, str, bytes | None]] = {}
        self.members: list[tuple[int, str]] = []
        self.lost: list[int] = []  # nodes whose disk is gone

    def began(self, operation: int, node: int, kind: str, expected: bytes | None = None) -> None:
        assert operation not in self.operations
        self.operations[operation] = (node, kind, expected)

    def entered(self, node: int, task: str) -> None:
        self.members.append((node, task))

    def lost_disk(self, node: int) -> None:
        self.lost.append(node)


class Stage:
    """A director on a fake rung over a real network. `run()` plays the scenario."""

    def __init__(self, scenario: Scenario, seed: int = 1) -> None:
        self.heap, self.trouble, self.books = EventHeap(), Trouble(), FakeBooks()
        self.rung = FakeRung(self.heap, scenario.peers)
        self.network = Network(self.heap, rng_of(seed, "network"), scenario.network, scenario.peers)
        self.adversaries = adversaries_of(scenario, rng_of(seed, "adversaries"))
        self.members = {
            load.name: members_of(load, scenario.peers, rng_of(seed, "task", load.name))
            for load in scenario.task
        }
        setup = Setup(
            scenario=scenario,
            seed=seed,
            heap=self.heap,
            network=self.network,
            observer=cast("Observer", None),  # nobody tells it anything
            keys=[],
            tasks={},
            adversaries=self.adversaries,
        )
        self.director = Director(setup, self.rung, self.books, self.trouble, self.members)
        self.planned_end = planned_end(scenario)

    def run(self) -> Stage:
        """Plays everything to its end."""
        self.director.plan()
        self.rung.run()
        return self


def played(seed: int = 1, **parts: Any) -> Stage:
    """A scenario made of `parts`, played on a fake rung."""
    return Stage(Scenario.model_validate({"name": "test", "peers": 10, **parts}), seed).run()
