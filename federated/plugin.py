"""What a plugin is: four interfaces, and the values that pass through them.

A plugin is a class in an installed package, found by name through the entry points of the group
`federated.plugins`; see `federated.registry`. It says its `kind` in a class attribute and takes its
settings as keyword arguments. Code never travels over the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

from pydantic import ConfigDict, ValidationError, validate_call

from federated.errors import PluginError
from federated.manifest import first_problem
from federated.parameters import Parameters
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

    `holdout` is for measuring the model and is never trained on; `examples` counts `train`.
    """

    train: Any
    holdout: Any | None
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainContext:
    """One call of `train`: the round, a seed for that round and peer, and when to give up.

    `should_stop` is asked before each batch; a trainer that sees True raises `TrainingStopped`. `steps` is
    how many batches this machine can do before the deadline, as far as is known: a trainer that would do
    more ends there, with what it has learned, and so is in time.
    """

    round: int
    seed: int
    should_stop: Callable[[], bool]
    steps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The new parameters (whole, not a delta), and how many examples they were trained on."""

    parameters: Parameters
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUpdate:
    """A peer's delta (new minus base), decoded; `root` is the hash it was fetched by."""

    peer: PeerId
    root: bytes
    delta: Parameters
    examples: int


@runtime_checkable
class Preprocessor(Protocol):
    """Makes the data of one peer ready. `kind = "preprocessor"`."""

    def load(self, context: PeerContext) -> Dataset:
        """The data of this peer; runs in a worker thread. Raises `DataError`."""


@runtime_checkable
class Trainer(Protocol):
    """Knows the model. `kind = "trainer"`. Its methods run in a worker thread, one at a time."""

    def init(self, seed: int) -> Parameters:
        """The first parameters; the same bits for the same seed on every machine."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """New parameters after local work on `data` (a `Dataset.train`); `parameters` stay as they are."""

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        """`accuracy` and `loss` on `data` (a `Dataset.holdout`); without an own version, nothing."""
        return {}


@runtime_checkable
class Aggregator(Protocol):
    """Makes one model out of many updates. `kind = "aggregator"`. Pure."""

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> Parameters:
        """The next model: same bits on every peer for the same updates in the same order.

        Every array keeps the shape and dtype it has in `base`; sums run in float64.
        Raises `AggregationError` when the updates do not make a model.
        """


@runtime_checkable
class Validator(Protocol):
    """Refuses updates. `kind = "validator"`. Pure."""

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        """The name of the rule that the update breaks on its own, None when it is fine."""

    def screen(self, updates: Sequence[ModelUpdate]) -> list[ModelUpdate]:
        """The updates that do not fit the rest of the set; a function of the set alone."""


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
