"""What a task's plugins make of models and updates: bytes in, bytes out, everything checked.

Every call may take long and is a job for `federated.compute`. None of them changes what another one
sees: a round is described by its `base`. What works with the data of this peer is done by its learner, in
this process or another one (`federated.learner`); what judges updates and makes models is here, since all
members must come to the same. Whatever a plugin raises leaves as `PluginError` in one line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from federated import codec
from federated.blame import blamed
from federated.errors import AggregationError, CodecError, PluginError
from federated.guard import LossGuard
from federated.learner import Learner, LocalUpdate, check_size, learn_here
from federated.manifest import TaskManifest
from federated.pace import Pace
from federated.packing import Packing
from federated.parameters import AGGREGATOR, Parameters, Schema, non_finite, schema_difference, split
from federated.plugin import ModelUpdate, ModelValidator, PeerContext, StatefulAggregator
from federated.registry import JudgingPlugins, Registry, TaskPlugins
from federated.rounds.events import Input

SCREENED = "norm"  # the rule by which `Validator.screen` refuses, which does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """The updates that do not fit the rest: (root, rule) of each."""

    refused: tuple[tuple[bytes, str], ...]


def digest(model: bytes) -> bytes:
    """What members compare: the SHA-256 of a model's canonical bytes."""
    return hashlib.sha256(model).digest()


class Workbench:
    """The plugins of one task with the learner of one peer; made by `prepare` or `assemble`."""

    def __init__(
        self, manifest: TaskManifest, plugins: JudgingPlugins, learner: Learner, initial: Parameters
    ) -> None:
        self._manifest = manifest
        self._plugins = plugins
        self._learner = learner
        self.schema: Schema = codec.schema_of(initial)
        trained = codec.schema_of(split(initial)[0])  # of an update: the trainer's part alone
        self._packing = Packing(plugins.compressor, trained, manifest.max_update_bytes)
        self.initial = codec.encode(initial)
        rise = manifest.policy.max_loss_rise
        self._guard = None if rise is None else LossGuard(rise, lambda model: self.evaluate(model)["loss"])

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
        return self._learner.profile

    @property
    def refreshes(self) -> bool:
        """Whether the data may change between two trainings."""
        return self._learner.refreshes

    @property
    def remembers(self) -> bool:
        """Whether `evaluate` wants the state of the newest training."""
        return self._learner.remembers

    @property
    def paces_itself(self) -> bool:
        """Whether trainings count their steps and rest between them without the caller's `should_stop`."""
        return self._learner.paces_itself

    @property
    def is_ready(self) -> bool:
        """Whether `evaluate` would begin at once."""
        return self._learner.is_ready

    def complaint(self) -> str | None:
        """What went wrong since this was asked, in one line, where no caller was left to be told."""
        return self._learner.complaint()

    def refresh(self) -> None:
        """Takes up data that came since. Raises `DataError`, `PluginError`: the old ones stay."""
        self._learner.refresh()
        if self._guard is not None:
            self._guard.forget()

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

        In a private task the update is noised by `key`, `federated.privacy.KEY` bytes that nobody knows;
        there, and where only sums are seen, it says nothing of how many examples there are. The trainer gets
        a secret that is made of the key. Raises `TrainingStopped`, `PluginError`.
        """
        return self._learner.train(split(base)[0], round_number, should_stop, pace, state or {}, key)

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
        with blamed("validator", self._manifest.validator.name):
            rule = self._plugins.validator.check(update, split(base)[0])
            if not isinstance(rule, str | None):
                raise PluginError(f"check returns a {type(rule).__name__}, not the name of a rule")
        return rule or update

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> bytes | Refusals:
        """The model that `updates` make, unless some of them do not fit the rest.

        Raises `AggregationError`, `PluginError`.
        """
        with blamed("validator", self._manifest.validator.name):
            refused = tuple((update.root, str(rule)) for update, rule in self._judge(updates, base))
        if refused:
            return Refusals(refused=refused)
        with blamed("aggregator", self._manifest.aggregator.name):
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
            with blamed("validator", self._manifest.validator.name):
                reason = validator.approve(split(base)[0], split(model)[0])
            if reason is not None:
                raise AggregationError(f"the model stays as it is: {reason}")

    @property
    def is_guarded(self) -> bool:
        """Whether `accept` may refuse a model."""
        return self._guard is not None

    def accept(self, base: Parameters, model: bytes) -> None:
        """Raises `Worsened` when this member is not to vote for `model`, `PluginError` when it cannot tell.

        Only this member's own data say so: who computes a certified block again does not ask.
        """
        if self._guard is not None:
            self._guard.check(base, self.decode(model))

    def evaluate(self, model: Parameters, state: Parameters | None = None) -> dict[str, float | None]:
        """Accuracy and loss on the data held out, None where there is none; `state` is as for `train`.

        Raises `PluginError`.
        """
        return self._learner.evaluate(split(model)[0], state or {})

    def close(self) -> None:
        """Lets go of everything; a call that is under way fails."""
        self._learner.close()

    def _compressing(self) -> AbstractContextManager[None]:
        compressor = self._manifest.compressor
        return nullcontext() if compressor is None else blamed("compressor", compressor.name)


Prepare = Callable[[TaskManifest, TaskPlugins, PeerContext], Workbench]
"""What `prepare` is."""


def prepare(manifest: TaskManifest, plugins: TaskPlugins, context: PeerContext) -> Workbench:
    """Loads the peer's data and makes the first model, in this process. Raises `DataError`, `PluginError`."""
    return assemble(manifest, plugins, learn_here(manifest, plugins, context))


def open_bench(
    manifest: TaskManifest, registry: Registry, context: PeerContext, should_stop: Callable[[], bool]
) -> Workbench:
    """`prepare`, with the plugins that `registry` has; the caller closes it."""
    return prepare(manifest, registry.load(manifest), context)


OpenBench = Callable[[TaskManifest, Registry, PeerContext, Callable[[], bool]], Workbench]
"""Makes the workbench of a peer, with a learner here or elsewhere. Raises `DataError`, `PluginError`."""


def assemble(
    manifest: TaskManifest,
    plugins: JudgingPlugins,
    learner: Learner,
    make: Callable[[TaskManifest, JudgingPlugins, Learner, Parameters], Workbench] = Workbench,
) -> Workbench:
    """The workbench on a learner that is ready, as `make` makes it. Raises `PluginError`."""
    initial = learner.initial
    with blamed("aggregator", manifest.aggregator.name):
        if isinstance(plugins.aggregator, StatefulAggregator):
            kept = plugins.aggregator.init(_copy(initial))
            if foreign := split(kept)[0]:
                raise PluginError(
                    f"it keeps {min(foreign)}; what it keeps has names that begin with {AGGREGATOR}"
                )
            initial = initial | kept
            check_size("a model with what it keeps", initial, manifest)
    with blamed("validator", manifest.validator.name):
        if isinstance(plugins.validator, ModelValidator):
            plugins.validator.init(_copy(initial))
    return make(manifest, plugins, learner, initial)


def as_claimed(update: ModelUpdate, item: Input) -> ModelUpdate:
    """The same delta as `item` says it: it may have been checked for another member that has it too."""
    if (update.peer, update.examples, update.staleness) == (item.peer, item.examples, item.staleness):
        return update
    return replace(update, peer=item.peer, examples=item.examples, staleness=item.staleness)


def _copy(parameters: Parameters) -> Parameters:
    return {name: array.copy() for name, array in parameters.items()}
