"""Keeps a host's peerstore in a file, so that a restarted peer finds the network without its bootstrap.

    an event of the host ──→ save, unless the last save is younger than `SAVE_INTERVAL`: then when it is not
    `PURGE_INTERVAL` without one ──→ what has expired is deleted
    the end ──→ save

A host that is connected to nobody saves nothing: the peers that it had last are its way back.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from p2p.errors import InvalidInput
from p2p.events import HostEvent, PeerConnected
from p2p.host import Host
from p2p.scope import open_scope
from p2p.store import PeerFile

logger = logging.getLogger(__name__)

SAVE_INTERVAL = 10.0  # seconds between two saves: churn costs one rewrite of the file in this time
PURGE_INTERVAL = 600.0  # seconds; expired rows hurt nobody, they only should not stay for good


@asynccontextmanager
async def open_peerstore_file(host: Host, path: Path) -> AsyncIterator[None]:
    """Fills `host.peerstore` from the SQLite file `path`, and writes it back as peers become known.

    Raises `InvalidInput` when the file cannot be used. A disk that fails later is logged; the peer
    lives on with what it has in memory.
    """
    keeper = _Keeper(host, PeerFile(path))
    try:
        keeper.load(path)
        async with open_scope() as nursery:
            nursery.start_soon(keeper.run)
            yield
    finally:
        keeper.close()


class _Keeper:
    """Moves the peerstore of `host` into `file`."""

    def __init__(self, host: Host, file: PeerFile) -> None:
        self._host = host
        self._file = file
        self._next_save = -math.inf

    def load(self, path: Path) -> None:
        """Fills the peerstore. Raises `InvalidInput` when the file cannot be read."""
        now = time.time()
        try:
            self._file.purge(now)
            self._host.peerstore.import_rows(*self._file.load(now), now)
        except sqlite3.Error as exc:
            raise InvalidInput(f"cannot use {path}: {exc}; move it away and start again") from exc

    async def run(self) -> None:
        """Saves after events. A subscription ends when it lags too far; the next one begins with all."""
        while True:
            with self._host.events() as events:
                while await self._save_after_events(events):
                    pass

    def close(self) -> None:
        """Saves a last time and closes the file."""
        try:
            self._save_now()
        finally:
            self._file.close()

    async def _save_after_events(self, events: trio.MemoryReceiveChannel[HostEvent]) -> bool:
        """Waits for news and saves, or purges when there are none for long; False once `events` ends."""
        with trio.move_on_after(PURGE_INTERVAL) as quiet:
            try:
                if isinstance(await events.receive(), PeerConnected):
                    return True  # nothing is known of it before it is identified
            except trio.EndOfChannel:
                return False
        if quiet.cancelled_caught:
            await trio.to_thread.run_sync(_logged, lambda: self._file.purge(time.time()))
            return True
        await trio.sleep_until(self._next_save)
        while events.statistics().current_buffer_used:
            events.receive_nowait()  # this save is for all of them
        if (save := self._prepare()) is not None:
            await trio.to_thread.run_sync(_logged, save)
        self._next_save = trio.current_time() + SAVE_INTERVAL
        return True

    def _prepare(self) -> Callable[[], None] | None:
        """What a save has to do, with all that it needs from the peerstore; None when there is nothing."""
        if not self._host.peers():
            return None
        addresses = self._host.peerstore.export_addresses(time.time())
        records = self._host.peerstore.export_records()
        return lambda: self._file.save(addresses, records)

    def _save_now(self) -> None:
        if (save := self._prepare()) is not None:
            _logged(save)


def _logged(work: Callable[[], None]) -> None:
    try:
        work()
    except sqlite3.Error as exc:
        logger.warning("cannot save the addresses of peers: %s", exc)
