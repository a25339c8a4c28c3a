"""Validators one after the other: an update is refused by the first rule that it breaks."""

from __future__ import annotations

from collections.abc import Sequence

from federated.errors import PluginError
from federated.manifest import PluginRef
from federated.parameters import Parameters
from federated.plugin import ModelUpdate, checked_settings
from plugins.aggregation.pipeline import make
from plugins.validation.check import Check, Refused
from plugins.validation.novelty import Novelty
from plugins.validation.root_check import RootCheck
from plugins.validation.update_check import UpdateCheck


class Checks(Check):
    """Each check sees the updates that those before it leave. Put the cheapest first."""

    @checked_settings
    def __init__(self, *, checks: Sequence[PluginRef]) -> None:
        if not checks:
            raise PluginError("setting checks: there are none; update-check is the one to begin with")
        self.checks = [make("check", KNOWN, ref) for ref in checks]

    def init(self, parameters: Parameters) -> None:
        """What each one says."""
        for check in self.checks:
            check.init(parameters)

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        """The first rule that the update breaks."""
        rules = (check.check(update, base) for check in self.checks)
        return next((rule for rule in rules if rule is not None), None)

    def judge(self, updates: Sequence[ModelUpdate], model: Parameters) -> Refused:
        """What each one refuses of what those before it leave."""
        left, refused = list(updates), Refused()
        for check in self.checks:
            found = check.judge(left, model)
            gone = {update.root for update, _ in found}
            left = [update for update in left if update.root not in gone]
            refused += found
        return refused

    def approve(self, base: Parameters, model: Parameters) -> str | None:
        """The first reason of one of them."""
        reasons = (check.approve(base, model) for check in self.checks)
        return next((reason for reason in reasons if reason is not None), None)


KNOWN: dict[str, type[Check]] = {
    "update-check": UpdateCheck,
    "novelty": Novelty,
    "root-check": RootCheck,
    "checks": Checks,
}
