"""The long actions of a round on this rung: real results, after the time that they would take.

    Train ──→ Trained, TrainFailed          Validate ──→ Validated
    Fetch ──→ Fetched, FetchFailed          Aggregate ─→ Aggregated, Screened, AggregateFailed
    Adopt ──→ ModelAdopted, AdoptFailed     Recompute ─→ Recomputed, see `sim.cores.recomputing`

As `federated.work`, with calls for awaits. A node has one processor for training and one for all else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from federated.codec import encode
from federated.errors import CodecError, FederatedError
from federated.learner import LocalUpdate
from federated.parameters import Parameters
from federated.rounds.actions import Adopt, Aggregate, Fetch, Recompute, Train, Validate
from federated.rounds.audits import outcome
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
    Verdict,
)
from federated.rounds.messages import Model
from federated.rounds.recent import EVIDENCE_ROUNDS
from federated.snapshots import Snapshot
from federated.workbench import Refusals, Workbench, as_claimed
from sim.adversaries.committee import poison
from sim.cores.recomputing import Recomputing
from sim.cores.settings import BROKEN
from sim.durations import AGGREGATE, EVALUATE, OTHER, SPREAD, VALIDATE

if TYPE_CHECKING:
    from federated.plugin import ModelUpdate
    from federated.snapshots import Snapshots
    from federated.work import Work
    from sim.cores.node import Life
    from sim.cores.shared import Shared

Done = Callable[[Event], None]


class Processor:
    """Does one job after the other."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._free = 0.0  # when it is through with what it has

    def run(self, seconds: float, job: Callable[[], None]) -> None:
        """Does `job`, which takes a fast node `seconds`, behind those that wait."""
        world = self._life.world
        start = max(self._free, world.heap.now)
        self._free = start + world.network.processing(self._life.number, seconds)
        world.heap.plan(self._free, self._end, job)

    def _end(self, job: Callable[[], None]) -> None:
        if self._life.running:
            self._life.receive(job)


class RoundWork:
    """Does the work of one round after the other; `durably(call, done)` gets through to the disk.

    `conspires` says of an adversary whether it poisons the model of this round.
    """

    def __init__(
        self,
        life: Life,
        bench: Workbench,
        shared: Shared,
        snapshots: Snapshots,
        train_seconds: float,
        durably: Callable[[Callable[[], object], Callable[..., None]], None],
        conspires: Callable[[], bool] | None = None,
    ) -> None:
        self._life = life
        self._bench = bench
        self._shared = shared
        self._snapshots = snapshots
        self._train_seconds = train_seconds
        self._durably = durably
        self._conspires = conspires
        self._blobs = life.open_blobs()
        self._trainer, self._processor = Processor(life), Processor(life)
        self._round = 0  # rounds begun: work of earlier ones is void
        self._training = 0  # trainings begun or stopped
        self._adopting = 0
        self._base: Parameters = {}
        self._base_digest = b""
        self._models: dict[bytes, bytes] = {}  # by digest: the current one and this round's aggregates
        self._fetched: dict[bytes, bytes] = {}  # by root: updates that are not validated yet
        self._updates: dict[bytes, ModelUpdate] = {}  # by root: those that are fine on their own
        self._roots: dict[bytes, None] = {}  # what this round has in the blob store
        self._stale: tuple[bytes, ...] = ()  # blobs of the last round: somebody may be one behind
        self._evidence: dict[bytes, int] = {}  # what shows a fraud, and the rounds for which it is kept

    # Models

    def decode(self, model: bytes) -> Parameters:
        """The parameters in a model's bytes. Raises `CodecError`."""
        known = self._shared.digest_of(model)
        return self._shared.once(("decode", known), lambda: self._bench.decode(model))

    def model(self, digest: bytes) -> bytes:
        """The bytes of a model that is at hand."""
        return self._models[digest]

    def add_model(self, data: bytes, done: Callable[[Model], None]) -> None:
        """Puts a model at hand, here and for others; `done` gets it."""

        def stored(root: bytes) -> None:
            model = Model(digest=self._shared.digest_of(data), root=root, size=len(data))
            self._models[model.digest] = data
            done(model)

        self._store(data, stored)

    def turn(self, model: Model) -> None:
        """Begins a round on `model`, which is at hand; forgets the work and blobs of those before."""
        data = self._models[model.digest]
        self._round += 1
        self._base, self._base_digest = self.decode(data), model.digest
        self._models, self._fetched, self._updates = {model.digest: data}, {}, {}
        over = [root for root, left in self._evidence.items() if left <= 1]
        self._evidence = {root: left - 1 for root, left in self._evidence.items() if left > 1}
        for root in (*self._stale, *over):
            if root not in self._roots and root not in self._evidence:  # else it is wanted again
                self._blobs.discard(root)
        self._stale = tuple(root for root in self._roots if root != model.root)
        self._roots = {model.root: None}

    def evaluate(self, done: Callable[[Mapping[str, float | None]], None]) -> None:
        """Measures the current model, as far as that can be done."""
        base = self._base

        def job() -> None:
            try:
                state = self._snapshots.newest_state() if self._bench.remembers else {}
                measured: Mapping[str, float | None] = self._bench.evaluate(base, state)
            except FederatedError:
                measured = {}
            done(measured)

        self._trainer.run(EVALUATE, job)

    # Work

    def begin(self, action: Work | Recompute, done: Done) -> None:
        """Starts work of this round; `done` gets the event that it ends in, unless the round is over.

        A training goes on until it is stopped, and a block is computed again however long its round is over.
        """
        if isinstance(action, Train):
            self._train(action, done)
            return
        if isinstance(action, Recompute):
            self._recompute(action, done)
            return
        done = partial(self._deliver, self._round, done)
        match action:
            case Fetch():
                self._fetch(action, done)
            case Validate():
                self._processor.run(VALIDATE, partial(self._validate, action, self._round, done))
            case Aggregate():
                self._processor.run(AGGREGATE, partial(self._aggregate, action, self._round, done))
            case Adopt():
                self._adopt(action, done)

    def stop_training(self) -> None:
        """The update would come too late."""
        self._training += 1

    def _deliver(self, number: int, done: Done, event: Event) -> None:
        if number == self._round and self._life.running:
            done(event)

    def _train(self, action: Train, done: Done) -> None:
        self._training += 1
        training, base, number = self._training, self._base, action.round

        def loaded(state: Parameters) -> None:
            if training == self._training:
                rng = self._life.world.task_rng
                seconds = self._train_seconds * rng.lognormvariate(0.0, SPREAD)
                self._trainer.run(seconds, partial(job, state))

        def job(state: Parameters) -> None:
            if training != self._training:
                return
            try:
                update = self._bench.train(base, number, lambda: False, state=state)
            except FederatedError as exc:
                reason = f"round {number} has no update of ours: {exc}"
                self._life.world.observer.waiting(self._life.number, reason)
                done(TrainFailed(round=number))
            else:
                self._keep(update, action, training, done)

        self._durably(lambda: self._snapshots.state_before(number), loaded)

    def _keep(self, update: LocalUpdate, action: Train, training: int, done: Done) -> None:
        number = action.round

        def stored(root: bytes) -> None:
            told = Trained(round=number, root=root, size=len(update.data), examples=update.examples)
            if update.state is None:
                done(told)
                return
            snapshot = Snapshot(round=number, base=action.base.digest, root=root, state=update.state)
            self._durably(partial(save, snapshot), lambda _: done(told))

        def save(snapshot: Snapshot) -> None:
            if training == self._training:  # else it waited for the disk until nobody wants it any more
                self._snapshots.save(snapshot)

        self._store(update.data, stored)

    def _fetch(self, action: Fetch, done: Done) -> None:
        number, root = action.round, action.root
        waiting = [True]

        def end(data: bytes | None) -> None:
            if not waiting[0]:
                return
            waiting[0] = False
            if data is None:
                done(FetchFailed(round=number, root=root))
                return
            self._fetched[root] = data
            self._roots[root] = None
            done(Fetched(round=number, root=root))

        heap = self._life.world.heap
        limit = self._shared.manifest.policy.phase_deadline_s
        heap.plan(heap.now + limit, self._life.receive, end, None)
        self._blobs.fetch(root, action.holders, end)

    def _validate(self, action: Validate, number: int, done: Done) -> None:
        item, base = action.input, self._base
        if number != self._round or item.root not in self._fetched:
            return
        data = self._fetched.pop(item.root)
        rule: str | None = None
        key = ("check", self._base_digest, item)
        try:
            checked = self._shared.once(key, lambda: self._bench.check(item, data, base))
        except FederatedError:
            rule = BROKEN
        else:
            if isinstance(checked, str):
                rule = checked
            else:
                self._updates[item.root] = checked
        done(Validated(round=action.round, root=item.root, rule=rule))

    def _aggregate(self, action: Aggregate, turn: int, done: Done) -> None:
        if turn != self._round:
            return
        base, number, inputs = self._base, action.round, action.inputs
        updates = [as_claimed(self._updates[item.root], item) for item in inputs]
        key = ("aggregate", self._base_digest, inputs)
        try:
            result = self._shared.once(key, lambda: self._bench.aggregate(base, updates))
            if self._bench.is_guarded and isinstance(result, bytes):
                self._bench.accept(base, result)
        except FederatedError:
            done(AggregateFailed(round=number, inputs=inputs))
            return
        if isinstance(result, Refusals):
            done(Screened(round=number, inputs=inputs, refused=result.refused))
        else:
            if self._conspires is not None and self._conspires():
                result = self._poisoned(result)
            made = partial(self._aggregated, number, inputs, done)
            self._store(action.listed, lambda _: self.add_model(result, made))

    def _poisoned(self, model: bytes) -> bytes:
        key = ("poison", self._base_digest, self._shared.digest_of(model))
        return self._shared.once(key, lambda: encode(poison(self._base, self.decode(model))))

    def _aggregated(self, number: int, inputs: Inputs, done: Done, model: Model) -> None:
        done(Aggregated(round=number, inputs=inputs, model=model))

    def _recompute(self, action: Recompute, done: Done) -> None:
        if self._conspires is not None:  # it does not give its like away
            done(outcome(action, Verdict.UNAVAILABLE))
            return
        life, run = self._life, self._processor.run
        Recomputing(life, self._bench, self._shared, self._blobs, run, self._hold, action, done).start()

    def _hold(self, roots: Sequence[bytes]) -> None:
        self._evidence |= dict.fromkeys(roots, EVIDENCE_ROUNDS)

    def _adopt(self, action: Adopt, done: Done) -> None:
        """The certified model: computed here already, or from a holder, and then held against its digest."""
        self._adopting += 1
        adopting, number, model = self._adopting, action.certificate.round, action.certificate.block.model

        def fetched(data: bytes | None) -> None:
            if adopting != self._adopting:  # a later one replaces it
                return
            if data is None:
                done(AdoptFailed(round=number))
            else:
                self._processor.run(OTHER, partial(verify, data))

        def verify(data: bytes) -> None:
            try:
                key = ("verify", model.digest, data)
                self._shared.once(key, lambda: self._bench.verify(data, model.digest))
            except CodecError:
                done(AdoptFailed(round=number))
                return
            self._models[model.digest] = data
            self._roots[model.root] = None
            done(ModelAdopted(round=number))

        if model.digest in self._models:
            done(ModelAdopted(round=number))
        else:
            self._blobs.fetch(model.root, action.holders, fetched)

    def _store(self, data: bytes, done: Callable[[bytes], None]) -> None:
        """Puts `data` into the blob store, however long the disk takes."""

        def stored(root: bytes) -> None:
            self._roots[root] = None
            done(root)

        self._durably(lambda: self._blobs.put(data), stored)
