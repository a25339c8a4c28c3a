"""What is wrong with the network just now: faults that begin, overlap and end, each by its own handle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from sim.heap import SimulationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How the links of some nodes are worse; the neutral values change nothing."""

    loss: float = 0.0  # at least
    latency: float = 1.0  # factor
    jitter: float = 0.0  # at least
    mbit: float = 0.0  # at most; 0: no limit


CALM = Weather()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Condition:
    """One fault and the nodes that it strikes (asked for membership only: it has no order)."""

    nodes: frozenset[int]
    stops_leaving: bool = False  # between the nodes and the others: what the nodes send
    stops_coming: bool = False  # … and what they are sent
    freezes: bool = False  # nothing arrives that is from or to the nodes
    weather: Weather | None = None
    blind: bool = False  # the nodes read nothing
    slowness: float = 1.0


class Conditions:
    """The faults that last, by their handles; each question is answered from all of them together."""

    def __init__(self) -> None:
        self._all: dict[int, _Condition] = {}
        self._handles = 0  # given out so far
        self._sort()

    def partition(self, nodes: Iterable[int], one_way: bool) -> int:
        """What `nodes` send to the others does not leave; nor the other way, unless `one_way`."""
        return self._begin(
            _Condition(nodes=frozenset(nodes), stops_leaving=True, stops_coming=not one_way),
        )

    def hold(self, nodes: Iterable[int]) -> int:
        """Nothing from or to `nodes` arrives."""
        return self._begin(_Condition(nodes=frozenset(nodes), freezes=True))

    def weather(self, nodes: Iterable[int], weather: Weather) -> int:
        """All links from and to `nodes` are worse."""
        return self._begin(_Condition(nodes=frozenset(nodes), weather=weather))

    def slow_reader(self, nodes: Iterable[int]) -> int:
        """`nodes` read nothing."""
        return self._begin(_Condition(nodes=frozenset(nodes), blind=True))

    def slow_processor(self, nodes: Iterable[int], factor: float) -> int:
        """Whatever `nodes` do takes `factor` times as long."""
        return self._begin(_Condition(nodes=frozenset(nodes), slowness=factor))

    def end(self, handle: int) -> None:
        """The fault is over. Raises `SimulationError` when it was already, or never began."""
        if self._all.pop(handle, None) is None:
            raise SimulationError(f"no fault with the handle {handle} is going on")
        self._sort()

    @property
    def delaying(self) -> bool:
        """Whether anything is wrong that matters to a message on its way."""
        return bool(self._cutting or self._freezing or self._weathers)

    def cut(self, source: int, target: int) -> bool:
        """Whether a message from `source` to `target` does not leave."""
        for fault in self._cutting:
            if source in fault.nodes:
                if fault.stops_leaving and target not in fault.nodes:
                    return True
            elif fault.stops_coming and target in fault.nodes:
                return True
        return False

    def frozen(self, source: int, target: int) -> bool:
        """Whether a message from `source` does not arrive at `target`."""
        return any(source in fault.nodes or target in fault.nodes for fault in self._freezing)

    def between(self, source: int, target: int) -> Weather:
        """The weather of a link: the worst loss, jitter and bandwidth, the product of the latencies."""
        if not self._weathers:
            return CALM
        found = [
            fault.weather
            for fault in self._weathers
            if fault.weather is not None and (source in fault.nodes or target in fault.nodes)
        ]
        if not found:
            return CALM
        return Weather(
            loss=max(weather.loss for weather in found),
            latency=prod(weather.latency for weather in found),
            jitter=max(weather.jitter for weather in found),
            mbit=min((weather.mbit for weather in found if weather.mbit), default=0.0),
        )

    @property
    def blinding(self) -> bool:
        """Whether any node reads nothing."""
        return any(fault.blind for fault in self._all.values())

    def blind(self, node: int) -> bool:
        """Whether the node reads nothing."""
        return any(fault.blind and node in fault.nodes for fault in self._all.values())

    def slowness(self, node: int) -> float:
        """The factor by which everything takes the node longer."""
        if not self._all:
            return 1.0
        return prod(fault.slowness for fault in self._all.values() if node in fault.nodes)

    def _begin(self, fault: _Condition) -> int:
        self._handles += 1
        self._all[self._handles] = fault
        self._sort()
        return self._handles

    def _sort(self) -> None:
        self._cutting = [fault for fault in self._all.values() if fault.stops_leaving or fault.stops_coming]
        self._freezing = [fault for fault in self._all.values() if fault.freezes]
        self._weathers = [fault for fault in self._all.values() if fault.weather is not None]
