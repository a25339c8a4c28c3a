"""Length-prefixed messages on a stream: uvarint length, then the message.

Used by identify, kad, gossipsub and blobs. The cap is checked before anything is allocated.
"""

from __future__ import annotations

from collections import deque

from p2p import varint
from p2p.errors import ConnectionLost, MessageTooLarge
from p2p.stream import Stream


def encode_delimited(message: bytes) -> bytes:
    """`message` behind its length."""
    return varint.encode(len(message)) + message


class DelimitedDecoder:
    """Bytes in, messages out (sans-I/O). `receive_data` raises `RemoteProtocolError`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes of one message
        self._buffer = bytearray()
        self._messages: deque[bytes] = deque()

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes what came; complete messages wait for `next_event`."""
        buffer = self._buffer
        buffer += data
        at = 0
        while (header := varint.decode(buffer, at)) is not None:
            size, start = header
            if size > self._limit:
                raise MessageTooLarge(size, self._limit)
            if len(buffer) - start < size:
                break
            self._messages.append(bytes(buffer[start : start + size]))
            at = start + size
        if at:
            del buffer[:at]

    def next_event(self) -> bytes | None:
        """The next whole message, or None."""
        return self._messages.popleft() if self._messages else None

    @property
    def mid_message(self) -> bool:
        """Whether an unfinished message is buffered."""
        return bool(self._buffer)


class DelimitedReader:
    """Reads delimited messages of at most `limit` bytes from a stream."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self._stream = stream
        self._decoder = DelimitedDecoder(limit)

    async def receive(self) -> bytes | None:
        """The next message, or None when the peer closed its side between two messages.

        Raises `MessageTooLarge`, `RemoteProtocolError`, and `ConnectionLost` within a message.
        """
        while (message := self._decoder.next_event()) is None:
            data = await self._stream.receive_some()
            if not data:
                if self._decoder.mid_message:
                    raise ConnectionLost("the peer closed the stream within a message")
                return None
            self._decoder.receive_data(data)
        return message


async def receive_exactly(stream: Stream, size: int) -> bytes:
    """Exactly `size` bytes. Raises `ConnectionLost` when the stream ends before."""
    buffer = bytearray()
    while len(buffer) < size:
        data = await stream.receive_some(size - len(buffer))
        if not data:
            raise ConnectionLost(f"the peer closed the stream after {len(buffer)} of {size} bytes")
        buffer += data
    return bytes(buffer)
