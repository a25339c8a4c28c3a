"""As much of a redis client as two test programs need to meet: commands out, answers in.

Source: redis.io, "Redis serialization protocol specification", version 2.
"""

from __future__ import annotations

import trio

MAX_ANSWER = 1 << 16  # bytes of one line or string: an address is far shorter

Answer = bytes | int | None | list["Answer"]


class RedisError(Exception):
    """The server refused a command, closed the connection or said what is not RESP."""


class Redis:
    """A connection to a redis server; one command at a time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def command(self, *words: str) -> Answer:
        """The server's answer to one command. Raises `RedisError`."""
        encoded = [word.encode() for word in words]
        parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
        await self._stream.send_all(b"*%d\r\n%s" % (len(parts), b"".join(parts)))
        return await self._answer()

    async def _answer(self) -> Answer:
        line = await self._until_newline()
        kind, rest = line[:1], line[1:]
        match kind:
            case b"+":
                return rest
            case b"-":
                raise RedisError(rest.decode(errors="replace"))
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else (await self._take(int(rest) + 2))[:-2]
            case b"*":
                return None if rest == b"-1" else [await self._answer() for _ in range(int(rest))]
        raise RedisError(f"not an answer: {line[:40]!r}")

    async def _until_newline(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._more()
        return (await self._take(end + 2))[:-2]

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _more(self) -> None:
        if len(self._buffer) > MAX_ANSWER:
            raise RedisError(f"an answer of more than {MAX_ANSWER} bytes")
        data = await self._stream.receive_some()
        if not data:
            raise RedisError("the server closed the connection")
        self._buffer += data
