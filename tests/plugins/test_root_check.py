from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated.errors import PluginError
from federated.parameters import AGGREGATOR, Parameters
from federated.plugin import ModelUpdate, ModelValidator
from plugins.aggregation.root_training import RootSet
from plugins.validation import root_check
from plugins.validation.root_check import RootCheck, squared_error
from tests.federated.samples import peer
from tests.plugins.test_fltrust import ROOT, TRAINER, X, Y, scaled, trained

BASE = TRAINER.init(1)
HONEST = trained()


def rule(delta: Parameters, **settings: Any) -> str | None:
    item = ModelUpdate(peer=peer(1), root=b"r", delta=delta, examples=1)
    return RootCheck(root=ROOT, **settings).check(item, BASE)


def other(delta: Parameters, value: float) -> Parameters:
    return {name: np.full_like(array, value) for name, array in delta.items()}


def test_it_is_a_validator_that_looks_at_the_model() -> None:
    assert isinstance(RootCheck(root=ROOT), ModelValidator)


def test_an_update_that_points_where_the_root_set_does_passes() -> None:
    assert rule(HONEST) is None
    assert rule(scaled(HONEST, 50.0)) is None  # how far it goes is the business of others
    assert rule(HONEST, min_cosine=0.99) is None  # the trainer does what the root set's training does


def test_an_update_that_points_elsewhere_is_refused_by_its_direction() -> None:
    assert rule(scaled(HONEST, -1.0)) == "direction"
    assert rule(scaled(HONEST, -1.0), min_cosine=-1.0) is None
    random = np.random.default_rng(1)
    noise = {name: random.standard_normal(a.shape).astype(np.float32) for name, a in HONEST.items()}
    assert rule(noise, min_cosine=0.5) == "direction"


def test_an_update_of_nothing_points_nowhere_and_passes() -> None:
    assert rule(other(HONEST, 0.0)) is None


def test_an_update_that_spoils_the_model_is_refused_by_its_error() -> None:
    far = other(HONEST, 0.0) | {"layer1.bias": np.array([0.0, 0.0, 1e3], np.float32)}
    assert rule(far, min_cosine=-1.0, max_rise=0.2) == "error"
    assert rule(far, min_cosine=-1.0) is None
    assert rule(HONEST, max_rise=0.0) is None
    overflowing = {name: np.full(array.shape, 3e144) for name, array in HONEST.items()}
    assert rule(overflowing, min_cosine=-1.0, max_rise=1.0) == "error"


def test_a_round_that_makes_the_model_much_worse_is_not_approved() -> None:
    better = {name: array + HONEST[name] for name, array in BASE.items()}
    worse = {name: array - 5 * HONEST[name] for name, array in BASE.items()}
    check = RootCheck(root=ROOT, max_model_rise=0.1)
    assert check.approve(BASE, better) is None
    assert check.approve(BASE, BASE) is None
    reason = check.approve(BASE, worse)
    assert reason is not None
    assert reason.startswith("its squared error on the root set would rise from 0.6")
    assert RootCheck(root=ROOT).approve(BASE, worse) is None
    assert RootCheck(root=ROOT, max_model_rise=10.0).approve(BASE, worse) is None


def test_what_is_not_finite_is_refused_first() -> None:
    assert rule(other(HONEST, np.nan)) == "finite"
    assert rule(other(HONEST, np.inf)) == "finite"
    assert rule({name: np.full(array.shape, 1e200) for name, array in HONEST.items()}) == "finite"


def test_the_error_is_that_of_the_probabilities() -> None:
    hidden = np.maximum(X @ BASE["layer0.weight"].T + BASE["layer0.bias"], 0)
    logits = hidden @ BASE["layer1.weight"].T + BASE["layer1.bias"]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = ((shares - np.eye(3)[Y]) ** 2).sum(axis=1).mean()
    assert squared_error(BASE, RootSet(X, Y)) == pytest.approx(expected, rel=1e-5)


def test_the_root_set_is_trained_on_once_for_each_base(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = root_check.root_delta

    def counted(*arguments: Any, **settings: Any) -> Parameters:
        calls.append(1)
        return real(*arguments, **settings)

    monkeypatch.setattr(root_check, "root_delta", counted)
    check = RootCheck(root=ROOT)
    item = ModelUpdate(peer=peer(1), root=b"r", delta=HONEST, examples=1)
    following = {name: array + HONEST[name] for name, array in BASE.items()}
    for base in (BASE, dict(BASE), following, following, BASE):
        check.check(item, base)
    assert len(calls) == 3


def test_training_that_runs_away_says_what_to_change() -> None:
    far = {name: np.full(array.shape, 1e200) for name, array in BASE.items()}
    item = ModelUpdate(peer=peer(1), root=b"r", delta=HONEST, examples=1)
    with pytest.raises(PluginError, match="training on the root set runs away: lower lr"):
        RootCheck(root=ROOT).check(item, far)


def test_a_model_that_it_cannot_train_is_refused_at_the_start() -> None:
    check = RootCheck(root=ROOT)
    check.init({**BASE, f"{AGGREGATOR}v/layer0.bias": np.zeros(7, np.float32)})
    with pytest.raises(PluginError, match="not the model of numpy-mlp"):
        check.init({"w": np.zeros(4)})
    with pytest.raises(PluginError, match="setting root: not base64"):
        RootCheck(root="?")
