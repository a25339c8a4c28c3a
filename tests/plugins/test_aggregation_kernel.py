from __future__ import annotations

import itertools
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import AggregationError
from plugins.aggregation import blocks
from plugins.aggregation import gram as gram_module
from plugins.aggregation.blocks import Plan, advance, steps
from plugins.aggregation.exact import BITS, SEGMENT, matmul
from plugins.aggregation.gram import gram
from plugins.aggregation.network import network, sorted_rows
from plugins.aggregation.pipeline import RULES
from tests.architecture import ROOT

RNG = np.random.default_rng(5)


def rounded(segment: list[float]) -> list[Fraction]:
    """To whole units, BITS bits below the power of two over the largest value; ties to even."""
    top = max(abs(Fraction(value)) for value in segment)
    if not top:
        return [Fraction(0)] * len(segment)
    power = Fraction(1)
    while power <= top:
        power *= 2
    while power / 2 > top:
        power /= 2
    unit = power / 2**BITS
    return [round(Fraction(value) / unit) * unit for value in segment]


def exact(one: list[float], other: list[float]) -> Fraction:
    return sum((a * b for a, b in zip(rounded(one), rounded(other), strict=True)), Fraction(0))


@given(st.lists(st.tuples(*[st.floats(-(2.0**100), 2.0**100, width=32)] * 3), min_size=1, max_size=12))
def test_inner_products_are_the_exact_ones_of_the_rounded_deltas(rows: list[tuple[float, ...]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)]
    found = gram([{"w": np.array(column, np.float32)} for column in columns])
    for (i, one), (j, other) in itertools.product(enumerate(columns), repeat=2):
        assert found[i, j] == float(exact(one, other))


def test_whatever_the_order_a_full_segment_of_the_largest_values_is_exact() -> None:
    largest = np.nextafter(np.float32(2), np.float32(0))  # rounds up to 2**BITS units
    full = {"w": np.full(SEGMENT, largest)}
    assert gram([full])[0, 0] == float(Fraction(2) ** 2 * SEGMENT)
    for _ in range(20):
        deltas = [{"w": RNG.uniform(1.5, 2, SEGMENT)} for _ in range(2)]
        rows = [delta["w"].tolist() for delta in deltas]
        found = gram(deltas)
        assert [found[0, 0], found[0, 1]] == [exact(rows[0], rows[0]), exact(rows[0], rows[1])]
    odd = {"w": np.full(SEGMENT, 1 + 2.0 ** (1 - BITS))}
    assert gram([odd])[0, 0] == float((1 + Fraction(2, 2**BITS)) ** 2 * SEGMENT)


def test_products_are_the_exact_ones_of_the_rounded_matrices() -> None:
    left, right = RNG.standard_normal((3, 5)) * 1e6, RNG.standard_normal((5, 2))
    found = matmul(left, right)
    for (i, row), (j, column) in itertools.product(enumerate(left), enumerate(right.T)):
        assert found[i, j] == float(exact(row.tolist(), column.tolist()))


def test_long_products_are_near_the_ordinary_ones_and_leave_their_factors_alone() -> None:
    left, right = RNG.standard_normal((4, 3 * SEGMENT + 7)), RNG.standard_normal((3 * SEGMENT + 7, 5))
    before = left.tobytes() + right.tobytes()
    assert matmul(left, right) == pytest.approx(left @ right, rel=1e-4, abs=1e-3)
    assert left.tobytes() + right.tobytes() == before
    assert matmul(left[:, :0], right[:0]).tolist() == [[0.0] * 5] * 4
    with pytest.raises(OverflowError):
        matmul(left * np.inf, right)


def test_tensors_of_all_dtypes_and_sizes_count() -> None:
    deltas = [
        {
            "a": RNG.standard_normal((50, 90)).astype(np.float32),
            "b": RNG.standard_normal(3 * SEGMENT + 1),
            "c": RNG.integers(-100, 100, (7, 3), np.int8),
            "d": np.zeros((0, 4), np.float32),
            "e": np.array(3, np.int64),
        }
        for _ in range(4)
    ]
    found = gram(deltas)
    for i, j in itertools.product(range(4), repeat=2):
        expected = sum(
            float(np.vdot(deltas[i][name].astype(float), deltas[j][name].astype(float))) for name in deltas[0]
        )
        assert found[i, j] == pytest.approx(expected, rel=1e-5, abs=1e-2)


def test_equal_deltas_are_at_no_distance() -> None:
    delta = {"w": RNG.standard_normal(10_000).astype(np.float32)}
    found = gram([delta, {"w": RNG.standard_normal(10_000).astype(np.float32)}, {"w": delta["w"].copy()}])
    assert found[0, 0] + found[2, 2] - 2 * found[0, 2] == 0
    assert (found == found.T).all()


def test_how_much_is_looked_at_at_a_time_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    deltas = [{"w": RNG.standard_normal(9 * SEGMENT + 5).astype(np.float32)} for _ in range(3)]
    whole = gram(deltas)
    monkeypatch.setattr(gram_module, "BLOCK", 1)
    assert (gram(deltas) == whole).all()


def test_every_rule_makes_the_same_bits_on_other_processors() -> None:
    """Other kernels of the matrix products, other numbers of threads, no vector instructions in numpy."""
    features = "X86_V3 X86_V4 AVX512_ICL AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX2 FMA3"
    plain = {
        "OPENBLAS_NUM_THREADS": "1",
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": features,
    }
    command = [sys.executable, "-W", "ignore", "-m", "tests.plugins.aggregation_bits"]
    found = [
        subprocess.run(command, env=os.environ | changes, cwd=ROOT, capture_output=True, check=True).stdout
        for changes in ({"OPENBLAS_NUM_THREADS": "2"}, plain)
    ]
    assert found[0] == found[1]
    assert found[0].count(b"\n") == len(RULES) + 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_what_is_not_finite_or_far_too_large_is_refused(value: float) -> None:
    with pytest.raises(
        AggregationError, match=r"of w is not finite, or far too large: have a validator refuse it"
    ):
        gram([{"w": np.ones(3)}, {"w": np.array([0.0, value, 0.0])}])


def test_values_too_small_to_square_count_as_nothing() -> None:
    assert gram([{"w": np.array([1e-200, 5e-324])}])[0, 0] == 0


@pytest.mark.parametrize("count", range(1, 11))
def test_networks_sort_all_zeros_and_ones_and_so_everything(count: int) -> None:
    """The principle of zeros and ones: Knuth, volume 3, 5.3.4, Theorem Z."""
    columns = np.array(list(itertools.product([0, 1], repeat=count)), np.int8).T
    expected = np.sort(columns, axis=0)
    for first, last in {(0, count), ((count - 1) // 2, count // 2 + 1), (count // 4, count - count // 4)}:
        assert (np.array(sorted_rows(columns.copy(), first, last)) == expected[first:last]).all()


def test_large_networks_sort() -> None:
    columns = RNG.standard_normal((77, 50))
    assert (np.array(sorted_rows(columns.copy(), 10, 70)) == np.sort(columns, axis=0)[10:70]).all()


def test_what_nobody_wants_to_know_is_not_compared() -> None:
    everything = sum(item.wants_low + item.wants_high for item in network(10, 0, 10))
    middle = sum(item.wants_low + item.wants_high for item in network(10, 4, 6))
    assert middle < everything == 2 * len(network(10, 0, 10))


@pytest.mark.parametrize("place", range(7))
def test_nan_is_never_sorted_away(place: int) -> None:
    rows = RNG.standard_normal((7, 3))
    rows[place, 1] = np.nan
    middle = sorted_rows(rows, 3, 4)[0]
    assert np.isnan(middle).tolist() == [False, True, False]


def test_steps_go_through_every_array_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 4)
    base = {"b": np.zeros((3, 3)), "a": np.zeros(5)}
    deltas = [{"a": np.arange(5.0), "b": np.arange(9.0).reshape(3, 3)}]
    seen = [
        (step.name, step.start, step.stop, step.values.tolist())
        for step in steps(base, deltas, Plan(np.eye(1)))
    ]
    assert seen == [
        ("a", 0, 4, [0, 1, 2, 3]),
        ("a", 4, 5, [4]),
        ("b", 0, 4, [0, 1, 2, 3]),
        ("b", 4, 8, [4, 5, 6, 7]),
        ("b", 8, 9, [8]),
    ]


def test_minus_zero_is_zero_on_every_processor() -> None:
    base = {"w": np.array([-0.0])}
    delta = {"w": np.array([-0.0])}
    for plan in (Plan(np.eye(1)), Plan(np.eye(1), lambda rows: rows[0].astype(np.float64))):
        moved = advance(base, steps(base, [delta], plan))
        assert not np.signbit(moved["w"]).any()


def test_an_update_of_another_size_is_refused() -> None:
    base = {"w": np.zeros(3)}
    with pytest.raises(AggregationError, match="of w has another size"):
        advance(base, steps(base, [{"w": np.zeros(1)}], Plan(np.eye(1))))
