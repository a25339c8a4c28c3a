"""Flower's clients and strategies, written as its tutorials do, run as tasks here."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from federated import trial
from federated.errors import AggregationError, PluginError
from federated.manifest import PluginRef
from federated.parameters import Parameters
from federated.plugin import ModelUpdate, PeerContext, TrainContext
from federated.registry import GROUP, Registry
from federated.trial import try_out
from plugins.adapters.flower import from_flower, from_strategy
from plugins.aggregation.weighted_mean import WeightedMean
from tests.federated.lab import peer_number

HERE = "tests.plugins.test_flower"
MEMBERS = tuple(sorted(map(peer_number, (1, 2, 3))))


class FlowerClient:
    """As in a tutorial: a softmax on one part of two clouds of points."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y
        self.weight = np.random.normal(size=(2, 2)).astype(np.float32)
        self.configs: list[dict[str, Any]] = []

    def get_parameters(self, config: dict[str, Any]) -> list[Any]:
        return [self.weight]

    def set_parameters(self, parameters: list[Any]) -> None:
        self.weight = parameters[0].copy()

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        self.set_parameters(parameters)
        self.configs.append(config)
        for _ in range(config.get("local_epochs", 5)):
            scores = np.exp(self.x @ self.weight)
            scores /= scores.sum(1, keepdims=True)
            self.weight -= (self.x.T @ (scores - np.eye(2)[self.y]) / len(self.x)).astype(np.float32)
        return self.get_parameters({}), len(self.x), {"train_loss": 0.5, "note": "fine"}

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        self.set_parameters(parameters)
        accuracy = float(((self.x @ self.weight).argmax(1) == self.y).mean())
        return 1 - accuracy, len(self.x), {"accuracy": accuracy}

    def to_client(self) -> Any:
        return SimpleNamespace(numpy_client=self)


def points(partition: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(partition)
    y = np.arange(40) % 2
    return (generator.normal(size=(40, 2)) + 3 * np.stack([2 * y - 1, 1 - 2 * y], 1)).astype(np.float32), y


def client_fn(context: Any) -> Any:
    assert context.node_config["num-partitions"] >= 1
    return FlowerClient(*points(context.node_config["partition-id"])).to_client()


def old_client_fn(cid: str) -> Any:
    return FlowerClient(*points(int(cid)))


class ShortClient(FlowerClient):
    """As in the newer tutorials: the first parameters come from the server, the epochs from the run."""

    def __init__(self, x: Any, y: Any, local_epochs: int) -> None:
        super().__init__(x, y)
        self.local_epochs = local_epochs

    def get_parameters(self, config: dict[str, Any]) -> list[Any]:
        return []

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        _, examples, metrics = super().fit(parameters, {"local_epochs": self.local_epochs})
        return [self.weight], examples, metrics


def short_client_fn(context: Any) -> Any:
    data = points(context.node_config["partition-id"])
    return ShortClient(*data, context.run_config["local-epochs"]).to_client()


def server_fn(context: Any) -> Any:
    assert context.run_config["local-epochs"] == 1
    strategy = FedAvg()
    strategy.initial_parameters = [np.random.normal(size=(2, 2)).astype(np.float32)]
    return SimpleNamespace(strategy=strategy, config=SimpleNamespace(num_rounds=3))


Clouds = from_flower(client_fn, {"local_epochs": 3})
Old = from_flower(old_client_fn)


def context(index: int = 1) -> PeerContext:
    return PeerContext(peer=MEMBERS[index], members=MEMBERS, index=index)


def train_context() -> TrainContext:
    return TrainContext(round=4, seed=1, should_stop=lambda: False)


@pytest.mark.parametrize("kind", [Clouds, Old])
def test_a_client_is_a_task(kind: Any) -> None:
    task = kind()
    parameters, data = task.init(3), task.load(context())
    result = task.train(parameters, data.train, train_context())
    assert (list(result.parameters), result.examples) == (["parameter.00000"], 40)
    assert result.metrics == {"train_loss": 0.5}
    assert data.train.configs[0]["server_round"] == 4
    assert data.train.configs[0].get("local_epochs") == (3 if kind is Clouds else None)
    measured = task.evaluate(result.parameters, data.holdout)
    assert measured["accuracy"] == pytest.approx(1 - measured["loss"])
    assert np.array_equal(data.train.x, points(1)[0])


def test_the_first_model_is_the_same_everywhere_and_disturbs_nobody() -> None:
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), str(np.random.get_state())
    one, other, third = Clouds().init(3), Clouds().init(3), Clouds().init(4)
    assert np.array_equal(one["parameter.00000"], other["parameter.00000"])
    assert not np.array_equal(one["parameter.00000"], third["parameter.00000"])
    assert (random.getstate(), str(np.random.get_state())) == before


def test_a_published_client_learns_as_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "clouds": f"{HERE}:Clouds",
        "weighted-mean": "plugins.aggregation.weighted_mean:WeightedMean",
        "update-check": "plugins.validation.update_check:UpdateCheck",
    }
    points = [EntryPoint(name, value, GROUP) for name, value in found.items()]
    monkeypatch.setattr(trial, "Registry", lambda: Registry(installed=points))
    check = PluginRef(name="update-check", settings={"max_ratio": 20.0})
    assert try_out("clouds", members=3, rounds=4, validator=check)[-1]["accuracy"] > 0.9  # type: ignore[operator]


class Broken(FlowerClient):
    def fit(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        return parameters

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        return 0.5, 3, None


def test_what_is_no_client_or_answers_wrongly_is_said_in_one_line() -> None:
    with pytest.raises(PluginError, match="a SimpleNamespace is no NumPyClient: it has no get_parameters"):
        from_flower(lambda context: SimpleNamespace())().load(context())
    task = from_flower(lambda cid: Broken(*points(0)))()
    data = task.load(context())
    with pytest.raises(
        PluginError, match=r"^fit of a NumPyClient returns \(parameters, examples, metrics\), not list$"
    ):
        task.train(task.init(1), data.train, train_context())
    with pytest.raises(PluginError, match="evaluate of a NumPyClient returns"):
        task.evaluate(task.init(1), data.holdout)

    class Tensor(FlowerClient):
        def get_parameters(self, config: dict[str, Any]) -> Any:
            return self.weight

    with pytest.raises(PluginError, match="parameters are a list of arrays, not a ndarray"):
        from_flower(lambda cid: Tensor(*points(0)))().init(1)


# strategies


@dataclass
class FitRes:
    status: Any
    parameters: Any
    num_examples: int
    metrics: dict[str, Any]


class FedAvg:
    """What Flower's does, in its shape."""

    initial_parameters: Any = None

    def aggregate_fit(self, server_round: int, results: list[Any], failures: list[Any]) -> tuple[Any, Any]:
        assert failures == []
        total = sum(result.num_examples for _, result in results)
        layers = zip(*(result.parameters for _, result in results), strict=True)
        weights = [result.num_examples / total for _, result in results]
        return [sum(w * layer for w, layer in zip(weights, each, strict=True)) for each in layers], {}


@pytest.fixture
def flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of `flwr.common` that the adapter uses, without Flower."""
    module: Any = ModuleType("flwr.common")
    module.FitRes, module.Status = FitRes, SimpleNamespace
    module.Code = SimpleNamespace(OK=0)
    module.ndarrays_to_parameters = module.parameters_to_ndarrays = list
    monkeypatch.setitem(sys.modules, "flwr", ModuleType("flwr"))
    monkeypatch.setitem(sys.modules, "flwr.common", module)


def updates(base: Parameters) -> list[ModelUpdate]:
    return [
        ModelUpdate(
            peer=MEMBERS[number],
            root=bytes([number]) * 32,
            delta={name: np.full_like(array, number) for name, array in base.items()},
            examples=number + 1,
        )
        for number in range(3)
    ]


@pytest.mark.usefixtures("flower")
def test_a_strategy_is_an_aggregator() -> None:
    base: Parameters = {"b": np.ones(2, np.float32), "a": np.zeros((2, 2), np.float64)}
    rule = from_strategy(FedAvg)()
    assert rule.kind == "aggregator"
    found, expected = rule.aggregate(base, updates(base)), WeightedMean().aggregate(base, updates(base))
    assert found.keys() == base.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name] == pytest.approx(array)


@pytest.mark.usefixtures("flower")
def test_a_strategy_that_makes_nothing_or_something_else_is_told() -> None:
    base = {"a": np.zeros(2, np.float32)}
    nothing = SimpleNamespace(aggregate_fit=lambda *_: (None, {}))
    with pytest.raises(AggregationError, match="makes no model"):
        from_strategy(lambda: nothing)().aggregate(base, updates(base))
    more = SimpleNamespace(aggregate_fit=lambda *_: ([np.zeros(2), np.zeros(2)], {}))
    with pytest.raises(PluginError, match="makes 2 arrays of 1"):
        from_strategy(lambda: more)().aggregate(base, updates(base))


@pytest.mark.usefixtures("flower")
def test_the_first_model_may_be_the_server_s() -> None:
    settings = {"local-epochs": 1}
    task = from_flower(short_client_fn, run_config=settings, server_fn=server_fn)()
    assert np.array_equal(task.init(3)["parameter.00000"], task.init(3)["parameter.00000"])
    assert not np.array_equal(task.init(3)["parameter.00000"], task.init(4)["parameter.00000"])
    for server in (None, lambda context: SimpleNamespace(strategy=FedAvg())):  # which has none either
        with pytest.raises(PluginError, match="name a server_fn that has the first ones"):
            from_flower(short_client_fn, run_config=settings, server_fn=server)().init(3)
    assert from_flower(client_fn, server_fn=lambda context: FedAvg())().init(3)


def test_without_flower_a_strategy_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.setitem(sys.modules, "flwr.common", None)
    base = {"a": np.zeros(2, np.float32)}
    with pytest.raises(PluginError, match="needs the package 'flwr'"):
        from_strategy(FedAvg)().aggregate(base, updates(base))


@pytest.mark.usefixtures("flower")
def test_the_lines_of_the_how_to_make_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "from-flower.md").read_text("utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    client_app: Any = ModuleType("my_flower_app.client_app")
    client_app.client_fn = short_client_fn
    server_app: Any = ModuleType("my_flower_app.server_app")
    server_app.server_fn = server_fn
    monkeypatch.setitem(sys.modules, "my_flower_app", ModuleType("my_flower_app"))
    monkeypatch.setitem(sys.modules, "my_flower_app.client_app", client_app)
    monkeypatch.setitem(sys.modules, "my_flower_app.server_app", server_app)
    names: dict[str, Any] = {}
    exec(compile(example, "from-flower.md", "exec"), names)
    task = names["Digits"]()
    base = task.init(1)
    assert base["parameter.00000"].shape == (2, 2)
    result = task.train(base, task.load(context()).train, train_context())
    assert result.examples == 40
    found = names["Mean"]().aggregate(base, updates(base))
    assert found["parameter.00000"] == pytest.approx(
        WeightedMean().aggregate(base, updates(base))["parameter.00000"]
    )
