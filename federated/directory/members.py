"""Members of one task find each other through the DHT, in a network in which few take part in it.

Whoever takes part provides the task's id as others provide content (`Directory.provide`). Who hears too few
members on the task's topic asks the DHT for them, and connects. What it names are claims: whoever is no
member costs a dial, and who is connected has to prove all that it says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from federated.manifest import TaskId
from p2p.errors import P2PError
from p2p.gossipsub import Pubsub
from p2p.host import Host
from p2p.kad import Kad, provider_key
from p2p.peer_id import PeerId

ENOUGH = 3  # members on the topic: with fewer of them, one that goes may cut us off
LIMIT = 20  # peers that one search finds and dials: some may be gone, or lie
DIAL_TIMEOUT = 10.0  # seconds
PAUSE, MAX_PAUSE = 3.0, 300.0  # seconds from one look at the topic to the next; grow while nobody is found

logger = logging.getLogger(__name__)


async def meet_members(
    host: Host, pubsub: Pubsub, kad: Kad, task: TaskId, topic: str, is_member: Callable[[PeerId], bool]
) -> None:
    """Connects to members while fewer than `ENOUGH` of them are on `topic`; runs until it is cancelled."""

    def heard() -> int:
        return sum(map(is_member, pubsub.peers(topic)))

    pause = PAUSE
    while True:
        await trio.sleep(pause)  # in the beginning for those who are connected to say what they listen to
        before = heard()
        if before >= ENOUGH:
            pause = PAUSE
            continue
        await _connect(host, kad, task)
        pause = PAUSE if heard() > before else min(2 * pause, MAX_PAUSE)


async def _connect(host: Host, kad: Kad, task: TaskId) -> None:
    """Dials whom the DHT names, one after the other."""
    async with kad.find_providers(provider_key(task), LIMIT) as found:
        async for peer in found:
            try:
                with trio.fail_after(DIAL_TIMEOUT):
                    await host.connect(peer)
            except (P2PError, trio.TooSlowError) as exc:
                logger.debug("%s takes part in %s, and is not reached: %s", peer, task.hex(), exc)
