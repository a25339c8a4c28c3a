from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.codec import encode, schema_of
from federated.errors import AggregationError, PluginError
from federated.manifest import PluginRef
from federated.parameters import Parameters
from federated.plugin import Aggregator, ModelUpdate
from plugins.aggregation import blocks
from plugins.aggregation.centered_clipping import CenteredClipping
from plugins.aggregation.flame import Flame
from plugins.aggregation.geometric_median import GeometricMedian
from plugins.aggregation.median import CoordinateMedian
from plugins.aggregation.pipeline import Pipeline
from plugins.aggregation.trimmed_mean import TrimmedMean
from plugins.aggregation.weighted_mean import WeightedMean, capped_weights
from tests.federated.samples import model, peer, update

RULES: list[Callable[[], Aggregator]] = [
    WeightedMean,
    TrimmedMean,
    CoordinateMedian,
    GeometricMedian,
    CenteredClipping,
    Flame,
    lambda: Pipeline(
        steps=[PluginRef(name="clip"), PluginRef(name="nnm", settings={"f": 0}), PluginRef(name="bucketing")],
        rule=PluginRef(name="median"),
    ),
]


def scalars(values: list[float], examples: list[int] | None = None) -> list[ModelUpdate]:
    counts = examples or [1] * len(values)
    return [update(number, value, counts[number]) for number, value in enumerate(values)]


def value_of(parameters: Parameters) -> float:
    """The one number that fills all tensors."""
    values = {float(value) for array in parameters.values() for value in array.ravel()}
    assert len(values) == 1
    return values.pop()


def test_weighted_mean_by_hand() -> None:
    result = WeightedMean().aggregate(model(10.0), scalars([1.0, 2.0, 4.0], [10, 20, 10]))
    assert value_of(result) == 12.25


def test_trimmed_mean_by_hand() -> None:
    updates = scalars([-1000.0, 1.0, 2.0, 6.0, 1e6])
    assert value_of(TrimmedMean(trim=0.2).aggregate(model(), updates)) == 3.0
    assert value_of(TrimmedMean(trim=0.4).aggregate(model(), updates)) == 2.0
    assert value_of(TrimmedMean(trim=0.0).aggregate(model(), scalars([1.0, 2.0, 6.0]))) == 3.0


def test_trimmed_mean_looks_at_each_coordinate_on_its_own() -> None:
    deltas = ([9.0, 1.0], [1.0, 9.0], [2.0, 2.0], [3.0, 3.0], [-9.0, -9.0])
    updates = [
        ModelUpdate(peer=peer(n), root=bytes([n]), delta={"w": np.array(delta, np.float32)}, examples=1)
        for n, delta in enumerate(deltas)
    ]
    result = TrimmedMean(trim=0.2).aggregate({"w": np.zeros(2, np.float32)}, updates)
    assert result["w"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("trim", "count", "kept"), [(0.29, 100, 42), (0.2, 4, 4), (0.25, 4, 2), (0.49, 3, 1)]
)
def test_the_share_trimmed_at_each_end_is_rounded_down(trim: float, count: int, kept: int) -> None:
    values = [0.0] * ((count - kept) // 2) + [1.0] * kept + [1e9] * ((count - kept) // 2)
    updates = [
        ModelUpdate(peer=peer(1), root=b"", delta={"w": np.array([value])}, examples=1) for value in values
    ]
    assert TrimmedMean(trim=trim).aggregate({"w": np.zeros(1)}, updates)["w"].tolist() == [1.0]


def test_trimmed_mean_of_a_large_tensor_is_that_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    updates = [
        ModelUpdate(
            peer=peer(n), root=bytes([n]), delta={"w": generator.standard_normal((10, 10))}, examples=1
        )
        for n in range(7)
    ]
    base = {"w": np.zeros((10, 10))}
    whole = TrimmedMean(trim=0.3).aggregate(base, updates)
    monkeypatch.setattr(blocks, "BLOCK", 49)
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 7)
    assert encode(TrimmedMean(trim=0.3).aggregate(base, updates)) == encode(whole)
    expected = np.sort([update.delta["w"] for update in updates], axis=0)[2:5].mean(axis=0)
    assert whole["w"] == pytest.approx(expected)


def test_one_peer_that_declares_a_billion_examples_does_not_replace_the_model() -> None:
    updates = scalars([100.0, 1.0, 1.0, 1.0, 1.0], [10**9, 10, 10, 10, 10])
    result = value_of(WeightedMean(max_weight=3.0).aggregate(model(), updates))
    assert result == pytest.approx((3 * 100.0 + 4) / 7)
    assert value_of(TrimmedMean().aggregate(model(), updates)) == 1.0


@pytest.mark.parametrize(
    ("counts", "weights"),
    [
        ([], []),
        ([5], [5.0]),
        ([10, 10**9], [10.0, 30.0]),
        ([10, 20, 100], [10.0, 20.0, 60.0]),
        ([1, 10, 20, 100], [1.0, 10.0, 20.0, 30.0]),
    ],
)
def test_counts_are_capped_by_their_median(counts: list[int], weights: list[float]) -> None:
    assert capped_weights(counts, 3.0) == weights


@pytest.mark.parametrize("rule", RULES)
@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9),
    seed=st.integers(0, 1000),
)
def test_aggregate_is_the_same_bits_every_time(
    rule: Callable[[], Aggregator], values: list[float], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    base = {"b": generator.standard_normal(3).astype(np.float32), "n": np.arange(4, dtype=np.int32)}
    updates = [
        ModelUpdate(
            peer=peer(n),
            root=bytes([n]),
            delta={"b": np.full(3, value, np.float32), "n": np.full(4, n, np.int32)},
            examples=n + 1,
        )
        for n, value in enumerate(values)
    ]
    first = rule().aggregate(base, updates)
    copies = [
        ModelUpdate(
            peer=item.peer,
            root=item.root,
            delta={name: np.asfortranarray(array.copy()) for name, array in reversed(item.delta.items())},
            examples=item.examples,
        )
        for item in updates
    ]
    assert encode(rule().aggregate(dict(reversed(base.items())), copies)) == encode(first)
    assert schema_of(first) == schema_of(base)


@pytest.mark.parametrize("rule", RULES)
def test_inputs_are_left_alone(rule: Callable[[], Aggregator]) -> None:
    base, updates = model(1.0), scalars([1.0, 2.0, 3.0])
    before = [encode(base), *(encode(item.delta) for item in updates)]
    rule().aggregate(base, updates)
    assert [encode(base), *(encode(item.delta) for item in updates)] == before


@pytest.mark.parametrize("rule", RULES)
def test_no_update_is_no_model(rule: Callable[[], Aggregator]) -> None:
    with pytest.raises(AggregationError, match="nothing to average"):
        rule().aggregate(model(), [])


@pytest.mark.parametrize("rule", RULES)
def test_aggregate_that_overflows_its_dtype_is_refused(rule: Callable[[], Aggregator]) -> None:
    with pytest.raises(AggregationError, match="does not fit float32"):
        rule().aggregate(model(3e38), scalars([3e38, 3e38]))


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: TrimmedMean(trim=0.5), "trim"),
        (lambda: TrimmedMean(trim=-0.1), "trim"),
        (lambda: WeightedMean(max_weight=0.5), "max_weight"),
        (lambda: WeightedMean(max_weight=float("inf")), "max_weight"),
    ],
)
def test_wrong_setting_is_named(make: Callable[[], Aggregator], setting: str) -> None:
    with pytest.raises(PluginError, match=f"setting {setting}"):
        make()
