"""Clipping: no update moves the model further than a limit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from federated.plugin import checked_settings
from plugins.aggregation.centered_clipping import clipped
from plugins.aggregation.points import Points, lower_median


class Clip:
    """Shortens each delta to `norm`; by default to the median of all lengths, the lower one of two."""

    @checked_settings
    def __init__(self, *, norm: Annotated[float, Field(gt=0)] | None = None) -> None:
        self.norm = norm

    def prepare(self, points: Points) -> Points:
        """As many points, none longer than the limit."""
        limit = lower_median(points.norms) if self.norm is None else self.norm
        return points.scaled(clipped(points.norms, limit))
