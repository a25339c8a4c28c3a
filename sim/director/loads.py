"""Work for the network, at random (Poisson) moments: messages to publish, values to put and to get."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Protocol

from p2p.kad.namespaces import content_key
from sim.director.selection import drawn, first_up, share_of

if TYPE_CHECKING:
    from random import Random

    from sim.director.presence import Presence
    from sim.heap import EventHeap
    from sim.rung import Rung
    from sim.scenario.model import DhtLoad, GossipLoad

PUT_AGE = 5.0  # seconds since a put was asked for until somebody gets the value
STORED_FOR = 1.0  # seconds since the put ended well, at least
MAX_PUTS = 10_000  # the latest ones, whose values are asked for


class Journal(Protocol):
    """Writes down what was asked for."""

    def began(self, operation: int, node: int, kind: str, expected: bytes | None = None) -> None:
        """A DHT operation is handed to its node; `expected` is the value that a get should return."""


def arrivals(
    heap: EventHeap, rng: Random, rate: float, start: float, end: float, call: Callable[[], None]
) -> None:
    """Plans `call` at random moments from `start` to `end`, `rate` a second; each plans the next."""
    if rate <= 0:
        return
    at = max(start, heap.now) + rng.expovariate(rate)
    if at < end:
        heap.plan(at, _arrive, heap, rng, rate, end, call)


def _arrive(heap: EventHeap, rng: Random, rate: float, end: float, call: Callable[[], None]) -> None:
    arrivals(heap, rng, rate, heap.now, end, call)
    call()


class GossipPlan:
    """One gossip load: who subscribes, who publishes what and when. Adversaries subscribe only."""

    def __init__(
        self,
        load: GossipLoad,
        heap: EventHeap,
        rng: Random,
        rung: Rung,
        presence: Presence,
        honest: Sequence[int],
        peers: int,
    ) -> None:
        self._load, self._heap, self._rng, self._rung, self._presence = load, heap, rng, rung, presence
        self.publishers = drawn(honest, share_of(len(honest), load.publishers), rng)
        self.subscribers = drawn(range(peers), share_of(peers, load.subscribers), rng)
        self._unsubscribed = dict.fromkeys(self.subscribers)

    def plan(self) -> None:
        """Nodes subscribe when they come for the first time; messages are published in the load's time."""
        load = self._load
        self._presence.on_start.append(self._subscribe)
        end = load.start + load.seconds
        arrivals(self._heap, self._rng, load.rate, load.start, end, self._publish)

    def _subscribe(self, node: int) -> None:
        if node in self._unsubscribed:
            del self._unsubscribed[node]
            self._rung.subscribe(node, self._load.topic, self._load.rate if self._load.rate_known else 0.0)

    def _publish(self) -> None:
        node = first_up(self.publishers, self._presence.up, self._rng)
        data = self._rng.randbytes(self._load.size)
        if node is not None:
            self._rung.publish(node, self._load.topic, data)


class _Put:
    """A value that a node was asked to store."""

    __slots__ = ("asked", "key", "node", "stored", "value")

    def __init__(self, node: int, key: bytes, value: bytes, asked: float) -> None:
        self.node, self.key, self.value, self.asked = node, key, value, asked
        self.stored = inf  # when the put ended well


class DhtPlan:
    """One DHT load. Who asks for what is drawn without a look at how long things took.

    So that the rungs, on which they take differently long, are asked for the same: a value is drawn among
    those that were to be stored some time ago, and is only asked for when that has come about.
    """

    def __init__(
        self,
        load: DhtLoad,
        heap: EventHeap,
        rng: Random,
        rung: Rung,
        presence: Presence,
        honest: Sequence[int],
        numbers: Iterator[int],
        journal: Journal,
    ) -> None:
        self._load, self._heap, self._rng, self._rung, self._presence = load, heap, rng, rung, presence
        self._honest, self._numbers, self._journal = honest, numbers, journal
        self._by_operation: dict[int, _Put] = {}  # puts under way
        self._fresh: deque[_Put] = deque(maxlen=MAX_PUTS)  # by the time they were asked for
        self._old: deque[_Put] = deque(maxlen=MAX_PUTS)  # at least `PUT_AGE` ago

    def plan(self) -> None:
        """Puts, gets and look-ups, each at its own rate in the load's time."""
        load, heap, rng = self._load, self._heap, self._rng
        end = load.start + load.seconds
        arrivals(heap, rng, load.puts, load.start, end, self._put)
        arrivals(heap, rng, load.gets, load.start, end, self._get)
        arrivals(heap, rng, load.finds, load.start, end, self._find)

    def looked_up(self, operation: int, ok: bool) -> None:
        """An operation ended; a value whose put ended well may be asked for."""
        put = self._by_operation.pop(operation, None)
        if put is not None and ok:
            put.stored = self._heap.now

    def _put(self) -> None:
        operation, node = next(self._numbers), self._anybody()
        value = self._rng.randbytes(self._load.size)
        if node is None:
            return
        key = content_key(value)  # one that a DHT takes from anybody
        put = self._by_operation[operation] = _Put(node, key, value, self._heap.now)
        if len(self._by_operation) > MAX_PUTS:
            del self._by_operation[next(iter(self._by_operation))]
        self._fresh.append(put)
        self._journal.began(operation, node, "put")
        self._rung.put(node, key, value, operation)

    def _get(self) -> None:
        operation, now = next(self._numbers), self._heap.now
        while self._fresh and self._fresh[0].asked <= now - PUT_AGE:
            self._old.append(self._fresh.popleft())
        if not self._old:
            return
        put = self._rng.choice(self._old)
        node = self._anybody(but=put.node)
        if node is not None and put.stored <= now - STORED_FOR:
            self._journal.began(operation, node, "get", put.value)
            self._rung.get(node, put.key, operation)

    def _find(self) -> None:
        operation, node = next(self._numbers), self._anybody()
        target = self._anybody(but=node)
        if node is not None and target is not None:
            self._journal.began(operation, node, "find")
            self._rung.find(node, target, operation)

    def _anybody(self, but: int | None = None) -> int | None:
        """An honest node that runs, and is not `but`; None without one."""
        return first_up(self._honest, lambda node: node != but and self._presence.up(node), self._rng)


def numbers() -> Iterator[int]:
    """Numbers for the DHT operations of a run; one that comes to nothing keeps its own."""
    return count(1)
