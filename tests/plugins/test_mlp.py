from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest

from federated.codec import encode, schema_of
from federated.errors import DataError, PluginError, TrainingStopped
from federated.parameters import l2_norm
from federated.plugin import TrainContext, Trainer
from plugins.training.batches import batches
from plugins.training.numpy_mlp import NumpyMLP
from tests.plugins.training import blobs, context, never

VELOCITY = "momentum_buffer/"


def small(**settings: Any) -> NumpyMLP:
    return NumpyMLP(**{"inputs": 4, "classes": 3, "hidden": [5], "batch": 8, **settings})


def test_it_is_a_trainer() -> None:
    assert isinstance(small(), Trainer)


def test_first_parameters_are_fixed_bits() -> None:
    assert [str(spec) for spec in schema_of(small().init(1))] == [
        "layer0.bias float32[5]",
        "layer0.weight float32[5, 4]",
        "layer1.bias float32[3]",
        "layer1.weight float32[3, 5]",
    ]
    digest = hashlib.sha256(encode(small().init(1))).hexdigest()
    assert digest == "aa4994802b49d65f7cc8d90b9945621973a75bffb7f0d63760bfd426f8596c2a"
    assert encode(small().init(1)) == encode(small().init(1))
    assert encode(small().init(2)) != encode(small().init(1))


def test_first_weights_stay_within_their_bound() -> None:
    weight = NumpyMLP(hidden=[100]).init(1)["layer0.weight"]
    assert 0.99 / math.sqrt(64) < np.abs(weight).max() <= 1 / math.sqrt(64)


@pytest.mark.parametrize("hidden", [[6, 5], []])
def test_gradients_are_those_of_the_loss(hidden: list[int]) -> None:
    trainer = small(hidden=hidden)
    x, y = blobs(7)
    parameters = {name: array.astype(np.float64) for name, array in trainer.init(4).items()}
    gradients = trainer._gradients(parameters, x, y)
    for name, array in parameters.items():
        for at in np.ndindex(array.shape):
            around = []
            for step in (1e-5, -1e-5):
                moved = {key: value.copy() for key, value in parameters.items()}
                moved[name][at] += step
                around.append(trainer.evaluate(moved, (x, y))["loss"])
            assert gradients[name][at] == pytest.approx((around[0] - around[1]) / 2e-5, abs=1e-6)


def test_training_learns_and_leaves_its_input_alone() -> None:
    trainer, data = small(), blobs()
    base = trainer.init(1)
    before = encode(base)
    result = trainer.train(base, data, context())
    assert encode(base) == before
    assert result.examples == 60
    assert schema_of(result.parameters) == schema_of(base)
    assert trainer.evaluate(base, data)["accuracy"] < 0.9
    measured = trainer.evaluate(result.parameters, data)
    assert measured["accuracy"] == 1.0
    assert 0 < measured["loss"] < 0.1


def test_same_seed_gives_the_same_bits_and_another_one_does_not() -> None:
    trainer, data = small(), blobs()
    base = trainer.init(1)
    first, again, other = (encode(trainer.train(base, data, context(seed)).parameters) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_round_may_have_a_number_of_steps_instead_of_epochs() -> None:
    rows = list(batches(20, 7, context(), epochs=1, steps=7))
    assert [len(chosen) for chosen in rows] == [7, 7, 6, 7, 7, 6, 7]
    assert sorted(np.concatenate(rows[3:6])) == list(range(20))
    assert small(steps=7, batch=8).train(small().init(1), blobs(), context()).examples == 56
    assert small(steps=8, batch=8).train(small().init(1), blobs(), context()).examples == 60
    limited = TrainContext(round=0, seed=1, should_stop=never, steps=2)
    assert len(list(batches(20, 7, limited, epochs=1, steps=7))) == 2


def test_a_batch_that_is_too_small_is_left_out() -> None:
    assert [len(rows) for rows in batches(9, 4, context(), epochs=2, least=2)] == [4, 4, 4, 4]
    assert [len(rows) for rows in batches(1, 4, context(), epochs=1, least=2)] == [1]


def test_every_example_is_seen_once_an_epoch() -> None:
    rows = np.concatenate(list(batches(20, 7, context(), epochs=3)))
    assert rows.shape == (60,)
    for epoch in range(3):
        assert sorted(rows[20 * epoch : 20 * epoch + 20]) == list(range(20))


def test_momentum_step_by_hand() -> None:
    trainer = NumpyMLP(inputs=1, classes=2, hidden=[], epochs=2, batch=1, lr=0.5, momentum=0.5, clip=100.0)
    base = {"layer0.bias": np.zeros(2, np.float32), "layer0.weight": np.zeros((2, 1), np.float32)}
    result = trainer.train(base, (np.ones((1, 1), np.float32), np.zeros(1, np.int64)), context())
    first = 0.25  # lr * (1 - softmax) = 0.5 * 0.5
    wrong = 1 / (1 + math.exp(2 * first * 2))  # the logits are ±(weight + bias)
    second = first + 0.5 * (0.5 * 0.5 + wrong)
    assert result.parameters["layer0.weight"].ravel() == pytest.approx([second, -second])
    assert result.parameters["layer0.bias"] == pytest.approx([second, -second])


def test_velocity_is_carried_into_the_next_round_when_asked() -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch": 60, "clip": 100.0, "lr": 0.5, "momentum": 0.5}
    carrying, resting = small(carry=True, **settings), small(**settings)
    base, data = carrying.init(1), blobs()
    first = carrying.train(base, data, context())
    gradients = carrying._gradients(base, *data)
    assert encode(first.parameters) == encode(resting.train(base, data, context()).parameters)
    for name, gradient in gradients.items():  # of all examples, in another order
        assert first.state[VELOCITY + name] == pytest.approx(gradient, abs=1e-6)
    before = encode(first.state)
    second = carrying.train(base, data, context(state=first.state))
    assert encode(first.state) == before
    for name, gradient in gradients.items():
        assert second.state[VELOCITY + name] == pytest.approx(1.5 * gradient, abs=1e-6)
        assert second.parameters[name] == pytest.approx(base[name] - 0.75 * gradient, abs=1e-6)


def test_without_carry_nothing_is_kept() -> None:
    assert small().train(small().init(1), blobs(), context()).state == {}


def test_gradient_is_clipped_to_its_norm() -> None:
    trainer = small(epochs=1, batch=60, lr=1.0, clip=0.01)
    base = trainer.init(1)
    new = trainer.train(base, blobs(), context()).parameters
    assert l2_norm({name: new[name] - base[name] for name in base}) == pytest.approx(0.01, rel=1e-3)


def test_learning_rate_decays_with_the_rounds() -> None:
    trainer = small(epochs=1, batch=60, lr=0.1, decay=0.5)
    base = trainer.init(1)
    moves = []
    for number in (0, 3):
        new = trainer.train(base, blobs(), context(1, number)).parameters
        moves.append(l2_norm({name: new[name] - base[name] for name in base}))
    assert moves[0] == pytest.approx(8 * moves[1], rel=1e-3)


def test_training_stops_when_asked() -> None:
    answers = iter([False, False, True])
    asked = TrainContext(round=0, seed=1, should_stop=lambda: next(answers))
    with pytest.raises(TrainingStopped):
        small().train(small().init(1), blobs(), asked)


def test_a_slow_machine_trains_as_many_steps_as_it_has_time_for() -> None:
    limited = TrainContext(round=0, seed=1, should_stop=never, steps=2)
    trainer = small(batch=7)
    assert [len(rows) for rows in batches(20, 7, limited, epochs=3)] == [7, 7]
    result = trainer.train(trainer.init(1), blobs(), limited)
    assert result.examples == 14
    longer = trainer.train(
        trainer.init(1), blobs(), TrainContext(round=0, seed=1, should_stop=never, steps=3)
    )
    assert any((longer.parameters[name] != result.parameters[name]).any() for name in longer.parameters)


def test_loss_of_hopeless_logits_is_finite() -> None:
    base = {name: array * np.float32(1e6) for name, array in small().init(1).items()}
    assert math.isfinite(small().evaluate(base, blobs())["loss"])


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((3, 5)), np.zeros(3, np.int64)),
        (np.zeros(4), np.zeros(4, np.int64)),
        (np.zeros((3, 4)), np.zeros(2, np.int64)),
        (np.zeros((0, 4)), np.zeros(0, np.int64)),
        (np.zeros((3, 4)), np.zeros(3)),
        (np.zeros((3, 4)), np.array([0, 1, 3])),
        (np.zeros((3, 4)), np.array([0, -1, 2])),
    ],
)
def test_data_that_does_not_fit_the_model_is_refused(x: Any, y: Any) -> None:
    with pytest.raises(
        DataError, match=r"do not fit a model of 4 inputs|labels must be integers from 0 to 2"
    ):
        small().train(small().init(1), (x, y), context())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("inputs", 0),
        ("hidden", [0]),
        ("hidden", [1] * 17),
        ("hidden", 64),
        ("epochs", 0),
        ("steps", 0),
        ("optimiser", "adam"),
        ("mu", -1),
        ("scaffold", 1),
        ("local", "layer0"),
        ("local", [""]),
        ("batch", 0),
        ("lr", 0),
        ("lr", math.nan),
        ("momentum", 1),
        ("decay", 1.1),
        ("clip", 0),
        ("carry", 1),
        ("depth", 3),
    ],
)
def test_wrong_setting_is_named(setting: str, value: Any) -> None:
    with pytest.raises(PluginError, match=f"setting {setting}") as caught:
        small(**{setting: value})
    assert "\n" not in str(caught.value)


def test_settings_may_come_from_json() -> None:
    assert NumpyMLP(hidden=[8, 4], lr=1).sizes == (64, 8, 4, 10)
    assert not never()
