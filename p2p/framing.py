"""Length-prefixed messages on a stream: uvarint length, then the message.

Used by identify, kad, gossipsub and blobs. The cap is checked before anything is allocated.
"""

from __future__ import annotations

from p2p import varint
from p2p.errors import ConnectionLost, MessageTooLarge
from p2p.stream import Data, Readable


def encode_delimited(message: bytes) -> bytes:
    """`message` behind its length."""
    return varint.encode(len(message)) + message


class DelimitedDecoder:
    """Bytes in, messages out (sans-I/O)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes of one message
        self._buffer = bytearray()

    def receive_data(self, data: Data) -> None:
        """Takes what came, for `next_event`."""
        self._buffer += data

    def next_event(self) -> bytes | None:
        """The next whole message, or None when it needs more data.

        Raises `MessageTooLarge` at the length already, `RemoteProtocolError` for a malformed length;
        the messages in front of it come out first, however the data was cut.
        """
        header = varint.decode(self._buffer)
        if header is None:
            return None
        size, start = header
        if size > self._limit:
            raise MessageTooLarge(size, self._limit)
        if len(self._buffer) - start < size:
            return None
        message = bytes(self._buffer[start : start + size])
        del self._buffer[: start + size]
        return message

    @property
    def mid_message(self) -> bool:
        """Whether something is buffered that is not a whole message, once `next_event` returned None."""
        return bool(self._buffer)


class DelimitedReader:
    """Reads delimited messages of at most `limit` bytes from a stream."""

    def __init__(self, stream: Readable, limit: int) -> None:
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


async def receive_exactly(stream: Readable, size: int) -> bytes:
    """Exactly `size` bytes. Raises `ConnectionLost` when the stream ends before."""
    buffer = bytearray()
    while len(buffer) < size:
        data = await stream.receive_some(size - len(buffer))
        if not data:
            raise ConnectionLost(f"the peer closed the stream after {len(buffer)} of {size} bytes")
        buffer += data
    return bytes(buffer)
