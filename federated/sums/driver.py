"""The long actions of a round in a task with secure sums: as `federated.work`, but for what an update is.

    deal ───→ trained as ever ─→ sealed shares into the blob store ─→ their roots are our update
    attest ─→ the certified dealings ─→ our shares of them, as far as they come in time ─→ their checks
    open ───→ the certified attestations ─→ which dealings, by whom ─→ the sums of our shares of these

A process that starts again finds the same certified blocks, and so opens the same sums. Two sets of dealings
are never opened of one step, as there is one certified block of attestations. An update that is dealt again,
because a process ended before it was journaled, has other polynomials: only one of the two dealings can be
certified, and the shares of the other one are never used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import trio

from federated import codec
from federated.errors import CodecError, PluginError
from federated.manifest import STEP
from federated.parameters import non_finite, split
from federated.privacy import EXAMPLES, KEY
from federated.rounds.events import (
    Aggregated,
    Event,
    Input,
    Inputs,
    Trained,
    TrainFailed,
    Validated,
)
from federated.sums.documents import (
    ATTEST,
    DEAL,
    OPEN,
    Attestation,
    Dealing,
    Document,
    Opening,
    encode_attestation,
    encode_dealing,
    encode_opening,
    head,
)
from federated.sums.grid import Grid
from federated.sums.past import StepSoFar, at_once
from federated.sums.steps import (
    Opened,
    Step,
    Terms,
    add_share,
    checks_of,
    deal,
    factors,
    largest_document,
    open_share,
    step_of,
)
from federated.work import RoundWork
from federated.workbench import Refusals
from p2p.blobs import blob_root
from p2p.blobs.errors import BlobUnavailable
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from federated.learner import LocalUpdate
    from federated.manifest import TaskManifest
    from federated.parameters import Parameters
    from federated.plugin import ModelUpdate
    from federated.rounds.actions import Aggregate, RoundFinished, Train, Validate
    from federated.rounds.messages import Model
    from federated.rounds.recent import Decided
    from federated.sums.field import Elements
    from federated.sums.situation import Situation
    from p2p.keys import KeyPair

UNKNOWN = "step"  # the rule by which documents are refused when nothing is known to hold them against
RESULTS = {Step.DEAL: "dealt", Step.ATTEST: "attested", Step.OPEN: "opened"}

logger = logging.getLogger(__name__)


class SumWork(RoundWork):
    """Does the work of one round after the other; `parts` are those of a `RoundWork`.

    `pair` is the identity to which shares are sealed. `decided` has the certified blocks of the last rounds.
    Raises `PluginError` for a model whose sums are over the limits of the task.
    """

    def __init__(
        self, *, manifest: TaskManifest, pair: KeyPair, decided: Callable[[int], Decided | None], **parts: Any
    ) -> None:
        super().__init__(**parts)
        assert manifest.sums is not None
        assert self._entropy is not None
        self._mode = manifest.sums.mode
        self._pair = pair
        self._me = PeerId.from_public_key(pair.public)
        self._secret = self._entropy
        self._max_update = manifest.max_update_bytes
        self._schema = codec.schema_of(split(self._bench.decode(self._bench.initial))[0])
        self._grid = Grid(self._schema, manifest.most_members, manifest.sums.range)
        self._so_far = StepSoFar(
            manifest=manifest,
            me=self._me,
            grid=self._grid,
            decided=decided,
            blobs=self._blobs,
            compute=self._compute,
            shelf=self._shelf,
        )
        self._current: Model | None = None
        self._is_new = False  # whether the last round has changed the model
        self._measured: tuple[bytes, Mapping[str, float | None]] = (b"", {})  # of the model with this digest
        self._documents: dict[bytes, Document] = {}  # by root: those of this round that are fine
        self._opened = Opened((), ())  # what this peer found last
        members = manifest.most_members
        size = largest_document(self._grid, self._me, members, manifest.sums.most_sums(members))
        if size > self._max_update:
            raise PluginError(
                f"the sums of a holder have {size} bytes; raise max_update_bytes, which is {self._max_update}"
            )

    async def turn(self, model: Model) -> None:
        """Begins a round on `model`, which is at hand."""
        self._is_new = self._current is not None and self._current.digest != model.digest
        self._current, self._documents = model, {}
        await super().turn(model)

    async def evaluate(self) -> Mapping[str, float | None]:
        """Accuracy and loss of the current model, which two of three rounds leave as it is."""
        known = b"" if self._current is None else self._current.digest
        if self._measured[0] != known:
            self._measured = (known, await super().evaluate())
        return self._measured[1]

    def step(self, action: RoundFinished) -> Mapping[str, Any]:
        """What a round that is over was for, and what came of it, ready for JSON."""
        step, situation = step_of(action.round), self._so_far.known(action.round)
        is_empty = situation is not None and situation.terms is None
        result = "void" if is_empty or (step is Step.OPEN and not self._is_new) else RESULTS[step]
        result = "skipped" if action.skipped else result
        told: dict[str, Any] = {"mode": self._mode, "step": step.value, "result": result}
        if situation is None:
            return told
        if step is Step.OPEN and situation.terms is not None:
            peers = situation.terms.holders.peers
            told["wrong"] = [str(peers[place]) for place in self._opened.liars]
        return told | situation.report()

    # Our update

    async def _train(self, action: Train) -> Event:
        number = action.round
        situation = await self._so_far.look(number)
        if situation is None:
            self._complain(f"round {number} has nothing of ours: the rounds before it are not known")
            return TrainFailed(round=number)
        match step_of(number):
            case Step.DEAL if situation.terms is not None:
                return await super()._train(action)
            case Step.DEAL:
                self._complain(f"round {number}: fewer members are left than make holders, nothing is dealt")
                data = head(DEAL, number, self._me)
            case Step.ATTEST:
                data = await self._attest(number, situation)
            case Step.OPEN:
                data = await self._open(number, situation)
        root = await self._shelf.keep(data, needed=True)
        return Trained(round=number, root=root, size=len(data), examples=EXAMPLES)

    async def _outgoing(self, number: int, update: LocalUpdate) -> bytes | None:
        """Our dealing, once its shares are there for the holders."""
        situation, key = await self._so_far.look(number), self._secret(KEY)
        if situation is None or situation.terms is None:
            return None
        terms = situation.terms
        delta = await self._compute.run(lambda _: codec.decode(update.data, self._schema, self._max_update))
        if (name := non_finite(delta)) is not None:
            self._complain(f"round {number} has no update of ours: its {name} is not finite")
            return None
        sealed = deal(terms, self._me, delta, key)
        roots = []
        while (share := await self._compute.run(lambda _: next(sealed, None))) is not None:
            roots.append(await self._shelf.keep(share, needed=True))
        self._shelf.hold(roots, STEP)
        return encode_dealing(number, self._me, Dealing(tuple(roots)))

    async def _attest(self, number: int, situation: Situation) -> bytes:
        """What says which shares we have: all that come in time."""
        terms, count = situation.terms, len(situation.dealers)
        if terms is None or terms.holders.place(self._me) is None:
            return head(ATTEST, number, self._me)
        found: dict[int, tuple[int, ...]] = {}
        counts = await self._compute.run(lambda _: factors(terms, situation.block))

        async def check(dealing: int) -> None:
            share = await self._share(terms, situation, dealing)
            if share is not None:
                found[dealing] = await self._compute.run(lambda _: checks_of(share, counts))

        with trio.move_on_after(self._so_far.patience):
            await at_once([partial(check, dealing) for dealing in range(count)])
        return encode_attestation(number, self._me, count, Attestation(found))

    async def _open(self, number: int, situation: Situation) -> bytes:
        """The sums of our shares: of exactly the dealings that the certified attestations come to."""
        terms, sums = situation.terms, situation.sums
        nothing = head(OPEN, number, self._me)
        if terms is None or sums is None or terms.holders.place(self._me) not in sums.openers:
            return nothing
        totals = [np.zeros(self._grid.size, np.uint32) for _ in sums.groups]
        added: list[int] = []
        adding = trio.Lock()  # a sum is changed in its place

        async def count(total: Elements, dealing: int) -> None:
            share = await self._share(terms, situation, dealing)
            if share is not None:
                async with adding:
                    await self._compute.run(lambda _: add_share(total, share))
                added.append(dealing)

        pairs = zip(totals, sums.groups, strict=True)
        jobs = [partial(count, total, dealing) for total, group in pairs for dealing in group]
        with trio.move_on_after(self._so_far.patience):
            await at_once(jobs)
        if len(added) < len(jobs):
            self._complain(f"round {number}: shares that were here are lost, so nothing is opened here")
            return nothing
        return encode_opening(number, self._me, Opening(tuple(totals)))

    async def _share(self, terms: Terms, situation: Situation, dealing: int) -> Elements | None:
        """Our share of a dealing; None when it cannot be had, or is none."""
        dealer, place = situation.dealers[dealing], terms.holders.place(self._me)
        assert place is not None
        root = situation.dealings[dealing].roots[place]
        try:
            sealed = await self._so_far.get(root, terms.sealed_size, [dealer])
            return await self._compute.run(lambda _: open_share(terms, dealer, self._pair, self._me, sealed))
        except (BlobUnavailable, CodecError) as exc:
            logger.info("round %d: no share of %s: %s", terms.round, dealer, exc)
            return None

    # The updates of all

    async def _validate(self, action: Validate) -> Event:
        item, number = action.input, action.round
        data, rule = self._fetched.pop(item.root), None
        situation = await self._so_far.look(number)
        if situation is None:
            return Validated(round=number, root=item.root, rule=UNKNOWN)
        try:
            self._documents[item.root] = await self._compute.run(
                lambda _: situation.read(number, item.peer, data), "validate"
            )
        except CodecError as exc:
            rule = exc.rule
        return Validated(round=number, root=item.root, rule=rule)

    async def _aggregate(self, action: Aggregate) -> Event:
        number, current = action.round, self._current
        assert current is not None
        situation = await self._so_far.look(number)
        if step_of(number) is Step.OPEN and situation is not None and situation.sums is not None:
            return await super()._aggregate(action)
        await self._shelf.keep(action.listed, needed=False)
        return Aggregated(round=number, inputs=action.inputs, model=current)

    def _averaging(self, action: Aggregate) -> Callable[[], bytes]:
        """What makes the model of the sums; the one before, if they cannot be found."""
        situation, current = self._so_far.known(action.round), self._current
        assert situation is not None
        assert current is not None
        base, before = self._base, self._models[current.digest]
        documents = dict(self._documents)
        return lambda: self._average(base, situation, action.inputs, documents) or before

    def _average(
        self, base: Parameters, situation: Situation, inputs: Inputs, documents: Mapping[bytes, Document]
    ) -> bytes | None:
        """The model that the sums make; None when they cannot be found, or the validator refuses all means.

        Raises `AggregationError`, `PluginError`.
        """
        self._opened = opened = situation.open(inputs, documents)
        updates = []
        for number, mean in opened.means:
            group = situation.sums.groups[number] if situation.sums is not None else ()
            update = self._check_mean(base, situation.dealers[group[0]], len(group), mean)
            if update is not None:
                updates.append(update)
        updates.sort(key=lambda update: update.root)
        while updates:
            made = self._bench.aggregate(base, updates)
            if not isinstance(made, Refusals):
                return made
            refused = dict(made.refused)
            logger.warning("means of groups break the rules %s", ", ".join(sorted(refused.values())))
            updates = [update for update in updates if update.root not in refused]
        return None

    def _check_mean(
        self, base: Parameters, peer: PeerId, members: int, mean: Parameters
    ) -> ModelUpdate | None:
        """The mean of a group as an update, unless the validator refuses it; `peer` is one of the group."""
        data = codec.encode(mean)
        item = Input(peer=peer, root=blob_root(data), size=len(data), examples=members, staleness=0)
        checked = self._bench.check(item, data, base)
        if isinstance(checked, str):
            logger.warning("the mean of a group breaks the rule %s", checked)
            return None
        return checked
