"""The validator of first resort: schema, finite values, example count, norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.parameters import Parameters, l2_norm, non_finite, schema_of
from federated.plugin import ModelUpdate, checked_settings
from plugins.validation.check import Check, Refused

MIN_SCREENED = 5  # updates; of fewer honest peers with unlike data one may well be far from the rest


class UpdateCheck(Check):
    """Refuses an update by the first rule it breaks: `schema`, `examples`, `finite` or `norm`."""

    @checked_settings
    def __init__(
        self,
        *,
        max_norm: Annotated[float, Field(gt=0)] = 1000.0,
        max_ratio: Annotated[float, Field(ge=2)] = 10.0,
        max_examples: Annotated[int, Field(ge=1)] = 10_000_000,
    ) -> None:
        """`max_norm` bounds every delta, `max_ratio` its norm against the median of the round."""
        self.max_norm = max_norm
        self.max_ratio = max_ratio
        self.max_examples = max_examples

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        """The rule that the update breaks on its own, None when it is fine; cheapest first."""
        if schema_of(update.delta) != schema_of(base):
            return "schema"
        if not 1 <= update.examples <= self.max_examples:
            return "examples"
        if non_finite(update.delta) is not None:
            return "finite"
        if not l2_norm(update.delta) <= self.max_norm:
            return "norm"
        return None

    def judge(self, updates: Sequence[ModelUpdate], model: Parameters) -> Refused:
        """The updates whose norm is over `max_ratio` times the median norm of those that stay.

        Each pass refuses what is over and takes the median anew, until nothing is: a group of large
        updates cannot hide behind a median that it lifted itself. Updates of zero do not count for
        the median, or a lazy majority would expel everybody who works.
        """
        staying = [(l2_norm(update.delta), update) for update in updates]
        refused = Refused()
        while True:
            working = [norm for norm, _ in staying if norm > 0]
            if len(working) < MIN_SCREENED:
                return refused
            limit = self.max_ratio * float(np.median(working))
            over = [update for norm, update in staying if norm > limit]
            if not over:
                return refused
            refused += [(update, "norm") for update in over]
            staying = [(norm, update) for norm, update in staying if norm <= limit]
