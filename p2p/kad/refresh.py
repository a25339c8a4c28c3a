"""The refresh of a routing table: look-ups that meet the peers which should be in it."""

from __future__ import annotations

from random import Random

import trio

from p2p.kad.client import Client
from p2p.kad.distance import common_prefix_length, position, random_key
from p2p.kad.table import RoutingTable
from p2p.kad.wire import K
from p2p.peer_id import PeerId

PARALLEL_LOOKUPS = 3  # of one refresh


class Refresher:
    """Refreshes the `table` of `local`, one refresh at a time."""

    def __init__(self, local: PeerId, client: Client, table: RoutingTable, rng: Random) -> None:
        self._local = local
        self._client = client
        self._table = table
        self._rng = rng
        self._running: trio.Event | None = None  # set at the end of the refresh that runs
        self._heard: dict[PeerId, None] = {}  # in the latest refresh

    async def refresh(self) -> list[PeerId]:
        """As `Kad.refresh`."""
        if self._running is not None:
            heard = self._heard
            await self._running.wait()
            return list(heard)
        self._running, self._heard = trio.Event(), {}
        try:
            await self._look_up_all(self._heard)
            return list(self._heard)
        finally:
            self._running.set()
            self._running = None

    async def _look_up_all(self, heard: dict[PeerId, None]) -> None:
        """The self look-up met everybody nearer than its last result; buckets up to there remain."""
        nearest = (await self._client.look_up(self._local.raw, heard=heard)).closest
        if len(nearest) < K:
            return  # that was the whole network
        origin = position(self._local.raw)
        edge = common_prefix_length(origin, position(nearest[-1].raw))
        limit = trio.CapacityLimiter(PARALLEL_LOOKUPS)

        async def refresh_bucket(prefix: int) -> None:
            async with limit:
                await self._client.look_up(random_key(origin, prefix, self._rng), heard=heard)

        async with trio.open_nursery() as nursery:
            for prefix in self._table.prefixes_to_refresh():
                if prefix <= edge:
                    nursery.start_soon(refresh_bucket, prefix)
