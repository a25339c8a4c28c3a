"""Keeps a host's peerstore in a file, so that a restarted peer finds the network without its bootstrap."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from p2p.events import PeerIdentified
from p2p.host import Host
from p2p.scope import open_scope
from p2p.store import AddressFile

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_peerstore_file(host: Host, path: Path) -> AsyncIterator[None]:
    """Fills `host.peerstore` from the SQLite file `path`, and writes it back as peers become known.

    Raises `InvalidInput` when the file cannot be used. A disk that fails later is logged; the peer
    lives on with what it has in memory.
    """
    file = AddressFile(path)
    try:
        host.peerstore.import_rows(file.load(time.time()), time.time())
        async with open_scope() as nursery:
            nursery.start_soon(_save_changes, host, file)
            yield
    finally:
        file.close()


async def _save_changes(host: Host, file: AddressFile) -> None:
    with host.events() as events:
        async for event in events:
            if not isinstance(event, PeerIdentified) or events.statistics().current_buffer_used:
                continue  # a later event of the same burst saves for all of them
            rows = host.peerstore.export_rows(time.time())
            try:
                await trio.to_thread.run_sync(file.save, rows)
            except sqlite3.Error as exc:
                logger.warning("cannot save the addresses of peers: %s", exc)
