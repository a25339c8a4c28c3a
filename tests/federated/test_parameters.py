from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import AggregationError
from federated.parameters import add_step, difference, l2_norm, non_finite, schema_of, weighted_mean
from tests.federated.samples import model


def test_schema_is_sorted_by_name_and_readable() -> None:
    assert [str(spec) for spec in schema_of(dict(reversed(model().items())))] == [
        "bias float32[2]",
        "weight float32[3, 2]",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_tensor_is_named(value: float) -> None:
    parameters = model()
    parameters["weight"][1, 1] = value
    assert non_finite(parameters) == "weight"
    assert non_finite(model() | {"count": np.ones(1, np.int64)}) is None


def test_norm_is_over_all_tensors() -> None:
    assert l2_norm({"a": np.array([3.0], np.float32), "b": np.array([[4.0]]), "c": np.zeros(0)}) == 5.0
    assert l2_norm({"a": np.array([1e300])}) == math.inf


def test_difference_keeps_the_dtypes_of_the_base() -> None:
    base = {"a": np.array([1.0], np.float32), "n": np.array([3], np.int64)}
    new = {"a": np.array([1.5]), "n": np.array([5], np.int64)}
    delta = difference(new, base)
    assert schema_of(delta) == schema_of(base)
    assert delta["a"][0] == 0.5
    assert delta["n"][0] == 2


def test_difference_that_overflows_is_left_for_validation() -> None:
    delta = difference({"a": np.array([3e38], np.float32)}, {"a": np.array([-3e38], np.float32)})
    assert non_finite(delta) == "a"


def test_weighted_mean_by_hand() -> None:
    mean = weighted_mean([({"a": np.array([1.0, 2.0])}, 1.0), ({"a": np.array([5.0, 10.0])}, 3.0)])
    assert mean["a"].tolist() == [4.0, 8.0]


@pytest.mark.parametrize("weights", [[], [0.0], [0.0, 0.0]])
def test_mean_without_weight_is_refused(weights: list[float]) -> None:
    with pytest.raises(AggregationError, match="nothing to average"):
        weighted_mean([(model(), weight) for weight in weights])


@given(st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.integers(1, 1000)), min_size=1, max_size=8))
def test_mean_is_the_same_bits_as_one_number_at_a_time(items: list[tuple[float, int]]) -> None:
    total = sum(weight for _, weight in items)
    expected = 0.0
    for value, weight in items:
        expected += (weight / total) * float(np.float32(value))
    mean = weighted_mean([({"a": np.full(33, value, np.float32)}, float(weight)) for value, weight in items])
    assert mean["a"].tobytes() == np.full(33, expected).tobytes()


def test_step_keeps_dtypes_and_rounds_integers() -> None:
    base = {"a": np.array([1.0], np.float32), "n": np.array([1, 2, 3], np.int16)}
    result = add_step(base, {"a": np.array([0.5]), "n": np.array([0.4, 0.6, 1.5])})
    assert schema_of(result) == schema_of(base)
    assert result["a"].tolist() == [1.5]
    assert result["n"].tolist() == [1, 3, 4]


@pytest.mark.parametrize(
    ("dtype", "step"),
    [
        (np.float32, 1e39),
        (np.float32, math.nan),
        (np.int8, 128.0),
        (np.int64, 2.0**54),
        (np.int64, math.nan),
        (np.uint8, -1.0),
    ],
)
def test_result_that_does_not_fit_its_dtype_is_refused(dtype: type, step: float) -> None:
    with pytest.raises(AggregationError, match="the aggregate of a does not fit"):
        add_step({"a": np.zeros(1, dtype)}, {"a": np.array([step])})
