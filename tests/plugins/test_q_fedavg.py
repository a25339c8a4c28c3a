"""q-FedAvg, trainer and rule together, against the paper's Algorithm 2."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from federated.errors import AggregationError, PluginError
from federated.parameters import Parameters, difference
from federated.plugin import ModelUpdate
from plugins.aggregation.q_fedavg import QFedAvg
from plugins.aggregation.weighted_mean import WeightedMean
from plugins.fairness import CURVATURE, MIN_LOSS, terms
from plugins.training.numpy_mlp import NumpyMLP
from plugins.training.softmax import Softmax
from tests.federated.samples import peer
from tests.plugins.training import blobs, context

PLAIN: dict[str, Any] = {"inputs": 4, "classes": 3, "epochs": 3, "momentum": 0.0, "batch": 20, "lr": 0.2}
MEMBERS = 3


def shards() -> list[Any]:
    """Two members see two of the classes; the third one alone sees the last, and little of it."""
    x, y = blobs()
    rare = np.flatnonzero(y == 2)[:12]
    common = np.flatnonzero(y != 2)
    return [(x[rows], y[rows]) for rows in (common[::2], common[1::2], rare)]


def updates(trainer: NumpyMLP, base: Parameters, round_number: int = 1) -> list[ModelUpdate]:
    found = []
    for number, data in enumerate(shards()):
        made = trainer.train(base, data, replace(context(), round=round_number))
        delta = difference(made.parameters, base)
        found.append(
            ModelUpdate(peer=peer(number), root=bytes([number]) * 32, delta=delta, examples=made.examples)
        )
    return found


def losses(trainer: NumpyMLP, model: Parameters) -> list[float]:
    return [trainer.evaluate(model, data)["loss"] for data in shards()]


@pytest.mark.parametrize("q", [0.5, 1.0, 3.0])
def test_a_step_is_the_paper_s(q: float) -> None:
    plain = NumpyMLP(**PLAIN, hidden=[5], decay=0.9)
    fair = NumpyMLP(**PLAIN, hidden=[5], decay=0.9, q=q)
    start = plain.init(3)
    lipschitz = 1 / (0.2 * 0.9)  # in the paper 1 / learning rate
    above, below = dict.fromkeys(start, 0.0), 0.0
    for data, update in zip(shards(), updates(plain, start), strict=True):
        loss = plain.evaluate(start, data)["loss"]
        gradient = {name: -lipschitz * delta.astype(np.float64) for name, delta in update.delta.items()}
        square = sum(float((part**2).sum()) for part in gradient.values())
        above = {name: above[name] + loss**q * part for name, part in gradient.items()}
        below += q * loss ** (q - 1) * square + lipschitz * loss**q
    base = fair.init(3)
    rule = QFedAvg()
    assert rule.init(base) == {}
    model = rule.aggregate(base, updates(fair, base))
    for name, array in start.items():
        assert model[name] == pytest.approx(array - above[name] / below, abs=2e-6), name
    assert model[CURVATURE] == pytest.approx(1.0)
    again = rule.aggregate(model, updates(fair, model, 2))  # what counts the steps disturbs nobody
    assert again[CURVATURE] == pytest.approx(2.0)


def test_with_a_small_q_it_is_the_mean_of_members_that_count_alike() -> None:
    start = Softmax(**PLAIN).init(3)
    alike = [replace(update, examples=1) for update in updates(Softmax(**PLAIN), start)]
    fair = Softmax(**PLAIN, q=1e-9)
    base = fair.init(3)
    model = QFedAvg().aggregate(base, updates(fair, base))
    for name, array in WeightedMean().aggregate(start, alike).items():
        assert model[name] == pytest.approx(array, abs=1e-6)


def test_it_is_more_evenly_good_than_a_mean() -> None:
    uneven = []
    for q, rule in ((0.0, WeightedMean()), (0.5, QFedAvg())):
        trainer = Softmax(**PLAIN, q=q)
        model = trainer.init(3)
        for number in range(1, 11):
            model = rule.aggregate(model, updates(trainer, model, number))
        found = losses(trainer, model)
        assert max(found) < 0.3  # it began at log 3
        uneven.append(max(found) / min(found))
    assert uneven[0] > 1.5 > 1.2 > uneven[1]


def test_late_updates_count_less() -> None:
    fair = Softmax(**PLAIN, q=1.0)
    base = fair.init(3)
    first, *others = updates(fair, base)
    late = replace(first, staleness=3)
    model = QFedAvg().aggregate(base, [late, *others])
    parts = [(0.5, first), *((1.0, update) for update in others)]
    below = sum(by * float(update.delta[CURVATURE]) for by, update in parts)
    for name in base:
        step = sum(by * update.delta[name].astype(np.float64) for by, update in parts) / below
        assert model[name] == pytest.approx(base[name] + step, abs=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PluginError, match="set q of the trainer above 0"):
        QFedAvg().init(Softmax(**PLAIN).init(3))
    with pytest.raises(PluginError, match="setting q: it does not go with scaffold"):
        Softmax(**PLAIN, q=1.0, scaffold=True)
    fair = Softmax(**PLAIN, q=1.0)
    base = fair.init(3)
    lies = [
        replace(update, delta=update.delta | {CURVATURE: np.float32(-1.0)}) for update in updates(fair, base)
    ]
    with pytest.raises(AggregationError, match="curvature is not positive"):
        QFedAvg().aggregate(base, lies)
    for loss in (math.nan, math.inf, -1.0):
        with pytest.raises(PluginError, match="setting q: the loss of the model on the data here is"):
            terms(base, base, loss, q=1.0, rate=0.1)


def test_a_member_without_any_loss_still_sends_numbers() -> None:
    fair = Softmax(**PLAIN, q=0.5)
    base = fair.init(3)
    sent = terms(base, {n: base[n] + 1 for n in base if n != CURVATURE}, 0.0, q=0.5, rate=0.1)
    square = sum(array.size for name, array in base.items() if name != CURVATURE)
    assert float(sent[CURVATURE]) == pytest.approx(
        MIN_LOSS**0.5 + 0.5 * MIN_LOSS**-0.5 * square / 0.1, rel=1e-6
    )
