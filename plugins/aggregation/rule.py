"""What the aggregation rules of this package have in common: they turn points into a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Protocol

from pydantic import Field

from federated.parameters import Parameters
from federated.plugin import ModelUpdate
from plugins.aggregation.blocks import Plan, advance, steps
from plugins.aggregation.points import Points

Liars = Annotated[int, Field(ge=0)]


class Rule(ABC):
    """An aggregator that is made of one decision, `plan`. The updates' order does not matter."""

    kind = "aggregator"

    def init(self, parameters: Parameters) -> Parameters:
        """Nothing to keep. Raises `PluginError` for a model that the rule cannot work with."""
        return {}

    @abstractmethod
    def plan(self, points: Points) -> Plan:
        """What is to become of the points. Raises `AggregationError` when the rule's assumption does not
        hold.
        """

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> Parameters:
        """The next model. Raises `AggregationError` when the updates do not make one."""
        points = Points.of(base, updates)
        return advance(base, steps(base, points.deltas, self.plan(points)))


class PreStep(Protocol):
    """What may come before a rule: it makes other points of the points."""

    def prepare(self, points: Points) -> Points:
        """The points that the rule is to see. Raises `AggregationError`."""
