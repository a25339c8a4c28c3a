"""What comes on one peer's stream: bytes in, RPCs out, no more at a time than others can wait for (sans-I/O).

    receive_whole ─→ mostly: one small RPC, exactly
    receive_data ──→ length-prefixed RPCs ─→ slices ─→ next_rpc, until the turn is used up ─→ start_turn
                                        └─→ small, with subscriptions ─→ next_of_unheard

A turn has `MESSAGES_AT_ONCE` parts: a message costs one, and so does every KiB of an RPC. Whoever
feeds it handles what `next_rpc` gives at once, and starts the next turn once everybody else had theirs.
A peer that says little in `TURN` takes nobody's turn: it begins anew.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf

from p2p import varint
from p2p.framing import DelimitedDecoder
from p2p.gossipsub.wire import (
    MAX_RPC,
    MESSAGES,
    SMALL_RPC,
    SMALL_RPCS,
    SUBSCRIPTIONS,
    Rpc,
    decode_rpc,
    slices,
)
from p2p.stream import Data

MESSAGES_AT_ONCE = 16  # messages handled in one turn: 1 ms of verifying signatures
TURN = 0.01  # seconds: a peer that uses up less than a turn in it has a tenth of the processor at most
MAX_UNHEARD = 8192  # bytes of an RPC of a peer that is not heard: about a hundred topics
_PART = 1024  # bytes of an RPC that take as long as a message, whatever is in them


class Inbound:
    """The RPCs of one stream, in order."""

    __slots__ = ("_decoder", "_left", "_slices", "_turn_ends")

    def __init__(self) -> None:
        self._decoder: DelimitedDecoder | None = None  # while it holds something
        self._slices: list[Rpc] = []  # of the RPC that was begun, last first; a deque is 600 bytes
        self._left = MESSAGES_AT_ONCE  # parts of this turn
        self._turn_ends = -inf

    def receive_whole(self, data: bytes, now: float) -> Rpc | None:
        """The RPC that came, when `data` is one small RPC of messages, and nothing waits in front of it.

        None: nothing was taken, give it to `receive_data`. Raises `RemoteProtocolError`.
        """
        if now >= self._turn_ends:
            self.start_turn(now)
        size = len(data)
        if size > SMALL_RPC or self._slices or self._decoder is not None:
            return None
        if data[2:3] != MESSAGES and data[1:2] != MESSAGES:  # behind a length of two bytes, or of one
            return None
        rpc = _decode_whole(data)
        if rpc is None or len(rpc.messages) > self._left:
            return None
        self._left -= len(rpc.messages) + size // _PART
        return rpc

    def receive_data(self, data: Data) -> None:
        """Takes what came."""
        if self._decoder is None:
            self._decoder = DelimitedDecoder(MAX_RPC)
        self._decoder.receive_data(data)

    def next_rpc(self) -> Rpc | None:
        """What to handle next, or None: nothing is whole, or the turn is over.

        Raises `RemoteProtocolError` for a malformed RPC; those in front of it come out first.
        """
        if not self._slices:
            if self._left <= 0 or (encoded := self._next_encoded()) is None:
                return None
            rpc = decode_rpc(encoded)
            if len(rpc.messages) <= self._left:
                self._left -= max(len(rpc.messages), 1 + len(encoded) // _PART)
                return rpc
            self._slices = [*slices(rpc, MESSAGES_AT_ONCE)][::-1]
        if self.turn_over:
            return None
        rpc = self._slices.pop()
        self._left -= len(rpc.messages)
        return rpc

    def next_of_unheard(self, now: float) -> Rpc | None:
        """As `next_rpc`, from a peer of which nothing counts but its topics: drops all else undecoded.

        A list of topics that is long is dropped too: nobody may make us work who is not heard.
        """
        if now >= self._turn_ends:
            self.start_turn(now)
        self._slices.clear()
        while self._left > 0 and (encoded := self._next_encoded()) is not None:
            if encoded.startswith(SUBSCRIPTIONS) and len(encoded) <= MAX_UNHEARD:
                self._left -= 1 + len(encoded) // _PART
                return decode_rpc(encoded)
        return None

    def _next_encoded(self) -> bytes | None:
        if self._decoder is None:
            return None
        encoded = self._decoder.next_event()
        if encoded is None and not self._decoder.mid_message:
            self._decoder = None
        return encoded

    @property
    def turn_over(self) -> bool:
        """Whether others come first now."""
        return self._left <= 0 or bool(self._slices and len(self._slices[-1].messages) > self._left)

    def start_turn(self, now: float) -> None:
        """Others had their turn."""
        self._left, self._turn_ends = MESSAGES_AT_ONCE, now + TURN

    @property
    def mid_message(self) -> bool:
        """Whether an RPC is unfinished, once `next_rpc` returned None within a turn."""
        return self._decoder is not None and self._decoder.mid_message


@lru_cache(SMALL_RPCS)
def _decode_whole(data: bytes) -> Rpc | None:
    """The RPC behind its length, if that is all of `data`: kept, since most peers of a mesh send the same."""
    header = varint.decode(data)
    if header is None or sum(header) != len(data):
        return None
    return decode_rpc(data[header[1] :])
