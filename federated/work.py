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
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from federated.errors import CodecError, FederatedError, TrainingStopped
from federated.guard import Worsened
from federated.parameters import Parameters
from federated.plugin import ModelUpdate
from federated.privacy import KEY
from federated.quality import Quality, assess
from federated.rounds.actions import Adopt, Aggregate, Fetch, RoundFinished, Train, Validate
from federated.rounds.events import (
    AdoptFailed,
    Aggregated,
    AggregateFailed,
    Event,
    Fetched,
    FetchFailed,
    Inputs,
    ModelAdopted,
    Screened,
    Trained,
    TrainFailed,
    Validated,
)
from federated.rounds.messages import Model
from federated.snapshots import Snapshot
from federated.workbench import Refusals, Workbench, as_claimed, digest
from p2p.blobs.errors import BlobUnavailable

if TYPE_CHECKING:
    from federated.capability import Meter
    from federated.compute import Compute, Kind
    from federated.learner import LocalUpdate
    from federated.link import Exchange
    from federated.privacy import Budget
    from federated.snapshots import Snapshots
    from federated.storage import Disk, Shelf

BROKEN = "validator"  # the rule that an update breaks when it makes the validator fail

logger = logging.getLogger(__name__)

Work = Train | Fetch | Validate | Aggregate | Adopt


class RoundWork:
    """Does the work of one round after the other.

    `shelf` has the blobs of the round, `snapshots` what the trainer kept; `disk` waits for a disk that
    fails. `complain` is told in one line what a plugin failed at, `tell_spent` that there is nothing left of
    the budget. `budget` is what a private task may give
    away, `entropy` makes bytes that nobody knows. The trainer has a `Compute` of its own: one that does not
    stop when it should holds up neither checks nor aggregates. So has the `assessor` of contributions, where
    they are assessed. `object_to` is told of a round's model that is too bad for this member.
    """

    def __init__(
        self,
        *,
        bench: Workbench,
        blobs: Exchange,
        trainer: Compute,
        compute: Compute,
        shelf: Shelf,
        disk: Disk,
        snapshots: Snapshots,
        complain: Callable[[str], None],
        tell_spent: Callable[[str], None] | None = None,
        budget: Budget | None = None,
        entropy: Callable[[int], bytes] | None = None,
        assessor: Compute | None = None,
        object_to: Callable[[int, Worsened], None] = lambda number, reason: None,
    ) -> None:
        self._bench = bench
        self._blobs = blobs
        self._trainer = trainer
        self._compute = compute
        self._shelf = shelf
        self._disk = disk
        self._snapshots = snapshots
        self._complain = complain
        self._tell_spent = tell_spent or complain
        self._budget = budget
        self._entropy = entropy
        self._spent = False  # that the budget is spent was told
        self._assessor = assessor
        self._object_to = object_to
        self._sources: dict[bytes, list[ModelUpdate]] = {}  # of this round's aggregates, by digest
        self._last: tuple[Parameters, list[ModelUpdate]] | None = None  # what made the current model
        self.training: Mapping[str, float | None] = {}  # what the trainer told of its newest training
        self._assessing = False
        self.meter: Meter | None = None  # of what is done here, where time is the machine's
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
        data, base = self._models[model.digest], self._base
        self._base = await self._compute.run(lambda _: self._bench.decode(data))
        sources, self._sources = self._sources.get(model.digest), {}
        self._last = None if sources is None else (base, sources)
        self._models, self._fetched, self._updates = {model.digest: data}, {}, {}
        await self._shelf.turn(model.root, data)

    async def evaluate(self) -> Mapping[str, float | None]:
        """Accuracy and loss of the current model, as far as they can be had."""
        self._tell_of_plugin()
        if not self._bench.is_ready:  # it trains on, or has failed: nobody waits for that
            return {}
        base = self._base
        try:
            state = await self._newest_state()
            return await self._trainer.run(lambda _: self._bench.evaluate(base, state), "evaluate")
        except FederatedError as exc:
            self._complain(f"the model is not measured: {exc}")
            return {}

    async def assess(self) -> Quality | None:
        """What the updates were worth that made the current model; None where nobody can say.

        While that is being found out the next call comes to nothing, and so does one for a model that was
        fetched.
        """
        if self._assessor is None or self._last is None or self._assessing:
            return None
        (base, updates), model = self._last, self._base
        self._assessing, self._last = True, None
        try:
            state = await self._newest_state()
            return await self._assessor.run(
                lambda stop: assess(self._bench, base, model, updates, stop, state), "assess"
            )
        except FederatedError as exc:
            self._complain(f"the updates are not assessed: {exc}")
            return None
        finally:
            self._assessing = False

    def step(self, action: RoundFinished) -> Mapping[str, Any]:
        """What a round that is over was for, where not all are for the same, ready for JSON."""
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
        """Our update, which is told when it and what the trainer wants back are safe."""
        base, number = self._base, action.round
        if self._budget is not None and self._budget.is_spent:
            self._tell_of_budget(self._budget)
            return TrainFailed(round=number)
        key = b"" if self._entropy is None else self._entropy(KEY)
        await self._refresh(number)
        self._tell_of_plugin()
        state = await self._disk.run(lambda: self._snapshots.state_before(number))
        kind: Kind = "other" if self._bench.paces_itself else "train"
        try:
            update = await self._trainer.run(
                lambda stop: self._bench.train(base, number, stop, self._trainer.pace, state, key), kind
            )
        except TrainingStopped:
            return TrainFailed(round=number)
        except FederatedError as exc:
            self._complain(f"round {number} has no update of ours: {exc}")
            return TrainFailed(round=number)
        if self._budget is not None:
            if self._budget.is_spent:
                return TrainFailed(round=number)
            await self._disk.run(self._budget.ledger.spend)  # before anything of it can leave
        self.training = update.metrics
        data = await self._outgoing(number, update)
        if data is None:
            return TrainFailed(round=number)
        root = await self._shelf.keep(data, needed=True)
        if update.state is not None:
            snapshot = Snapshot(round=number, base=action.base.digest, root=root, state=update.state)
            await self._disk.run(lambda: self._snapshots.save(snapshot))
        return Trained(round=number, root=root, size=len(data), examples=update.examples)

    async def _outgoing(self, number: int, update: LocalUpdate) -> bytes | None:
        """What travels of our update; None when it cannot."""
        return update.data

    async def _newest_state(self) -> Parameters:
        """What the trainer kept last, where it measures with that."""
        if not self._bench.remembers:
            return {}
        return await self._disk.run(self._snapshots.newest_state)

    def _tell_of_plugin(self) -> None:
        """Says what became of a training that was stopped, if that is worth a line."""
        line = self._bench.complaint()
        if line is not None:
            self._complain(line)

    def _tell_of_budget(self, budget: Budget) -> None:
        if not self._spent:
            self._spent = True
            self._tell_spent(
                f"the privacy budget is spent: {budget.ledger.count} updates come to an epsilon of "
                f"{budget.epsilon:.3g}, one more would be over {budget.policy.epsilon:g}; "
                "this peer trains no more in this task"
            )

    async def _refresh(self, number: int) -> None:
        """Takes up data that came since the last training."""
        if self._bench.refreshes:
            try:
                await self._trainer.run(lambda _: self._bench.refresh())
            except FederatedError as exc:
                self._complain(f"round {number} trains on the data of before: {exc}")

    async def _fetch(self, action: Fetch) -> Event:
        self._shelf.expect(action.root)
        try:
            with self._receiving(action.root, action.size):
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
        job = self._averaging(action)

        def average(_: object) -> bytes | Refusals:
            size = sum(item.size for item in inputs)
            with nullcontext() if self.meter is None else self.meter.averaging(size):
                return job()

        try:
            result = await self._compute.run(average, "aggregate")
            await self._accept(base, result)
        except Worsened as exc:
            logger.info("round %d: %s", number, exc)
            self._object_to(number, exc)
            return AggregateFailed(round=number, inputs=inputs)
        except FederatedError as exc:
            self._complain(f"round {number}: the updates make no model: {exc}")
            return AggregateFailed(round=number, inputs=inputs)
        if isinstance(result, Refusals):
            return Screened(round=number, inputs=inputs, refused=result.refused)
        await self._shelf.keep(action.listed, needed=False)
        model = await self._add_model(result, needed=False)
        if self._assessor is not None:
            self._sources[model.digest] = self._claimed(inputs)
        return Aggregated(round=number, inputs=inputs, model=model)

    def _averaging(self, action: Aggregate) -> Callable[[], bytes | Refusals]:
        """What makes the model of the round."""
        base, updates = self._base, self._claimed(action.inputs)
        return lambda: self._bench.aggregate(base, updates)

    def _claimed(self, inputs: Inputs) -> list[ModelUpdate]:
        """The updates that these are, as they say."""
        return [as_claimed(self._updates[item.root], item) for item in inputs]

    async def _accept(self, base: Parameters, result: bytes | Refusals) -> None:
        """Raises `Worsened` and `PluginError` for a model that this member is not to vote for."""
        if self._bench.is_guarded and isinstance(result, bytes):
            await self._compute.run(lambda _: self._bench.accept(base, result), "evaluate")

    def _receiving(self, root: bytes, size: int) -> AbstractContextManager[None]:
        """Measures how a blob comes, unless it is here."""
        here = self.meter is None or root in self._blobs.store
        return nullcontext() if here or self.meter is None else self.meter.down.expect(size)

    async def _adopt(self, action: Adopt) -> Event:
        """The certified model: computed here already, or from a holder, and then held against its digest."""
        number, model = action.certificate.round, action.certificate.block.model
        if model.digest not in self._models:
            self._shelf.expect(model.root)
            try:
                with self._receiving(model.root, model.size):
                    data = await self._blobs.fetch(model.root, model.size, action.holders)
                await self._compute.run(lambda _: self._bench.verify(data, model.digest))
            except (BlobUnavailable, CodecError) as exc:
                logger.warning("the model of round %d is not at hand: %s", number, exc)
                return AdoptFailed(round=number)
            self._models[model.digest] = data
        return ModelAdopted(round=number)
