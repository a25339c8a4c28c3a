"""An app of messages, written as Flower's quick start does, is a task; Flower's classes are stand-ins."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from federated.errors import PluginError
from federated.plugin import PeerContext, TrainContext
from plugins.adapters.flower_app import from_client_app
from tests.documentation import ROOT
from tests.federated.lab import peer_number

MEMBERS = tuple(sorted(map(peer_number, (1, 2, 3))))


class Array:
    def __init__(self, values: Any) -> None:
        self._values = values.copy()

    def numpy(self) -> Any:
        return self._values


@dataclass
class Context:
    run_id: int
    node_id: int
    node_config: dict[str, Any]
    state: Any
    run_config: dict[str, Any]


class Message:
    """As Flower's: an instruction by its metadata, or a reply."""

    def __init__(self, content: Any, metadata: Any = None, reply_to: Any = None, error: str = "") -> None:
        assert (metadata is None) != (reply_to is None)
        self.content, self.metadata = content, metadata
        self.error = SimpleNamespace(reason=error)

    def has_error(self) -> bool:
        return bool(self.error.reason)


class ClientApp:
    """As Flower's: functions by the kind of message."""

    def __init__(self) -> None:
        self._functions: dict[str, Callable[[Any, Any], Any]] = {}

    def train(self) -> Callable[[Any], Any]:
        return lambda function: self._functions.setdefault("train", function)

    def evaluate(self) -> Callable[[Any], Any]:
        return lambda function: self._functions.setdefault("evaluate", function)

    def __call__(self, message: Any, context: Any) -> Any:
        return self._functions[message.metadata.message_type](message, context)


@pytest.fixture(autouse=True)
def flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of `flwr.app` that the adapter uses, without Flower."""
    module: Any = ModuleType("flwr.app")
    module.Array, module.Context, module.Message, module.Metadata = Array, Context, Message, SimpleNamespace
    module.ArrayRecord = module.ConfigRecord = module.MetricRecord = module.RecordDict = dict
    monkeypatch.setitem(sys.modules, "flwr", ModuleType("flwr"))
    monkeypatch.setitem(sys.modules, "flwr.app", module)


def first_arrays() -> dict[str, Any]:
    """In the order of a module, which is not that of the names."""
    return {"weight": np.random.normal(size=(2, 2)).astype(np.float32), "bias": np.zeros(2, np.float32)}


app = ClientApp()


@app.train()
def train(msg: Any, context: Any) -> Any:
    weight, bias = (array.numpy() for array in msg.content["arrays"].values())
    step = (
        msg.content["config"]["lr"]
        * context.run_config["local-epochs"]
        * msg.content["config"]["server-round"]
    )
    arrays = {"weight": Array(weight + np.float32(step)), "bias": Array(bias)}
    metrics = {"train_loss": 0.5, "num-examples": 10 + context.node_config["partition-id"], "all": [1, 2]}
    return Message({"arrays": arrays, "metrics": metrics}, reply_to=msg)


@app.evaluate()
def evaluate(msg: Any, context: Any) -> Any:
    assert msg.content["config"] == {"lr": 0.1}
    return Message({"metrics": {"eval_loss": 0.25, "eval_acc": 0.75, "num-examples": 3}}, reply_to=msg)


def task(made: Any = app) -> Any:
    return from_client_app(made, first_arrays, {"lr": 0.1}, run_config={"local-epochs": 2})()


def place(index: int = 1) -> PeerContext:
    return PeerContext(peer=MEMBERS[index], members=MEMBERS, index=index)


def round_number(number: int) -> TrainContext:
    return TrainContext(round=number, seed=1, should_stop=lambda: False)


def test_an_app_is_a_task() -> None:
    made = task()
    data, base = made.load(place()), made.init(3)
    assert data.train.node_config == {"partition-id": 1, "num-partitions": 3}
    result = made.train(base, data.train, round_number(4))
    assert set(result.parameters) == {"weight", "bias"}
    assert result.parameters["weight"] == pytest.approx(base["weight"] + 0.8)
    assert (result.examples, result.metrics) == (11, {"train_loss": 0.5})
    assert made.evaluate(base, data.holdout) == {"loss": 0.25, "accuracy": 0.75}


def test_the_first_model_is_the_same_everywhere() -> None:
    assert np.array_equal(task().init(3)["weight"], task().init(3)["weight"])
    assert not np.array_equal(task().init(3)["weight"], task().init(4)["weight"])


def test_tensors_become_arrays() -> None:
    values = np.ones(2, np.float32)
    tensor = SimpleNamespace(
        detach=lambda: SimpleNamespace(cpu=lambda: SimpleNamespace(numpy=lambda: values))
    )
    first = from_client_app(app, lambda: {"w": tensor})().init(1)["w"]
    values[:] = 0  # as a module that goes on training would
    assert np.array_equal(first, np.ones(2))


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ({}, "^the app's reply has no arrays, it has nothing$"),
        ({"model": {}, "more": {}}, "^the app's reply has no arrays, it has model, more$"),
        ({"arrays": {}}, "has no metrics, it has arrays$"),
        ({"arrays": {}, "metrics": {}}, "^the metrics of a training have no num-examples$"),
        ("out of memory", "^the app answers train with an error: out of memory$"),
    ],
)
def test_what_an_app_answers_wrongly_is_said_in_one_line(reply: Any, line: str) -> None:
    error = reply if isinstance(reply, str) else ""
    made = task(lambda message, context: Message(reply, reply_to=message, error=error))
    with pytest.raises(PluginError, match=line):
        made.train(made.init(1), made.load(place()).train, round_number(1))


def test_without_flower_an_app_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    with pytest.raises(PluginError, match="a Flower app needs the package 'flwr'"):
        task().load(place())


def test_the_lines_of_the_how_to_make_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "how-to" / "from-flower.md").read_text("utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1]
    package: Any = ModuleType("my_flower_app")
    package.app, package.first_arrays = app, first_arrays
    for name in ("", ".messages", ".task"):
        monkeypatch.setitem(sys.modules, f"my_flower_app{name}", package)
    names: dict[str, Any] = {}
    exec(compile(example, "from-flower.md", "exec"), names)
    made = names["Messages"]()
    assert made.train(made.init(1), made.load(place()).train, round_number(1)).examples == 11
