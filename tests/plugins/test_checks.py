from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated.errors import PluginError
from federated.manifest import PluginRef
from federated.plugin import ModelUpdate, ModelValidator
from plugins.validation.check import Check
from plugins.validation.checks import KNOWN, Checks
from tests.federated.samples import peer

BASE = {"w": np.zeros(50)}
ROWS = np.random.default_rng(2).standard_normal((9, 50))


def update(number: int, values: Any) -> ModelUpdate:
    delta = {"w": np.array(values, np.float64)}
    return ModelUpdate(peer=peer(number), root=bytes([number]), delta=delta, examples=1)


def checks(*names: str, **settings: Any) -> Checks:
    return Checks(checks=[PluginRef(name=name, settings=settings.get(name, {})) for name in names])


def test_an_update_is_refused_by_the_first_rule_that_it_breaks() -> None:
    made = checks("update-check", "novelty", novelty={"min_norm": 0.1})
    assert isinstance(made, ModelValidator)
    assert made.check(update(1, ROWS[0]), BASE) is None
    assert made.check(update(1, np.full(50, np.nan)), BASE) == "finite"
    assert made.check(update(1, np.full(50, 1e30)), BASE) == "norm"
    assert made.check(update(1, np.zeros(50)), BASE) == "idle"


def test_each_check_sees_what_those_before_it_leave() -> None:
    updates = [update(number, row) for number, row in enumerate(ROWS)]
    updates[3] = update(3, 1000 * ROWS[0])  # too long, and a copy of update 0
    updates[4] = update(4, 2 * ROWS[5])
    found = {item.root[0]: rule for item, rule in checks("update-check", "novelty").judge(updates, BASE)}
    assert found == {3: "norm", 5: "near-duplicate"}
    found = {item.root[0]: rule for item, rule in checks("novelty", "update-check").judge(updates, BASE)}
    assert found == {3: "near-duplicate", 5: "near-duplicate"}
    assert {item.root[0] for item in checks("update-check", "novelty").screen(updates)} == {3, 5}


def test_checks_can_be_put_into_checks() -> None:
    inner = {"checks": [{"name": "update-check"}]}
    assert checks("checks", "novelty", checks=inner).check(update(1, np.full(50, np.inf)), BASE) == "finite"


def test_a_model_is_approved_by_all_of_them_or_not() -> None:
    class Stubborn(Check):
        def approve(self, base: object, model: object) -> str | None:
            return "no"

    made = checks("update-check")
    assert made.approve(BASE, BASE) is None
    made.checks.append(Stubborn())
    assert made.approve(BASE, BASE) == "no"


def test_a_model_is_shown_to_each_of_them() -> None:
    checks("update-check", "novelty").init(BASE)
    with pytest.raises(PluginError, match="setting free_riders"):
        checks("update-check", "novelty", novelty={"free_riders": True}).init(BASE)


@pytest.mark.parametrize(
    ("refs", "line"),
    [
        ([], "setting checks: there are none; update-check is the one to begin with"),
        (
            [{"name": "norm"}],
            "there is no check 'norm' to put together; there are: update-check, novelty, root",
        ),
        ([{"name": "novelty", "settings": {"far": 1}}], "check 'novelty': .*; it takes max_cosine, min_norm"),
        ([{"name": "novelty", "settings": {"min_norm": -1}}], "check 'novelty': setting min_norm"),
    ],
)
def test_what_cannot_be_put_together_is_explained_in_a_line(refs: list[Any], line: str) -> None:
    with pytest.raises(PluginError, match=line):
        Checks(checks=refs)


def test_every_check_is_a_validator_of_its_own() -> None:
    from importlib.metadata import entry_points

    installed = {point.name: point for point in entry_points(group="federated.plugins")}
    assert {name: installed[name].load() for name in KNOWN} == KNOWN


def test_a_check_without_rules_refuses_nothing() -> None:
    check = Check()
    check.init(BASE)
    assert check.check(update(1, ROWS[0]), BASE) is None
    assert check.screen([update(1, ROWS[0])]) == []
