"""Our side of the values in the DHT: puts them, keeps them alive, gets them, and corrects those of others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import trio

from p2p.errors import LocalProtocolError
from p2p.kad.client import Client
from p2p.kad.placement import Placement
from p2p.kad.query import Finished
from p2p.kad.records import Gathered, RecordRefused, RecordStore
from p2p.kad.wire import PutValue, Record
from p2p.peer_id import PeerId

REPUBLISH = 22 * 3600.0  # seconds until a value of ours is put again; as provider records, kad-dht spec
MAX_OWN = 1024  # values that we put and keep alive; each takes a look-up when it is put again
CORRECTIONS = 16  # values waiting to be told to peers that lack them; they are told at the next get


class Values:
    """Puts and gets values for `local`, beside those that `store` holds."""

    def __init__(
        self, local: PeerId, client: Client, store: RecordStore, wall_clock: Callable[[], float]
    ) -> None:
        self._local = local
        self._client = client
        self._store = store
        self._wall_clock = wall_clock
        self._own: dict[bytes, float] = {}  # the keys that we put, and when
        self._corrections, self._to_correct = trio.open_memory_channel[Placement](CORRECTIONS)

    async def place(self, key: bytes, value: bytes) -> Finished:
        """As `Kad.place_value`."""
        if key not in self._own and len(self._own) >= MAX_OWN:
            raise LocalProtocolError(f"more than {MAX_OWN} values to keep alive")
        record = Record(key=key, value=value)
        self._store.put(record, None, trio.current_time(), self._wall_clock())
        self._own[key] = trio.current_time()
        found = await self._client.look_up(key)
        placed = await self._client.run(Placement(PutValue(key=key, record=record), found.closest))
        return replace(placed, queries=found.queries + placed.queries, hops=found.hops)

    async def find(self, key: bytes, quorum: int) -> Finished:
        """As `Kad.find_value`."""
        values = Gathered(key, self._store.namespaces, quorum)
        held = self._store.get(key, trio.current_time())
        values.take(self._local, held)
        found = await self._client.look_up(key, values=values)
        if found.value is not None:
            best = Record(key=key, value=found.value)
            if held is not None and held.value != best.value:
                self.hold(best)
            if found.outdated:
                with suppress(trio.WouldBlock):
                    self._corrections.send_nowait(Placement(PutValue(key=key, record=best), found.outdated))
        return found

    def hold(self, record: Record) -> None:
        """Replaces a value that we hold, unless a better one came meanwhile."""
        with suppress(RecordRefused):
            self._store.put(record, self._local, trio.current_time(), self._wall_clock())

    async def renew(self) -> None:
        """Puts our own values again that others will forget soon."""
        now = trio.current_time()
        for key in [key for key, put in self._own.items() if put + REPUBLISH <= now]:
            record = self._store.get(key, now)
            assert record is not None, "our own stay"
            await self.place(key, record.value)

    async def correct(self) -> None:
        """Tells peers the best value of a key, one key after the other; until it is cancelled."""
        async for placement in self._to_correct:
            await self._client.run(placement)
