"""Arithmetic modulo the prime against Python's own integers, and that shares tell nothing and everything."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.sums import field
from federated.sums.field import (
    BLOCK,
    PRIME,
    Draw,
    Elements,
    add,
    combine,
    inner,
    reduced,
    share,
    uniform,
    weights,
)

element = st.one_of(st.integers(0, PRIME - 1), st.sampled_from([0, 1, PRIME - 1, PRIME // 2]))
KEY = bytes(32)


def elements(values: list[int]) -> Elements:
    return np.array(values, np.uint32)


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=20))
def test_every_number_of_64_bits_is_reduced(values: list[int]) -> None:
    found = reduced(np.array(values, np.uint64))
    assert found.tolist() == [value % PRIME for value in values]


@given(st.lists(st.tuples(element, element, element), min_size=1, max_size=20), element, element)
def test_sums_and_products_are_those_of_integers(
    rows: list[tuple[int, int, int]], first: int, second: int
) -> None:
    one, two, three = (elements([row[at] for row in rows]) for at in range(3))
    assert combine([one, two], [first, second]).tolist() == [
        (a * first + b * second) % PRIME for a, b, _ in rows
    ]
    assert inner(one, two) == sum(a * b for a, b, _ in rows) % PRIME
    add(three, one)
    assert three.tolist() == [(a + c) % PRIME for a, _, c in rows]


def test_more_than_a_block_is_added_up() -> None:
    size = 2 * BLOCK + 5
    large = np.full(size, PRIME - 1, np.uint32)
    assert inner(large, large) == size % PRIME
    assert (combine([large, large], [PRIME - 1, PRIME - 1]) == 2).all()
    total = large.copy()
    add(total, large)
    assert (total == PRIME - 2).all()


@given(
    secrets=st.lists(element, min_size=1, max_size=5),
    degree=st.integers(1, 5),
    extra=st.integers(1, 6),
    key=st.binary(min_size=32, max_size=32),
    pick=st.randoms(use_true_random=False),
)
def test_any_shares_that_are_enough_tell_the_secrets(
    secrets: list[int], degree: int, extra: int, key: bytes, pick: object
) -> None:
    points = range(1, degree + extra + 1)
    shares = share(elements(secrets), degree, points, uniform(key))
    chosen = sorted(pick.sample(range(len(points)), degree + 1))  # type: ignore[attr-defined]
    at = [points[place] for place in chosen]
    assert combine([shares[place] for place in chosen], weights(at, 0)).tolist() == secrets


def test_shares_of_more_than_a_block_are_right_in_each() -> None:
    secrets = np.arange(BLOCK + 3, dtype=np.uint32)
    shares = share(secrets, 2, range(1, 6), uniform(KEY))
    assert (combine(shares[2:], weights([3, 4, 5], 0)) == secrets).all()


def test_shares_of_too_few_are_as_likely_for_one_secret_as_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a field of 7 elements, with all polynomials that there are: exactly."""
    monkeypatch.setattr(field, "PRIME", 7)
    monkeypatch.setattr(field, "reduced", lambda values: values % np.uint64(7))
    monkeypatch.setattr(field, "_fold", lambda values: values % np.uint64(7))

    def views(secret: int, known: tuple[int, ...]) -> Counter[tuple[int, ...]]:
        """What the holders at these places see, by how many polynomials show it."""
        found = Counter[tuple[int, ...]]()
        for rest in itertools.product(range(7), repeat=2):
            drawn: Draw = lambda count, rest=rest: np.array(rest, np.uint64)  # type: ignore[misc]  # noqa: E731
            shares = share(elements([secret]), 2, range(1, 6), drawn)
            found[tuple(int(shares[place][0]) for place in known)] += 1
        return found

    for known in itertools.combinations(range(5), 2):
        assert len({tuple(sorted(views(secret, known).items())) for secret in range(7)}) == 1
        assert set(views(3, known).values()) == {1}  # and each pair is seen once
    three = [views(secret, (0, 1, 2)) for secret in range(7)]
    assert all(not set(one) & set(other) for one, other in itertools.combinations(three, 2))


def test_drawn_elements_are_all_below_the_prime_and_go_on() -> None:
    draw, again = uniform(KEY), uniform(KEY)
    first = np.concatenate([draw(1000), draw(1)])
    assert int(first.max()) < PRIME
    assert first.tolist() == [*again(400).tolist(), *again(601).tolist()]
    halves = (first > PRIME // 2).mean()
    assert 0.4 < halves < 0.6


def test_what_is_not_below_the_prime_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self) -> None:
            self.words = [np.array([PRIME, 5, 2 * PRIME + 1, 1 << 31], "<u4"), np.array([7, 8], "<u4")]

        def update(self, data: bytes) -> bytes:
            words = self.words.pop(0)
            assert len(data) == 4 * words.size
            return words.tobytes()

    class Cipher:
        def __init__(self, *_: object) -> None:
            pass

        def encryptor(self) -> Stream:
            return Stream()

    monkeypatch.setattr(field, "Cipher", Cipher)
    assert uniform(KEY)(4).tolist() == [5, 0, 7, 8]


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="a key has 32 bytes, not 16"):
        uniform(bytes(16))


@settings(max_examples=30)
@given(points=st.lists(st.integers(1, 60), min_size=1, max_size=8, unique=True), at=st.integers(0, 60))
def test_weights_give_the_value_of_a_polynomial(points: list[int], at: int) -> None:
    coefficients = range(3, 3 + len(points))
    values = [sum(c * point**k for k, c in enumerate(coefficients)) for point in points]
    told = sum(value * weight for value, weight in zip(values, weights(points, at), strict=True))
    assert told % PRIME == sum(c * at**k for k, c in enumerate(coefficients)) % PRIME
