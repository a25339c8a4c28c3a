"""A `ClientApp` of Flower as a task: its functions get the messages that a Flower server would send.

    Digits = from_client_app(app, lambda: Net().state_dict(), run_config={"local-epochs": 1})

The functions are those that `@app.train()` and `@app.evaluate()` register. A message has the model as
`arrays` and the settings as `config`; the reply of a training has `arrays` and `metrics`, with
`num-examples` among them. That is what Flower's own strategies send and expect. An app that was made of a
`client_fn` is for `plugins.adapters.flower`.
Source: https://flower.ai/docs/framework/ref-api/flwr.clientapp.ClientApp.html
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from federated.errors import PluginError
from federated.parameters import Parameters
from federated.plugin import Dataset, PeerContext, TaskPlugin, TrainContext, TrainResult
from plugins.adapters.flower import seeded

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"  # the keys that Flower's strategies use
EXAMPLES = "num-examples"
ROUND = "server-round"
MEASURES = {"loss": ("loss", "eval_loss"), "accuracy": ("accuracy", "eval_accuracy", "eval_acc")}
LIFETIME = 86_400.0  # seconds of a message, of which nobody asks here


def from_client_app(
    app: Callable[[Any, Any], Any],
    first: Callable[[], Mapping[str, Any]],
    config: Mapping[str, Any] | None = None,
    *,
    run_config: Mapping[str, Any] | None = None,
) -> type[TaskPlugin]:
    """A task of what `app` answers; `config` is what a server would send, `run_config` what the run has.

    `first` gives the arrays or tensors to begin with, by name and in the order of the app. It is called with
    the generators of Python, numpy and torch seeded, and may draw from nothing else. Needs Flower.
    """
    common, run = dict(config or {}), dict(run_config or {})

    class FromClientApp(TaskPlugin):
        """The task."""

        _order: list[str] | None = None  # the names as the app has them

        def load(self, context: PeerContext) -> Dataset:
            """The context of this peer, in which the app finds its part of the data."""
            node = {"partition-id": context.index, "num-partitions": len(context.members)}
            flower = _flower()
            place = flower.Context(
                run_id=1, node_id=context.index, node_config=node, state=flower.RecordDict(), run_config=run
            )
            return Dataset(train=place, holdout=place, examples=0)

        def init(self, seed: int) -> Parameters:
            """What `first` gives."""
            with seeded(seed):
                return {name: _array(value) for name, value in first().items()}

        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            """What the app answers to `train`; it cannot be stopped on the way."""
            reply = self._ask("train", parameters, data, {**common, ROUND: context.round})
            new = {name: array.numpy() for name, array in _record(reply, ARRAYS).items()}
            metrics = _record(reply, METRICS)
            if EXAMPLES not in metrics:
                raise PluginError(f"the metrics of a training have no {EXAMPLES}")
            told = {
                name: float(value)
                for name, value in metrics.items()
                if name != EXAMPLES and isinstance(value, int | float)
            }
            return TrainResult(parameters=new, examples=int(metrics[EXAMPLES]), metrics=told)

        def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
            """The loss and accuracy among the metrics that the app answers to `evaluate`."""
            metrics = _record(self._ask("evaluate", parameters, data, common), METRICS)
            return {
                measure: float(metrics[name])
                for measure, names in MEASURES.items()
                for name in names
                if name in metrics
            }

        def _ask(self, kind: str, parameters: Parameters, place: Any, settings: Mapping[str, Any]) -> Any:
            flower = _flower()
            if self._order is None:
                with seeded(0):
                    self._order = list(first())
            arrays = flower.ArrayRecord({name: flower.Array(parameters[name]) for name in self._order})
            content = flower.RecordDict({ARRAYS: arrays, CONFIG: flower.ConfigRecord(dict(settings))})
            metadata = _metadata(kind, place.node_id)
            reply = app(flower.Message(metadata=metadata, content=content), place)
            if reply.has_error():
                raise PluginError(f"the app answers {kind} with an error: {reply.error.reason}")
            return reply.content

    return FromClientApp


def _flower() -> Any:
    try:
        return importlib.import_module("flwr.app")
    except ImportError as exc:
        raise PluginError(f"a Flower app needs the package 'flwr': {exc}") from exc


def _metadata(kind: str, node: int) -> Any:
    """What a message of a server to a client says of itself."""
    return _flower().Metadata(
        run_id=1,
        message_id="",
        src_node_id=0,
        dst_node_id=node,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=LIFETIME,
        message_type=kind,
    )


def _array(value: Any) -> Any:
    """A tensor or array as an array."""
    return np.array(value.detach().cpu().numpy() if hasattr(value, "detach") else value)


def _record(content: Any, key: str) -> Any:
    """One of the records of a reply. Raises `PluginError`."""
    if key not in content:
        raise PluginError(f"the app's reply has no {key}, it has {', '.join(content) or 'nothing'}")
    return content[key]
