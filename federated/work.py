"""The long actions of a round, each awaited to the event that it ends in.

    Train ──→ Trained, TrainFailed          Validate ──→ Validated
    Fetch ──→ Fetched, FetchFailed          Aggregate ─→ Aggregated, Screened, AggregateFailed
    Adopt ──→ ModelAdopted, AdoptFailed

Bytes and arrays live here, and only as long as their round: `turn` forgets all but the new model.
Work that is cancelled leaves nothing behind. A plugin that fails costs what it was asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from federated.errors import CodecError, FederatedError, TrainingStopped
from federated.parameters import Parameters
from federated.plugin import ModelUpdate
from federated.rounds.actions import Adopt, Aggregate, Fetch, Train, Validate
from federated.rounds.events import (
    AdoptFailed,
    Aggregated,
    AggregateFailed,
    Event,
    Fetched,
    FetchFailed,
    ModelAdopted,
    Screened,
    Trained,
    TrainFailed,
    Validated,
)
from federated.rounds.messages import Model
from federated.workbench import Refusals, Workbench, digest
from p2p.blobs.errors import BlobUnavailable

if TYPE_CHECKING:
    from federated.compute import Compute
    from federated.storage import Shelf
    from p2p.blobs import Blobs

BROKEN = "validator"  # the rule that an update breaks when it makes the validator fail

logger = logging.getLogger(__name__)

Work = Train | Fetch | Validate | Aggregate | Adopt


class RoundWork:
    """Does the work of one round after the other.

    `shelf` has the blobs of the round, `complain` is told in one line what a plugin failed at. The trainer
    has a `Compute` of its own: one that does not stop when it should holds up neither checks nor aggregates.
    """

    def __init__(
        self,
        *,
        bench: Workbench,
        blobs: Blobs,
        trainer: Compute,
        compute: Compute,
        shelf: Shelf,
        complain: Callable[[str], None],
    ) -> None:
        self._bench = bench
        self._blobs = blobs
        self._trainer = trainer
        self._compute = compute
        self._shelf = shelf
        self._complain = complain
        self._base: Parameters = {}
        self._models: dict[bytes, bytes] = {}  # by digest: the current one and this round's aggregates
        self._fetched: dict[bytes, bytes] = {}  # by root: updates that are not validated yet
        self._updates: dict[bytes, ModelUpdate] = {}  # by root: those that are fine on their own

    def model(self, model_digest: bytes) -> bytes:
        """The bytes of a model that is at hand: the current one, or one that this round came to."""
        return self._models[model_digest]

    async def add_model(self, data: bytes) -> Model:
        """Puts a model at hand, here and for others: the one to begin with."""
        return await self._add_model(data, needed=True)

    async def _add_model(self, data: bytes, *, needed: bool) -> Model:
        root = await self._shelf.keep(data, needed=needed)
        known = await self._compute.run(lambda _: digest(data))
        model = Model(digest=known, root=root, size=len(data))
        self._models[model.digest] = data
        return model

    async def turn(self, model: Model) -> None:
        """Begins a round on `model`, which is at hand."""
        data = self._models[model.digest]
        self._base = await self._compute.run(lambda _: self._bench.decode(data))
        self._models, self._fetched, self._updates = {model.digest: data}, {}, {}
        await self._shelf.turn(model.root, data)

    async def evaluate(self) -> Mapping[str, float | None]:
        """Accuracy and loss of the current model, as far as they can be had."""
        base = self._base
        try:
            return await self._trainer.run(lambda _: self._bench.evaluate(base), "evaluate")
        except FederatedError as exc:
            self._complain(f"the model is not measured: {exc}")
            return {}

    async def perform(self, action: Work) -> Event:
        """The event that `action` ends in."""
        match action:
            case Train():
                return await self._train(action)
            case Fetch():
                return await self._fetch(action)
            case Validate():
                return await self._validate(action)
            case Aggregate():
                return await self._aggregate(action)
            case Adopt():
                return await self._adopt(action)

    async def _train(self, action: Train) -> Event:
        base, number = self._base, action.round
        try:
            update = await self._trainer.run(
                lambda stop: self._bench.train(base, number, stop, self._trainer.pace), "train"
            )
        except TrainingStopped:
            return TrainFailed(round=number)
        except FederatedError as exc:
            self._complain(f"round {number} has no update of ours: {exc}")
            return TrainFailed(round=number)
        root = await self._shelf.keep(update.data, needed=True)
        return Trained(round=number, root=root, size=len(update.data), examples=update.examples)

    async def _fetch(self, action: Fetch) -> Event:
        self._shelf.expect(action.root)
        try:
            data = await self._blobs.fetch(action.root, action.size, action.holders)
        except BlobUnavailable as exc:
            logger.info("round %d: %s", action.round, exc)
            return FetchFailed(round=action.round, root=action.root)
        self._fetched[action.root] = data
        return Fetched(round=action.round, root=action.root)

    async def _validate(self, action: Validate) -> Event:
        item, base = action.input, self._base
        data = self._fetched.pop(item.root)
        rule: str | None = None
        try:
            checked = await self._compute.run(lambda _: self._bench.check(item, data, base), "validate")
        except FederatedError as exc:
            self._complain(f"round {action.round}: the update of {item.peer} is refused: {exc}")
            rule = BROKEN
        else:
            if isinstance(checked, str):
                rule = checked
            else:
                self._updates[item.root] = checked
        return Validated(round=action.round, root=item.root, rule=rule)

    async def _aggregate(self, action: Aggregate) -> Event:
        base, number, inputs = self._base, action.round, action.inputs
        updates = [
            replace(self._updates[item.root], peer=item.peer, examples=item.examples) for item in inputs
        ]
        try:
            result = await self._compute.run(lambda _: self._bench.aggregate(base, updates), "aggregate")
        except FederatedError as exc:
            self._complain(f"round {number}: the updates make no model: {exc}")
            return AggregateFailed(round=number, inputs=inputs)
        if isinstance(result, Refusals):
            return Screened(round=number, inputs=inputs, refused=result.refused)
        return Aggregated(round=number, inputs=inputs, model=await self._add_model(result, needed=False))

    async def _adopt(self, action: Adopt) -> Event:
        """The certified model: computed here already, or from a holder, and then held against its digest."""
        number, model = action.certificate.round, action.certificate.block.model
        if model.digest not in self._models:
            self._shelf.expect(model.root)
            try:
                data = await self._blobs.fetch(model.root, model.size, action.holders)
                await self._compute.run(lambda _: self._bench.verify(data, model.digest))
            except (BlobUnavailable, CodecError) as exc:
                logger.warning("the model of round %d is not at hand: %s", number, exc)
                return AdoptFailed(round=number)
            self._models[model.digest] = data
        return ModelAdopted(round=number)
