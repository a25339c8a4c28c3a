"""What a plugin is: five interfaces, and the values that pass through them.

A plugin is a class in an installed package, found by name through the entry points of the group
`federated.plugins`; see `federated.registry`. It says its `kind` in a class attribute and takes its
settings as keyword arguments. Code never travels over the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from math import sqrt
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

from pydantic import ConfigDict, ValidationError, validate_call

from federated.errors import PluginError
from federated.manifest import first_problem
from federated.parameters import Parameters, Schema
from p2p.peer_id import PeerId

_Self = TypeVar("_Self")
_Args = ParamSpec("_Args")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerContext:
    """Who this peer is in the task; `members` are sorted and `index` is our place among them."""

    peer: PeerId
    members: tuple[PeerId, ...]
    index: int
    data_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What a preprocessor makes: the trainer of the same task knows what `train` is.

    `holdout` is for measuring the model and is never trained on; `examples` counts `train`. `profile` says
    what the data are like, for the people of this peer: it is reported here, as JSON, and travels nowhere.
    """

    train: Any
    holdout: Any | None
    examples: int
    profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainContext:
    """One call of `train`: the round, a seed for that round and peer, and when to give up.

    `should_stop` is asked before each batch; a trainer that sees True raises `TrainingStopped`. `steps` is
    how many batches this machine can do before the deadline, as far as is known: a trainer that would do
    more ends there, with what it has learned, and so is in time.

    `state` is what the trainer kept of its newest finished training of an earlier round, in this process or
    one before; empty the first time. It is never the state of this round: a round that is trained again
    after a crash begins from the same state, and gives the same update.

    `secret` is 32 bytes that nobody else knows, others at each training: for the noise of those who hide
    something, and for nothing else, since no training with it can be repeated.
    """

    round: int
    seed: int
    should_stop: Callable[[], bool]
    steps: int | None = None
    state: Parameters = field(default_factory=dict)
    secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The new parameters (whole, not a delta), and how many examples they were trained on.

    `state` has arrays that the trainer wants back at its next training: the moments of an optimiser, the
    state of a generator, an error-feedback residual. It stays on this peer and never travels; it has at most
    the size of `federated.snapshots.max_state`. Who gives none back finds the one before next time.
    """

    parameters: Parameters
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    state: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUpdate:
    """A peer's delta (new minus base), decoded; `root` is the hash it was fetched by.

    `staleness` is by how many rounds the base it was trained on is older than the one that it is added to.
    """

    peer: PeerId
    root: bytes
    delta: Parameters
    examples: int
    staleness: int = 0

    @property
    def weight(self) -> float:
        """What the update counts in a weighted mean: its examples, the less the later it comes.

        Source: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation", section 5.
        """
        return self.examples / sqrt(1 + self.staleness)


@runtime_checkable
class Preprocessor(Protocol):
    """Makes the data of one peer ready. `kind = "preprocessor"`."""

    def load(self, context: PeerContext) -> Dataset:
        """The data of this peer; runs in the process of the plugins. Raises `DataError`."""


@runtime_checkable
class Refreshing(Protocol):
    """What a preprocessor may offer whose data change while the peer runs."""

    def refresh(self, context: PeerContext, dataset: Dataset) -> Dataset | None:
        """The data as they are now, None when they are still `dataset`; asked before each training.

        Runs where `load` did. Raises `DataError`: then the old data stay.
        """


@runtime_checkable
class Trainer(Protocol):
    """Knows the model. `kind = "trainer"`. Its methods run where `Preprocessor.load` did, one at a time."""

    def init(self, seed: int) -> Parameters:
        """The first parameters; the same bits for the same seed on every machine."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """New parameters after local work on `data` (a `Dataset.train`); `parameters` stay as they are."""

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        """`accuracy` and `loss` on `data` (a `Dataset.holdout`); without an own version, nothing."""
        return {}


@runtime_checkable
class StatefulTrainer(Trainer, Protocol):
    """A trainer that measures with what it keeps from training to training: parameters of this peer's own."""

    @property
    def is_personal(self) -> bool:
        """Whether it does so as it is set; a state has to be read."""

    def evaluate_with(self, parameters: Parameters, data: Any, state: Parameters) -> dict[str, float]:
        """In place of `evaluate`; `state` is that of the newest finished training, empty before the first.

        It may be of a process before this one.
        """


class TaskPlugin(Preprocessor, Trainer, Protocol):
    """The data and the model of one task in one class: a preprocessor and a trainer of one name,
    and one object where both have the same settings.

    The shortest way to a task of one's own: `load`, `init`, `train`, and `evaluate` to see how well it does.
    """

    kind: ClassVar[str] = "task"


@runtime_checkable
class Aggregator(Protocol):
    """Makes one model out of many updates. `kind = "aggregator"`. Pure."""

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> Parameters:
        """The next model: same bits on every peer for the same updates in the same order.

        Every array keeps the shape and dtype it has in `base`; sums run in float64.
        Raises `AggregationError` when the updates do not make a model.
        """


@runtime_checkable
class StatefulAggregator(Aggregator, Protocol):
    """An aggregator that keeps arrays from round to round, or wants to see the model before it is used.

    What it keeps is a part of the model, certified with it: arrays whose names begin with
    `federated.parameters.AGGREGATOR`. `aggregate` finds them in `base` and gives the next ones back;
    trainers and validators never see them, and updates do not have them.
    """

    def init(self, parameters: Parameters) -> Parameters:
        """What it keeps at first, for the trainer's first `parameters`; the same bits on every machine.

        Raises `PluginError` for a model that it cannot work with.
        """


@runtime_checkable
class Validator(Protocol):
    """Refuses updates. `kind = "validator"`. Pure."""

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        """The name of the rule that the update breaks on its own, None when it is fine."""

    def screen(self, updates: Sequence[ModelUpdate]) -> list[ModelUpdate]:
        """The updates that do not fit the rest of the set; a function of the set alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """What travels of an update, and what the compressor wants back at the next one.

    `payload` has names and dtypes that `federated.codec` takes. `state` stays on this peer, as a trainer's
    does: what the payload has left out, to be sent later.
    """

    payload: Parameters
    state: Parameters = field(default_factory=dict)


@runtime_checkable
class Compressor(Protocol):
    """Makes updates smaller. `kind = "compressor"`. Pure."""

    def compress(self, delta: Parameters, state: Parameters, seed: int) -> Compressed:
        """The payload of `delta`, whose values are finite; the arrays stay as they are.

        `state` is what it gave back at the newest finished training of an earlier round, empty the first
        time; `seed` is another one for each round and peer. The same arguments give the same payload.
        """

    def decompress(self, payload: Parameters, schema: Schema) -> Parameters:
        """The delta of `schema` in a payload that a stranger made: the same bits on every peer.

        Raises `CodecError` with the rule that the payload breaks. Nothing that it says is believed before
        it is checked: what is allocated is bounded by the size of a delta of `schema`.
        """


@runtime_checkable
class ModelValidator(Validator, Protocol):
    """A validator that names the rules by which it compares updates, or looks at the model for that."""

    def init(self, parameters: Parameters) -> None:
        """Is shown the first model, with what the aggregator keeps in it.

        Raises `PluginError` for one that it cannot judge updates of.
        """

    def judge(self, updates: Sequence[ModelUpdate], model: Parameters) -> Sequence[tuple[ModelUpdate, str]]:
        """In place of `screen`: the updates that are refused, each with the rule that it breaks.

        A function of the set and of the model alone, which has what the aggregator keeps in it.
        """

    def approve(self, base: Parameters, model: Parameters) -> str | None:
        """Why `model` must not follow on `base`, in one line; None when it may. Both are the trainer's part.

        A function of both alone, so all members come to one answer: when it is no, the round is skipped and
        the base stays.
        """


def checked_settings(
    init: Callable[Concatenate[_Self, _Args], None],
) -> Callable[Concatenate[_Self, _Args], None]:
    """Decorates a plugin's `__init__`: arguments are checked against their annotations.

    A wrong, missing or unknown setting raises `PluginError` with one line that names it.
    """
    checked = validate_call(config=ConfigDict(strict=True, allow_inf_nan=False))(init)

    @wraps(init)
    def checked_init(self: _Self, /, *args: _Args.args, **kwargs: _Args.kwargs) -> None:
        try:
            checked(self, *args, **kwargs)
        except ValidationError as exc:
            raise PluginError(f"setting {first_problem(exc)}") from exc

    return checked_init
