"""The polynomial behind values of which some are wrong: who told another value, and what it is at 0.

Of N values of a polynomial of degree d, up to (N − d − 1) / 2 may be wrong: no other one is then as near.
Arrays are looked at place by place: where all values lie on one polynomial they are right, and a place
where they do not tells who is wrong, there and so everywhere. Each such place costs at least one who is
wrong, so there are few of them. Source: Welch and Berlekamp, US patent 4 633 470, 1986.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from federated.sums.field import PRIME, Elements, combine, weights


def room(count: int, degree: int) -> int:
    """How many of so many values may be wrong; negative when they do not determine a polynomial at all."""
    return (count - degree - 1) // 2


def wrong_values(points: Sequence[int], values: Sequence[int], degree: int) -> list[int] | None:
    """The places of the values that are not on the nearest polynomial; None when none is near enough."""
    most = room(len(points), degree)
    if most < 0:
        return None
    found = _misses(points, values, degree, range(len(points)))
    if not found or most == 0:
        return None if found else []
    locator = _locator(points, values, degree, most)
    if locator is None:
        return None
    told = [place for place, point in enumerate(points) if _value(locator, point)]
    found = _misses(points, values, degree, told)
    return found if len(found) <= most else None


def _misses(points: Sequence[int], values: Sequence[int], degree: int, base: Sequence[int]) -> list[int]:
    """The places of the values that are not on the polynomial through the first ones in `base`."""
    known = base[: degree + 1]
    at = [points[place] for place in known]
    found = []
    for place, point in enumerate(points):
        factors = weights(at, point)
        told = sum(factor * values[other] for factor, other in zip(factors, known, strict=True)) % PRIME
        if told != values[place]:
            found.append(place)
    return found


def _value(coefficients: Sequence[int], point: int) -> int:
    """Of a polynomial, lowest coefficient first."""
    result = 0
    for coefficient in reversed(coefficients):
        result = (result * point + coefficient) % PRIME
    return result


def _locator(points: Sequence[int], values: Sequence[int], degree: int, most: int) -> list[int] | None:
    """A polynomial of degree `most` that is 0 at the wrong points.

    With it, E, the values y times E are those of a polynomial of degree `degree + most`, Q: as many equations
    Q(x) − y · E(x) = 0 as there are points.
    """
    rows = []
    for point, value in zip(points, values, strict=True):
        powers = [pow(point, exponent, PRIME) for exponent in range(degree + most + 1)]
        rows.append(
            [*powers, *(-value * power % PRIME for power in powers[:most]), value * powers[most] % PRIME]
        )
    solution = _solve(rows)
    return None if solution is None else [*solution[degree + most + 1 :], 1]


def _solve(rows: list[list[int]]) -> list[int] | None:
    """A solution of linear equations, each its coefficients and what they come to; None when there is none.

    What is left free is 0.
    """
    count = len(rows[0]) - 1
    pivots: list[int] = []
    for column in range(count):
        at = next((number for number in range(len(pivots), len(rows)) if rows[number][column]), None)
        if at is None:
            continue
        place = len(pivots)
        rows[place], rows[at] = rows[at], rows[place]
        inverse = pow(rows[place][column], -1, PRIME)
        rows[place] = pivot = [value * inverse % PRIME for value in rows[place]]
        for number, row in enumerate(rows):
            if number != place and (factor := row[column]):
                rows[number] = [(one - factor * other) % PRIME for one, other in zip(row, pivot, strict=True)]
        pivots.append(column)
    if any(row[-1] for row in rows[len(pivots) :]):
        return None
    solution = [0] * count
    for column, row in zip(pivots, rows, strict=False):
        solution[column] = row[-1]
    return solution


def open_arrays(
    points: Sequence[int], arrays: Sequence[Elements], degree: int
) -> tuple[Elements, list[int]] | None:
    """(the values at 0, the places of the arrays that are wrong somewhere); None when too many are wrong."""
    good, most = list(range(len(points))), room(len(points), degree)
    while len(points) - len(good) <= most:
        known = good[: degree + 1]
        at = [points[place] for place in known]
        base = [arrays[place] for place in known]
        odd = _first_difference(
            [points[place] for place in good], [arrays[place] for place in good], at, base
        )
        if odd is None:
            return combine(base, weights(at, 0)), [place for place in range(len(points)) if place not in good]
        wrong = wrong_values(
            [points[place] for place in good], [int(arrays[place][odd]) for place in good], degree
        )
        if wrong is None:
            return None
        good = [place for number, place in enumerate(good) if number not in wrong]
    return None


def _first_difference(
    points: Sequence[int], arrays: Sequence[Elements], at: Sequence[int], base: Sequence[Elements]
) -> int | None:
    """The first place at which an array is not what the arrays `base`, at the points `at`, say that it is."""
    for point, array in zip(points[len(at) :], arrays[len(at) :], strict=True):
        differs = np.flatnonzero(combine(base, weights(at, point)) != array)
        if differs.size:
            return int(differs[0])
    return None
