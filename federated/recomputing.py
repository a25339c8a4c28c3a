"""A certified block computed again: the action `Recompute`, awaited to its `Recomputed`.

    list of updates ──fetched──→ its rules ──→ each update fetched, checked ──→ screened, averaged ──→ digest
          └─ nobody gives it: UNAVAILABLE         └─ one breaks a rule: DIFFERS         another one: DIFFERS

Several updates are on their way at a time, since others keep them no longer than a round more.

The bytes behind a block that differs are kept, for others that want to see for themselves.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import trio

from federated.errors import CodecError, FederatedError
from federated.rounds.audits import FAILED, PARALLEL, WRONG, outcome, read_list
from federated.rounds.events import Verdict
from federated.rounds.inputs import listed_size
from federated.rounds.messages import Model
from federated.workbench import Refusals, Workbench, as_claimed, digest
from p2p.blobs import blob_root
from p2p.blobs.errors import BlobUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from federated.compute import Compute
    from federated.link import Exchange
    from federated.parameters import Parameters
    from federated.plugin import ModelUpdate
    from federated.rounds.actions import Recompute
    from federated.rounds.events import Input, Inputs, Recomputed
    from federated.storage import Shelf
    from p2p.peer_id import PeerId

logger = logging.getLogger(__name__)


def model_of(data: bytes) -> Model:
    """The model with these bytes."""
    return Model(digest=digest(data), root=blob_root(data), size=len(data))


class Recomputing:
    """Computes blocks again, with the plugins of `bench`; `shelf` has what shows a fraud."""

    def __init__(self, *, bench: Workbench, blobs: Exchange, compute: Compute, shelf: Shelf) -> None:
        self._bench = bench
        self._blobs = blobs
        self._compute = compute
        self._shelf = shelf

    async def perform(self, action: Recompute) -> Recomputed:
        """The event that `action` ends in."""
        fetched = [action.base.root, action.certificate.block.inputs]
        try:
            rule = await self._compute_again(action, fetched)
        except BlobUnavailable as exc:
            logger.info("round %d is not computed again: %s", action.round, exc)
            return outcome(action, Verdict.UNAVAILABLE)
        except CodecError as exc:  # what led to the base is none of this block's business
            logger.info("round %d is not computed again: its base is no model: %s", action.round, exc)
            return outcome(action, Verdict.UNAVAILABLE)
        if rule is None:
            return outcome(action, Verdict.AGREES)
        self._shelf.hold(fetched)
        return outcome(action, Verdict.DIFFERS, rule)

    async def _compute_again(self, action: Recompute, fetched: list[bytes]) -> str | None:
        """The first rule that the block breaks; `fetched` gets the roots of what was looked at."""
        block, base = action.certificate.block, action.base
        data = await self._fetch(base.root, base.size, action.holders)
        parameters = await self._compute.run(lambda _: self._decode(data, base.digest))
        size = listed_size(block.participants.bit_count())
        inputs = read_list(await self._fetch(block.inputs, size, action.holders), action)
        if isinstance(inputs, str):
            return inputs
        fetched += [item.root for item in inputs]
        updates = await self._get_updates(action, inputs, parameters)
        if isinstance(updates, str):
            return updates
        return await self._compute.run(lambda _: self._compare(action, parameters, updates), "aggregate")

    async def _get_updates(
        self, action: Recompute, inputs: Inputs, base: Parameters
    ) -> list[ModelUpdate] | str:
        """All updates, fetched and checked, or a rule that one breaks."""
        found: dict[bytes, ModelUpdate | str] = {}
        waiting = deque(inputs)
        missing: list[BlobUnavailable] = []

        async def get_some(scope: trio.CancelScope) -> None:
            while waiting:
                item = waiting.popleft()
                try:
                    data = await self._fetch(item.root, item.size, (item.peer, *action.holders))
                except BlobUnavailable as exc:
                    missing.append(exc)
                    scope.cancel()
                    return
                found[item.root] = await self._check(item, data, base)

        async with trio.open_nursery() as nursery:
            for _ in range(PARALLEL):
                nursery.start_soon(get_some, nursery.cancel_scope)
        broken = [item for item in found.values() if isinstance(item, str)]
        if broken:
            return broken[0]
        if missing:
            raise missing[0]
        return [
            as_claimed(update, item) for item in inputs if not isinstance(update := found[item.root], str)
        ]

    async def _fetch(self, root: bytes, size: int, holders: Sequence[PeerId]) -> bytes:
        self._shelf.expect(root)
        return await self._blobs.fetch(root, size, holders)

    def _decode(self, data: bytes, known: bytes) -> Parameters:
        self._bench.verify(data, known)
        return self._bench.decode(data)

    async def _check(self, item: Input, data: bytes, base: Parameters) -> ModelUpdate | str:
        try:
            return await self._compute.run(lambda _: self._bench.check(item, data, base), "validate")
        except FederatedError:
            return FAILED

    def _compare(self, action: Recompute, base: Parameters, updates: Sequence[ModelUpdate]) -> str | None:
        """The rule that the block breaks by its model."""
        try:
            made = self._bench.aggregate(base, updates)
        except FederatedError:
            return FAILED
        if isinstance(made, Refusals):
            return made.refused[0][1]
        return None if model_of(made) == action.certificate.block.model else WRONG
