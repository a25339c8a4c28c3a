"""A task small enough to run many times in a test: every member pulls four numbers towards its own."""

from __future__ import annotations

import json
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
from plugins.validation.update_check import UpdateCheck

BUILT_IN = {
    "weighted-mean": "plugins.aggregation.weighted_mean:WeightedMean",
    "median": "plugins.aggregation.median:CoordinateMedian",
    "fedavgm": "plugins.aggregation.server:FedAvgM",
    "update-check": "plugins.validation.update_check:UpdateCheck",
    "checks": "plugins.validation.checks:Checks",
    "int8": "plugins.compression.dense:Int8",
    "int4": "plugins.compression.dense:Int4",
    "sign": "plugins.compression.dense:Sign",
    "top-k": "plugins.compression.top_k:TopK",
    "power-sgd": "plugins.compression.power_sgd:PowerSGD",
}
GRID = (17, 19)  # of the one tensor that is worth compressing
TINY = (
    *(
        "Points",
        "NoPoints",
        "NothingHeldOut",
        "Pull",
        "Nan",
        "Huge",
        "Harms",
        "Contrary",
        "Grid",
        "Raises",
        "Reshapes",
        "Counts",
        "Waits",
        "Endless",
        "Glides",
        "Scatters",
        "Lazy",
        "Copies",
    ),
    *("OtherMean", "FailingMean", "ReshapingMean", "NanMean", "FailingCheck", "Steady"),
)


def registry(**instead: str) -> Registry:
    """The plugins of this file by their lower-case names, and some of the built-in ones.

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


class Glides(Pull):
    """Pulls, with a momentum and a generator that go on from round to round."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        speed = context.state.get("speed", np.zeros(4, np.float32))
        generator = np.random.Generator(np.random.PCG64(0))
        if context.state:
            generator.bit_generator.state = json.loads(context.state["generator"].tobytes())
        speed *= np.float32(0.5)  # in place: nobody else may see it
        speed += (data - parameters["w"]) / 4 + generator.random(4, np.float32) / 64
        parameters["w"] += speed
        kept = np.frombuffer(json.dumps(generator.bit_generator.state).encode(), np.uint8)
        return TrainResult(
            parameters=parameters, examples=int(data) + 1, state={"speed": speed, "generator": kept}
        )


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


class Harms(Pull):
    """Trains away from where the others are, though not far."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        parameters["w"] += 5.0
        return TrainResult(parameters=parameters, examples=1)


class Grid(Pull):
    """Has a matrix that is worth compressing beside what is not."""

    def init(self, seed: int) -> Parameters:
        return super().init(seed) | {"grid": np.zeros(GRID, np.float32)}

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        parameters["grid"] += np.random.default_rng(context.seed).normal(0, 0.01, GRID).astype(np.float32)
        return super().train(parameters, data, context)


class Contrary(Pull):
    """Finds a model the worse the better it is."""

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        return {"loss": 1 / (0.01 + super().evaluate(parameters, data)["loss"])}


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


class Scatters(Pull):
    """Goes half of the way to a point of its own, which is in another direction at each member."""

    def init(self, seed: int) -> Parameters:
        return {"w": np.zeros(64, np.float32)}

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        point = np.random.default_rng(int(data)).standard_normal(64).astype(np.float32)
        return TrainResult(parameters={"w": (parameters["w"] + point) / 2}, examples=1)


class Lazy(Scatters):
    """Trains once; from then on it gives back the step that the others made, and a little noise."""

    last: Any = None

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        before, self.last = self.last, parameters["w"].copy()
        if before is None:
            return super().train(parameters, data, context)
        noise = 1e-3 * np.random.default_rng(context.seed).standard_normal(64)
        step = (self.last - before + noise).astype(np.float32)
        return TrainResult(parameters={"w": parameters["w"] + step}, examples=1)


class Copies(Scatters):
    """Does what the member with the point 0 does, and a little noise."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        made = super().train(parameters, 0, context).parameters["w"]
        noise = 1e-3 * np.random.default_rng(context.seed).standard_normal(64).astype(np.float32)
        return TrainResult(parameters={"w": made + noise}, examples=1)


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


class Steady(UpdateCheck):
    """Lets no model follow whose first number is below 2.3."""

    def approve(self, base: Parameters, model: Parameters) -> str | None:
        return None if model["w"][0] >= 2.3 else f"{model['w'][0]:.1f} is too little"
