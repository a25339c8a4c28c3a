"""What goes wrong, as the scenario lists it: each fault begins, and ends when it lasts for a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from sim.director.selection import picked
from sim.director.trouble import KEEPALIVE, RECOVERY, UNNOTICED, Trouble
from sim.redial import LONGEST
from sim.scenario.model import (
    AnyFault,
    ClockJump,
    Crash,
    DiskError,
    DiskFull,
    Hold,
    Partition,
    Reset,
    SlowProcessor,
    SlowReader,
    Weather,
)

if TYPE_CHECKING:
    from random import Random

    from sim.director.presence import Presence
    from sim.heap import EventHeap
    from sim.network import Network
    from sim.rung import Rung


class Faults:
    """Plans faults and carries them out: through the network, through the rung, on the disks."""

    def __init__(self, heap: EventHeap, rung: Rung, network: Network, presence: Presence, peers: int) -> None:
        self._heap, self._rung, self._network = heap, rung, network
        self._presence, self._peers = presence, peers
        self._disk_faults: dict[int, list[DiskFull | DiskError]] = {}  # of each node, that last

    def plan(self, fault: AnyFault, rng: Random, trouble: Trouble) -> None:
        """The fault happens at its time; whom it strikes is drawn now. `trouble` learns what to expect."""
        nodes = picked(fault.who, self._peers, rng)
        self._heap.plan(fault.at, self._begin, fault, nodes, rng)
        begin, end = _felt(fault)
        trouble.note(begin, end, fault.kind, _healing(fault))

    def _begin(self, fault: AnyFault, nodes: Sequence[int], rng: Random) -> None:
        end = self._strike(fault, nodes, rng)
        if fault.seconds > 0:
            self._heap.plan(fault.at + fault.seconds, end)

    def _strike(self, fault: AnyFault, nodes: Sequence[int], rng: Random) -> Callable[[], None]:
        """The fault is there from now on; what comes back ends it."""
        network = self._network
        match fault:
            case Crash():
                return self._crash(fault, nodes)
            case Reset():
                return self._reset(fault, nodes, rng)
            case DiskFull() | DiskError():
                return self._fail_disks(fault, nodes)
            case ClockJump():
                network.jump_clock(nodes, fault.by_ms / 1000)
                return partial(network.jump_clock, nodes, -fault.by_ms / 1000)
            case Partition():
                handle = network.begin_partition(nodes, fault.one_way)
            case Hold():
                handle = network.begin_hold(nodes)
            case Weather():
                handle = network.begin_weather(nodes, fault.loss, fault.latency, fault.jitter, fault.mbit)
            case SlowReader():
                handle = network.begin_slow_reader(nodes)
            case SlowProcessor():
                handle = network.begin_slow_processor(nodes, fault.factor)
        return partial(network.end, handle)

    def _crash(self, fault: Crash, nodes: Sequence[int]) -> Callable[[], None]:
        for node in nodes:
            self._presence.take_down(node, keep_disk=fault.keep_disk, silently=fault.silently)
        return partial(self._restart, nodes)

    def _restart(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            self._presence.bring_back(node)

    def _reset(self, fault: Reset, nodes: Sequence[int], rng: Random) -> Callable[[], None]:
        for node in nodes:
            others = self._rung.connected(node)
            for other in sorted(rng.sample(others, round(fault.connections * len(others)))):
                self._rung.reset(node, other)
        return _nothing

    def _fail_disks(self, fault: DiskFull | DiskError, nodes: Sequence[int]) -> Callable[[], None]:
        for node in nodes:
            self._disk_faults.setdefault(node, []).append(fault)
            self._set_disk(node)
        return partial(self._mend_disks, fault, nodes)

    def _mend_disks(self, fault: DiskFull | DiskError, nodes: Sequence[int]) -> None:
        for node in nodes:
            self._disk_faults[node].remove(fault)
            self._set_disk(node)

    def _set_disk(self, node: int) -> None:
        """The disk has the faults that last: full as long as any says so, errors by the worst of them."""
        disk, faults = self._rung.disk(node), self._disk_faults[node]
        disk.full = any(isinstance(fault, DiskFull) for fault in faults)
        disk.error_share = max([0.0, *(fault.share for fault in faults if isinstance(fault, DiskError))])


def _nothing() -> None:
    """What is over at once has no end."""


def _felt(fault: AnyFault) -> tuple[float, float]:
    """From when to when something is wrong, before the network heals; a crash for good is over at once."""
    if isinstance(fault, Reset | ClockJump):
        return fault.at, fault.at
    if fault.seconds > 0:
        return fault.at, fault.at + fault.seconds
    return fault.at, fault.at if isinstance(fault, Crash) else inf


def _healing(fault: AnyFault) -> float:
    """Seconds from its end until nothing is felt of it any more.

    After an absence, or an interruption that cost connections, who redials waits up to `LONGEST`.
    """
    seconds = fault.seconds
    if isinstance(fault, Crash):
        unnoticed = max(0.0, UNNOTICED - seconds) if fault.silently else 0.0
        return RECOVERY + unnoticed + min(seconds, LONGEST)
    return RECOVERY + (LONGEST if seconds > KEEPALIVE else 0.0)
