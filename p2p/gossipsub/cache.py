"""What we remember of messages: which ids we have seen, and the last messages in full.

Source: libp2p/specs pubsub/gossipsub/gossipsub-v1.0.md, "Message Cache".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

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

    def missing(self, message_ids: Iterable[bytes], now: float) -> list[bytes]:
        """Those that were not added lately, each once, in their order."""
        expiry = self._expiry
        return [each for each in dict.fromkeys(message_ids) if expiry.get(each, now) <= now]

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


class MessageHistory:
    """The messages of the last heartbeats, in windows: the newest `gossip` of them are advertised."""

    def __init__(self, length: int, gossip: int, retransmissions: int, capacity: int = MAX_HISTORY) -> None:
        self._gossip = gossip
        self._retransmissions = retransmissions
        self._capacity = capacity  # bytes
        self._windows: deque[dict[bytes, Message]] = deque({} for _ in range(length))  # newest first
        self._sent: dict[bytes, dict[PeerId, int]] = {}  # id → times that a peer got it by IWANT
        self._size = 0  # bytes

    def __len__(self) -> int:
        return sum(map(len, self._windows))

    def put(self, message_id: bytes, message: Message) -> None:
        """Keeps a message that is not here yet; when there are too many bytes the oldest ones go."""
        self._windows[0][message_id] = message
        self._size += len(message.raw)
        while self._size > self._capacity:
            window = next(window for window in reversed(self._windows) if window)
            oldest = next(iter(window))
            self._forget(oldest, window.pop(oldest))

    def retransmit(self, message_id: bytes, peer: PeerId) -> Message | None:
        """The message for a peer that asked for it; None when it is gone or was asked for too often."""
        message = next((window[message_id] for window in self._windows if message_id in window), None)
        if message is None:
            return None
        sent = self._sent.setdefault(message_id, {})
        if sent.get(peer, 0) >= self._retransmissions:
            return None
        sent[peer] = sent.get(peer, 0) + 1
        return message

    def advertised(self, topic: str) -> list[bytes]:
        """Ids of the recent messages of `topic`, newest window first."""
        return [
            message_id
            for window in islice(self._windows, self._gossip)
            for message_id, message in window.items()
            if message.topic == topic
        ]

    def shift(self) -> None:
        """One heartbeat passed: the oldest window is forgotten."""
        for message_id, message in self._windows.pop().items():
            self._forget(message_id, message)
        self._windows.appendleft({})

    def _forget(self, message_id: bytes, message: Message) -> None:
        self._size -= len(message.raw)
        self._sent.pop(message_id, None)
