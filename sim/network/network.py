"""The network of a run: what nodes send to one another arrives, in order and once, when the model says.

Between two nodes messages travel as over a TCP connection. A lost packet is a delay, the time until it
is sent again; a partition keeps what is sent until it ends, a hold also what is under way.

    send ─→ [cut? wait at the sender] ─→ uplink ─→ link ─→ latency, jitter, loss, quantum
         ─→ [frozen? wait at the receiver] ─→ downlink ─→ processor ─→ deliver

While nothing of this is configured and nothing is wrong, `send` is one function that only adds the latency:
it is the innermost loop of a simulation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from sim.heap import EventHeap, SimulationError
from sim.network.bandwidth import Bandwidth
from sim.network.clocks import Clocks
from sim.network.conditions import Conditions, Weather
from sim.network.latency import latency_model
from sim.network.nat import Nat
from sim.network.retransmission import RETRANSMIT, wait_after_outage, wait_by_loss

if TYPE_CHECKING:
    from random import Random

    from sim.scenario.model import NetworkSettings

MAX_WAITING = 5_000_000  # messages that partitions, holds and slow readers keep; about 1 GB
LINKS_EACH = 32  # remembered for each node; 230 bytes each. Those with nothing under way are forgotten first
LINKS_AT_LEAST = 1 << 16  # remembered in a small network
NANOSECOND = 1e-9  # a time so little after a multiple of the quantum is that multiple, and an error of floats


class Send(Protocol):
    """How `Network.send` is called."""

    def __call__(
        self, source: int, target: int, size: int, deliver: Callable[..., None], *arguments: Any
    ) -> None:
        """Calls `deliver(*arguments)` when `size` bytes have come from `source` to `target`."""


class _Link:
    """What is known of an ordered pair of nodes."""

    __slots__ = ("last", "latency")

    def __init__(self, latency: float) -> None:
        self.latency = latency  # seconds
        self.last = 0.0  # when the latest message so far arrives


_Message = tuple[int, Callable[..., None], tuple[Any, ...]]  # size, what to call


class Network:
    """The network of `nodes` nodes, numbers from 0. `rng` is its own: every draw of it comes from there."""

    send: Send  # look it up anew for each message: it changes when faults begin and end
    all_read: bool  # whether `reading` is true of everybody now

    def __init__(self, heap: EventHeap, rng: Random, settings: NetworkSettings, nodes: int) -> None:
        """Raises `InvalidInput` for latencies that make no sense."""
        self._heap = heap
        self._random = rng.random
        self._nodes = nodes
        self._settings = settings
        self._latency = latency_model(settings.latency, nodes, rng)
        self._nat = Nat(settings.nat, nodes, rng)
        self._clocks = Clocks(nodes, settings.clock_skew_ms / 1000, rng)
        self._bandwidth = Bandwidth(settings, nodes)
        self._conditions = Conditions()
        self._jitter = settings.jitter
        self._quantum = settings.quantum_ms / 1000
        self._message_cost = settings.message_us / 1e6
        self._processor_free = [0.0] * nodes  # when each node has handled what it got so far
        self._links: dict[int, _Link] = {}  # by source * nodes + target
        self._links_at_most = max(LINKS_AT_LEAST, LINKS_EACH * nodes)
        self._unsent: dict[int, deque[_Message]] = {}  # by pair, behind a partition
        self._cut_since: dict[int, float] = {}  # when the first of these was sent
        self._landed: dict[int, deque[_Message]] = {}  # by pair, in a hold
        self._unread: dict[int, deque[_Message]] = {}  # by slow reader
        self._waiting = 0  # in all three
        self.messages_sent = 0
        self.sent_by = [0] * nodes  # bytes, counted when they are sent
        self.received_by = [0] * nodes  # bytes, counted when they arrive
        self._choose()

    @property
    def bytes_sent(self) -> int:
        """Bytes sent so far by all nodes."""
        return sum(self.sent_by)

    # sending

    def _choose(self) -> None:
        """Takes the short way for messages as long as it leads to the same end."""
        settings = self._settings
        wrong = self._conditions.delaying
        self._careful = bool(wrong or self._landed or settings.down_mbit or self._message_cost)
        plain = not (
            wrong or self._unsent or settings.loss or settings.link_mbit or settings.up_mbit or self._quantum
        )
        self.send = self._send_plainly if plain else self._send
        self.all_read = not self._conditions.blinding

    def _send_plainly(
        self, source: int, target: int, size: int, deliver: Callable[..., None], *arguments: Any
    ) -> None:
        pair = source * self._nodes + target
        link = self._links.get(pair)
        if link is None:
            link = self._new_link(pair, source, target)
        heap = self._heap
        at = heap.now + link.latency * (1.0 + self._jitter * self._random())
        if at < link.last:
            at = link.last
        link.last = at
        self.messages_sent += 1
        self.sent_by[source] += size
        heap.plan(at, self._arrive, source, target, size, deliver, arguments)

    def _send(
        self, source: int, target: int, size: int, deliver: Callable[..., None], *arguments: Any
    ) -> None:
        self.messages_sent += 1
        self.sent_by[source] += size
        pair = source * self._nodes + target
        if pair in self._unsent or self._conditions.cut(source, target):
            self._cut_since.setdefault(pair, self._heap.now)
            self._keep(self._unsent, pair, (size, deliver, arguments))
        else:
            self._launch(source, target, size, deliver, arguments)

    def _launch(
        self, source: int, target: int, size: int, deliver: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """The message leaves now."""
        pair = source * self._nodes + target
        link = self._links.get(pair)
        if link is None:
            link = self._new_link(pair, source, target)
        weather = self._conditions.between(source, target)
        at = self._bandwidth.leave(source, pair, size, self._heap.now, weather.mbit)
        jitter = max(self._jitter, weather.jitter)
        at += link.latency * weather.latency * (1.0 + jitter * self._random())
        at += wait_by_loss(max(self._settings.loss, weather.loss), size, self._random)
        link.last = at = max(self._rounded(at), link.last)
        self._heap.plan(at, self._arrive, source, target, size, deliver, arguments)

    def _new_link(self, pair: int, source: int, target: int) -> _Link:
        if len(self._links) >= self._links_at_most:
            now = self._heap.now
            self._links = {pair: link for pair, link in self._links.items() if link.last > now}
            self._links_at_most = max(self._links_at_most, 2 * len(self._links))
        link = self._links[pair] = _Link(self._latency(source, target))
        return link

    def _rounded(self, at: float) -> float:
        """`at`, or the next multiple of the quantum; not before now."""
        if not self._quantum:
            return at
        nearest = round(at / self._quantum)
        tick = nearest * self._quantum
        if tick < at - NANOSECOND or tick < self._heap.now:
            tick = (nearest + 1) * self._quantum
        return tick

    # arriving

    def _arrive(
        self, source: int, target: int, size: int, deliver: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        if self._careful:
            pair = source * self._nodes + target
            if pair in self._landed or self._conditions.frozen(source, target):
                self._keep(self._landed, pair, (size, deliver, arguments))
            else:
                self._land(target, size, deliver, arguments)
            return
        self.received_by[target] += size
        deliver(*arguments)

    def _land(self, target: int, size: int, deliver: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """The message is at the target's door."""
        now = self._heap.now
        at = self._bandwidth.arrive(target, size, now)
        if at > now:
            self._heap.plan(self._rounded(at), self._handle, target, size, deliver, arguments)
        else:
            self._handle(target, size, deliver, arguments)

    def _handle(
        self, target: int, size: int, deliver: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """The target's processor takes the message up when it has handled those before it."""
        self.received_by[target] += size
        if not self._message_cost:
            deliver(*arguments)
            return
        now = self._heap.now
        at = max(now, self._processor_free[target]) + self.processing(target, self._message_cost)
        self._processor_free[target] = at
        self._heap.plan(self._rounded(at), deliver, *arguments)

    def _keep(self, where: dict[int, deque[_Message]], key: int, message: _Message) -> None:
        if self._waiting >= MAX_WAITING:
            raise SimulationError(f"more than {MAX_WAITING} messages wait for faults to end")
        self._waiting += 1
        where.setdefault(key, deque()).append(message)

    # what is so when nothing is wrong

    def rtt(self, a: int, b: int) -> float:
        """Seconds from `a` to `b` and back, without jitter and queues."""
        return self._latency(a, b) + self._latency(b, a)

    def reachable(self, source: int, target: int) -> bool:
        """Whether a dial by `source` gets through the NAT of `target`; it opens the one of `source`."""
        return self._nat.dial(source, target)

    def dialable(self, node: int) -> bool:
        """Whether everybody can dial the node: it is behind no NAT."""
        return self._nat.kind(node) == "open"

    def processing(self, node: int, seconds: float) -> float:
        """Seconds that the node needs now for what takes others `seconds`."""
        return seconds * self._conditions.slowness(node)

    def wall_clock(self, node: int) -> float:
        """Unix seconds of the node's clock now."""
        return self._clocks.read(node, self._heap.now)

    def jump_clock(self, nodes: Iterable[int], seconds: float) -> None:
        """The wall clocks of `nodes` jump forward by `seconds`, or back."""
        self._clocks.jump(nodes, seconds)

    def held(self, source: int, target: int) -> bool:
        """Whether a message sent now waits for the end of a fault, or behind one that does."""
        pair = source * self._nodes + target
        return (
            pair in self._unsent
            or pair in self._landed
            or self._conditions.cut(source, target)
            or self._conditions.frozen(source, target)
        )

    def reading(self, node: int) -> bool:
        """Whether the node takes what has arrived off its connections."""
        return not self._conditions.blind(node)

    def when_reading(self, node: int, call: Callable[..., None], *arguments: Any) -> None:
        """Calls `call(*arguments)` now, or in the same order when the node reads again."""
        if node in self._unread or not self.reading(node):
            self._keep(self._unread, node, (0, call, arguments))
        else:
            call(*arguments)

    # faults: each lasts from `begin_…` to `end` with the handle; they may overlap

    def begin_partition(self, nodes: Iterable[int], one_way: bool = False) -> int:
        """`nodes` and the others do not reach each other; `one_way`: only what `nodes` send waits."""
        return self._began(self._conditions.partition(nodes, one_way))

    def begin_hold(self, nodes: Iterable[int]) -> int:
        """Everything from and to `nodes` waits, also what is under way."""
        return self._began(self._conditions.hold(nodes))

    def begin_weather(
        self,
        nodes: Iterable[int],
        loss: float = 0.0,
        latency: float = 1.0,
        jitter: float = 0.0,
        mbit: float = 0.0,
    ) -> int:
        """The links of `nodes` get worse: at least this loss and jitter, `latency` times as slow.

        `mbit` limits each of these links, each way; 0 does not.
        """
        weather = Weather(loss=loss, latency=latency, jitter=jitter, mbit=mbit)
        return self._began(self._conditions.weather(nodes, weather))

    def begin_slow_reader(self, nodes: Iterable[int]) -> int:
        """`nodes` take nothing off their connections."""
        return self._began(self._conditions.slow_reader(nodes))

    def begin_slow_processor(self, nodes: Iterable[int], factor: float) -> int:
        """`nodes` need `factor` times as long, for computing and for each message."""
        return self._began(self._conditions.slow_processor(nodes, factor))

    def _began(self, handle: int) -> int:
        self._choose()
        return handle

    def end(self, handle: int) -> None:
        """The fault ends: what it kept goes on. Raises `SimulationError` when no fault has this handle."""
        self._conditions.end(handle)
        now = self._heap.now
        for pair in self._unsent:
            if not self._conditions.cut(*divmod(pair, self._nodes)):
                self._heap.plan(now + wait_after_outage(now - self._cut_since[pair]), self._resend, pair)
        for pair in self._landed:
            if not self._conditions.frozen(*divmod(pair, self._nodes)):
                self._heap.plan(now + RETRANSMIT, self._thaw, pair)
        for node in list(self._unread):
            self._read_on(node)
        self._choose()

    def _resend(self, pair: int) -> None:
        """The sender tries again, unless another fault has come meanwhile."""
        source, target = divmod(pair, self._nodes)
        if pair not in self._unsent or self._conditions.cut(source, target):
            return
        del self._cut_since[pair]
        for message in self._unsent.pop(pair):
            self._waiting -= 1
            self._launch(source, target, *message)
        self._choose()

    def _thaw(self, pair: int) -> None:
        """What has waited at the receiver goes on, unless another fault has come meanwhile."""
        source, target = divmod(pair, self._nodes)
        if pair not in self._landed or self._conditions.frozen(source, target):
            return
        for message in self._landed.pop(pair):
            self._waiting -= 1
            self._land(target, *message)
        self._choose()

    def _read_on(self, node: int) -> None:
        while self.reading(node) and (messages := self._unread.get(node)):
            self._waiting -= 1
            _, call, arguments = messages.popleft()
            call(*arguments)
        if not self._unread.get(node):
            self._unread.pop(node, None)
