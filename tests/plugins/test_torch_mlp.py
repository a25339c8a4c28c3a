from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated.codec import encode, schema_of
from federated.errors import TrainingStopped
from federated.plugin import TrainContext
from plugins.training.numpy_mlp import NumpyMLP
from tests.plugins.training import blobs, context

pytest.importorskip("torch", reason="the torch trainer is an extra that is not installed here")

from plugins.training.torch_mlp import TorchMLP

SETTINGS: dict[str, Any] = {"inputs": 4, "classes": 3, "hidden": [6, 5], "batch": 8, "epochs": 3}


def test_it_starts_from_the_same_bits_as_the_numpy_trainer() -> None:
    assert encode(TorchMLP(**SETTINGS).init(7)) == encode(NumpyMLP(**SETTINGS).init(7))


WAYS: list[dict[str, Any]] = [
    {},
    {"mu": 0.5},
    {"scaffold": True},
    {"optimiser": "adamw", "lr": 0.01},
    {"local": ["layer2."], "mu": 0.5, "scaffold": True},
]


@pytest.mark.parametrize("way", WAYS)
def test_it_takes_the_same_steps_as_the_numpy_trainer(way: dict[str, Any]) -> None:
    torch_mlp, numpy_mlp = TorchMLP(**SETTINGS, **way), NumpyMLP(**SETTINGS, **way)
    base = numpy_mlp.init(7)
    torch_mlp.init(7)
    noise = np.random.default_rng(1)
    state = {
        name: 0.1 * noise.standard_normal(array.shape).astype(np.float32) for name, array in base.items()
    }
    by_torch, by_numpy = (
        trainer.train(base, blobs(), context(5, 2, state)) for trainer in (torch_mlp, numpy_mlp)
    )
    assert schema_of(by_torch.state) == schema_of(by_numpy.state)
    for name in by_numpy.state:
        assert by_torch.state[name] == pytest.approx(by_numpy.state[name], abs=1e-4)
    assert by_torch.examples == by_numpy.examples
    assert schema_of(by_torch.parameters) == schema_of(base)
    for name, array in by_numpy.parameters.items():
        assert by_torch.parameters[name] == pytest.approx(array, abs=1e-4)
        assert np.abs(array - base[name]).max() > 0.01


@pytest.mark.parametrize("way", [{}, {"optimiser": "adamw", "lr": 0.01}])
def test_it_carries_the_same_memory_as_the_numpy_trainer(way: dict[str, Any]) -> None:
    way = {**way, "carry": True}
    base = NumpyMLP(**SETTINGS).init(7)
    first = NumpyMLP(**SETTINGS, **way).train(base, blobs(), context(5, 1))
    before = encode(first.state)
    by_torch, by_numpy = (
        trainer.train(first.parameters, blobs(), context(6, 2, first.state))
        for trainer in (TorchMLP(**SETTINGS, **way), NumpyMLP(**SETTINGS, **way))
    )
    assert encode(first.state) == before
    assert schema_of(by_torch.state) == schema_of(by_numpy.state)
    for name in base:
        assert by_torch.parameters[name] == pytest.approx(by_numpy.parameters[name], abs=1e-4)
    for name in by_numpy.state:
        assert by_torch.state[name] == pytest.approx(by_numpy.state[name], abs=1e-4)
        assert np.abs(by_numpy.state[name]).max() > 1e-5


def test_without_momentum_the_velocity_is_nothing() -> None:
    trainer = TorchMLP(**SETTINGS, momentum=0.0, carry=True)
    state = trainer.train(trainer.init(1), blobs(), context()).state
    assert not any(array.any() for array in state.values())
    trainer.train(trainer.init(1), blobs(), context(state=state))


def test_it_measures_as_the_numpy_trainer_does() -> None:
    parameters = NumpyMLP(**SETTINGS).train(NumpyMLP(**SETTINGS).init(7), blobs(), context()).parameters
    by_torch = TorchMLP(**SETTINGS).evaluate(parameters, blobs())
    assert by_torch == pytest.approx(NumpyMLP(**SETTINGS).evaluate(parameters, blobs()), abs=1e-5)


def test_same_seed_gives_the_same_bits_and_the_input_is_left_alone() -> None:
    trainer = TorchMLP(**SETTINGS)
    base = trainer.init(1)
    before = encode(base)
    first, again, other = (encode(trainer.train(base, blobs(), context(s)).parameters) for s in (5, 5, 6))
    assert encode(base) == before
    assert first == again
    assert first != other


def test_training_stops_when_asked() -> None:
    trainer = TorchMLP(**SETTINGS)
    with pytest.raises(TrainingStopped):
        trainer.train(trainer.init(1), blobs(), TrainContext(round=0, seed=1, should_stop=lambda: True))
