"""Peers that others name when they prune us: dialed, a few at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from p2p.errors import DialFailed, RemoteProtocolError
from p2p.peer_id import PeerId
from p2p.peer_record import open_record

if TYPE_CHECKING:
    from p2p.host import Host

DIALS_AT_ONCE = 8  # of peers that others name; go
MAX_INTRODUCED = 128  # that wait or are dialed; go
INTRODUCTION_TTL = 120.0  # seconds that their addresses are kept for: long enough to be dialed

logger = logging.getLogger(__name__)


class Introductions:
    """Dials whom trusted peers name; its tasks run in `nursery`."""

    def __init__(self, host: Host, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery
        self._waiting: dict[PeerId, None] = {}  # to be dialed, or being dialed
        self._dials = trio.CapacityLimiter(DIALS_AT_ONCE)

    def __len__(self) -> int:
        return len(self._waiting)

    def handle(self, records: Sequence[bytes]) -> None:
        """Dials those that signed where they are; `records` are unchecked. Who is too many is not dialed."""
        for envelope in records:
            try:
                record = open_record(envelope)
            except RemoteProtocolError as exc:
                logger.debug("an introduction is worthless: %s", exc)
                continue
            peer = record.record.peer
            if peer == self._host.peer_id or self._host.is_connected(peer) or peer in self._waiting:
                continue
            if len(self._waiting) < MAX_INTRODUCED:
                self._host.peerstore.add_record(record, INTRODUCTION_TTL)
                self._waiting[peer] = None
                self._nursery.start_soon(self._meet, peer)

    async def _meet(self, peer: PeerId) -> None:
        try:
            async with self._dials:
                await self._host.connect(peer)
        except DialFailed as exc:
            logger.debug("dialing %s, as a peer proposes: %s", peer, exc)
        finally:
            del self._waiting[peer]
