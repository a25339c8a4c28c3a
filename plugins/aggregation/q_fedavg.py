"""q-FedAvg's step: what the members send is divided by what they say of its curvature."""

from __future__ import annotations

import numpy as np

from federated.errors import AggregationError, PluginError
from federated.parameters import Parameters
from federated.plugin import checked_settings
from plugins.aggregation.blocks import Plan
from plugins.aggregation.points import Points, product, total
from plugins.aggregation.rule import Rule
from plugins.fairness import CURVATURE


class QFedAvg(Rule):
    """The base plus ΣΔ / Σh, for trainers with the setting `q` (`plugins.fairness`).

    Loss and curvature are a member's own words, and one liar is enough to move it anywhere.
    Source: Li et al. 2020, "Fair Resource Allocation in Federated Learning", Algorithm 2.
    """

    @checked_settings
    def __init__(self) -> None:
        pass

    def init(self, parameters: Parameters) -> Parameters:
        """Nothing to keep. Raises `PluginError` for a model whose trainer sends no curvature."""
        if CURVATURE not in parameters:
            raise PluginError(f"the model has no {CURVATURE}: set q of the trainer above 0")
        return {}

    def plan(self, points: Points) -> Plan:
        """The sum of the points over the sum of their curvatures, late ones counting less."""
        told = np.array([[float(update.delta[CURVATURE])] for update in points.updates])
        curvatures = product(points.mixture, told)[:, 0]
        whole = float(total(points.freshness * curvatures))
        if not whole > 0:
            raise AggregationError("the updates say that their curvature is not positive")
        return points.sum(points.freshness / whole)
