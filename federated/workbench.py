"""What a task's plugins make of models and updates: bytes in, bytes out, everything checked.

Every call may take long and is a job for `federated.compute`. None of them changes what another one
sees: a round is described by its `base`, and trainers work on copies. Whatever a plugin raises leaves
as `PluginError` in one line, so that a stranger's code costs one update and not the peer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

from federated import codec
from federated.errors import AggregationError, CodecError, FederatedError, PluginError
from federated.manifest import TaskManifest
from federated.pace import Pace
from federated.parameters import Parameters, Schema, difference, non_finite, schema_difference
from federated.plugin import Dataset, ModelUpdate, PeerContext, TrainContext
from federated.registry import TaskPlugins
from federated.rounds.events import Input
from p2p.peer_id import PeerId

SCREENED = "norm"  # the rule by which `Validator.screen` refuses
MEASURES = ("accuracy", "loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalUpdate:
    """What training came to: the encoded delta, and how many examples it stands for."""

    data: bytes
    examples: int


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
        self, manifest: TaskManifest, plugins: TaskPlugins, peer: PeerId, data: Dataset, initial: Parameters
    ) -> None:
        self._manifest = manifest
        self._plugins = plugins
        self._peer = peer
        self._data = data
        self.schema: Schema = codec.schema_of(initial)
        self.initial = codec.encode(initial)

    def decode(self, model: bytes) -> Parameters:
        """The parameters in a model's bytes. Raises `CodecError`."""
        return codec.decode(model, self.schema, len(self.initial))

    def verify(self, model: bytes, expected: bytes) -> None:
        """Raises `CodecError` unless these are the bytes of a model with the digest `expected`."""
        if digest(model) != expected:
            raise CodecError("digest", f"{digest(model).hex()[:16]} instead of {expected.hex()[:16]}")
        self.decode(model)

    def train(
        self, base: Parameters, round_number: int, should_stop: Callable[[], bool], pace: Pace | None = None
    ) -> LocalUpdate:
        """One round of local work, cut to what `pace` allows. Raises `TrainingStopped`, `PluginError`."""
        deadline = self._manifest.policy.train_deadline_s
        context = TrainContext(
            round=round_number,
            seed=self._seed(round_number),
            should_stop=should_stop,
            steps=None if pace is None else pace.steps_within(deadline),
        )
        with _blamed("trainer", self._manifest.trainer.name):
            result = self._plugins.trainer.train(_copy(base), self._data.train, context)
            problem = schema_difference(codec.schema_of(result.parameters), self.schema)
            if problem is not None:
                raise PluginError(problem)
            if result.examples < 0:
                raise PluginError(f"it says that it trained on {result.examples} examples")
            return LocalUpdate(
                data=codec.encode(difference(result.parameters, base)), examples=int(result.examples)
            )

    def check(self, item: Input, data: bytes, base: Parameters) -> ModelUpdate | str:
        """The update in `data`, or the name of the rule that it breaks. Raises `PluginError`."""
        try:
            delta = codec.decode(data, self.schema, self._manifest.max_update_bytes)
        except CodecError as exc:
            return exc.rule
        update = ModelUpdate(peer=item.peer, root=item.root, delta=delta, examples=item.examples)
        with _blamed("validator", self._manifest.validator.name):
            return self._plugins.validator.check(update, base) or update

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> bytes | Refusals:
        """The model that `updates` make, unless some of them do not fit the rest.

        Raises `AggregationError`, `PluginError`.
        """
        with _blamed("validator", self._manifest.validator.name):
            refused = self._plugins.validator.screen(updates)
        if refused:
            return Refusals(refused=tuple((update.root, SCREENED) for update in refused))
        with _blamed("aggregator", self._manifest.aggregator.name):
            model = self._plugins.aggregator.aggregate(base, updates)
            problem = schema_difference(codec.schema_of(model), self.schema)
            if problem is not None:
                raise PluginError(problem)
            if (name := non_finite(model)) is not None:
                raise AggregationError(f"the aggregate of {name} is not finite")
            return codec.encode(model)

    def evaluate(self, model: Parameters) -> dict[str, float | None]:
        """Accuracy and loss on the data held out, None where there is none. Raises `PluginError`."""
        measured: dict[str, float] = {}
        if self._data.holdout is not None:
            with _blamed("trainer", self._manifest.trainer.name):
                measured = self._plugins.trainer.evaluate(_copy(model), self._data.holdout)
        known = {name: measured.get(name) for name in MEASURES}
        return {
            name: float(value) if value is not None and isfinite(value) else None
            for name, value in known.items()
        }

    def _seed(self, round_number: int) -> int:
        """Another one for each round and peer, the same whenever they come again; 53 bits."""
        text = f"{self._manifest.task_id.hex()} {round_number} {self._peer}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11


def prepare(manifest: TaskManifest, plugins: TaskPlugins, context: PeerContext) -> Workbench:
    """Loads the peer's data and makes the first model. Raises `DataError`, `PluginError`."""
    with _blamed("preprocessor", manifest.preprocessor.name):
        data = plugins.preprocessor.load(context)
    with _blamed("trainer", manifest.trainer.name):
        initial = plugins.trainer.init(manifest.seed)
        size = codec.encoded_size(codec.schema_of(initial))
        if size > manifest.max_update_bytes:
            limit = manifest.max_update_bytes
            raise PluginError(f"an update has {size} bytes; raise max_update_bytes, which is {limit}")
        return Workbench(manifest, plugins, context.peer, data, initial)


def _copy(parameters: Parameters) -> Parameters:
    return {name: array.copy() for name, array in parameters.items()}


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
        raise PluginError(f"{kind} {name!r} failed: {type(exc).__name__}: {line}".rstrip(": ")) from exc
