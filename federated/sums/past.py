"""Finds out what the certified blocks of a step before a round come to: with what everybody else has too.

    certified block ─→ its list of updates ─→ each of them, from the store or a holder ─→ Situation

Nothing is remembered from round to round but what the chain says, so it is the same after a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from federated.errors import CodecError
from federated.manifest import STEP
from federated.rounds.audits import PARALLEL
from federated.rounds.committee import Membership
from federated.rounds.inputs import listed_size, unpack_inputs
from federated.rounds.messages import MessageError
from federated.rounds.roster import minimum_of
from federated.sums.documents import ATTEST, decode_attestation, decode_dealing, head
from federated.sums.holders import draw_holders
from federated.sums.sets import settle
from federated.sums.situation import Situation
from federated.sums.steps import Step, Terms, step_of
from p2p.blobs.errors import BlobUnavailable

if TYPE_CHECKING:
    from federated.compute import Compute
    from federated.link import Exchange
    from federated.manifest import TaskManifest
    from federated.rounds.events import Input
    from federated.rounds.recent import Decided
    from federated.storage import Shelf
    from federated.sums.grid import Grid
    from p2p.peer_id import PeerId

logger = logging.getLogger(__name__)


class StepSoFar:
    """What the rounds of a step come to, for the member `me` of the task in `manifest`.

    `decided` has the certified blocks of the last rounds, and `shelf` keeps what later rounds need.
    """

    def __init__(
        self,
        *,
        manifest: TaskManifest,
        me: PeerId,
        grid: Grid,
        decided: Callable[[int], Decided | None],
        blobs: Exchange,
        compute: Compute,
        shelf: Shelf,
    ) -> None:
        self._manifest = manifest
        self._holders = 0 if manifest.sums is None else manifest.sums.holders
        self._group = None if manifest.sums is None else manifest.sums.group
        self._me = me
        self._grid = grid
        self._decided = decided
        self._blobs = blobs
        self._compute = compute
        self._shelf = shelf
        policy = manifest.policy
        self.patience = min(policy.phase_deadline_s, policy.train_deadline_s / 2)  # seconds, for blobs
        self._seen: tuple[int, Situation | None] = (0, None)
        self._looking = trio.Lock()

    def known(self, number: int) -> Situation | None:
        """What was found out about this round, if it was the last one that was asked for."""
        return self._seen[1] if self._seen[0] == number else None

    async def look(self, number: int) -> Situation | None:
        """What the rounds of the step before this one came to; None when that cannot be found out in time."""
        async with self._looking:
            if self._seen[0] != number:
                found = None
                with trio.move_on_after(self.patience):
                    try:
                        found = await self._gather(number)
                    except (BlobUnavailable, CodecError, MessageError) as exc:
                        logger.warning("round %d: the step so far is not known: %s", number, exc)
                self._seen = (number, found)
            return self._seen[1]

    async def get(self, root: bytes, size: int, holders: Sequence[PeerId]) -> bytes:
        """A blob that later rounds of the step may need too. Raises `BlobUnavailable`."""
        self._shelf.hold([root], STEP)
        return await self._blobs.fetch(root, size, holders)

    async def _gather(self, number: int) -> Situation | None:
        step = step_of(number)
        first = number - tuple(Step).index(step)
        if step is Step.DEAL:
            return self._before(number)
        dealt = self._decided(first)
        if dealt is None:
            return None
        block = dealt.certificate.block
        terms = self._terms(first, block.parent, dealt.membership)
        if terms is None or block.skipped:
            return Situation()
        found = [
            (item.peer, decode_dealing(data, first, item.peer, len(terms.holders.peers)))
            for item, data in await self._fetch_documents(dealt)
        ]
        dealers, dealings = tuple(peer for peer, _ in found), tuple(dealing for _, dealing in found)
        situation = Situation(terms=terms, block=block.hash, dealers=dealers, dealings=dealings)
        attested = self._decided(first + 1)
        if step is Step.ATTEST:
            return situation
        return None if attested is None else await self._settle(terms, situation, dealt, attested)

    def _before(self, number: int) -> Situation | None:
        """Who holds the shares that are dealt in this round."""
        task = self._manifest.task_id
        if number == 1:
            return Situation(terms=self._terms(number, task, Membership(task, self._manifest.peer_ids)))
        last = self._decided(number - 1)
        if last is None:
            return None
        block = last.certificate.block
        return Situation(terms=self._terms(number, block.hash, last.membership.apply(block.changes)))

    def _terms(self, number: int, parent: bytes, membership: Membership) -> Terms | None:
        holders = draw_holders(membership, number, parent, self._holders)
        if holders is None:
            return None
        return Terms(task=self._manifest.task_id, round=number, holders=holders, grid=self._grid)

    async def _settle(
        self, terms: Terms, situation: Situation, dealt: Decided, attested: Decided
    ) -> Situation:
        """With what is to be opened, by the attestations that are certified."""
        block = attested.certificate.block
        if block.skipped:
            return situation
        attestations = {
            place: decode_attestation(data, block.round, item.peer, len(situation.dealers))
            for item, data in await self._fetch_documents(attested)
            if (place := terms.holders.place(item.peer)) is not None
            and data != head(ATTEST, block.round, item.peer)
        }
        smallest = max(minimum_of(self._manifest.policy, dealt.membership), terms.holders.faults + 2)
        search = partial(
            settle,
            terms.holders,
            situation.dealers,
            attestations,
            minimum=smallest,
            group=self._group,
            seed=block.hash,
        )
        return replace(situation, sums=await self._compute.run(lambda _: search()))

    async def _fetch_documents(self, decided: Decided) -> list[tuple[Input, bytes]]:
        """What a certified block was made of, in the order of its list."""
        block, membership = decided.certificate.block, decided.membership
        others = [peer for peer in membership.peers(membership.active) if peer != self._me]
        listed = await self.get(block.inputs, listed_size(block.participants.bit_count()), others)
        inputs = unpack_inputs(listed, membership)
        found: dict[bytes, bytes] = {}
        missing: list[BlobUnavailable] = []

        async def get(item: Input) -> None:
            try:
                found[item.root] = await self.get(item.root, item.size, others)
            except BlobUnavailable as exc:
                missing.append(exc)

        await at_once([partial(get, item) for item in inputs])
        if missing:
            raise missing[0]
        return [(item, found[item.root]) for item in inputs]


async def at_once(jobs: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Does these jobs, which do not fail, a few at a time."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    async with trio.open_nursery() as nursery:
        for _ in range(min(PARALLEL, len(jobs))):
            nursery.start_soon(work)
