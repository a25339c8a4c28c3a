from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier

from federated.codec import encode, schema_of
from federated.errors import DataError, PluginError, TrainingStopped
from federated.manifest import PluginRef
from federated.parameters import Parameters
from federated.plugin import TrainContext, Trainer
from plugins.training.sklearn_model import SklearnTrainer
from plugins.training.sklearn_sgd import SklearnSGD
from tests.federated.samples import manifest
from tests.plugins.training import blobs, context, never, run_rounds

TWO_OR_MORE = "setting classes: Perceptron tells two classes or more apart"
SIZES: dict[str, Any] = {"inputs": 4, "classes": 3}


class Some(SklearnTrainer):
    """Whatever estimator a test is about."""

    def __init__(self, make: Callable[[], Any], **settings: Any) -> None:
        super().__init__(**settings)
        self._make = make

    def estimator(self) -> Any:
        return self._make()


class Network(Some):
    attributes: ClassVar[tuple[str, ...]] = ("coefs_", "intercepts_")
    counters: ClassVar[dict[str, float]] = {"t_": 0}

    def first(self, shapes: Parameters, generator: np.random.Generator) -> Parameters:
        return {name: generator.uniform(-0.5, 0.5, a.shape).astype(a.dtype) for name, a in shapes.items()}


def test_it_begins_at_zero_with_the_shapes_of_the_manifest() -> None:
    trainer = SklearnSGD(**SIZES)
    assert isinstance(trainer, Trainer)
    assert [str(spec) for spec in schema_of(trainer.init(1))] == [
        "coef_ float32[3, 4]",
        "intercept_ float32[3]",
    ]
    assert not any(array.any() for array in trainer.init(1).values())
    assert SklearnSGD(inputs=4, classes=2).init(1)["coef_"].shape == (1, 4)


@pytest.mark.parametrize("schedule", ["constant", "optimal", "invscaling"])
@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_partial_fit_with_the_same_batches(schedule: Any, classes: int) -> None:
    x, y = blobs(60, 4, classes)
    trainer = SklearnSGD(inputs=4, classes=classes, schedule=schedule, batch=60, epochs=3)
    base = trainer.init(1)
    first = trainer.train(base, (x, y), context(5))
    second = trainer.train(first.parameters, (x, y), context(6, 1, first.state))
    plain = SGDClassifier(loss="log_loss", learning_rate=schedule, eta0=0.01)
    for seed in (5, 6):
        generator = np.random.Generator(np.random.PCG64(seed))
        plain.set_params(random_state=seed)
        for _ in range(3):
            rows = generator.permutation(60)
            plain.partial_fit(x[rows], y[rows], classes=np.arange(classes))
    assert second.parameters["coef_"] == pytest.approx(plain.coef_, rel=1e-4, abs=1e-5)
    assert second.parameters["intercept_"] == pytest.approx(plain.intercept_, rel=1e-4, abs=1e-5)
    assert second.state["t_"] == plain.t_ == 1 + 6 * 60
    assert second.examples == 60


def test_training_learns_and_leaves_its_input_alone() -> None:
    trainer = SklearnSGD(**SIZES, epochs=5)
    base = trainer.init(1)
    before = encode(base)
    result = trainer.train(base, blobs(), context())
    assert encode(base) == before
    assert schema_of(result.parameters) == schema_of(base)
    measured = trainer.evaluate(result.parameters, blobs())
    assert measured["accuracy"] == 1.0
    assert 0 < measured["loss"] < trainer.evaluate(base, blobs())["loss"]
    assert encode(trainer.train(base, blobs(), context()).parameters) == encode(result.parameters)
    assert encode(trainer.train(base, blobs(), context(2)).parameters) != encode(result.parameters)


def test_classes_that_a_member_does_not_have_are_known_all_the_same() -> None:
    x, y = blobs()
    trainer = SklearnSGD(**SIZES)
    base = trainer.init(1)
    new = trainer.train(base, (x[y < 2], y[y < 2]), context()).parameters
    assert new["coef_"].shape == (3, 4)
    assert trainer.evaluate(new, (x, y))["accuracy"] >= 2 / 3
    assert np.isfinite(trainer.evaluate(new, (x[y > 1], y[y > 1]))["loss"])


def test_one_that_knows_no_probabilities_has_no_loss() -> None:
    for trainer in (SklearnSGD(**SIZES, loss="hinge"), Some(lambda: Perceptron(penalty="l2"), **SIZES)):
        new = trainer.train(trainer.init(1), blobs(), context()).parameters
        assert trainer.evaluate(new, blobs()) == {"accuracy": 1.0}


def test_a_regression() -> None:
    x, _ = blobs()
    y = x @ np.array([1.0, -2.0, 0.5, 0.0]) + 1
    trainer = Some(lambda: SGDRegressor(learning_rate="constant"), inputs=4, epochs=40)
    base = trainer.init(1)
    assert {name: array.shape for name, array in base.items()} == {"coef_": (4,), "intercept_": (1,)}
    new = trainer.train(base, (x, y), context()).parameters
    assert trainer.evaluate(base, (x, y))["loss"] == pytest.approx(np.mean(y**2), rel=1e-4)
    assert trainer.evaluate(new, (x, y)) == {"loss": pytest.approx(0.0, abs=1e-2)}


def test_a_list_of_arrays_and_first_values_of_one_s_own() -> None:
    trainer = Network(lambda: MLPClassifier((5,), learning_rate_init=0.05), **SIZES, epochs=10)
    base = trainer.init(1)
    assert [str(spec) for spec in schema_of(base)] == [
        "coefs_.0 float32[4, 5]",
        "coefs_.1 float32[5, 3]",
        "intercepts_.0 float32[5]",
        "intercepts_.1 float32[3]",
    ]
    assert encode(trainer.init(1)) == encode(base)
    assert encode(trainer.init(2)) != encode(base)
    first = trainer.train(base, blobs(), context())
    assert trainer.evaluate(first.parameters, blobs())["accuracy"] == 1.0
    assert first.state["t_"] == 600
    again = trainer.train(first.parameters, blobs(), context(2, 1, first.state))
    assert again.state["t_"] == 1200


def test_a_federation_of_them_learns_the_digits() -> None:
    task = manifest(
        trainer=PluginRef(name="sklearn-sgd", settings={"epochs": 3}),
        preprocessor=PluginRef(name="digits", settings={"alpha": 1.0}),
    )
    curve = run_rounds(task)
    assert curve[-1] > 0.87


def test_training_stops_when_asked_and_where_the_time_ends() -> None:
    trainer = SklearnSGD(**SIZES, batch=8)
    with pytest.raises(TrainingStopped):
        trainer.train(trainer.init(1), blobs(), TrainContext(round=0, seed=1, should_stop=lambda: True))
    limited = TrainContext(round=0, seed=1, should_stop=never, steps=2)
    result = trainer.train(trainer.init(1), blobs(), limited)
    assert (result.examples, result.state["t_"]) == (16, 17)
    assert SklearnSGD(**SIZES, batch=8, steps=3).train(trainer.init(1), blobs(), context()).examples == 24


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        (Some(Perceptron, inputs=4), "setting classes: Perceptron tells two classes or more apart"),
        (
            Some(Perceptron, inputs=4, classes=1),
            "setting classes: Perceptron tells two classes or more apart",
        ),
        (Some(SGDRegressor, **SIZES), "setting classes: SGDRegressor has no classes: 0"),
        (
            Some(lambda: MiniBatchKMeans(1), inputs=4),
            "MiniBatchKMeans.coef_ is a NoneType, not an array",
        ),
    ],
)
def test_an_estimator_that_cannot_be_trained_so_is_named(trainer: Some, line: str) -> None:
    with pytest.raises(PluginError) as caught:
        trainer.init(1)
    assert str(caught.value) == line


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
def test_data_that_do_not_fit_the_model_are_refused(x: Any, y: Any) -> None:
    trainer = SklearnSGD(**SIZES)
    line = "do not fit a model of 4 inputs|labels must be integers from 0 to 2"
    with pytest.raises(DataError, match=line):
        trainer.train(trainer.init(1), (x, y), context())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("inputs", 0),
        ("classes", 1),
        ("epochs", 0),
        ("steps", 0),
        ("batch", 0),
        ("loss", "l2"),
        ("penalty", "none"),
        ("alpha", 0),
        ("schedule", "adaptive"),
        ("lr", 0),
        ("mu", 1),
    ],
)
def test_wrong_setting_is_named(setting: str, value: Any) -> None:
    with pytest.raises(PluginError, match=f"setting {setting}") as caught:
        SklearnSGD(**{setting: value})
    assert "\n" not in str(caught.value)
