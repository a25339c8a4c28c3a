from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from federated.accountant import epsilon, rdp
from federated.errors import PluginError, TrainingStopped
from federated.parameters import Parameters, l2_norm
from federated.plugin import TrainContext, Trainer, TrainResult
from plugins.privacy.dp_mlp import PrivateMLP
from tests.plugins.training import blobs, context

X, Y = blobs(60)
SHAPE: dict[str, Any] = {"inputs": 4, "classes": 3, "hidden": (5, 6)}


def trainer(**settings: Any) -> PrivateMLP:
    return PrivateMLP(**{**SHAPE, "batch": 20, "noise": 1.0, "epsilon": 100.0, **settings})


def with_secret(number: int = 1, **values: Any) -> TrainContext:
    return replace(context(), secret=bytes([number]) * 32, **values)


def test_it_is_a_trainer_of_the_model_of_the_others() -> None:
    assert isinstance(trainer(), Trainer)
    assert trainer().init(1).keys() == {f"layer{n}.{part}" for n in range(3) for part in ("weight", "bias")}


def one_by_one(made: PrivateMLP, parameters: Parameters) -> Parameters:
    """The clipped sum, slowly: every gradient by itself, as an ordinary training makes it."""
    total = {name: np.zeros(array.shape) for name, array in parameters.items()}
    for row in range(len(X)):
        gradient = made._gradients(parameters, X[row : row + 1], Y[row : row + 1])
        scale = min(1.0, made.clip / l2_norm(gradient))
        for name in total:
            total[name] += scale * gradient[name]
    return total


@pytest.mark.parametrize("clip", [0.3, 1.0, 100.0])
def test_each_example_counts_as_much_as_the_clip_lets_it(clip: float) -> None:
    made = trainer(clip=clip)
    parameters = made.init(3)
    found, expected = made._clipped_sum(parameters, X, Y), one_by_one(made, parameters)
    for name, array in expected.items():
        assert found[name] == pytest.approx(array, rel=1e-4, abs=1e-5)
    alone = made._clipped_sum(parameters, X[:1], Y[:1])
    assert l2_norm(alone) <= clip * (1 + 1e-5)


def moved(made: PrivateMLP, number: int = 1) -> Parameters:
    parameters = made.init(3)
    result = made.train(parameters, (X, Y), with_secret(number))
    return {name: array - parameters[name] for name, array in result.parameters.items()}


def test_the_noise_is_as_large_as_it_says_and_comes_of_the_secret() -> None:
    settings: dict[str, Any] = {"hidden": (200,), "steps": 1, "lr": 1.0, "clip": 1.0, "batch": 60}
    quiet, loud = trainer(noise=1e-3, epsilon=1e300, **settings), trainer(noise=300.0, **settings)
    noise = np.concatenate([(moved(loud)[name] - moved(quiet)[name]).ravel() for name in moved(quiet)]) * 60
    assert noise.std() == pytest.approx(300.0, rel=5 / np.sqrt(2 * len(noise)))
    assert l2_norm(moved(loud)) == l2_norm(moved(loud))
    assert l2_norm(moved(loud)) != l2_norm(moved(loud, 2))


def test_samples_have_about_as_many_examples_as_the_batch() -> None:
    made = trainer(steps=400, noise=1e-3, epsilon=1e300)
    sizes: list[int] = []
    real = made._clipped_sum

    def spy(parameters: Parameters, x: Any, y: Any) -> Parameters:
        sizes.append(len(x))
        return real(parameters, x, y)

    made._clipped_sum = spy  # type: ignore[method-assign]
    made.train(made.init(1), (X, Y), with_secret())
    assert np.mean(sizes) == pytest.approx(20, abs=5 * np.sqrt(60 / 3 * 2 / 3 / 400))
    assert np.std(sizes) == pytest.approx(np.sqrt(60 / 3 * 2 / 3), rel=0.2)  # each example for itself


def test_it_learns_in_spite_of_the_noise() -> None:
    made = trainer(steps=100, noise=0.5, lr=0.3, hidden=(), epsilon=1e6)
    result = made.train(made.init(1), (X, Y), with_secret())
    assert made.evaluate(result.parameters, (X, Y))["accuracy"] > 0.9


def test_steps_are_counted_from_round_to_round_until_the_budget_is_spent() -> None:
    made = trainer(steps=10, epsilon=12.0)
    parameters, state, steps = made.init(1), Parameters(), 0
    with pytest.raises(
        PluginError, match=r"^the privacy budget is spent: (\d+) steps come to an epsilon of 1"
    ):
        while True:
            result: TrainResult = made.train(parameters, (X, Y), with_secret(state=state))
            state, steps = result.state, steps + 10
            assert int(state["dp-steps"]) == steps
            assert result.metrics == {"epsilon": epsilon(rdp(1.0, 20 / 60, steps), 1e-5), "delta": 1e-5}
    cost = [epsilon(rdp(1.0, 20 / 60, number), 1e-5) for number in (steps, steps + 10)]
    assert cost[0] <= 12.0 < cost[1]


def test_with_more_data_the_steps_before_cost_what_they_cost() -> None:
    made = trainer()
    few = made.train(made.init(1), (X[:25], Y[:25]), with_secret()).state
    more = made.train(made.init(1), (X, Y), with_secret(state=few)).state
    assert float(few["dp-rate"]) == float(more["dp-rate"]) == 0.8


def test_it_does_not_train_on_what_others_know_and_stops_when_told() -> None:
    made = trainer()
    with pytest.raises(PluginError, match="nothing to make noise of that others do not know"):
        made.train(made.init(1), (X, Y), context())
    with pytest.raises(TrainingStopped):
        made.train(made.init(1), (X, Y), with_secret(should_stop=lambda: True))


def test_a_sample_of_nobody_is_noise_alone() -> None:
    made = trainer()
    summed = made._clipped_sum(made.init(1), X[:0], Y[:0])
    assert all(not array.any() for array in summed.values())
