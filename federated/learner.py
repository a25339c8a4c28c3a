"""The half of a task that works with the data of this peer: it loads them, trains on them, measures on them.

Its other half judges updates and makes models, see `federated.workbench`. Every call may take long and is a
job for `federated.compute`; trainers work on copies. Whatever a plugin raises leaves as `PluginError` in one
line, so that a stranger's code costs one update and not the peer. What a plugin can do beside raising is
contained where a learner is a process of its own: `federated.isolation`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Protocol

from federated import codec
from federated.blame import blamed
from federated.errors import CodecError, PluginError
from federated.manifest import TaskManifest
from federated.pace import Pace
from federated.packing import Packing, check_state, join, part
from federated.parameters import Parameters, difference, schema_difference, split
from federated.plugin import Dataset, PeerContext, Refreshing, StatefulTrainer, TrainContext
from federated.privacy import EXAMPLES, privatise
from federated.registry import EdgePlugins
from federated.snapshots import max_state

MEASURES = ("accuracy", "loss")
MAX_METRICS = 32  # numbers that a trainer tells of one training; they stand in every report of a round


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalUpdate:
    """What training came to: the encoded delta, and how many examples it stands for.

    `state` is what the trainer and the compressor want back, encoded; None when that is nothing. `metrics` is
    what the trainer tells of its work, for the people of this peer.
    """

    data: bytes
    examples: int
    state: bytes | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)


class Learner(Protocol):
    """The data of one peer in one task, and the trainer that works on them."""

    @property
    def initial(self) -> Parameters:
        """The trainer's first parameters."""

    @property
    def profile(self) -> Mapping[str, Any]:
        """What this peer's data are like, as their preprocessor says it."""

    @property
    def refreshes(self) -> bool:
        """Whether the data may change between two trainings."""

    @property
    def remembers(self) -> bool:
        """Whether the trainer measures with the state of its newest training."""

    @property
    def paces_itself(self) -> bool:
        """Whether it counts its steps and rests between them without its caller's `should_stop`."""

    @property
    def is_ready(self) -> bool:
        """Whether a call would begin at once."""

    def complaint(self) -> str | None:
        """What went wrong since this was asked, in one line, where no caller was left to be told."""

    def refresh(self) -> None:
        """Takes up data that came since. Raises `DataError`, `PluginError`: the old ones stay."""

    def train(
        self,
        parameters: Parameters,
        round_number: int,
        should_stop: Callable[[], bool],
        pace: Pace | None,
        state: Parameters,
        key: bytes,
    ) -> LocalUpdate:
        """As `Workbench.train`, of the trainer's part of a model."""

    def evaluate(self, parameters: Parameters, state: Parameters) -> dict[str, float | None]:
        """As `Workbench.evaluate`, of the trainer's part of a model."""

    def close(self) -> None:
        """Lets go of everything. It may be called while another call is under way, which fails then."""


class LocalLearner:
    """A learner in this process; made by `learn_here`."""

    paces_itself = False
    is_ready = True

    def __init__(
        self,
        manifest: TaskManifest,
        plugins: EdgePlugins,
        context: PeerContext,
        data: Dataset,
        initial: Parameters,
        remembers: bool,
    ) -> None:
        self._manifest = manifest
        self._plugins = plugins
        self._context = context
        self._data = data
        self.initial = initial
        self.remembers = remembers
        self.refreshes = isinstance(plugins.preprocessor, Refreshing)  # to find that out takes 0.1 ms
        self._schema = codec.schema_of(initial)
        self._max_state = max_state(codec.encoded_size(self._schema))
        self._packing = Packing(plugins.compressor, self._schema, manifest.max_update_bytes)

    def try_compressor(self) -> None:
        """Compresses the first model as if it were an update, so that what fails does so before any round.

        Raises `PluginError`, also for updates that are over the task's limit.
        """
        with self._compressing():
            self._packing.try_out(self.initial)

    @property
    def profile(self) -> Mapping[str, Any]:
        """As `Learner.profile`."""
        return self._data.profile

    @property
    def holdout(self) -> Any | None:
        """What `evaluate` measures on."""
        return self._data.holdout

    def refresh(self) -> None:
        """As `Learner.refresh`."""
        preprocessor = self._plugins.preprocessor
        if not isinstance(preprocessor, Refreshing):
            return
        with blamed("preprocessor", self._manifest.preprocessor.name):
            data = preprocessor.refresh(self._context, self._data)
            self._data = self._data if data is None else _checked("refresh", data)

    def train(
        self,
        parameters: Parameters,
        round_number: int,
        should_stop: Callable[[], bool],
        pace: Pace | None = None,
        state: Parameters | None = None,
        key: bytes = b"",
    ) -> LocalUpdate:
        """As `Learner.train`. Raises `TrainingStopped`, `PluginError`."""
        privacy = self._manifest.privacy
        deadline = self._manifest.policy.train_deadline_s
        own, kept = part(state or {})
        context = TrainContext(
            round=round_number,
            seed=self._seed(round_number),
            should_stop=should_stop,
            steps=None if pace is None else pace.steps_within(deadline),
            state=_copy(own) if kept else own,
            secret=hashlib.sha256(b"atcp trainer" + key).digest() if key else b"",
        )
        with blamed("trainer", self._manifest.trainer.name):
            result = self._plugins.trainer.train(_copy(parameters), self._data.train, context)
            problem = schema_difference(codec.schema_of(result.parameters), self._schema)
            if problem is not None:
                raise PluginError(problem)
            if result.examples < 0:
                raise PluginError(f"it says that it trained on {result.examples} examples")
            delta = difference(result.parameters, parameters)
            if privacy is not None:
                delta = privatise(delta, privacy, key)
            self._packing.check(delta)
            check_state(result.state)
            metrics = _finite(result.metrics)
            is_hidden = privacy is not None or self._manifest.sums is not None
            examples = EXAMPLES if is_hidden else int(result.examples)
        with self._compressing():
            data, kept = self._packing.pack(delta, kept, context.seed)
        with blamed("trainer", self._manifest.trainer.name):
            # a trainer that wants nothing back finds what it had before
            wanted = join(result.state or own, kept) if kept else result.state
            encoded = _encode_state(wanted, self._max_state)
        return LocalUpdate(data=data, examples=examples, state=encoded, metrics=metrics)

    def evaluate(self, parameters: Parameters, state: Parameters) -> dict[str, float | None]:
        """As `Learner.evaluate`. Raises `PluginError`."""
        if self._data.holdout is None:
            return dict.fromkeys(MEASURES)
        with blamed("trainer", self._manifest.trainer.name):
            measured = self._measure(_copy(parameters), self._data.holdout, state)
            return {
                name: float(value) if value is not None and isfinite(value) else None
                for name, value in ((name, measured.get(name)) for name in MEASURES)
            }

    def _measure(self, parameters: Parameters, data: Any, state: Parameters) -> dict[str, float]:
        trainer = self._plugins.trainer
        if not (self.remembers and isinstance(trainer, StatefulTrainer)):
            return trainer.evaluate(parameters, data)
        return trainer.evaluate_with(parameters, data, _copy(part(state)[0]))

    def complaint(self) -> str | None:
        """As `Learner.complaint`: whoever asks for something here hears of it."""
        return None

    def close(self) -> None:
        """There is nothing to let go of."""

    def _compressing(self) -> AbstractContextManager[None]:
        compressor = self._manifest.compressor
        return nullcontext() if compressor is None else blamed("compressor", compressor.name)

    def _seed(self, round_number: int) -> int:
        """Another one for each round and peer, the same whenever they come again; 53 bits."""
        text = f"{self._manifest.task_id.hex()} {round_number} {self._context.peer}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11


def learn_here(manifest: TaskManifest, plugins: EdgePlugins, context: PeerContext) -> LocalLearner:
    """Loads the peer's data and makes the trainer's first model. Raises `DataError`, `PluginError`."""
    with blamed("preprocessor", manifest.preprocessor.name):
        data = _checked("load", plugins.preprocessor.load(context))
    with blamed("trainer", manifest.trainer.name):
        initial = plugins.trainer.init(manifest.seed)
        check_size("an update", initial, manifest)
        if reserved := split(initial)[1]:
            raise PluginError(f"tensor {min(reserved)} has the name of one that an aggregator keeps")
        trainer = plugins.trainer
        remembers = isinstance(trainer, StatefulTrainer) and bool(trainer.is_personal)
    learner = LocalLearner(manifest, plugins, context, data, initial, remembers)
    learner.try_compressor()
    return learner


def _checked(method: str, data: object) -> Dataset:
    """What a preprocessor's `method` returned. Raises `PluginError` for what is no data."""
    if not isinstance(data, Dataset):
        raise PluginError(f"{method} returns a {type(data).__name__}, no Dataset")
    try:
        json.dumps(dict(data.profile))
    except (TypeError, ValueError) as exc:
        raise PluginError(f"its profile is not JSON: {exc}") from exc
    return data


def check_size(what: str, parameters: Parameters, manifest: TaskManifest) -> None:
    """Raises `PluginError` for more bytes than the task takes."""
    size, limit = codec.encoded_size(codec.schema_of(parameters)), manifest.max_model_bytes
    if size > limit:
        advice = (
            "raise max_update_bytes, which is" if manifest.compressor is None else "no model has more than"
        )
        raise PluginError(f"{what} has {size} bytes; {advice} {limit}")


def _encode_state(state: Parameters, limit: int) -> bytes | None:
    """What is wanted back, as bytes; None for nothing. Raises `PluginError`."""
    try:
        size = codec.encoded_size(codec.schema_of(state))
        if size > limit:
            raise PluginError(
                f"its state has {size} bytes, more than the {limit} that a model of this size may"
            )
        return codec.encode(state) if state else None
    except CodecError as exc:
        raise PluginError(f"its state: {exc}") from exc


def _copy(parameters: Parameters) -> Parameters:
    return {name: array.copy() for name, array in parameters.items()}


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """What a trainer tells, ready for JSON: None for what is no number. Raises `PluginError`."""
    if len(metrics) > MAX_METRICS:
        raise PluginError(f"it tells {len(metrics)} metrics, more than {MAX_METRICS}")
    numbers = {str(name): float(value) for name, value in sorted(metrics.items())}
    return {name: value if isfinite(value) else None for name, value in numbers.items()}
