"""The rules once more, slow and in another way: exact fractions, explicit vectors, loops."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from fractions import Fraction

Point = Sequence[Fraction]


def mean(points: Sequence[Point], weights: Sequence[Fraction] | None = None) -> list[Fraction]:
    shares = weights or [Fraction(1)] * len(points)
    whole = sum(shares)
    return [
        sum((s * x for s, x in zip(shares, column, strict=True)), Fraction(0)) / whole
        for column in zip(*points, strict=True)
    ]


def median(points: Sequence[Point]) -> list[Fraction]:
    return [statistics.median(column) for column in zip(*points, strict=True)]


def trimmed_mean(points: Sequence[Point], drop: int) -> list[Fraction]:
    columns = []
    for column in zip(*points, strict=True):
        rest = list(column)
        for _ in range(drop):
            rest.remove(max(rest))
            rest.remove(min(rest))
        columns.append(sum(rest, Fraction(0)) / len(rest))
    return columns


def square(one: Point, other: Point) -> Fraction:
    return sum(((a - b) ** 2 for a, b in zip(one, other, strict=True)), Fraction(0))


def krum_scores(points: Sequence[Point], f: int) -> list[Fraction]:
    neighbours = max(1, len(points) - f - 2)
    scores = []
    for place, point in enumerate(points):
        others = sorted(square(point, other) for number, other in enumerate(points) if number != place)
        scores.append(sum(others[:neighbours], Fraction(0)))
    return scores


def krum(points: Sequence[Point], f: int) -> Point:
    scores = krum_scores(points, f)
    return points[scores.index(min(scores))]


def multi_krum(points: Sequence[Point], f: int) -> list[Fraction]:
    scores = krum_scores(points, f)
    best = sorted(range(len(points)), key=lambda place: (scores[place], place))[: len(points) - f]
    return mean([points[place] for place in best])


def bulyan(points: Sequence[Point], f: int) -> list[Fraction]:
    remaining, selected = list(points), []
    while len(selected) < len(points) - 2 * f:
        selected.append(remaining.pop(krum_scores(remaining, f).index(min(krum_scores(remaining, f)))))
    columns = []
    for column in zip(*selected, strict=True):
        middle = statistics.median(column)
        nearest = sorted(column, key=lambda value: (abs(value - middle), value))[: len(column) - 2 * f]
        columns.append(sum(nearest, Fraction(0)) / len(nearest))
    return columns


def nearest_neighbours(points: Sequence[Point], f: int) -> list[list[Fraction]]:
    mixed = []
    for point in points:
        order = sorted(range(len(points)), key=lambda place: (square(point, points[place]), place))
        mixed.append(mean([points[place] for place in order[: len(points) - f]]))
    return mixed


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    return math.dist(one, other)


def geometric_median(points: Sequence[Sequence[float]]) -> list[float]:
    """By descent on the sum of distances, from the mean, with steps that are halved when they do not help."""
    centre = [statistics.fmean(column) for column in zip(*points, strict=True)]
    step = max(distance(centre, point) for point in points)
    cost = sum(distance(centre, point) for point in points)
    while step > 1e-9:
        candidates = [
            [value + sign * step * (place == axis) for place, value in enumerate(centre)]
            for axis in range(len(centre))
            for sign in (-1, 1)
        ]
        found = min(candidates, key=lambda at: sum(distance(at, point) for point in points))
        found_cost = sum(distance(found, point) for point in points)
        if found_cost < cost:
            centre, cost = found, found_cost
        else:
            step /= 2
    return centre


def centered_clipping(points: Sequence[Sequence[float]], radius: float, iterations: int) -> list[float]:
    centre = [0.0] * len(points[0])
    for _ in range(iterations):
        moves = [[a - b for a, b in zip(point, centre, strict=True)] for point in points]
        scales = [min(1.0, radius / max(math.hypot(*move), 1e-300)) for move in moves]
        centre = [
            at + statistics.fmean(scale * move[place] for scale, move in zip(scales, moves, strict=True))
            for place, at in enumerate(centre)
        ]
    return centre


def flame(points: Sequence[Sequence[float]]) -> list[float]:
    """Raises the threshold until one connected component has the majority."""
    lengths = [math.hypot(*point) for point in points]

    def apart(one: int, other: int) -> float:
        if not lengths[one] or not lengths[other]:
            return 1.0
        dot = sum(a * b for a, b in zip(points[one], points[other], strict=True))
        return 1 - dot / lengths[one] / lengths[other]

    count = len(points)
    group: list[int] = [0]
    for threshold in sorted(
        {apart(one, other) for one in range(count) for other in range(count) if one != other}
    ):
        group = max((_reached(start, count, threshold, apart) for start in range(count)), key=len)
        if len(group) > count / 2:
            break
    limit = sorted(lengths)[(count - 1) // 2]
    clipped = [
        [value * min(1.0, limit / lengths[place]) if lengths[place] else 0.0 for value in points[place]]
        for place in group
    ]
    return [statistics.fmean(column) for column in zip(*clipped, strict=True)]


def _reached(start: int, count: int, threshold: float, apart: Callable[[int, int], float]) -> list[int]:
    reached, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for other in range(count):
            if other not in reached and apart(here, other) <= threshold + 1e-12:
                reached.add(other)
                waiting.append(other)
    return sorted(reached)
