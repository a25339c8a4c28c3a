"""FedProx, SCAFFOLD and personal parameters, on the numpy trainer, against what the papers say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated.codec import encode, schema_of
from federated.errors import PluginError
from federated.parameters import Parameters, l2_norm
from plugins.training.gradient import CONTROL, OWN
from plugins.training.mlp import Features, Labels
from plugins.training.numpy_mlp import NumpyMLP
from tests.plugins.training import blobs, context

PLAIN: dict[str, Any] = {"inputs": 4, "classes": 3, "hidden": [5], "momentum": 0.0, "clip": 1e6, "batch": 60}
Data = tuple[Features, Labels]


def shards() -> list[Data]:
    """Two members' data that are not alike: each has all of one class and some of another."""
    x, y = blobs()
    first = (y == 0) | ((y == 1) & (np.arange(len(y)) < 40))
    return [(x[first], y[first]), (x[~first], y[~first])]


def gradients(model: Parameters, data: Data) -> Parameters:
    return NumpyMLP(**PLAIN)._gradients({name: array.copy() for name, array in model.items()}, *data)


def mean(models: list[Parameters]) -> Parameters:
    return {name: np.mean([model[name] for model in models], axis=0) for name in models[0]}


def close(found: Parameters, expected: Parameters) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name] == pytest.approx(array, abs=2e-5), name


def test_fedprox_is_the_gradient_of_its_objective() -> None:
    trainer = NumpyMLP(**PLAIN, epochs=4, lr=0.2, mu=0.7)
    base = trainer.init(3)
    expected = {name: array.astype(np.float64) for name, array in base.items()}
    for _ in range(4):
        found = gradients(expected, blobs())
        expected = {n: w - 0.2 * (found[n] + 0.7 * (w - base[n])) for n, w in expected.items()}
    result = trainer.train(base, blobs(), context())
    close(result.parameters, expected)
    assert result.state == {}
    free = NumpyMLP(**PLAIN, epochs=4, lr=0.2).train(base, blobs(), context()).parameters
    assert all(np.abs(free[name] - expected[name]).max() > 1e-3 for name in base)


def test_a_strong_pull_keeps_the_model_near_its_base() -> None:
    base = NumpyMLP(**PLAIN).init(3)
    moved = [
        max(np.abs(new[name] - base[name]).max() for name in base)
        for mu in (0.0, 1.0, 9.0)
        for new in [NumpyMLP(**PLAIN, epochs=30, mu=mu).train(base, blobs(), context()).parameters]
    ]
    assert moved[0] > 2 * moved[1] > 4 * moved[2] > 0


def test_scaffold_is_the_paper_s_with_option_two() -> None:
    steps, lr, members = 3, 0.2, shards()
    trainers = [NumpyMLP(**PLAIN, steps=steps, lr=lr, scaffold=True) for _ in members]
    model = trainers[0].init(3)
    states: list[Parameters] = [{} for _ in members]
    x = {name: array for name, array in model.items() if not name.startswith(CONTROL)}
    c = {name: np.zeros_like(array) for name, array in x.items()}
    own = [dict(c) for _ in members]
    for number in range(3):
        results = [
            trainer.train(model, data, context(7, number, state))
            for trainer, data, state in zip(trainers, members, states, strict=True)
        ]
        model, states = mean([result.parameters for result in results]), [r.state for r in results]
        locals_, new_own = [], []
        for data, mine in zip(members, own, strict=True):
            y = dict(x)
            for _ in range(steps):
                found = gradients(y, data)
                y = {name: w - lr * (found[name] - mine[name] + c[name]) for name, w in y.items()}
            locals_.append(y)
            new_own.append({n: mine[n] - c[n] + (x[n] - y[n]) / (steps * lr) for n in x})
        changes = [{n: new[n] - old[n] for n in x} for new, old in zip(new_own, own, strict=True)]
        x, c, own = mean(locals_), {n: c[n] + mean(changes)[n] for n in x}, new_own
    close(model, x | {CONTROL + name: array for name, array in c.items()})
    for state, mine in zip(states, own, strict=True):
        close(state, {CONTROL + name: array for name, array in mine.items()})
    assert all(np.abs(array).max() > 1e-4 for array in c.values())


def slope_after(rounds: int, **settings: Any) -> float:
    """The gradient over all data that is left, where two members with unlike data make many steps a round."""
    x, y = blobs()
    y = np.where(np.arange(len(y)) % 5 == 0, (y + 1) % 3, y)  # nobody can be right about all
    members = [(x[y == 0], y[y == 0]), (x[y > 0], y[y > 0])]
    trainers = [NumpyMLP(**{**PLAIN, "hidden": []}, steps=20, lr=0.2, **settings) for _ in members]
    model, states = trainers[0].init(3), [{} for _ in members]
    for number in range(rounds):
        results = [
            trainer.train(model, data, context(1, number, state))
            for trainer, data, state in zip(trainers, members, states, strict=True)
        ]
        counts = [result.examples for result in results]
        model = {
            name: np.average([r.parameters[name] for r in results], axis=0, weights=counts) for name in model
        }
        states = [result.state for result in results]
    assert sum(counts) == len(y)
    left = NumpyMLP(**{**PLAIN, "hidden": []})._gradients(
        {name: array for name, array in model.items() if not name.startswith(CONTROL)}, x, y
    )
    return l2_norm(left)


def test_scaffold_finds_the_optimum_of_all_data_where_averaging_does_not() -> None:
    assert slope_after(60, scaffold=True) < 0.02 * slope_after(60)


def test_a_member_without_a_variate_of_its_own_is_not_corrected() -> None:
    trainer = NumpyMLP(**PLAIN, scaffold=True)
    base = trainer.init(3)
    model = {name: array + 0.5 if name.startswith(CONTROL) else array for name, array in base.items()}
    free = NumpyMLP(**PLAIN).train(base, blobs(), context()).parameters
    found = trainer.train(model, blobs(), context()).parameters
    close({name: found[name] for name in free}, free)


def test_control_variates_are_measured_with_the_model_but_not_a_part_of_it() -> None:
    trainer = NumpyMLP(**PLAIN, scaffold=True)
    base = trainer.init(3)
    names = sorted(NumpyMLP(**PLAIN).init(3))
    assert sorted(base) == sorted([*names, *(CONTROL + name for name in names)])
    assert not any(array.any() for name, array in base.items() if name.startswith(CONTROL))
    assert trainer.evaluate(base, blobs()) == NumpyMLP(**PLAIN).evaluate(NumpyMLP(**PLAIN).init(3), blobs())


def test_own_parameters_stay_in_the_state_and_are_used() -> None:
    trainer = NumpyMLP(**PLAIN, local=["layer1."], epochs=30)
    shared = trainer.init(3)
    whole = NumpyMLP(**PLAIN).init(3)
    assert sorted(shared) == ["layer0.bias", "layer0.weight"]
    assert trainer.evaluate(shared, blobs()) == NumpyMLP(**PLAIN).evaluate(whole, blobs())
    first = trainer.train(shared, blobs(), context())
    assert schema_of(first.parameters) == schema_of(shared)
    assert sorted(first.state) == [f"{OWN}layer1.bias", f"{OWN}layer1.weight"]
    everything = NumpyMLP(**PLAIN, epochs=30).train(whole, blobs(), context()).parameters
    close(first.parameters | {n.removeprefix(OWN): a for n, a in first.state.items()}, everything)
    drawn = trainer.evaluate(shared, blobs())
    assert trainer.evaluate_with(first.parameters, blobs(), first.state)["accuracy"] == 1.0
    assert trainer.evaluate(first.parameters, blobs())["accuracy"] == 1.0
    assert trainer.evaluate_with(shared, blobs(), {}) == NumpyMLP(**PLAIN).evaluate(whole, blobs()) != drawn
    assert (trainer.is_personal, NumpyMLP(**PLAIN).is_personal) == (True, False)
    again = trainer.train(shared, blobs(), context(2, 1, first.state))
    assert encode(again.state) != encode(first.state)


def test_training_again_from_the_same_state_gives_the_same_bits_in_another_process() -> None:
    settings: dict[str, Any] = {
        **PLAIN,
        "local": ["layer1."],
        "scaffold": True,
        "carry": True,
        "momentum": 0.5,
    }
    one = NumpyMLP(**settings)
    base = one.init(3)
    first = one.train(base, blobs(), context(1, 1))
    second = one.train(first.parameters, blobs(), context(2, 2, first.state))
    other = NumpyMLP(**settings)
    other.init(3)
    again = other.train(first.parameters, blobs(), context(2, 2, first.state))
    once_more = one.train(first.parameters, blobs(), context(2, 2, first.state))
    for result in (again, once_more):
        assert encode(result.parameters) == encode(second.parameters)
        assert encode(result.state) == encode(second.state)


def test_own_parameters_are_neither_held_nor_corrected() -> None:
    trainer = NumpyMLP(**PLAIN, local=["layer1."], scaffold=True, mu=0.7, epochs=4, lr=0.2)
    base = trainer.init(3)
    layer = ["layer0.bias", "layer0.weight"]
    assert sorted(base) == [*layer, *(CONTROL + name for name in layer)]
    own = {CONTROL + name: np.full_like(base[name], -0.1) for name in layer}
    result = trainer.train(base, blobs(), context(state=own))
    start = NumpyMLP(**PLAIN).init(3)
    expected = dict(start)
    for _ in range(4):
        found = gradients(expected, blobs())
        for name in layer:
            found[name] = found[name] + 0.1 + 0.7 * (expected[name] - start[name])
        expected = {name: w - 0.2 * found[name] for name, w in expected.items()}
    close({name: result.parameters[name] for name in layer}, {name: expected[name] for name in layer})
    for name in ("layer1.bias", "layer1.weight"):
        assert result.state[OWN + name] == pytest.approx(expected[name], abs=2e-5)


@pytest.mark.parametrize(
    ("local", "line"),
    [
        (["head."], "setting local: no parameter begins with 'head.'; there are layer0.bias, layer0.weight,"),
        (["layer"], "setting local: no parameter is left that travels"),
    ],
)
def test_prefixes_that_make_no_sense_are_named(local: list[str], line: str) -> None:
    with pytest.raises(PluginError, match=line) as caught:
        NumpyMLP(**PLAIN, local=local).init(1)
    assert "\n" not in str(caught.value)
