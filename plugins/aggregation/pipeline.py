"""Rules put together: steps that prepare the updates, and the rule that comes after them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from federated.errors import PluginError
from federated.manifest import PluginRef
from federated.parameters import Parameters
from federated.plugin import checked_settings
from plugins.aggregation.blocks import Plan
from plugins.aggregation.bucketing import Bucketing
from plugins.aggregation.bulyan import Bulyan
from plugins.aggregation.centered_clipping import CenteredClipping
from plugins.aggregation.clip import Clip
from plugins.aggregation.flame import Flame
from plugins.aggregation.fltrust import FLTrust
from plugins.aggregation.geometric_median import GeometricMedian
from plugins.aggregation.krum import Krum, MultiKrum
from plugins.aggregation.median import CoordinateMedian
from plugins.aggregation.nearest_neighbours import NearestNeighbours
from plugins.aggregation.points import Points
from plugins.aggregation.rule import PreStep, Rule
from plugins.aggregation.trimmed_mean import TrimmedMean
from plugins.aggregation.weighted_mean import WeightedMean

_Part = TypeVar("_Part")

STEPS: dict[str, type[PreStep]] = {
    "clip": Clip,
    "nnm": NearestNeighbours,
    "bucketing": Bucketing,
}


class Pipeline(Rule):
    """Each step sees the points of the one before it, and the rule those of the last.

    A rule's assumption is about the points that it sees: behind `bucketing` there are fewer of them.
    """

    @checked_settings
    def __init__(self, *, steps: Sequence[PluginRef], rule: PluginRef) -> None:
        self.steps = [make("step", STEPS, ref) for ref in steps]
        self.rule = make_rule(rule)

    def init(self, parameters: Parameters) -> Parameters:
        """What the rule says."""
        return self.rule.init(parameters)

    def plan(self, points: Points) -> Plan:
        """What the rule decides about the points that the steps come to."""
        for step in self.steps:
            points = step.prepare(points)
        return self.rule.plan(points)


RULES: dict[str, type[Rule]] = {
    "weighted-mean": WeightedMean,
    "trimmed-mean": TrimmedMean,
    "median": CoordinateMedian,
    "krum": Krum,
    "multi-krum": MultiKrum,
    "bulyan": Bulyan,
    "geometric-median": GeometricMedian,
    "centered-clipping": CenteredClipping,
    "flame": Flame,
    "fltrust": FLTrust,
    "pipeline": Pipeline,
}


def make_rule(ref: PluginRef) -> Rule:
    """The rule that `ref` names, made with its settings. Raises `PluginError`."""
    return make("rule", RULES, ref)


def make(kind: str, known: Mapping[str, type[_Part]], ref: PluginRef) -> _Part:
    """What `ref` names among the `known`. Raises `PluginError` in one line."""
    factory = known.get(ref.name)
    if factory is None:
        raise PluginError(f"there is no {kind} {ref.name!r} to put together; there are: {', '.join(known)}")
    try:
        inspect.signature(factory).bind(**ref.settings)
    except TypeError as exc:
        taken = ", ".join(inspect.signature(factory).parameters) or "no settings"
        raise PluginError(f"{kind} {ref.name!r}: {exc}; it takes {taken}") from exc
    try:
        settings: dict[str, Any] = ref.settings
        return factory(**settings)
    except PluginError as exc:
        raise PluginError(f"{kind} {ref.name!r}: {exc}") from exc
