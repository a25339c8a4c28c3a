from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.codec import encode
from federated.errors import AggregationError, PluginError
from federated.parameters import Parameters
from federated.plugin import ModelUpdate
from plugins.aggregation.bulyan import Bulyan
from plugins.aggregation.centered_clipping import CenteredClipping
from plugins.aggregation.flame import Flame
from plugins.aggregation.geometric_median import GeometricMedian
from plugins.aggregation.krum import Krum, MultiKrum
from plugins.aggregation.median import CoordinateMedian
from plugins.aggregation.rule import Rule
from plugins.aggregation.trimmed_mean import TrimmedMean
from plugins.aggregation.weighted_mean import WeightedMean
from tests.federated.samples import peer
from tests.plugins import aggregation_reference as reference

Vectors = Sequence[Sequence[float]]


def updates(
    points: Vectors, staleness: Sequence[int] = (), examples: Sequence[int] = ()
) -> list[ModelUpdate]:
    """Each point as a delta of two tensors, in the order of their roots."""
    return [
        ModelUpdate(
            peer=peer(number),
            root=bytes([number]),
            delta={"a": np.array(point[:1]), "b": np.array(point[1:])},
            examples=examples[number] if examples else 1,
            staleness=staleness[number] if staleness else 0,
        )
        for number, point in enumerate(points)
    ]


def base(width: int, value: float = 0.0) -> Parameters:
    return {"a": np.full(1, value), "b": np.full(width - 1, value)}


def vector(model: Parameters) -> list[float]:
    return [*model["a"].tolist(), *model["b"].tolist()]


def result(rule: Rule, points: Vectors, **of: Sequence[int]) -> list[float]:
    return vector(rule.aggregate(base(len(points[0])), updates(points, **of)))


@dataclass(frozen=True)
class Case:
    """A rule, and how many updates it needs to withstand one liar."""

    make: Callable[[], Rule]
    least: int

    def __str__(self) -> str:
        return type(self.make()).__name__


ROBUST = [
    Case(CoordinateMedian, 3),
    Case(lambda: TrimmedMean(trim=0.34), 3),
    Case(lambda: Krum(f=1), 5),
    Case(lambda: MultiKrum(f=1), 5),
    Case(lambda: Bulyan(f=1), 7),
    Case(GeometricMedian, 4),
    Case(lambda: CenteredClipping(iterations=20), 4),
]
WITH_F = [(Krum, "krum", 5), (MultiKrum, "multi-krum", 5), (Bulyan, "bulyan", 7)]
ALL = [*ROBUST, Case(WeightedMean, 1), Case(Flame, 3)]

# eighths of at most 10 bits: the rounding of inner products leaves them as they are
eighths = st.integers(-500, 500).map(lambda value: value / 8)


def clouds(least: int, most: int = 9) -> st.SearchStrategy[list[list[float]]]:
    return st.lists(st.lists(eighths, min_size=3, max_size=3), min_size=least, max_size=most)


def exactly(points: Vectors) -> list[list[Fraction]]:
    return [[Fraction(value) for value in point] for point in points]


def floats(point: Sequence[Fraction]) -> list[float]:
    return [float(value) for value in point]


def test_median_by_hand() -> None:
    assert result(CoordinateMedian(), [[1.0, 9.0], [2.0, 1e9], [9.0, 1.0]]) == [2.0, 9.0]
    assert result(CoordinateMedian(), [[1.0, 9.0], [2.0, 1e9], [9.0, 1.0], [4.0, 3.0]]) == [3.0, 6.0]


def test_krum_by_hand() -> None:
    points = [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [90.0, 90.0]]
    # two neighbours each: 1 + 2, 1 + 1, 2 + 4, 1 + 2
    assert result(Krum(f=1), points) == [1.0, 0.0]
    assert result(MultiKrum(f=1, select=2), points) == [0.5, 0.0]
    assert result(MultiKrum(f=1), points) == [0.5, 0.75]


def test_of_updates_with_the_same_score_the_first_root_is_chosen() -> None:
    square = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0], [50.0, 50.0]]
    assert result(Krum(f=1), square) == [1.0, 1.0]
    assert result(Krum(f=1), list(reversed(square))) == [-1.0, -1.0]


def test_bulyan_by_hand() -> None:
    points = [[value, value] for value in (0.0, 1.0, 2.0, 3.0, 4.0, 100.0, -100.0)]
    # 0 to 4 are selected: of those the three nearest to 2
    assert result(Bulyan(f=1), points) == [2.0, 2.0]


def test_geometric_median_by_hand() -> None:
    """The corners of a square and its centre; and on a line, the middle one however far the last is."""
    square = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]]
    assert result(GeometricMedian(), square) == pytest.approx([0.0, 0.0], abs=1e-6)
    line = [[0.0, 0.0], [1.0, 0.0], [1e6, 0.0]]
    assert result(GeometricMedian(iterations=100), line) == pytest.approx([1.0, 0.0], abs=1e-3)


def test_centered_clipping_by_hand() -> None:
    points = [[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]
    assert result(CenteredClipping(radius=1.0, iterations=1), points) == pytest.approx([0.3, 0.4])


def test_flame_by_hand() -> None:
    points = [[3.0, 0.0], [0.0, 1.0], [2.0, 0.0], [-50.0, 0.0], [6.0, 1e-3]]
    # three point one way; 3.0 is the median length
    assert result(Flame(), points) == pytest.approx([8 / 3, 0.0], abs=1e-3)


@given(clouds(1))
def test_median_and_trimmed_mean_are_those_of_exact_arithmetic(points: list[list[float]]) -> None:
    assert result(CoordinateMedian(), points) == floats(reference.median(exactly(points)))
    drop = int(0.3 * len(points) + 1e-9)
    found = result(TrimmedMean(trim=0.3), points)
    assert found == pytest.approx(floats(reference.trimmed_mean(exactly(points), drop)), abs=1e-12)


@given(clouds(7, 11))
def test_krum_is_that_of_exact_arithmetic(points: list[list[float]]) -> None:
    assert result(Krum(f=2), points) == floats(reference.krum(exactly(points), 2))
    found = result(MultiKrum(f=2), points)
    assert found == pytest.approx(floats(reference.multi_krum(exactly(points), 2)), abs=1e-12)


@given(clouds(7, 13), st.integers(0, 2))
def test_bulyan_is_that_of_exact_arithmetic(points: list[list[float]], f: int) -> None:
    f = min(f, (len(points) - 3) // 4)
    found = result(Bulyan(f=f), points)
    assert found == pytest.approx(floats(reference.bulyan(exactly(points), f)), abs=1e-9)


@settings(max_examples=25)
@given(clouds(3, 6))
def test_geometric_median_has_the_smallest_sum_of_distances(points: list[list[float]]) -> None:
    found = result(GeometricMedian(iterations=300), points)
    best = reference.geometric_median(points)
    cost = sum(reference.distance(found, point) for point in points)
    least = sum(reference.distance(best, point) for point in points)
    assert cost <= least * (1 + 1e-3) + 1e-3


@given(clouds(1), st.floats(0.5, 100), st.integers(1, 5))
def test_centered_clipping_is_that_of_explicit_vectors(
    points: list[list[float]], radius: float, times: int
) -> None:
    found = result(CenteredClipping(radius=radius, iterations=times), points)
    assert found == pytest.approx(reference.centered_clipping(points, radius, times), abs=1e-4)


def test_flame_finds_the_same_majority_in_another_way() -> None:
    generator = np.random.default_rng(3)
    for count in range(1, 12):
        for _ in range(5):
            points = generator.standard_normal((count, 3)).round(3).tolist()
            assert result(Flame(), points) == pytest.approx(reference.flame(points), abs=1e-4)


@pytest.mark.parametrize("case", ALL, ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_the_order_of_the_updates_changes_no_bit(case: Case, data: st.DataObject) -> None:
    points = data.draw(clouds(case.least))
    items = updates(points, staleness=[number % 3 for number in range(len(points))])
    shuffled = data.draw(st.permutations(items))
    first = case.make().aggregate(base(3), items)
    assert encode(case.make().aggregate(base(3), shuffled)) == encode(first)


@pytest.mark.parametrize("case", [case for case in ROBUST if str(case) != "CenteredClipping"], ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_what_moves_all_updates_moves_the_result_as_much(case: Case, data: st.DataObject) -> None:
    points = data.draw(clouds(case.least))
    shift = data.draw(st.lists(eighths, min_size=3, max_size=3))
    moved = [[value + by for value, by in zip(point, shift, strict=True)] for point in points]
    expected = [value + by for value, by in zip(result(case.make(), points), shift, strict=True)]
    assert result(case.make(), moved) == pytest.approx(expected, abs=1e-2 if "Geo" in str(case) else 1e-9)


@pytest.mark.parametrize("case", ROBUST, ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_one_liar_cannot_carry_the_model_away(case: Case, data: st.DataObject) -> None:
    """However far away it is, the result stays near the honest ones, which are all within 1 of 10."""
    near = st.lists(st.integers(72, 88).map(lambda value: value / 8), min_size=3, max_size=3)
    honest = data.draw(st.lists(near, min_size=case.least - 1, max_size=8))
    lie = [data.draw(st.sampled_from([1e3, 1e9, -1e15])) for _ in range(3)]
    place = data.draw(st.integers(0, len(honest)))
    found = result(case.make(), [*honest[:place], lie, *honest[place:]])
    assert max(abs(value - 10.0) for value in found) < 4.0


def test_one_liar_carries_the_mean_away() -> None:
    assert result(WeightedMean(), [[1.0, 1.0], [1.0, 1.0], [1e9, 1.0]])[0] > 1e8


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("case", ALL, ids=str)
@pytest.mark.parametrize("place", [0, 3, 6])
def test_nan_never_gets_in(case: Case, value: float, place: int) -> None:
    """Whether the rule refuses it or leaves it out, no model has a value that is none."""
    points = [[1.0, float(number)] for number in range(7)]
    points[place][1] = value
    try:
        found = result(case.make(), points)
    except AggregationError:
        return
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("make", "name", "least"), WITH_F)
def test_too_few_updates_for_f_are_refused_with_what_to_do(
    make: Callable[..., Rule], name: str, least: int
) -> None:
    points = [[float(number), 0.0] for number in range(least)]
    result(make(f=1), points)
    line = rf"^{name} with f = 1 needs {least} updates, there are {least - 1}: lower f, or raise min_updates"
    with pytest.raises(AggregationError, match=line):
        result(make(f=1), points[1:])
    with pytest.raises(PluginError, match="setting f"):
        make(f=-1)


def test_multi_krum_does_not_select_liars_on_purpose() -> None:
    with pytest.raises(AggregationError, match="selects 5 of 5 updates, 1 of them liars: lower select"):
        result(MultiKrum(f=1, select=5), [[float(number), 0.0] for number in range(5)])


@pytest.mark.parametrize(
    "make", [WeightedMean, lambda: MultiKrum(f=0), Flame, lambda: CenteredClipping(radius=1e9, iterations=1)]
)
def test_a_late_update_weighs_less(make: Callable[[], Rule]) -> None:
    points = [[3.0, 3.0], [1.0, 1.0], [1.0, 1.0]]
    fresh, late = result(make(), points), result(make(), points, staleness=[3, 0, 0])
    assert fresh == pytest.approx([5 / 3, 5 / 3] if make is not Flame else [1.0, 1.0])
    assert late == pytest.approx([1.4, 1.4] if make is not Flame else [1.0, 1.0])


def test_a_late_update_pulls_the_geometric_median_less() -> None:
    points = [[0.0, 0.0], [1.0, 0.0]]
    assert result(GeometricMedian(), points, staleness=[8, 0])[0] > 0.9
    assert result(GeometricMedian(), points, staleness=[0, 8])[0] < 0.1


@pytest.mark.parametrize("case", ROBUST, ids=str)
def test_robust_rules_do_not_believe_example_counts(case: Case) -> None:
    points = [[float(number), float(number * number)] for number in range(8)]
    bragging = [10**9, *[1] * 7]
    assert result(case.make(), points, examples=bragging) == result(case.make(), points)


def test_updates_of_zeros_are_no_trouble() -> None:
    for case in ALL:
        assert result(case.make(), [[0.0, 0.0]] * 7) == [0.0, 0.0]
