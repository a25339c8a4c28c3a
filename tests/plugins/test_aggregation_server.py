from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from federated.codec import encode, schema_of
from federated.errors import AggregationError, PluginError
from federated.manifest import PluginRef
from federated.parameters import AGGREGATOR, Parameters, split
from federated.plugin import Aggregator, ModelUpdate, StatefulAggregator
from plugins.aggregation import blocks
from plugins.aggregation.server import FedAdagrad, FedAdam, FedAvgM, FedYogi, ServerOptimizer
from plugins.aggregation.weighted_mean import WeightedMean
from tests.federated.samples import peer

OPTIMISERS: list[Callable[..., ServerOptimizer]] = [FedAvgM, FedAdagrad, FedAdam, FedYogi]
STEPS = [0.5, -0.25, 0.125, 0.0, 2.0]


def updates(step: float, count: int = 3) -> list[ModelUpdate]:
    """Updates whose mean is `step`."""
    return [
        ModelUpdate(
            peer=peer(number),
            root=bytes([number]),
            delta={"n": np.full(2, number, np.int32), "w": np.full((2, 3), step + number - 1, np.float32)},
            examples=1,
        )
        for number in range(count)
    ]


def begin(rule: StatefulAggregator) -> Parameters:
    model: Parameters = {"n": np.zeros(2, np.int32), "w": np.zeros((2, 3), np.float32)}
    return model | rule.init(model)


def positions(rule: StatefulAggregator) -> list[float]:
    """Where the model is after each step."""
    model, seen = begin(rule), []
    for step in STEPS:
        model = rule.aggregate(model, updates(step))
        assert len(set(model["w"].ravel().tolist())) == 1
        seen.append(float(model["w"][0, 0]))
    return seen


def by_hand(move: Callable[[float, dict[str, float]], float], **moments: float) -> list[float]:
    at, seen = 0.0, []
    for step in STEPS:
        at += move(step, moments)
        seen.append(at)
    return seen


def test_momentum_by_hand() -> None:
    assert positions(FedAvgM(momentum=0.5)) == [0.5, 0.5, 0.625, 0.6875, 2.71875]
    assert positions(FedAvgM(momentum=0.0)) == [0.5, 0.25, 0.375, 0.375, 2.375]
    assert positions(FedAvgM(momentum=0.5, nesterov=True)) == [0.75, 0.5, 0.6875, 0.71875, 3.734375]


def test_adagrad_by_hand() -> None:
    def move(step: float, moments: dict[str, float]) -> float:
        moments["v"] += step**2
        return 0.1 * step / (math.sqrt(moments["v"]) + 0.01)

    expected = by_hand(move, v=0.0001)
    assert positions(FedAdagrad(rate=0.1, floor=0.01)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [FedAdam, FedYogi])
def test_adam_and_yogi_by_hand(kind: Callable[..., ServerOptimizer]) -> None:
    def move(step: float, moments: dict[str, float]) -> float:
        moments["m"] = 0.8 * moments["m"] + 0.2 * step
        if kind is FedAdam:
            moments["v"] = 0.9 * moments["v"] + 0.1 * step**2
        elif moments["v"] > step**2:
            moments["v"] -= 0.1 * step**2
        else:
            moments["v"] += 0.1 * step**2
        return 0.1 * moments["m"] / (math.sqrt(moments["v"]) + 0.01)

    found = positions(kind(rate=0.1, beta1=0.8, beta2=0.9, floor=0.01))
    assert found == pytest.approx(by_hand(move, m=0.0, v=0.0001), rel=1e-5)


@pytest.mark.parametrize("make", OPTIMISERS)
def test_what_is_kept_has_reserved_names_and_the_shape_of_what_it_is_for(
    make: Callable[..., ServerOptimizer],
) -> None:
    rule = make()
    first = begin(rule)
    trained, kept = split(first)
    assert sorted(trained) == ["n", "w"]
    assert kept
    assert {name.rsplit("/", 1)[1] for name in kept} == {"w"}  # integers are not optimised
    assert all(name.startswith(AGGREGATOR) for name in kept)
    second = rule.aggregate(first, updates(1.0))
    assert schema_of(second) == schema_of(first)
    assert second["n"].tolist() == [1, 1]


@pytest.mark.parametrize("make", OPTIMISERS)
def test_a_step_depends_on_the_model_alone(
    make: Callable[..., ServerOptimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that restarted, or whose blocks are of another size, comes to the same bits."""
    rule = make()
    model = rule.aggregate(begin(rule), updates(0.3))
    before = encode(model)
    after = encode(rule.aggregate(model, updates(0.7)))
    assert encode(model) == before
    monkeypatch.setattr(blocks, "BLOCK", 4)
    otherwise = {name: np.asfortranarray(array) for name, array in reversed(model.items())}
    assert encode(make().aggregate(otherwise, updates(0.7)[::-1])) == after


def test_the_step_is_the_one_of_the_rule() -> None:
    rule = FedAvgM(rule={"name": "median"}, momentum=0.0)
    far = {"n": np.zeros(2, np.int32), "w": np.full((2, 3), 1e9, np.float32)}
    skewed = [*updates(0.0)[:2], ModelUpdate(peer=peer(2), root=b"z", delta=far, examples=9)]
    assert rule.aggregate(begin(rule), skewed)["w"][0, 0] == 0.0
    with pytest.raises(AggregationError, match="krum with f = 1 needs 5 updates"):
        needy = FedAdam(rule=PluginRef(name="krum", settings={"f": 1}))
        needy.aggregate(begin(needy), updates(0.0))


def test_moments_that_do_not_fit_are_refused() -> None:
    rule = FedAdagrad()
    with pytest.raises(AggregationError, match=r"atcp\.aggregator/v/w does not fit float32"):
        rule.aggregate(begin(rule), updates(1e30))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: FedAvgM(momentum=1.0), "setting momentum"),
        (lambda: FedAdam(rate=0.0), "setting rate"),
        (lambda: FedYogi(rule=PluginRef(name="nonsense")), "there is no rule 'nonsense'"),
    ],
)
def test_wrong_settings_are_named(make: Callable[[], Any], line: str) -> None:
    with pytest.raises(PluginError, match=line):
        make()


def test_optimisers_are_known_to_keep_something() -> None:
    makers: Sequence[Callable[[], Aggregator]] = [*OPTIMISERS, WeightedMean]
    assert all(isinstance(make(), StatefulAggregator) for make in makers)
    assert WeightedMean().init({"w": np.zeros(3)}) == {}
