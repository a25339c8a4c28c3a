"""A recorder to tell things, and a network that stands still."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from sim.heap import EventHeap
from sim.record import PubsubTrace, Recorder
from sim.rung import Rung
from sim.scenario.model import GossipLoad, Scenario

TOPIC = "sim"


class Still:
    """A rung of which only the state is asked, and the bytes that it sent."""

    def __init__(
        self,
        links: Mapping[int, Sequence[int]],
        meshes: Mapping[int, Sequence[int]] | None = None,
        scores: Mapping[int, Mapping[int, float]] | None = None,
    ) -> None:
        self._links, self._meshes, self._scores = links, meshes or {}, scores or {}
        self.sent_by: Sequence[int] = [100] * len(links)
        self.received_by: Sequence[int] = [50] * len(links)

    def alive(self, node: int) -> bool:
        return node in self._links

    def connected(self, node: int) -> Sequence[int]:
        return self._links[node]

    def mesh(self, node: int, topic: str) -> Sequence[int]:
        return self._meshes.get(node, ())

    def scores(self, node: int) -> Mapping[int, float]:
        return self._scores.get(node, {})


def rung(still: Still) -> Rung:
    return cast(Rung, still)


def recorder(
    peers: int = 4,
    *,
    honest: Callable[[int], bool] = lambda node: True,
    calm: Callable[[float, float], bool] = lambda begin, end: True,
    events: PubsubTrace | None = None,
    running: bool = True,
    **scenario: Any,
) -> Recorder:
    """A recorder of `peers` nodes, which run and listen to `TOPIC` from the beginning."""
    settings = {"name": "test", "peers": peers, "gossip": (GossipLoad(topic=TOPIC),), **scenario}
    made = Recorder(EventHeap(100.0), Scenario(**settings), honest=honest, calm=calm, events=events)
    for node in range(peers if running else 0):
        made.started(node)
        made.joined(node, TOPIC)
    return made


def look_up(made: Recorder, node: int, operation: int, **fields: Any) -> None:
    """A DHT operation ends: well, after a tenth of a second, unless `fields` say otherwise."""
    made.looked_up(
        node,
        operation,
        **{"kind": "get", "ok": True, "seconds": 0.1, "hops": 3, "result": b"value", **fields},
    )


def finish_round(made: Recorder, node: int, number: int, **fields: Any) -> None:
    """A node is through with a round of the task "digits"."""
    made.finished_round(
        node,
        "digits",
        number,
        **{"digest": b"model", "skipped": False, "participants": 3, "measured": {"accuracy": 0.9}, **fields},
    )
