from __future__ import annotations

import numpy as np
import pytest

from federated.codec import encode
from federated.errors import PluginError
from federated.plugin import PeerContext, Trainer
from plugins.preprocessing.digits import Digits
from plugins.training.softmax import Softmax
from tests.federated.samples import peer
from tests.plugins.training import blobs, context


def test_it_begins_at_zero_whatever_the_seed() -> None:
    trainer = Softmax(inputs=4, classes=3)
    assert isinstance(trainer, Trainer)
    parameters = trainer.init(1)
    assert {name: array.shape for name, array in parameters.items()} == {
        "layer0.bias": (3,),
        "layer0.weight": (3, 4),
    }
    assert not any(array.any() for array in parameters.values())
    assert encode(parameters) == encode(trainer.init(2))


def test_its_first_step_is_towards_the_mean_of_each_class() -> None:
    trainer = Softmax(inputs=4, classes=3, steps=1, batch=60, lr=1.0, momentum=0.0, clip=1e6)
    x, y = blobs()
    found = trainer.train(trainer.init(1), (x, y), context()).parameters
    towards = (np.eye(3)[y] - 1 / 3).T @ x / 60  # minus the gradient where all classes are equally likely
    assert found["layer0.weight"] == pytest.approx(towards, abs=1e-6)
    assert found["layer0.bias"] == pytest.approx(np.zeros(3), abs=1e-6)


def test_it_learns_the_digits() -> None:
    alone = PeerContext(peer=peer(1), members=(peer(1),), index=0)
    data = Digits().load(alone)
    trainer = Softmax()
    parameters = trainer.train(trainer.init(1), data.train, context()).parameters
    assert trainer.evaluate(parameters, data.holdout)["accuracy"] > 0.93


def test_it_has_no_hidden_layers_to_set() -> None:
    with pytest.raises(PluginError, match="setting hidden"):
        Softmax(hidden=[8])  # type: ignore[call-arg]
