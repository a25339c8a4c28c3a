"""Flower's clients and strategies as plugins: what was written for a server runs without one, unchanged.

    Digits = from_flower(client_fn, server_fn=server_fn)  # digits = my_package:Digits, an entry point
    Mean = from_strategy(server_fn)                       # mean = my_package:Mean

A client is an object with the methods of Flower's `NumPyClient`: `get_parameters(config)`,
`fit(parameters, config)` and `evaluate(parameters, config)`, where parameters are a list of arrays. A client
that does not import Flower runs without it; a strategy needs it.
Source: https://flower.ai/docs/framework/ref-api/flwr.client.NumPyClient.html
"""

from __future__ import annotations

import importlib
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from federated.errors import AggregationError, PluginError
from federated.parameters import Parameters
from federated.plugin import Dataset, ModelUpdate, PeerContext, TaskPlugin, TrainContext, TrainResult

ROUND = "server_round"  # the key by which clients find the round in their config


def from_flower(
    client_fn: Callable[[Any], Any],
    config: Mapping[str, Any] | None = None,
    *,
    run_config: Mapping[str, Any] | None = None,
    server_fn: Callable[[Any], Any] | None = None,
) -> type[TaskPlugin]:
    """A task of the clients that `client_fn` makes; `config` is what `fit` and `evaluate` get from servers.

    `client_fn` takes Flower's `Context`, of which `node_config` has `partition-id` and `num-partitions`, and
    `run_config` what is given here; or the number of the partition as text, if it names its parameter `cid`.
    The first model is the `initial_parameters` of the strategy of `server_fn`, which needs Flower, or else
    those of a client. It is made with the generators of Python, numpy and torch seeded, and may draw from
    nothing else.
    """
    common, run = dict(config or {}), dict(run_config or {})

    class FromFlower(TaskPlugin):
        """The task."""

        def load(self, context: PeerContext) -> Dataset:
            """The client of this peer, which has its data."""
            client = _client(client_fn, run, context.index, len(context.members))
            return Dataset(train=client, holdout=client, examples=0)

        def init(self, seed: int) -> Parameters:
            """The parameters of the strategy, or of a client that was made for it. Raises `PluginError`."""
            with seeded(seed):
                strategy = None if server_fn is None else _strategy(server_fn, run)
                first = getattr(strategy, "initial_parameters", None)
                if first is not None:
                    return _named(_flower().parameters_to_ndarrays(first))
                parameters = _named(_client(client_fn, run, 0, 1).get_parameters({}))
            if not parameters:
                raise PluginError(
                    "get_parameters of the client gives none: name a server_fn that has the first ones"
                )
            return parameters

        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            """What the client fits; it cannot be stopped on the way."""
            fitted, examples, metrics = _three(
                data.fit(_listed(parameters), {**common, ROUND: context.round}),
                "fit",
                "parameters, examples, metrics",
            )
            told = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
            return TrainResult(parameters=_named(fitted), examples=int(examples), metrics=told)

        def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
            """The client's loss, and its accuracy if its metrics have one."""
            loss, _, metrics = _three(
                data.evaluate(_listed(parameters), common), "evaluate", "loss, examples, metrics"
            )
            accuracy = {"accuracy": float(metrics["accuracy"])} if "accuracy" in metrics else {}
            return {"loss": float(loss), **accuracy}

    return FromFlower


def from_strategy(make: Callable[..., Any], run_config: Mapping[str, Any] | None = None) -> type:
    """An aggregator of what a Flower strategy's `aggregate_fit` makes of the updates; needs Flower.

    `make` makes a strategy of nothing, or is a `server_fn`, whose `Context` has this `run_config`.
    A new strategy is made for each round, so one that remembers something between rounds (`FedAdam`) does not
    fit: the rules of this project keep that in the certified model. Every peer must come to the same bits: a
    strategy may add and multiply arrays in the order it gets them, but draw nothing.
    """

    class FromStrategy:
        """The aggregator."""

        kind = "aggregator"

        def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> Parameters:
            """The next model. Raises `AggregationError`."""
            flower = _flower()
            results = [(None, _fit_result(flower, base, update)) for update in updates]
            parameters, _ = _strategy(make, run_config or {}).aggregate_fit(1, results, [])
            if parameters is None:
                raise AggregationError("the strategy makes no model of the updates")
            arrays = flower.parameters_to_ndarrays(parameters)
            if len(arrays) != len(base):
                raise PluginError(f"the strategy makes {len(arrays)} arrays of {len(base)}")
            named = zip(sorted(base), arrays, strict=True)
            return {name: np.asarray(array).astype(base[name].dtype) for name, array in named}

    return FromStrategy


def _fit_result(flower: Any, base: Parameters, update: ModelUpdate) -> Any:
    """An update as Flower has it: the parameters after training."""
    new = [(base[name] + update.delta[name]).astype(base[name].dtype) for name in sorted(base)]
    return flower.FitRes(
        status=flower.Status(code=flower.Code.OK, message=""),
        parameters=flower.ndarrays_to_parameters(new),
        num_examples=update.examples,
        metrics={},
    )


def _flower() -> Any:
    try:
        return importlib.import_module("flwr.common")
    except ImportError as exc:
        raise PluginError(f"a Flower strategy needs the package 'flwr': {exc}") from exc


def _context(run_config: Mapping[str, Any], **node_config: int) -> SimpleNamespace:
    """What Flower calls so, as far as functions look at it."""
    node = {name.replace("_", "-"): value for name, value in node_config.items()}
    place = node.get("partition-id", 0)
    return SimpleNamespace(
        node_id=place, run_id=0, node_config=node, run_config=dict(run_config), state=SimpleNamespace()
    )


def _strategy(make: Callable[..., Any], run_config: Mapping[str, Any]) -> Any:
    """A new strategy, also from within the components that a `server_fn` gives."""
    asked = [
        parameter
        for parameter in inspect.signature(make).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    made = make(_context(run_config)) if asked else make()
    return getattr(made, "strategy", made)


def _client(
    client_fn: Callable[[Any], Any], run_config: Mapping[str, Any], partition: int, partitions: int
) -> Any:
    """The `NumPyClient`, also from within what its `to_client` has made of it."""
    names = [*inspect.signature(client_fn).parameters]
    argument: Any = str(partition)
    if names != ["cid"]:
        argument = _context(run_config, partition_id=partition, num_partitions=partitions)
    client = client_fn(argument)
    client = getattr(client, "numpy_client", client)
    missing = [name for name in ("get_parameters", "fit", "evaluate") if not hasattr(client, name)]
    if missing:
        raise PluginError(f"a {type(client).__name__} is no NumPyClient: it has no {missing[0]}")
    return client


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators that clients draw from, seeded within the body, and as they were behind it."""
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), None if torch is None else torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch is not None:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch is not None:
            torch.set_rng_state(before[2])


def _named(arrays: Sequence[Any]) -> Parameters:
    """A list of arrays by names that sort in its order."""
    if not isinstance(arrays, list | tuple):
        raise PluginError(f"parameters are a list of arrays, not a {type(arrays).__name__}")
    return {f"parameter.{number:05d}": np.asarray(array) for number, array in enumerate(arrays)}


def _listed(parameters: Parameters) -> list[Any]:
    return [parameters[name] for name in sorted(parameters)]


def _three(found: Any, method: str, what: str) -> tuple[Any, Any, Mapping[str, Any]]:
    """What a method gives. Raises `PluginError`."""
    if not isinstance(found, tuple) or len(found) != 3 or not isinstance(found[2], Mapping):
        raise PluginError(f"{method} of a NumPyClient returns ({what}), not {type(found).__name__}")
    return found
