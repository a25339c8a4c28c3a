"""Which message reached whom, when and over how many hops: five bytes for each node and message."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import nan

import numpy as np
from numpy.typing import NDArray

UNKNOWN_HOPS = 255  # it came from a node whose application never had it
MAX_HOPS = 253
SLACK = 1e-3  # seconds; latencies are kept with 24 bits


class Message:
    """One published message. `ordinal` counts its publisher's messages on its topic from 0.

    A publisher of -1 is none of the nodes: somebody made the identity up.
    """

    __slots__ = ("_hops", "_latency", "number", "ordinal", "published", "publisher", "size", "topic")

    def __init__(
        self, number: int, topic: str, publisher: int, ordinal: int, size: int, at: float, peers: int
    ) -> None:
        self.number, self.topic, self.publisher, self.ordinal = number, topic, publisher, ordinal
        self.size, self.published = size, at  # bytes of payload; virtual seconds
        self._latency = array("f", (nan,)) * peers
        self._hops = bytearray(peers)  # hops + 1; 0: does not have it
        if publisher >= 0:
            self._hops[publisher] = 1

    def deliver(self, node: int, received_from: int, now: float) -> None:
        """The node has it now, for the first time."""
        before = self._hops[received_from] if 0 <= received_from < len(self._hops) else 0
        self._hops[node] = min(before, MAX_HOPS) + 1 if 0 < before < UNKNOWN_HOPS else UNKNOWN_HOPS
        self._latency[node] = now - self.published

    def has(self, node: int) -> bool:
        """Whether the node published it or got it."""
        return self._hops[node] > 0

    def delivered_at(self, node: int) -> float:
        """When the node got it first, within `SLACK`; NaN when it did not, or published it."""
        return self.published + self._latency[node]

    def holders(self) -> NDArray[np.bool_]:
        """For each node, whether it got the message; its publisher does not count."""
        return ~np.isnan(self.latencies())

    def latencies(self) -> NDArray[np.float32]:
        """For each node, the seconds from the publication to its delivery; NaN without one."""
        return np.frombuffer(self._latency, dtype=np.float32)

    def hops(self) -> NDArray[np.uint8]:
        """For each delivery whose way is known, over how many links the message came."""
        kept = np.frombuffer(self._hops, dtype=np.uint8)
        known: NDArray[np.uint8] = kept[self.holders() & (kept != UNKNOWN_HOPS)]
        return known - np.uint8(1)


class Ledger:
    """All messages of a run, in the order in which they were published."""

    def __init__(self, peers: int) -> None:
        self._peers = peers
        self._messages: dict[bytes, Message] = {}
        self._ordinals: dict[tuple[int, str], int] = {}
        self._again: dict[tuple[int, int], float] = {}  # (message, node) → when a later process got it
        self.deliveries = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    def find(self, message_id: bytes) -> Message | None:
        """The message of that id, None when nobody published it."""
        return self._messages.get(message_id)

    def publish(self, message_id: bytes, topic: str, publisher: int, size: int, now: float) -> Message:
        """A new message; the id must be new as well."""
        ordinal = self._ordinals.get((publisher, topic), 0)
        self._ordinals[publisher, topic] = ordinal + 1
        message = Message(len(self._messages), topic, publisher, ordinal, size, now, self._peers)
        self._messages[message_id] = message
        return message

    def deliver(self, message: Message, node: int, received_from: int, now: float, started: float) -> bool:
        """Takes a delivery in; False when the node's process, which runs since `started`, had it already."""
        if node == message.publisher:
            return True
        if not message.has(node):
            message.deliver(node, received_from, now)
            self.deliveries += 1
            return True
        earlier = self._again.get((message.number, node), message.delivered_at(node))
        self._again[message.number, node] = now
        return started >= earlier - SLACK
