"""What we remember of messages: which ids we have seen, and the last messages in full.

Source: libp2p/specs pubsub/gossipsub/gossipsub-v1.0.md, "Message Cache".
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from p2p.gossipsub.wire import Message
from p2p.peer_id import PeerId

MAX_SEEN = 1 << 17  # ids; 120 s of 1000 messages/s, about 20 MiB
MAX_HISTORY = 64 << 20  # bytes of messages kept; 5 s of 100 Mbit/s


class SeenCache:
    """Ids that were seen within the last `ttl` seconds; the oldest is forgotten early when it is full."""

    def __init__(self, ttl: float, capacity: int = MAX_SEEN) -> None:
        self._ttl = ttl
        self._capacity = capacity
        self._expiry: dict[bytes, float] = {}  # in the order of expiry

    def __len__(self) -> int:
        return len(self._expiry)

    def contains(self, message_id: bytes, now: float) -> bool:
        """Whether `message_id` was added less than `ttl` seconds ago."""
        return self._expiry.get(message_id, now) > now

    def add(self, message_id: bytes, now: float) -> None:
        """Remembers `message_id` from now on; a repetition does not prolong it."""
        self.expire(now)
        if message_id in self._expiry:
            return
        self._expiry[message_id] = now + self._ttl
        if len(self._expiry) > self._capacity:
            del self._expiry[next(iter(self._expiry))]

    def expire(self, now: float) -> None:
        """Forgets what is too old."""
        while self._expiry:
            oldest = next(iter(self._expiry))
            if self._expiry[oldest] > now:
                return
            del self._expiry[oldest]


@dataclass(slots=True)
class _Entry:
    message: Message
    sent: dict[PeerId, int] = field(default_factory=dict)  # times that a peer got it by IWANT


class MessageHistory:
    """The messages of the last heartbeats, in windows: the newest `gossip` of them are advertised."""

    def __init__(self, length: int, gossip: int, retransmissions: int, capacity: int = MAX_HISTORY) -> None:
        self._gossip = gossip
        self._retransmissions = retransmissions
        self._capacity = capacity  # bytes
        self._entries: dict[bytes, _Entry] = {}  # oldest first
        self._windows: deque[list[bytes]] = deque([[] for _ in range(length)])  # newest first
        self._size = 0  # bytes

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, message_id: bytes, message: Message) -> None:
        """Keeps a message that is not here yet; when there are too many bytes the oldest ones go."""
        self._entries[message_id] = _Entry(message)
        self._windows[0].append(message_id)
        self._size += len(message.raw)
        while self._size > self._capacity:
            self._drop(next(iter(self._entries)))

    def retransmit(self, message_id: bytes, peer: PeerId) -> Message | None:
        """The message for a peer that asked for it; None when it is gone or was asked for too often."""
        entry = self._entries.get(message_id)
        if entry is None or entry.sent.get(peer, 0) >= self._retransmissions:
            return None
        entry.sent[peer] = entry.sent.get(peer, 0) + 1
        return entry.message

    def advertised(self, topic: str) -> list[bytes]:
        """Ids of the recent messages of `topic`, newest window first."""
        return [
            message_id
            for window in list(self._windows)[: self._gossip]
            for message_id in window
            if (entry := self._entries.get(message_id)) is not None and entry.message.topic == topic
        ]

    def shift(self) -> None:
        """One heartbeat passed: the oldest window is forgotten."""
        for message_id in self._windows.pop():
            self._drop(message_id)
        self._windows.appendleft([])

    def _drop(self, message_id: bytes) -> None:
        entry = self._entries.pop(message_id, None)
        if entry is not None:
            self._size -= len(entry.message.raw)
