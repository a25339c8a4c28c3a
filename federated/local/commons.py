"""What all members of a task in one process come to alike is computed once: checks, aggregates, signatures.

    check, aggregate ──first round──→ each member for itself, as on any network: digests are compared
                     ──later rounds─→ the judge, once for all

Plugins that judge updates are pure, by their contract: members on a network agree only because of that. One
that is not shows in the first round. Training is each member's own at all times. So is measuring the model,
unless members measure on the same data and with nothing but the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from federated.learner import learn_here
from federated.rounds.committee import verify_signature
from federated.workbench import Refusals, Workbench, assemble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from federated.learner import Learner, LocalLearner
    from federated.manifest import TaskManifest
    from federated.parameters import Parameters
    from federated.plugin import ModelUpdate, PeerContext
    from federated.registry import JudgingPlugins, Registry, TaskPlugins
    from federated.rounds.events import Input
    from p2p.peer_id import PeerId

MAX_BASES = 3  # models that are remembered: the current one, what it may become, and the one before, to audit
MAX_AGGREGATES = 8  # models that are remembered for what follows on one; more are only asked for to assess
MAX_SIGNATURES = 1 << 12  # remembered; several rounds of 64 voters

_Claims = tuple[tuple[bytes, bytes, int, int], ...]


@dataclass(slots=True)
class _Base:
    """A model, and what was found out about updates of it."""

    model: bytes
    parameters: Parameters
    checks: dict[Input, ModelUpdate | str] = field(default_factory=dict)
    aggregates: dict[_Claims, bytes | Refusals] = field(default_factory=dict)
    measures: dict[int, dict[str, float | None]] = field(default_factory=dict)  # by number of the holdout


class Commons:
    """What the members of one task share."""

    def __init__(self) -> None:
        self.judge: SharedWorkbench | None = None
        self._bases: list[_Base] = []  # oldest first
        self._holdouts: list[object] = []
        self._signatures: dict[tuple[PeerId, bytes, bytes], bool] = {}  # oldest first

    def open_bench(
        self,
        manifest: TaskManifest,
        registry: Registry,
        context: PeerContext,
        should_stop: Callable[[], bool],
    ) -> Workbench:
        """As `federated.workbench.open_bench`."""
        return self.prepare(manifest, registry.load(manifest), context)

    def prepare(self, manifest: TaskManifest, plugins: TaskPlugins, context: PeerContext) -> Workbench:
        """As `federated.workbench.prepare`; the first member's is the judge."""
        learner = learn_here(manifest, plugins, context)
        bench = assemble(manifest, plugins, learner, make=partial(SharedWorkbench, self, learner))
        assert isinstance(bench, SharedWorkbench)
        self.judge = self.judge or bench
        return bench

    def number_of(self, holdout: object) -> int:
        """The same number for all members that measure on the same."""
        for number, known in enumerate(self._holdouts):
            if _are_same(known, holdout):
                return number
        self._holdouts.append(holdout)
        return len(self._holdouts) - 1

    def verify(self, peer: PeerId, data: bytes, signature: bytes) -> bool:
        """As `verify_signature`; each signature is checked once."""
        key = (peer, data, signature)
        known = self._signatures.get(key)
        if known is None:
            known = self._signatures[key] = verify_signature(peer, data, signature)
            if len(self._signatures) > MAX_SIGNATURES:
                del self._signatures[next(iter(self._signatures))]
        return known

    def decoded(self, model: bytes) -> _Base:
        """What is known of a model."""
        for base in self._bases:
            if base.model is model or base.model == model:
                return base
        assert self.judge is not None
        self._bases.append(_Base(model, self.judge.decode_anew(model)))
        del self._bases[:-MAX_BASES]
        return self._bases[-1]

    def known(self, parameters: Parameters) -> _Base | None:
        """What is known of a model that was decoded here; None for any other."""
        for base in reversed(self._bases):
            if base.parameters is parameters:
                return base
        return None


class SharedWorkbench(Workbench):
    """The workbench of one member, which lets the judge judge."""

    def __init__(
        self,
        commons: Commons,
        here: LocalLearner,
        manifest: TaskManifest,
        plugins: JudgingPlugins,
        learner: Learner,
        initial: Parameters,
    ) -> None:
        super().__init__(manifest, plugins, learner, initial)
        self._commons = commons
        self._here = here
        self._holdout: tuple[object, int] | None = None  # the newest, and its number

    def decode(self, model: bytes) -> Parameters:
        """As `Workbench.decode`; but for the first model, all get the same arrays."""
        return self.decode_anew(model) if model == self.initial else self._commons.decoded(model).parameters

    def decode_anew(self, model: bytes) -> Parameters:
        """As `Workbench.decode`."""
        return super().decode(model)

    def check(self, item: Input, data: bytes, base: Parameters) -> ModelUpdate | str:
        """As `Workbench.check`."""
        known = self._commons.known(base)
        if known is None:
            return super().check(item, data, base)
        found = known.checks.get(item)
        if found is None:
            judge = self._commons.judge
            assert judge is not None
            found = known.checks[item] = Workbench.check(judge, item, data, base)
        return found

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> bytes | Refusals:
        """As `Workbench.aggregate`."""
        known = self._commons.known(base)
        if known is None:
            return super().aggregate(base, updates)
        claims = tuple(
            (update.root, update.peer.raw, update.examples, update.staleness) for update in updates
        )
        found = known.aggregates.get(claims)
        if found is None:
            judge = self._commons.judge
            assert judge is not None
            found = known.aggregates[claims] = Workbench.aggregate(judge, base, updates)
            if len(known.aggregates) > MAX_AGGREGATES:
                known.aggregates.pop(next(iter(known.aggregates)), None)
        return found

    def evaluate(self, model: Parameters, state: Parameters | None = None) -> dict[str, float | None]:
        """As `Workbench.evaluate`; where the model says all, those that measure on the same measure once."""
        known = self._commons.known(model)
        if known is None or self.remembers or self._here.holdout is None:
            return super().evaluate(model, state)
        if self._holdout is None or self._holdout[0] is not self._here.holdout:
            self._holdout = self._here.holdout, self._commons.number_of(self._here.holdout)
        number = self._holdout[1]
        if number not in known.measures:
            known.measures[number] = super().evaluate(model, state)
        return dict(known.measures[number])


def _are_same(one: object, other: object) -> bool:
    """Whether these are one object, or tuples of equal arrays."""
    if one is other:
        return True
    if not isinstance(one, tuple) or not isinstance(other, tuple) or len(one) != len(other):
        return False
    return all(
        isinstance(left, np.ndarray)
        and isinstance(right, np.ndarray)
        and left.dtype == right.dtype
        and left.dtype.kind in "fiub"
        and np.array_equal(left, right)
        for left, right in zip(one, other, strict=True)
    )
