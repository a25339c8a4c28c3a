"""What a task, or who wants to join it, hears of its topic, its host and holders: events for a machine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from federated.history import fetch_history
from federated.rounds.events import (
    HistoryFailed,
    HistoryFetched,
    MessageReceived,
    PeerConnected,
    PeerLost,
)
from federated.rounds.wire import decode
from p2p.errors import P2PError
from p2p.events import PeerConnected as HostConnected
from p2p.events import PeerDisconnected as HostDisconnected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from federated.rounds.actions import FetchHistory
    from p2p.events import HostEvent
    from p2p.gossipsub import Subscription
    from p2p.host import Host
    from p2p.peer_id import PeerId

logger = logging.getLogger(__name__)

Heard = MessageReceived | PeerConnected | PeerLost | HistoryFetched | HistoryFailed


class Feed:
    """Hands events of the task with the id `task` to `send`, which makes us wait while there are too many."""

    def __init__(self, *, host: Host, task: bytes, send: Callable[[Heard], Awaitable[None]]) -> None:
        self._host = host
        self._task = task
        self._send = send

    async def follow_topic(self, subscription: Subscription) -> None:
        """Tells what members say; the gate has let it in."""
        async for message in subscription:
            body = decode(message.data).body  # the gate has decoded it before
            await self._send(MessageReceived(sender=message.sender, body=body))

    async def follow_host(self) -> None:
        """Tells who comes and goes. A subscription that lags too far ends, and a new one tells all."""
        known: dict[PeerId, None] = {}
        while True:
            with self._host.events() as events:
                for peer in [peer for peer in known if not self._host.is_connected(peer)]:
                    await self._handle_host(HostDisconnected(peer=peer), known)
                async for event in events:
                    await self._handle_host(event, known)

    async def _handle_host(self, event: HostEvent, known: dict[PeerId, None]) -> None:
        match event:
            case HostConnected(peer=peer):
                known[peer] = None
                await self._send(PeerConnected(peer=peer))
            case HostDisconnected(peer=peer):
                known.pop(peer, None)
                await self._send(PeerLost(peer=peer))

    async def fetch_history(self, action: FetchHistory, *, or_none: bool = False) -> None:
        """Asks one holder after the other for certificates, until one has some.

        With `or_none` the first answer will do: that of a holder that has none, too.
        """
        for holder in action.holders:
            try:
                found = await fetch_history(self._host, holder, self._task, action.first, action.count)
            except P2PError as exc:
                logger.info("%s sends no history: %s", holder, exc)
                continue
            if found or or_none:
                await self._send(HistoryFetched(holder=holder, certificates=found))
                return
        await self._send(HistoryFailed())
