from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import AggregationError, PluginError
from federated.manifest import PluginRef
from plugins.aggregation import points as points_module
from plugins.aggregation.bucketing import Bucketing
from plugins.aggregation.clip import Clip
from plugins.aggregation.nearest_neighbours import NearestNeighbours
from plugins.aggregation.pipeline import RULES, STEPS, Pipeline, make_rule
from plugins.aggregation.points import Points
from plugins.aggregation.rule import PreStep
from tests.plugins import aggregation_reference as reference
from tests.plugins.test_aggregation_rules import base, clouds, exactly, floats, result, updates, vector


def pipeline(rule: str, *steps: tuple[str, dict[str, Any]], **settings: Any) -> Pipeline:
    return Pipeline(
        steps=[PluginRef(name=name, settings=of) for name, of in steps],
        rule=PluginRef(name=rule, settings=settings),
    )


def prepared(step: PreStep, points: Sequence[Sequence[float]]) -> list[list[float]]:
    """The points that a step comes to, each written out."""
    made = step.prepare(Points.of({}, updates(points)))
    return (made.mixture @ np.array(points)).tolist()


def test_clip_shortens_what_is_too_long() -> None:
    points = [[3.0, 4.0], [0.6, 0.8], [0.0, 0.0]]
    assert prepared(Clip(norm=2.5), points) == [pytest.approx([1.5, 2.0]), [0.6, 0.8], [0.0, 0.0]]
    assert prepared(Clip(), points)[0] == pytest.approx([0.6, 0.8])
    assert prepared(Clip(), [[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])[0] == [0.0, 0.0]


@given(clouds(1), st.integers(0, 4))
def test_mixing_is_that_of_exact_arithmetic(points: list[list[float]], f: int) -> None:
    f = min(f, (len(points) - 1) // 2)
    expected = reference.nearest_neighbours(exactly(points), f)
    found = prepared(NearestNeighbours(f=f), points)
    assert found == [pytest.approx(floats(point), abs=1e-9) for point in expected]


@given(clouds(1), st.integers(1, 4))
def test_every_update_is_in_one_bucket(points: list[list[float]], size: int) -> None:
    made = Bucketing(size=size).prepare(Points.of({}, updates(points)))
    assert len(made) == -(-len(points) // size)
    assert ((made.mixture > 0).sum(axis=0) == 1).all()
    assert made.mixture.sum(axis=1) == pytest.approx(np.ones(len(made)))
    assert (made.mixture > 0).sum(axis=1).max() <= size


def test_buckets_are_drawn_anew_when_any_update_changes() -> None:
    items = updates([[float(number), 0.0] for number in range(12)])
    drawn = set()
    for last in range(20, 30):
        changed = [*items[:-1], *updates([[0.0, 0.0]] * (last + 1))[-1:]]
        drawn.add(Bucketing().prepare(Points.of({}, changed)).mixture.tobytes())
    assert len(drawn) == 10


@given(clouds(5, 9))
def test_clip_then_mixing_then_a_rule_is_one_after_the_other(points: list[list[float]]) -> None:
    made = pipeline("trimmed-mean", ("clip", {"norm": 1e6}), ("nnm", {"f": 1}), trim=0.25)
    mixed = reference.nearest_neighbours(exactly(points), 1)
    expected = reference.trimmed_mean(mixed, int(0.25 * len(points) + 1e-9))
    assert result(made, points) == pytest.approx(floats(expected), abs=1e-9)


@given(clouds(8, 12))
def test_the_geometry_of_mixtures_follows_from_that_of_the_updates(points: list[list[float]]) -> None:
    made = NearestNeighbours(f=2).prepare(Points.of({}, updates(points)))
    made = Bucketing(size=2).prepare(made.scaled(np.linspace(0.5, 1, len(points))))
    vectors = made.mixture @ np.array(points)
    assert made.inner == pytest.approx(vectors @ vectors.T, rel=1e-9, abs=1e-6)
    assert made.norms == pytest.approx(np.linalg.norm(vectors, axis=1), rel=1e-6, abs=1e-3)
    apart = np.linalg.norm(vectors[:, np.newaxis] - vectors, axis=2)
    assert np.sqrt(made.distances) == pytest.approx(apart, rel=1e-6, abs=1e-2)
    to_mean = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)
    assert made.distances_to(np.full(len(made), 1 / len(made))) == pytest.approx(to_mean, rel=1e-6, abs=1e-2)


def test_the_updates_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    real = points_module.gram
    monkeypatch.setattr(points_module, "gram", lambda deltas: measured.append(1) or real(deltas))  # type: ignore[func-returns-value]
    result(
        pipeline("krum", ("clip", {}), ("nnm", {"f": 1}), ("bucketing", {"size": 1}), f=1), [[1.0, 2.0]] * 5
    )
    assert len(measured) == 1
    result(pipeline("median", ("bucketing", {})), [[1.0, 2.0]] * 5)  # needs no distances
    assert len(measured) == 1


def test_a_rule_behind_buckets_needs_as_many_points_as_ever() -> None:
    made = pipeline("krum", ("bucketing", {"size": 2}), f=1)
    result(made, [[float(number), 0.0] for number in range(9)])
    with pytest.raises(AggregationError, match="krum with f = 1 needs 5 updates, there are 4"):
        result(made, [[float(number), 0.0] for number in range(8)])
    with pytest.raises(AggregationError, match="nnm with f = 1 needs 3 updates, there are 2"):
        result(pipeline("median", ("nnm", {"f": 1})), [[0.0, 0.0]] * 2)


def test_counts_and_freshness_of_a_bucket_are_the_means_of_its_updates() -> None:
    items = updates([[1.0, 1.0]] * 2, staleness=[3, 0], examples=[100, 20])
    made = Bucketing(size=2).prepare(Points.of({}, items))
    assert made.weights.tolist() == [(100 / 2 + 20) / 2]
    assert made.freshness.tolist() == [0.75]
    assert Clip(norm=0.1).prepare(made).freshness.tolist() == [0.75]


def test_a_liar_among_unlike_peers_is_withstood_by_mixing_first() -> None:
    generator = np.random.default_rng(2)
    honest = (generator.standard_normal((8, 3)) + 5).tolist()
    lies = [[-40.0, -40.0, -40.0]] * 2
    found = vector(pipeline("median", ("nnm", {"f": 2})).aggregate(base(3), updates([*honest, *lies])))
    assert np.linalg.norm(np.array(found) - np.mean(honest, axis=0)) < 1.0


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: pipeline("nonsense"),
            "there is no rule 'nonsense' to put together; there are: weighted-mean, ",
        ),
        (
            lambda: pipeline("median", ("krum", {})),
            "there is no step 'krum' to put together; there are: clip, nnm, bucketing$",
        ),
        (
            lambda: pipeline("median", ("nnm", {})),
            "step 'nnm': missing a required (keyword-only )?argument: 'f'; it takes f$",
        ),
        (lambda: pipeline("median", ("nnm", {"f": -1})), "step 'nnm': setting f: "),
        (lambda: pipeline("median", ("clip", {"norm": 0.0})), "step 'clip': setting norm: "),
        (
            lambda: pipeline("median", trim=0.1),
            "rule 'median': got an unexpected keyword argument 'trim'; it takes no settings$",
        ),
        (lambda: pipeline("trimmed-mean", trim=0.9), "rule 'trimmed-mean': setting trim: "),
        (lambda: Pipeline(steps=[{"nam": "clip"}], rule={"name": "median"}), "setting steps"),
    ],
)
def test_a_wrong_part_is_named_in_one_line(make: Callable[[], object], line: str) -> None:
    with pytest.raises(PluginError, match=line):
        make()


def test_pipelines_are_written_as_plugins_are_in_a_manifest() -> None:
    settings: dict[str, Any] = {
        "steps": [{"name": "clip"}, {"name": "nnm", "settings": {"f": 1}}],
        "rule": {"name": "trimmed-mean", "settings": {"trim": 0.25}},
    }
    made = make_rule(PluginRef(name="pipeline", settings=settings))
    assert result(made, [[1.0, 2.0]] * 4) == pytest.approx([1.0, 2.0])


def test_every_rule_has_one_name_everywhere() -> None:
    for name, rule in RULES.items():
        assert rule.kind == "aggregator"
        assert name not in STEPS
