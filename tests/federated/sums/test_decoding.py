"""Who told another value: against a search through all sets of liars, in plain integers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.sums.decoding import open_arrays, room, wrong_values
from federated.sums.field import PRIME, weights


def value(coefficients: Sequence[int], point: int) -> int:
    return sum(c * point**k for k, c in enumerate(coefficients)) % PRIME


def searched(points: Sequence[int], values: Sequence[int], degree: int) -> list[int] | None:
    """What `wrong_values` says, found by trying all sets."""
    for count in range(room(len(points), degree) + 1):
        for out in itertools.combinations(range(len(points)), count):
            rest = [at for at in range(len(points)) if at not in out]
            base = rest[: degree + 1]
            for at in rest:
                factors = weights([points[known] for known in base], points[at])
                if (
                    sum(f * values[known] for f, known in zip(factors, base, strict=True)) % PRIME
                    != values[at]
                ):
                    break
            else:
                return list(out)
    return None


@given(
    degree=st.integers(0, 4),
    extra=st.integers(0, 7),
    liars=st.integers(0, 6),
    seed=st.integers(0, 1 << 32),
    kind=st.sampled_from(["random", "one", "other polynomial"]),
)
def test_liars_are_found_as_a_search_finds_them(
    degree: int, extra: int, liars: int, seed: int, kind: str
) -> None:
    rng = random.Random(seed)
    points = sorted(rng.sample(range(1, 65), degree + 1 + extra))
    truth, other = ([rng.randrange(PRIME) for _ in range(degree + 1)] for _ in range(2))
    values = [value(truth, point) for point in points]
    wrong = sorted(rng.sample(range(len(points)), min(liars, len(points))))
    for at in wrong:
        lie = {
            "random": rng.randrange(PRIME),
            "one": values[at] + 1,
            "other polynomial": value(other, points[at]),
        }
        values[at] = lie[kind] % PRIME
    found = wrong_values(points, values, degree)
    assert found == searched(points, values, degree)
    if len(wrong) <= room(len(points), degree):
        assert found == [at for at in wrong if values[at] != value(truth, points[at])]


def test_too_few_values_are_those_of_any_polynomial() -> None:
    assert wrong_values([1, 2], [5, 6], 2) is None
    assert wrong_values([1, 2, 3], [5, 6, 99], 2) == []
    assert open_arrays([1, 2], [np.zeros(1, np.uint32)] * 2, 2) is None


@settings(max_examples=60)
@given(
    faults=st.integers(1, 4),
    silent=st.integers(0, 4),
    size=st.integers(1, 40),
    seed=st.integers(0, 1 << 32),
    data=st.data(),
)
def test_sums_are_opened_in_spite_of_as_many_liars_as_may_be(
    faults: int, silent: int, size: int, seed: int, data: st.DataObject
) -> None:
    """Each liar lies where it likes, so in no place need all of them be seen."""
    rng = random.Random(seed)
    count = 4 * faults + 1 - min(silent, faults)
    points = sorted(rng.sample(range(1, 22), count))
    truth = [[rng.randrange(PRIME) for _ in range(faults + 1)] for _ in range(size)]
    arrays = [np.array([value(row, point) for row in truth], np.uint32) for point in points]
    lies = data.draw(
        st.lists(st.tuples(st.integers(0, faults - 1), st.integers(0, size - 1), st.integers(1, PRIME - 1)))
    )
    wrong = rng.sample(range(count), faults)
    for liar, place, by in lies:
        arrays[wrong[liar]][place] = (int(arrays[wrong[liar]][place]) + by) % PRIME
    opened = open_arrays(points, arrays, faults)
    assert opened is not None
    assert opened[0].tolist() == [row[0] for row in truth]
    changed = [at for at in range(count) if arrays[at].tolist() != [value(row, points[at]) for row in truth]]
    assert opened[1] == changed


@pytest.mark.parametrize("places", [(0, 0, 0), (0, 1, 2)])
def test_more_liars_than_may_be_open_nothing(places: tuple[int, ...]) -> None:
    """Three of seven with a polynomial of degree 2: in one place, or each in another one."""
    rng = random.Random(5)
    points = range(1, 8)
    truth = [[rng.randrange(PRIME) for _ in range(3)] for _ in range(3)]
    arrays = [np.array([value(row, point) for row in truth], np.uint32) for point in points]
    for liar, place in enumerate(places):
        arrays[liar][place] ^= 1 + liar
    assert open_arrays(points, arrays, 2) is None
