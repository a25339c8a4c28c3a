"""A task small enough to run many times in a test: every member pulls four numbers towards its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np

from federated import codec
from federated.errors import DataError, TrainingStopped
from federated.parameters import Parameters
from federated.plugin import Dataset, ModelUpdate, PeerContext, TrainContext, TrainResult
from federated.registry import GROUP, Registry
from federated.workbench import digest

BUILT_IN = {
    "weighted-mean": "plugins.aggregation.weighted_mean:WeightedMean",
    "update-check": "plugins.validation.update_check:UpdateCheck",
}
TINY = (
    *(
        "Points",
        "NoPoints",
        "NothingHeldOut",
        "Pull",
        "Nan",
        "Huge",
        "Raises",
        "Reshapes",
        "Counts",
        "Waits",
        "Endless",
    ),
    *("OtherMean", "FailingMean", "ReshapingMean", "NanMean", "FailingCheck"),
)


def registry(**instead: str) -> Registry:
    """The plugins of this file by their lower-case names, and two of the built-in ones.

    `registry(pull="Nan")` has the class `Nan` under the name "pull": a peer with its own idea of a plugin.
    """
    found = BUILT_IN | {name.lower(): f"{__name__}:{name}" for name in TINY}
    found |= {name: f"{__name__}:{other}" for name, other in instead.items()}
    return Registry(installed=[EntryPoint(name, value, GROUP) for name, value in sorted(found.items())])


def digest_of(parameters: Parameters) -> str:
    """The digest that members report for a model."""
    return digest(codec.encode(parameters)).hex()


class Points:
    """Member i has the point (i, i, i, i), and all of them are held out."""

    kind = "preprocessor"

    def load(self, context: PeerContext) -> Dataset:
        points = np.arange(len(context.members), dtype=np.float32)
        return Dataset(train=points[context.index], holdout=points.mean(), examples=context.index + 1)


class NoPoints:
    """Data that is not there."""

    kind = "preprocessor"

    def load(self, context: PeerContext) -> Dataset:
        raise DataError("the points are missing")


class NothingHeldOut(Points):
    """Points, all of them to train on."""

    def load(self, context: PeerContext) -> Dataset:
        data = super().load(context)
        return Dataset(train=data.train, holdout=None, examples=data.examples)


class Pull:
    """Goes half of the way to the own point."""

    kind = "trainer"

    def init(self, seed: int) -> Parameters:
        return {"count": np.zeros((), np.int64), "w": np.full(4, seed, np.float32)}

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        parameters["w"] += (data - parameters["w"]) / 2  # in place: nobody else may see it
        parameters["count"] += 1
        return TrainResult(parameters=parameters, examples=int(data) + 1)

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        loss = float(np.abs(parameters["w"] - data).max())
        return {"accuracy": 1 / (1 + loss), "loss": loss}


class Nan(Pull):
    """Trains to something that is no number."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        parameters["w"][1] = np.nan
        return TrainResult(parameters=parameters, examples=1)


class Huge(Pull):
    """Trains to something far outside what the others come to."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        parameters["w"] += 1e3
        return TrainResult(parameters=parameters, examples=1)


class Raises(Pull):
    """Does not train, and does not measure."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        raise RuntimeError("out of luck\nand of much else")

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        raise RuntimeError("nothing to measure")


class Reshapes(Pull):
    """Comes back with another model."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        return TrainResult(parameters={"w": np.zeros(5, np.float32)}, examples=1)


class Counts(Pull):
    """Trains on less than nothing."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        return TrainResult(parameters=parameters, examples=-1)


class Waits(Pull):
    """Stops when it is asked, without a result."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        raise TrainingStopped("asked")


class FailingMean:
    """Makes no model of anything."""

    kind = "aggregator"

    def aggregate(self, base: Parameters, updates: object) -> Parameters:
        raise ZeroDivisionError("division by zero")


class ReshapingMean(FailingMean):
    """Makes another model."""

    def aggregate(self, base: Parameters, updates: object) -> Parameters:
        return {"w": base["w"]}


class NanMean(FailingMean):
    """Makes a model that is no number."""

    def aggregate(self, base: Parameters, updates: object) -> Parameters:
        return base | {"w": base["w"] * np.float32("nan")}


class Endless(Pull):
    """Trains until it is told to stop."""

    stopped = 0  # times that this happened

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        while not context.should_stop():
            time.sleep(0.001)  # as a batch would take
        Endless.stopped += 1
        raise TrainingStopped("told to stop")


class OtherMean(FailingMean):
    """Makes another model of the same updates."""

    def aggregate(self, base: Parameters, updates: object) -> Parameters:
        return base | {"w": base["w"] + np.float32(1)}


class FailingCheck:
    """Cannot look at any update."""

    kind = "validator"

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        raise KeyError("w")

    def screen(self, updates: Sequence[ModelUpdate]) -> list[ModelUpdate]:
        return []
