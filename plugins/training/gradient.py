"""What all trainers that follow gradients have in common, whatever they compute them with.

Four ways of training when the members' data are not alike, each a setting:

    mu        FedProx: every step is drawn back to where the round began, the more the further away it is.
              Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Algorithm 2
    scaffold  every step is corrected by how the member's own gradients differ from everybody's.
              Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning"
    local     parameters that stay with their member, as personal heads or normalisation layers do.
              Arivazhagan et al. 2019, "Federated Learning with Personalization Layers"
    q         q-FedAvg: members on whose data the model is bad count more, see `plugins.fairness`

SCAFFOLD without a server: the control variate c of the model is a part of the model, as arrays whose names
begin with `scaffold/`, and a member's own c_i is a part of its state. A member takes the mean of its
gradients for its next c_i, which for plain SGD is the paper's option II, and sends it as its c. So the mean
of the updates makes c the mean of the c_i, by whatever weights the model is averaged; where all members
take part with equal weights that is the paper's c + mean(c_i⁺ - c_i). The paper's sum would never forget an
update that did not count; this mean does so in the next round. A member without a c_i takes c for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from federated.errors import PluginError
from federated.parameters import Array, Parameters
from federated.plugin import TrainContext, TrainResult
from plugins import fairness

CONTROL = "scaffold/"  # how the names of c begin in the model, and of c_i in the state
OWN = "local/"  # how the names of parameters that do not travel begin in the state
SHOWN = 5  # names in a message

Mu = Annotated[float, Field(ge=0, le=1000)]
Prefixes = Annotated[Sequence[Annotated[str, Field(min_length=1)]], Field(max_length=256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a training begins with.

    `model` is whole, with what does not travel. `memory` is what the optimiser kept, empty the first time.
    `mu` holds the parameters `shared` to where they begin; `correction`, c - c_i, is added to the gradients
    of those that it names.
    """

    model: Parameters
    memory: Parameters = field(default_factory=dict)
    shared: Collection[str] = ()
    mu: float = 0.0
    correction: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a training came to; `gradient` is the mean one of all steps, where there is a correction."""

    model: Parameters
    memory: Parameters
    examples: int
    gradient: Parameters = field(default_factory=dict)


class GradientTrainer(ABC):
    """A subclass draws the first model, fits one, and measures it; all of them whole."""

    kind = "trainer"
    lr: float
    decay: float

    def __init__(
        self,
        *,
        carry: bool = False,
        mu: float = 0.0,
        scaffold: bool = False,
        local: Sequence[str] = (),
        q: float = 0.0,
    ) -> None:
        if scaffold and q:
            raise PluginError("setting q: it does not go with scaffold, whose c is no delta")
        self.carry = carry
        self.mu = mu
        self.scaffold = scaffold
        self.local = tuple(local)
        self.q = q
        self._first: Parameters = {}  # what does not travel, as it was drawn
        self._newest: Parameters = {}  # and as the newest training here left it, for `evaluate`

    def init(self, seed: int) -> Parameters:
        """The first parameters that travel. Raises `PluginError` for a setting that does not fit them."""
        whole = self.first(seed)
        for prefix in self.local:
            if not any(name.startswith(prefix) for name in whole):
                raise PluginError(
                    f"setting local: no parameter begins with {prefix!r}; there are {_listing(whole)}"
                )
        shared = {name: array for name, array in whole.items() if not name.startswith(self.local)}
        if not shared:
            raise PluginError("setting local: no parameter is left that travels")
        self._first = self._newest = {name: array for name, array in whole.items() if name not in shared}
        if self.scaffold:
            learned = [name for name in self.learned(whole) if name in shared]
            shared |= {CONTROL + name: np.zeros_like(whole[name]) for name in learned}
        return shared | (fairness.first() if self.q else {})

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """Local work on `data`. Raises `TrainingStopped`, `DataError`, `PluginError`."""
        kept = context.state
        shared, control = _apart(parameters)
        own_control = {name: kept.get(CONTROL + name, array) for name, array in control.items()}
        start = Start(
            model=shared | self._own(kept),
            memory={n: array for n, array in kept.items() if not n.startswith((CONTROL, OWN))},
            shared=frozenset(shared),
            mu=self.mu,
            correction={name: array - own_control[name] for name, array in control.items()},
        )
        outcome = self.fit(start, data, context)
        control = outcome.gradient or own_control
        own = self._newest = {name: outcome.model[name] for name in self._first}
        new = {name: outcome.model[name] for name in shared}
        if self.q:
            loss = self.measure(start.model, data).get("loss", np.nan)
            new = fairness.terms(parameters, new, loss, q=self.q, rate=self.rate(context))
        return TrainResult(
            parameters=new | _named(CONTROL, control),
            examples=outcome.examples,
            state=(outcome.memory if self.carry else {}) | _named(CONTROL, control) | _named(OWN, own),
        )

    def rate(self, context: TrainContext) -> float:
        """The learning rate of a round."""
        return self.lr * self.decay**context.round

    @property
    def is_personal(self) -> bool:
        """Whether there is anything that does not travel."""
        return bool(self.local)

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        """How good the model is on `data`, with this member's own parameters in it. Raises `DataError`."""
        return self.measure(_apart(parameters)[0] | self._newest, data)

    def evaluate_with(self, parameters: Parameters, data: Any, state: Parameters) -> dict[str, float]:
        """As `evaluate`, with its own parameters of the state, which may be of a process before this one."""
        return self.measure(_apart(parameters)[0] | self._own(state), data)

    def _own(self, state: Parameters) -> Parameters:
        """What does not travel, as the newest training left it."""
        return {name: state.get(OWN + name, array) for name, array in self._first.items()}

    @abstractmethod
    def first(self, seed: int) -> Parameters:
        """The whole first model; the same bits for the same seed on every machine."""

    def learned(self, whole: Parameters) -> Collection[str]:
        """The names of the parameters that have gradients; the others are what a model counts or is told."""
        return list(whole)

    @abstractmethod
    def fit(self, start: Start, data: Any, context: TrainContext) -> Outcome:
        """The local steps; `start` stays as it is."""

    @abstractmethod
    def measure(self, model: Parameters, data: Any) -> dict[str, float]:
        """`accuracy` and `loss` of a whole model."""


def _apart(parameters: Mapping[str, Array]) -> tuple[Parameters, Parameters]:
    """(the model, c by the names of the parameters that it is about)."""
    beside = (CONTROL, fairness.CURVATURE)
    model = {name: array for name, array in parameters.items() if not name.startswith(beside)}
    control = {
        name.removeprefix(CONTROL): array for name, array in parameters.items() if name.startswith(CONTROL)
    }
    return model, control


def _named(prefix: str, arrays: Mapping[str, Array]) -> Parameters:
    return {prefix + name: array for name, array in arrays.items()}


def _listing(names: Collection[str]) -> str:
    shown = sorted(names)[:SHOWN]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")
