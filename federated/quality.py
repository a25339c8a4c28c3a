"""What each update was worth to a round, by the held-out data of this peer: a report, and no more than that.

    gain            by how much the update alone lowers the loss of the model that it was made for
    leave-one-out   by how much the round's model is better for having it

Each peer has other data and comes to other numbers, so nothing that members must agree on looks at them. For
n updates it takes 2n + 2 evaluations and n aggregations. Source: Wang et al. 2019, "Measure Contribution of
Participants in Federated Learning", section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from federated.errors import AggregationError, TrainingStopped
from federated.parameters import Parameters, add_step
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from federated.plugin import ModelUpdate
    from federated.workbench import Workbench

MAX_ASSESSED = 64  # updates of a round, the first by their roots; more would take longer than a round


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a participant's update was worth here, below 0 if it did harm; None where nobody can say."""

    peer: PeerId
    gain: float | None
    leave_one_out: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A round's contributions in the order of the peers, and the loss of the model before and after it."""

    before: float
    after: float
    contributions: tuple[Contribution, ...]


def assess(
    bench: Workbench,
    base: Parameters,
    model: Parameters,
    updates: Sequence[ModelUpdate],
    should_stop: Callable[[], bool],
    state: Parameters | None = None,
) -> Quality | None:
    """What `updates` were worth, which made `model` of `base`; None where the trainer reports no loss.

    `state` is what the trainer measures with, if it does.
    Raises `TrainingStopped` when it is asked to stop, `PluginError`.
    """
    before, after = bench.evaluate(base, state)["loss"], bench.evaluate(model, state)["loss"]
    if before is None or after is None:
        return None
    found = list[Contribution]()
    for update in sorted(updates, key=lambda update: update.root)[:MAX_ASSESSED]:
        if should_stop():
            raise TrainingStopped("the round is assessed no further")
        alone = _loss_with(bench, base, update, state)
        others = [other for other in updates if other.root != update.root]
        without = _loss_of(bench, base, others, state)
        contribution = Contribution(
            peer=update.peer,
            gain=None if alone is None else before - alone,
            leave_one_out=None if without is None else without - after,
        )
        found.append(contribution)
    found.sort(key=lambda contribution: contribution.peer)
    return Quality(before=before, after=after, contributions=tuple(found))


def _loss_with(
    bench: Workbench, base: Parameters, update: ModelUpdate, state: Parameters | None
) -> float | None:
    """Of `base` with this update alone added."""
    step = {name: array.astype(np.float64) for name, array in update.delta.items()}
    changed = {name: array for name, array in base.items() if name in step}
    try:
        return bench.evaluate(base | add_step(changed, step), state)["loss"]
    except AggregationError:  # it does not fit its dtype
        return None


def _loss_of(
    bench: Workbench, base: Parameters, updates: Sequence[ModelUpdate], state: Parameters | None
) -> float | None:
    """Of the model that these make of `base`."""
    try:
        made = bench.aggregate(base, updates)
    except AggregationError:  # too few of them for the rule
        return None
    return bench.evaluate(bench.decode(made), state)["loss"] if isinstance(made, bytes) else None
