"""Links between simulated peers: latency, jitter, loss and partitions, all drawn from one seeded rng.

A link carries messages as a TCP connection does: in order, each once. A lost packet therefore is a
delay, the time until it is sent again; a partition holds what is sent across it until it heals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sim.heap import EventHeap

if TYPE_CHECKING:
    from random import Random

RETRANSMIT = 0.2  # seconds until a lost packet is sent again; Linux, TCP_RTO_MIN
MAX_LOSSES = 6  # of one message in a row; the wait doubles each time (RFC 6298, 5.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkModel:
    """How links behave. With `spread` and `jitter` zero many events tie, which is what shows order bugs."""

    latency: float = 0.05  # seconds one way, the median over the links
    spread: float = 0.5  # sigma of the log-normal distribution over the links
    jitter: float = 0.1  # share of a link's latency, drawn anew for each message
    loss: float = 0.0  # probability that a message's packet is lost, each time it is sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """From `start` to `end` (seconds) the peers below number `border` do not reach the others."""

    start: float
    end: float
    border: int

    def holds(self, source: int, target: int, now: float) -> bool:
        """Whether a message sent now has to wait for the end."""
        return self.start <= now < self.end and (source < self.border) != (target < self.border)


class Network:
    """Plans the arrival of what peers send to one another. Peers are numbers."""

    def __init__(
        self,
        heap: EventHeap,
        rng: Random,
        model: LinkModel,
        deliver: Callable[[int, int, bytes], None],
        partition: Partition | None = None,
    ) -> None:
        self._heap = heap
        self._rng = rng
        self._model = model
        self._deliver = deliver  # (source, target, data), when it arrives
        self._partition = partition
        self._latency: dict[tuple[int, int], float] = {}  # of each link, the same in both directions
        self._last_arrival: dict[tuple[int, int], float] = {}
        self.bytes_sent = 0
        self.messages_sent = 0

    def send(self, source: int, target: int, data: bytes) -> None:
        """`data` goes from `source` to `target`; it arrives after everything that was sent before it."""
        self.bytes_sent += len(data)
        self.messages_sent += 1
        arrival = max(self._arrival(source, target), self._last_arrival.get((source, target), 0.0))
        self._last_arrival[source, target] = arrival
        self._heap.plan(arrival, partial(self._deliver, source, target, data))

    def _arrival(self, source: int, target: int) -> float:
        sent = self._heap.now
        if self._partition is not None and self._partition.holds(source, target, sent):
            sent = self._partition.end
        latency = self.latency(source, target)
        return sent + latency * (1.0 + self._rng.uniform(0.0, self._model.jitter)) + self._delay_by_loss()

    def latency(self, one: int, other: int) -> float:
        """Seconds from `one` to `other` when nothing goes wrong, drawn when first asked for."""
        link = (one, other) if one < other else (other, one)
        if link not in self._latency:
            self._latency[link] = self._model.latency * self._rng.lognormvariate(0.0, self._model.spread)
        return self._latency[link]

    def _delay_by_loss(self) -> float:
        if not self._model.loss:
            return 0.0
        delay, wait = 0.0, RETRANSMIT
        for _ in range(MAX_LOSSES):
            if self._rng.random() >= self._model.loss:
                break
            delay += wait
            wait *= 2
        return delay
