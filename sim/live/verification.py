"""Signatures of gossip, verified once for all nodes: what one found out of the same bytes holds for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from p2p.gossipsub.signing import verify_message

if TYPE_CHECKING:
    from p2p.gossipsub.wire import Message
    from p2p.peer_id import PeerId

MAX_KEPT = 1 << 15  # messages; five minutes of 100 a second


class VerificationCache:
    """Called as `verify_message` is."""

    def __init__(self, verify: Callable[[Message], PeerId | None] = verify_message) -> None:
        self._verify = verify
        self._known: dict[bytes, PeerId | None] = {}  # by the serialized message

    def __call__(self, message: Message) -> PeerId | None:
        """Who signed the message; None when nobody did."""
        if message.raw in self._known:
            return self._known[message.raw]
        origin = self._known[message.raw] = self._verify(message)
        if len(self._known) > MAX_KEPT:
            del self._known[next(iter(self._known))]
        return origin
