"""What an application reads of one topic."""

from __future__ import annotations

from collections import deque

import trio

from p2p.gossipsub.events import PubsubMessage

SUBSCRIPTION_QUEUE = 256  # messages a subscriber may lag behind


class Subscription:
    """The messages of one topic, from now on. A slow reader loses the oldest; `dropped` counts them.

    Messages that wait come without a checkpoint in between: a reader keeps up with any writer.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.dropped = 0
        self._messages: deque[PubsubMessage] = deque()
        self._readers = trio.lowlevel.ParkingLot()
        self._closed = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> PubsubMessage:
        while not self._messages:
            if self._closed:
                raise StopAsyncIteration
            await self._readers.park()
        return self._messages.popleft()

    def put(self, message: PubsubMessage) -> None:
        """Adds a message, instead of the oldest when too many wait."""
        self._messages.append(message)
        if len(self._messages) > SUBSCRIPTION_QUEUE:
            self._messages.popleft()
            self.dropped += 1
        self._readers.unpark_all()

    def close(self) -> None:
        """Ends the iteration behind the messages that wait."""
        self._closed = True
        self._readers.unpark_all()
