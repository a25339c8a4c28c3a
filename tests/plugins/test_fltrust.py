from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import pytest

from federated.errors import AggregationError, PluginError
from federated.parameters import Parameters
from federated.plugin import ModelUpdate, TrainContext
from plugins.aggregation import fltrust
from plugins.aggregation.fltrust import FLTrust, read_root
from plugins.aggregation.pipeline import Pipeline
from plugins.aggregation.root_training import RootSet, exponential, gradients, root_delta, softmax
from plugins.training.numpy_mlp import NumpyMLP
from plugins.training.softmax import Softmax
from tests.federated.samples import peer

RNG = np.random.default_rng(8)
X = RNG.standard_normal((12, 5))
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
TRAINER = NumpyMLP(inputs=5, classes=3, hidden=(7,), epochs=15, batch=100)


def packed(**arrays: Any) -> str:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return base64.b64encode(file.getvalue()).decode()


ROOT = packed(x=X, y=Y)


def trained(x: np.ndarray[Any, Any] = X, y: np.ndarray[Any, Any] = Y) -> Parameters:
    base = TRAINER.init(1)
    context = TrainContext(round=0, seed=1, should_stop=lambda: False)
    new = TRAINER.train(base, (x.astype(np.float32), y), context).parameters
    return {name: new[name] - base[name] for name in base}


def updates(*deltas: Parameters, staleness: int = 0) -> list[ModelUpdate]:
    return [
        ModelUpdate(
            peer=peer(number),
            root=bytes([number]),
            delta=delta,
            examples=1,
            staleness=staleness * (not number),
        )
        for number, delta in enumerate(deltas)
    ]


def flat(parameters: Parameters) -> np.ndarray[Any, Any]:
    return np.concatenate([parameters[name].ravel().astype(np.float64) for name in sorted(parameters)])


def scaled(delta: Parameters, factor: float) -> Parameters:
    return {name: (array * factor).astype(np.float32) for name, array in delta.items()}


def test_the_exponential_is_right_to_the_last_bits() -> None:
    values = np.concatenate([np.linspace(-699.0, 0.0, 2000), np.linspace(-2.0, 0.0, 2000)])
    expected = [math.exp(value) for value in values.tolist()]
    assert exponential(values).tolist() == pytest.approx(expected, rel=5e-16, abs=0)


def test_far_below_zero_the_exponential_is_next_to_nothing() -> None:
    assert exponential(np.array([-1e308]))[0] < 1e-300


def test_shares_add_up_to_one() -> None:
    assert softmax(np.array([[1e3, -1e3, 0.0], [1.0, 1.0, 1.0]])) == pytest.approx(
        np.array([[1.0, 0.0, 0.0], [1 / 3] * 3])
    )


def test_gradients_are_those_of_finite_differences() -> None:
    parameters = {name: array.astype(np.float64) for name, array in TRAINER.init(1).items()}
    root = RootSet(X, Y)

    def loss() -> float:
        hidden = np.maximum(X @ parameters["layer0.weight"].T + parameters["layer0.bias"], 0)
        logits = hidden @ parameters["layer1.weight"].T + parameters["layer1.bias"]
        return float(
            np.mean([math.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, Y, strict=True)])
        )

    for name, gradient in gradients(parameters, root).items():
        for place in np.ndindex(*gradient.shape):
            kept = parameters[name][place]
            parameters[name][place] = kept + 1e-5
            above = loss()
            parameters[name][place] = kept - 1e-5
            assert gradient[place] == pytest.approx((above - loss()) / 2e-5, abs=1e-5)
            parameters[name][place] = kept


def test_training_on_the_root_set_is_what_the_trainer_does_with_it() -> None:
    expected = trained()
    found = root_delta(TRAINER.init(1), RootSet(X, Y), steps=15, lr=0.1, momentum=0.9, clip=1.0)
    assert np.linalg.norm(flat(found) - flat(expected)) < 1e-3 * np.linalg.norm(flat(expected))


def test_logistic_regression_is_an_mlp_without_hidden_layers() -> None:
    trainer = Softmax(inputs=5, classes=3, epochs=15, batch=100)
    base = trainer.init(1)
    context = TrainContext(round=0, seed=1, should_stop=lambda: False)
    new = trainer.train(base, (X.astype(np.float32), Y), context).parameters
    found = root_delta(base, RootSet(X, Y), steps=15, lr=0.1, momentum=0.9, clip=1.0)
    expected = flat(new) - flat(base)
    assert np.linalg.norm(expected) > 0.1
    assert np.linalg.norm(flat(found) - expected) < 1e-3 * np.linalg.norm(expected)
    assert FLTrust(root=ROOT).init(base) == {}


def test_trust_by_hand() -> None:
    """Each delta at the root delta's length, by the cosine with it, and none that points away."""
    base = TRAINER.init(1)
    along = trained()
    across = {name: RNG.standard_normal(array.shape).astype(np.float32) for name, array in base.items()}
    moved = FLTrust(root=ROOT).aggregate(base, updates(scaled(along, 100.0), across, scaled(along, -1.0)))
    root = flat(root_delta(base, RootSet(X, Y), steps=15, lr=0.1, momentum=0.9, clip=1.0))
    length = np.linalg.norm(root)
    total, trust = np.zeros_like(root), 0.0
    for delta in (flat(along), flat(across), -flat(along)):
        cosine = max(0.0, float(delta @ root / np.linalg.norm(delta) / length))
        total, trust = total + cosine * length * delta / np.linalg.norm(delta), trust + cosine
    assert flat(moved) - flat(base) == pytest.approx(total / trust, abs=1e-6)


def leaning(share: float, seed: int) -> Parameters:
    """A delta of length 3 whose cosine with the root set's own is `share`."""
    base = TRAINER.init(1)
    root = flat(root_delta(base, RootSet(X, Y), steps=15, lr=0.1, momentum=0.9, clip=1.0))
    along = root / np.linalg.norm(root)
    across = np.random.default_rng(seed).standard_normal(len(root))
    across -= (across @ along) * along
    across /= np.linalg.norm(across)
    values = 3 * (share * along + math.sqrt(1 - share * share) * across)
    found, start = {}, 0
    for name in sorted(base):
        found[name] = values[start : start + base[name].size].reshape(base[name].shape).astype(np.float32)
        start += base[name].size
    return found


@pytest.mark.parametrize(
    ("most", "trusts"),
    [
        (1.0, (0.1, 0.2, 0.2, 0.2, 0.0)),  # the lower median of 0.1, 0.2, 0.3 and 0.9
        (2.0, (0.1, 0.2, 0.3, 0.4, 0.0)),
        (None, (0.1, 0.2, 0.3, 0.9, 0.0)),
    ],
)
def test_nobody_is_trusted_much_more_than_the_median_of_the_trusted(
    most: float | None, trusts: tuple[float, ...]
) -> None:
    base = TRAINER.init(1)
    deltas = [leaning(share, seed) for seed, share in enumerate((0.1, 0.2, 0.3, 0.9, -0.9))]
    moved = FLTrust(root=ROOT, max_trust=most).aggregate(base, updates(*deltas))
    length = np.linalg.norm(flat(root_delta(base, RootSet(X, Y), steps=15, lr=0.1, momentum=0.9, clip=1.0)))
    step = sum(trust * flat(delta) / 3 * length for trust, delta in zip(trusts, deltas, strict=True))
    assert flat(moved) - flat(base) == pytest.approx(step / sum(trusts), abs=1e-6)


def test_a_majority_of_liars_is_withstood() -> None:
    base, honest = TRAINER.init(1), trained()
    lies = [scaled(honest, factor) for factor in (-1.0, -5.0, -1e4)]
    moved = FLTrust(root=ROOT).aggregate(base, updates(honest, *lies))
    step = flat(moved) - flat(base)
    assert step @ flat(honest) > 0.99 * np.linalg.norm(step) * np.linalg.norm(flat(honest))


def test_a_late_update_is_trusted_less() -> None:
    base, honest = TRAINER.init(1), trained()
    other = trained(X[:6], Y[:6])
    step = flat(honest)
    fresh = flat(FLTrust(root=ROOT).aggregate(base, updates(honest, other))) - flat(base)
    late = flat(FLTrust(root=ROOT).aggregate(base, updates(honest, other, staleness=8))) - flat(base)
    assert late @ step < fresh @ step


def test_when_nobody_is_trusted_there_is_no_model() -> None:
    base = TRAINER.init(1)
    for delta in (scaled(trained(), -1.0), scaled(trained(), 0.0)):
        with pytest.raises(AggregationError, match="no update points where the root set does"):
            FLTrust(root=ROOT).aggregate(base, updates(delta))


def test_training_that_runs_away_is_explained() -> None:
    rule = FLTrust(root=packed(x=X * 1e200, y=Y))
    with pytest.raises(AggregationError, match="training on the root set runs away: lower lr"):
        rule.aggregate(TRAINER.init(1), updates(trained()))


def test_steps_before_it_change_what_it_trusts() -> None:
    rule = {"name": "fltrust", "settings": {"root": ROOT}}
    made = Pipeline(steps=[{"name": "bucketing", "settings": {"size": 2}}], rule=rule)
    base, honest = TRAINER.init(1), trained()
    assert made.init(base) == {}
    moved = made.aggregate(base, updates(honest, honest))
    assert flat(moved) == pytest.approx(flat(FLTrust(root=ROOT).aggregate(base, updates(honest))), abs=1e-6)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ({"w": np.zeros(3)}, "not the model of numpy-mlp, torch-mlp or softmax"),
        ({}, "not the model of numpy-mlp"),
        (NumpyMLP(inputs=4, classes=3).init(1), "x has 5 columns and y goes to 2, the model has 4 inputs"),
        (NumpyMLP(inputs=5, classes=2).init(1), "the model has 5 inputs and 2 classes"),
    ],
)
def test_a_model_that_it_cannot_train_is_refused_before_the_first_round(model: Parameters, line: str) -> None:
    assert FLTrust(root=ROOT).init(TRAINER.init(1)) == {}
    with pytest.raises(PluginError, match=line):
        FLTrust(root=ROOT).init(model)


@pytest.mark.parametrize(
    ("root", "line"),
    [
        ("???", "not base64; make it with: base64 -w0 root.npz"),
        (base64.b64encode(b"no zip file").decode(), "not a file of the numpy arrays x and y: BadZipFile"),
        (packed(x=X), "not a file of the numpy arrays x and y: KeyError"),
        (packed(x=np.array([{}]), y=Y), "not a file of the numpy arrays x and y: ValueError"),
        (
            packed(x=X, y=Y[1:]),
            r"x float64\[12, 5\] and y int64\[11\] are not one row and one class for each example",
        ),
        (packed(x=X[0], y=Y), "not one row and one class"),
        (packed(x=X, y=X[:, 0]), "not one row and one class"),
        (packed(x=X[:0], y=Y[:0]), "not one row and one class"),
        (packed(x=X * np.nan, y=Y), "not finite"),
        (packed(x=X, y=-Y - 1), "negative"),
        (packed(x=np.zeros(9000), y=Y), "over the limit of 65536 bytes"),
    ],
)
def test_a_root_set_that_is_none_is_named_in_one_line(
    root: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fltrust, "MAX_ROOT", 1 << 16)
    with pytest.raises(PluginError, match=f"setting root: .*{line}"):
        read_root(root)
