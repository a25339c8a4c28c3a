"""A certified block computed again, on this rung: as `federated.recomputing`, with calls for awaits.

base ──→ list ──→ update after update: fetched, then checked ──→ aggregated ──→ done(Recomputed)
  └────────┴────────┴── nobody has it, or the phase is over: UNAVAILABLE
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from federated.errors import CodecError, FederatedError
from federated.rounds.audits import FAILED, PARALLEL, WRONG, outcome, read_list
from federated.rounds.events import Recomputed, Verdict
from federated.rounds.messages import Model
from federated.workbench import Refusals, Workbench, as_claimed
from sim.durations import AGGREGATE, OTHER, VALIDATE

if TYPE_CHECKING:
    from federated.parameters import Parameters
    from federated.plugin import ModelUpdate
    from federated.rounds.actions import Recompute
    from federated.rounds.events import Input, Inputs
    from p2p.peer_id import PeerId
    from sim.cores.blobs import Blobs
    from sim.cores.node import Life
    from sim.cores.shared import Shared

Run = Callable[[float, Callable[[], None]], None]  # (seconds, job): a processor


class Recomputing:
    """One block; `run` is the node's processor, `keep` gets the roots of what shows a fraud."""

    def __init__(
        self,
        life: Life,
        bench: Workbench,
        shared: Shared,
        blobs: Blobs,
        run: Run,
        keep: Callable[[Sequence[bytes]], None],
        action: Recompute,
        done: Callable[[Recomputed], None],
    ) -> None:
        self._life = life
        self._bench = bench
        self._shared = shared
        self._blobs = blobs
        self._run = run
        self._keep = keep
        self._action = action
        self._done = done
        self._over = False
        self._fetched = [action.base.root, action.certificate.block.inputs]
        self._base: Parameters = {}
        self._inputs: Inputs = ()
        self._waiting: deque[Input] = deque()  # updates to fetch
        self._updates: dict[bytes, ModelUpdate] = {}  # by root: those that are fine

    def start(self) -> None:
        """Begins; there is a phase's time for all of it."""
        heap, action = self._life.world.heap, self._action
        limit = self._shared.manifest.policy.phase_deadline_s
        heap.plan(heap.now + limit, self._life.receive, self._end, Verdict.UNAVAILABLE)
        self._fetch(action.base.root, action.holders, partial(self._go_on, OTHER, self._take_base))

    def _fetch(self, root: bytes, holders: Sequence[PeerId], done: Callable[[bytes], None]) -> None:
        def fetched(data: bytes | None) -> None:
            if data is None:
                self._end(Verdict.UNAVAILABLE)
            elif not self._over:
                done(data)

        self._blobs.fetch(root, holders, fetched)

    def _go_on(self, seconds: float, job: Callable[[bytes], None], data: bytes) -> None:
        """Does `job` with what was fetched, unless it is over by then."""
        self._run(seconds, lambda: None if self._over else job(data))

    def _take_base(self, data: bytes) -> None:
        known = self._action.base.digest
        try:
            self._shared.once(("verify", known, data), lambda: self._bench.verify(data, known))
        except CodecError:
            self._end(Verdict.UNAVAILABLE)
            return
        self._base = self._shared.once(("decode", known), lambda: self._bench.decode(data))
        root = self._action.certificate.block.inputs
        self._fetch(root, self._action.holders, partial(self._go_on, OTHER, self._take_list))

    def _take_list(self, data: bytes) -> None:
        inputs = read_list(data, self._action)
        if isinstance(inputs, str):
            self._end(Verdict.DIFFERS, inputs)
        else:
            self._inputs = inputs
            self._waiting.extend(inputs)
            self._fetched += [item.root for item in inputs]
            for _ in range(min(PARALLEL, len(inputs))):
                self._next()

    def _next(self) -> None:
        """Gets the next update, or averages them all."""
        if len(self._updates) == len(self._inputs):
            self._run(AGGREGATE, self._compare)
        if not self._waiting:
            return
        item = self._waiting.popleft()
        holders = (item.peer, *self._action.holders)
        self._fetch(item.root, holders, partial(self._go_on, VALIDATE, partial(self._check, item)))

    def _check(self, item: Input, data: bytes) -> None:
        key = ("check", self._action.base.digest, item)
        try:
            checked = self._shared.once(key, lambda: self._bench.check(item, data, self._base))
        except FederatedError:
            checked = FAILED
        if isinstance(checked, str):
            self._end(Verdict.DIFFERS, checked)
        else:
            self._updates[item.root] = as_claimed(checked, item)
            self._next()

    def _compare(self) -> None:
        if self._over:
            return
        key = ("aggregate", self._action.base.digest, self._inputs)
        updates = [self._updates[item.root] for item in self._inputs]
        try:
            made = self._shared.once(key, lambda: self._bench.aggregate(self._base, updates))
        except FederatedError:
            self._end(Verdict.DIFFERS, FAILED)
            return
        if isinstance(made, Refusals):
            self._end(Verdict.DIFFERS, made.refused[0][1])
            return
        root = self._life.world.root_of(made)
        model = Model(digest=self._shared.digest_of(made), root=root, size=len(made))
        is_right = model == self._action.certificate.block.model
        self._end(Verdict.AGREES if is_right else Verdict.DIFFERS, None if is_right else WRONG)

    def _end(self, verdict: Verdict, rule: str | None = None) -> None:
        if self._over:
            return
        self._over = True
        if verdict is Verdict.DIFFERS:
            self._keep(self._fetched)
        self._done(outcome(self._action, verdict, rule))
