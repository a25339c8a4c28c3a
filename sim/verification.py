"""Signatures of gossip, verified once for all nodes: what one found out of the same bytes holds for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from p2p.gossipsub.signing import verify_message

if TYPE_CHECKING:
    from p2p.gossipsub.wire import Message
    from p2p.peer_id import PeerId

MAX_KEPT = 1 << 15  # messages; five minutes of 100 a second


class VerificationCache:
    """Called as `verify_message` is; the ids of `peers` come as these very objects, one for all nodes."""

    def __init__(
        self,
        peers: Iterable[PeerId] = (),
        verify: Callable[[Message], PeerId | None] = verify_message,
    ) -> None:
        self._peers = {peer: peer for peer in peers}
        self._verify = verify
        self._known: dict[bytes, PeerId | None] = {}  # by the serialized message

    def __call__(self, message: Message) -> PeerId | None:
        """Who signed the message; None when nobody did."""
        known = self._known
        origin = known.get(message.raw)
        if origin is None and message.raw not in known:
            origin = self._verify(message)
            if origin is not None:
                origin = self._peers.get(origin, origin)
            known[message.raw] = origin
            if len(known) > MAX_KEPT:
                del known[next(iter(known))]
        return origin
