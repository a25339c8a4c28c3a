from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import PluginError
from federated.parameters import Parameters
from federated.plugin import ModelUpdate, Validator
from plugins.validation.update_check import UpdateCheck
from tests.federated.samples import model, peer, update


def of_norm(number: int, norm: float) -> ModelUpdate:
    delta = {"w": np.array([norm, 0.0])}
    return ModelUpdate(peer=peer(number), root=bytes([number]), delta=delta, examples=1)


def refused(norms: list[float], **settings: float) -> list[float]:
    updates = [of_norm(number, norm) for number, norm in enumerate(norms)]
    return sorted(float(item.delta["w"][0]) for item in UpdateCheck(**settings).screen(updates))


def test_it_is_a_validator() -> None:
    assert isinstance(UpdateCheck(), Validator)


def test_good_update_breaks_no_rule() -> None:
    assert UpdateCheck().check(update(1), model()) is None


@pytest.mark.parametrize(
    ("delta", "rule"),
    [
        ({"bias": np.zeros(2, np.float32)}, "schema"),
        (model() | {"bias": np.zeros(3, np.float32)}, "schema"),
        (model() | {"bias": np.zeros(2, np.float64)}, "schema"),
        (model(math.nan), "finite"),
        (model(math.inf), "finite"),
        (model(-math.inf), "finite"),
        (model(1e30), "norm"),
        (model() | {"bias": np.full(2, 800, np.float32)}, "norm"),
    ],
)
def test_bad_update_is_refused_by_its_rule(delta: Parameters, rule: str) -> None:
    assert UpdateCheck().check(replace(update(1), delta=delta), model()) == rule


def test_norm_beyond_float64_is_refused() -> None:
    base = {"w": np.zeros(2)}
    assert UpdateCheck().check(of_norm(1, 1e300), base) == "norm"


def test_norm_may_be_as_large_as_allowed() -> None:
    base = {"w": np.zeros(2)}
    assert UpdateCheck(max_norm=5.0).check(of_norm(1, 5.0), base) is None
    assert UpdateCheck(max_norm=5.0).check(of_norm(1, 5.001), base) == "norm"


@pytest.mark.parametrize(
    ("examples", "rule"), [(0, "examples"), (-1, "examples"), (10**9, "examples"), (1, None)]
)
def test_declared_examples_are_bounded(examples: int, rule: str | None) -> None:
    assert UpdateCheck().check(update(1, examples=examples), model()) == rule


def test_update_far_over_the_median_is_refused() -> None:
    assert refused([0.5, 1.0, 1.0, 2.0, 5.5], max_ratio=5) == [5.5]
    assert refused([0.5, 1.0, 1.0, 2.0, 5.0], max_ratio=5) == []


def test_one_outlier_does_not_hide_another() -> None:
    # the median of all is 3, which allows 6; without 9 and 1e6 it is 1, and 3 and 5 are too much
    assert refused([1.0, 1.0, 1.0, 3.0, 5.0, 9.0, 1e6], max_ratio=2) == [3.0, 5.0, 9.0, 1e6]


def test_norms_of_a_few_are_not_compared() -> None:
    assert refused([1.0, 1.0, 1.0, 1e6]) == []
    assert refused([1.0, 1.0, 1.0, 1.0, 1e6]) == [1e6]


def test_updates_of_zero_do_not_expel_those_who_work() -> None:
    assert refused([0.0] * 6 + [1.0, 1.1, 1.2, 1.3, 1.4]) == []
    assert refused([0.0, 0.0, 0.0]) == []


@given(st.permutations([0.0, 0.5, 1.0, 1.2, 2.0, 8.0, 30.0, 1e9]))
def test_screening_does_not_depend_on_the_order(norms: list[float]) -> None:
    assert refused(norms, max_ratio=3) == refused(sorted(norms), max_ratio=3)


@given(st.lists(st.floats(0, 1e6), max_size=10), st.floats(2, 20))
def test_screening_again_refuses_nothing_more(norms: list[float], ratio: float) -> None:
    out = refused(norms, max_ratio=ratio)
    staying = sorted(norms)[: len(norms) - len(out)]
    assert sorted([*staying, *out]) == sorted(norms)
    assert refused(staying, max_ratio=ratio) == []


@pytest.mark.parametrize("setting", ["max_norm", "max_ratio", "max_examples"])
def test_wrong_setting_is_named(setting: str) -> None:
    with pytest.raises(PluginError, match=f"setting {setting}"):
        UpdateCheck(**{setting: 0})
