"""What a task's plugins make of models and updates: bytes in, bytes out, everything checked.

Every call may take long and is a job for `federated.compute`. None of them changes what another one
sees: a round is described by its `base`, and trainers work on copies. Whatever a plugin raises leaves
as `PluginError` in one line, so that a stranger's code costs one update and not the peer.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from federated import codec
from federated.errors import AggregationError, CodecError, FederatedError, PluginError
from federated.manifest import TaskManifest
from federated.pace import Pace
from federated.packing import Packing, check_state, join, part
from federated.parameters import (
    AGGREGATOR,
    Parameters,
    Schema,
    difference,
    non_finite,
    schema_difference,
    split,
)
from federated.plugin import (
    Dataset,
    ModelUpdate,
    ModelValidator,
    PeerContext,
    Refreshing,
    StatefulAggregator,
    TrainContext,
)
from federated.privacy import EXAMPLES, privatise
from federated.registry import TaskPlugins
from federated.rounds.events import Input
from federated.snapshots import max_state

SCREENED = "norm"  # the rule by which `Validator.screen` refuses, which does not say
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """The updates that do not fit the rest: (root, rule) of each."""

    refused: tuple[tuple[bytes, str], ...]


def digest(model: bytes) -> bytes:
    """What members compare: the SHA-256 of a model's canonical bytes."""
    return hashlib.sha256(model).digest()


class Workbench:
    """The plugins of one task with the data of one peer; made by `prepare`."""

    def __init__(
        self,
        manifest: TaskManifest,
        plugins: TaskPlugins,
        context: PeerContext,
        data: Dataset,
        initial: Parameters,
    ) -> None:
        self._manifest = manifest
        self._plugins = plugins
        self._context = context
        self._data = data
        self.schema: Schema = codec.schema_of(initial)
        self._trained: Schema = codec.schema_of(split(initial)[0])  # of an update: the trainer's part alone
        self._packing = Packing(plugins.compressor, self._trained, manifest.max_update_bytes)
        self.initial = codec.encode(initial)

    def try_compressor(self) -> None:
        """Compresses the first model as if it were an update, so that what fails does so before any round.

        Raises `PluginError`, also for updates that are over the task's limit.
        """
        with self._compressing():
            self._packing.try_out(split(self.decode(self.initial))[0])

    def decode(self, model: bytes) -> Parameters:
        """The parameters in a model's bytes. Raises `CodecError`."""
        return codec.decode(model, self.schema, len(self.initial))

    def verify(self, model: bytes, expected: bytes) -> None:
        """Raises `CodecError` unless these are the bytes of a model with the digest `expected`."""
        if digest(model) != expected:
            raise CodecError("digest", f"{digest(model).hex()[:16]} instead of {expected.hex()[:16]}")
        self.decode(model)

    @property
    def profile(self) -> Mapping[str, Any]:
        """What this peer's data are like, as their preprocessor says it."""
        return self._data.profile

    @property
    def refreshes(self) -> bool:
        """Whether the data may change between two trainings."""
        return isinstance(self._plugins.preprocessor, Refreshing)

    def refresh(self) -> None:
        """Takes up data that came since. Raises `DataError`, `PluginError`: the old ones stay."""
        preprocessor = self._plugins.preprocessor
        if not isinstance(preprocessor, Refreshing):
            return
        with _blamed("preprocessor", self._manifest.preprocessor.name):
            data = preprocessor.refresh(self._context, self._data)
            if not isinstance(data, Dataset | None):
                raise PluginError(f"refresh returns a {type(data).__name__}, no Dataset")
        self._data = data or self._data

    def train(
        self,
        base: Parameters,
        round_number: int,
        should_stop: Callable[[], bool],
        pace: Pace | None = None,
        state: Parameters | None = None,
        key: bytes = b"",
    ) -> LocalUpdate:
        """One round of local work, cut to what `pace` allows; `state` is what an earlier one has kept.

        In a private task the update is noised by `key`, `federated.privacy.KEY` bytes that nobody knows, and
        says nothing of how many examples there are; the trainer gets a secret that is made of it.
        Raises `TrainingStopped`, `PluginError`.
        """
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
        trained, _ = split(base)
        with _blamed("trainer", self._manifest.trainer.name):
            result = self._plugins.trainer.train(_copy(trained), self._data.train, context)
            problem = schema_difference(codec.schema_of(result.parameters), self._trained)
            if problem is not None:
                raise PluginError(problem)
            if result.examples < 0:
                raise PluginError(f"it says that it trained on {result.examples} examples")
            delta = difference(result.parameters, trained)
            if privacy is not None:
                delta = privatise(delta, privacy, key)
            self._packing.check(delta)
            check_state(result.state)
            metrics = _finite(result.metrics)
        with self._compressing():
            data, kept = self._packing.pack(delta, kept, context.seed)
        with _blamed("trainer", self._manifest.trainer.name):
            # a trainer that wants nothing back finds what it had before
            wanted = join(result.state or own, kept) if kept else result.state
            encoded = _encode_state(wanted, max_state(len(self.initial)))
        examples = int(result.examples) if privacy is None else EXAMPLES
        return LocalUpdate(data=data, examples=examples, state=encoded, metrics=metrics)

    def check(self, item: Input, data: bytes, base: Parameters) -> ModelUpdate | str:
        """The update in `data`, or the name of the rule that it breaks. Raises `PluginError`."""
        try:
            with self._compressing():
                delta = self._packing.unpack(data)
        except CodecError as exc:
            return exc.rule
        update = ModelUpdate(
            peer=item.peer, root=item.root, delta=delta, examples=item.examples, staleness=item.staleness
        )
        with _blamed("validator", self._manifest.validator.name):
            return self._plugins.validator.check(update, split(base)[0]) or update

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> bytes | Refusals:
        """The model that `updates` make, unless some of them do not fit the rest.

        Raises `AggregationError`, `PluginError`.
        """
        with _blamed("validator", self._manifest.validator.name):
            refused = self._judge(updates, base)
        if refused:
            return Refusals(refused=tuple((update.root, rule) for update, rule in refused))
        with _blamed("aggregator", self._manifest.aggregator.name):
            model = self._plugins.aggregator.aggregate(base, updates)
            problem = schema_difference(codec.schema_of(model), self.schema)
            if problem is not None:
                raise PluginError(problem)
            if (name := non_finite(model)) is not None:
                raise AggregationError(f"the aggregate of {name} is not finite")
        self._approve(base, model)
        return codec.encode(model)

    def _judge(self, updates: Sequence[ModelUpdate], base: Parameters) -> Sequence[tuple[ModelUpdate, str]]:
        """The updates that do not fit the rest, with the rules that they break."""
        validator = self._plugins.validator
        if isinstance(validator, ModelValidator):
            return validator.judge(updates, base)
        return [(update, SCREENED) for update in validator.screen(updates)]

    def _approve(self, base: Parameters, model: Parameters) -> None:
        """Raises `AggregationError` when the validator does not let `model` follow on `base`."""
        validator = self._plugins.validator
        if isinstance(validator, ModelValidator):
            with _blamed("validator", self._manifest.validator.name):
                reason = validator.approve(split(base)[0], split(model)[0])
            if reason is not None:
                raise AggregationError(f"the model stays as it is: {reason}")

    def evaluate(self, model: Parameters) -> dict[str, float | None]:
        """Accuracy and loss on the data held out, None where there is none. Raises `PluginError`."""
        measured: dict[str, float] = {}
        if self._data.holdout is not None:
            with _blamed("trainer", self._manifest.trainer.name):
                measured = self._plugins.trainer.evaluate(_copy(split(model)[0]), self._data.holdout)
        known = {name: measured.get(name) for name in MEASURES}
        return {
            name: float(value) if value is not None and isfinite(value) else None
            for name, value in known.items()
        }

    def _compressing(self) -> AbstractContextManager[None]:
        compressor = self._manifest.compressor
        return nullcontext() if compressor is None else _blamed("compressor", compressor.name)

    def _seed(self, round_number: int) -> int:
        """Another one for each round and peer, the same whenever they come again; 53 bits."""
        text = f"{self._manifest.task_id.hex()} {round_number} {self._context.peer}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11


def prepare(manifest: TaskManifest, plugins: TaskPlugins, context: PeerContext) -> Workbench:
    """Loads the peer's data and makes the first model. Raises `DataError`, `PluginError`."""
    with _blamed("preprocessor", manifest.preprocessor.name):
        data = plugins.preprocessor.load(context)
    with _blamed("trainer", manifest.trainer.name):
        initial = plugins.trainer.init(manifest.seed)
        _check_size("an update", initial, manifest)
        if reserved := split(initial)[1]:
            raise PluginError(f"tensor {min(reserved)} has the name of one that an aggregator keeps")
    with _blamed("aggregator", manifest.aggregator.name):
        if isinstance(plugins.aggregator, StatefulAggregator):
            kept = plugins.aggregator.init(_copy(initial))
            if foreign := split(kept)[0]:
                raise PluginError(
                    f"it keeps {min(foreign)}; what it keeps has names that begin with {AGGREGATOR}"
                )
            initial = initial | kept
            _check_size("a model with what it keeps", initial, manifest)
    with _blamed("validator", manifest.validator.name):
        if isinstance(plugins.validator, ModelValidator):
            plugins.validator.init(_copy(initial))
    bench = Workbench(manifest, plugins, context, data, initial)
    bench.try_compressor()
    return bench


def _check_size(what: str, parameters: Parameters, manifest: TaskManifest) -> None:
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


def as_claimed(update: ModelUpdate, item: Input) -> ModelUpdate:
    """The same delta as `item` says it: it may have been checked for another member that has it too."""
    return replace(update, peer=item.peer, examples=item.examples, staleness=item.staleness)


def _copy(parameters: Parameters) -> Parameters:
    return {name: array.copy() for name, array in parameters.items()}


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """What a trainer tells, ready for JSON: None for what is no number. Raises `PluginError`."""
    if len(metrics) > MAX_METRICS:
        raise PluginError(f"it tells {len(metrics)} metrics, more than {MAX_METRICS}")
    numbers = {str(name): float(value) for name, value in sorted(metrics.items())}
    return {name: value if isfinite(value) else None for name, value in numbers.items()}


@contextmanager
def _blamed(kind: str, name: str) -> Iterator[None]:
    """Turns what a plugin raises into a `PluginError` that names it; our own errors pass."""
    try:
        yield
    except PluginError as exc:
        raise PluginError(f"{kind} {name!r}: {exc}") from exc
    except FederatedError:
        raise
    except Exception as exc:  # a stranger's plugin may raise anything
        line = (str(exc).splitlines() or [""])[0]
        told = f"{kind} {name!r} failed: {type(exc).__name__}: {line}".rstrip(": ")
        raise PluginError(told + _where(exc)) from exc


def _where(exc: BaseException) -> str:
    """The line of the plugin that an exception came from: the last one in the file that we called."""
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if frame.filename != __file__]
    mine = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" ({Path(mine[-1].filename).name}, line {mine[-1].lineno})" if mine else ""
