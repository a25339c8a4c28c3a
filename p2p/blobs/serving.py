"""Answers what others want of the blobs that are here, whole or on their way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf

import trio

from p2p.blobs.fetching import NOT_OUR_FAULT, Stored
from p2p.blobs.holder import CHUNK_TIMEOUT
from p2p.blobs.merkle import CHUNK_SIZE, all_chunks
from p2p.blobs.store import BlobStore
from p2p.blobs.wire import (
    MAX_REQUEST,
    Absent,
    Answer,
    Chunk,
    Haves,
    Lacking,
    Want,
    decode_want,
    encode_answer,
)
from p2p.framing import DelimitedReader
from p2p.limits import StreamLimit
from p2p.stream import Stream

IDLE_TIMEOUT = 10.0  # seconds a served stream may wait for the next request; go's kad response timeout
MAX_STREAMS = 256  # streams served at once; each holds a chunk at least: 64 MiB in all at most
MAX_STREAMS_PER_PEER = 32  # streams served at once to one peer: a third of 64 members fall back on one holder
READ_CHUNKS = 12  # chunks that are read ahead, by all streams together: 3 MiB
HEAD_BLOCK = 60 * 1024  # bytes of a chunk that are copied to leave with its head, which else leaves alone
READ_AHEAD = 4  # chunks that one stream reads at once: a change of threads costs as much as a read
RESOURCE_LIMIT = 0x1002  # stream error code; libp2p/specs error-codes

logger = logging.getLogger(__name__)


class Server:
    """Serves `store`; `soon` makes short calls on it, `stored` those that take long."""

    def __init__(self, store: BlobStore, soon: Stored, stored: Stored) -> None:
        self.bytes_sent = 0  # of answers, to all peers
        self._store = store
        self._soon = soon
        self._stored = stored
        self._served = StreamLimit(MAX_STREAMS_PER_PEER, MAX_STREAMS, code=RESOURCE_LIMIT)

    async def serve(self, stream: Stream) -> None:
        """Answers the wants on one stream until its end."""
        with self._served.admitted(stream) as admitted:
            if not admitted:
                return
            with trio.CancelScope() as limit:
                try:
                    await self._serve(stream, limit)
                except NOT_OUR_FAULT as exc:
                    logger.debug("serving blobs to %s: %s", stream.peer, exc)
                    stream.reset()
            if limit.cancelled_caught:
                logger.debug("serving blobs to %s: it is too slow", stream.peer)
                stream.reset()

    async def _serve(self, stream: Stream, limit: trio.CancelScope) -> None:
        """Answers wants; `limit` is cancelled when one does not come, or is not taken, in time."""
        reader = DelimitedReader(stream, MAX_REQUEST)
        told: tuple[bytes, int] | None = None  # of which blob, and what of it we said to have
        while True:
            limit.deadline = trio.current_time() + IDLE_TIMEOUT
            message = await reader.receive()
            if message is None:
                return
            told = await self._answer(stream, decode_want(message), told, limit)

    async def _answer(
        self, stream: Stream, want: Want, told: tuple[bytes, int] | None, limit: trio.CancelScope
    ) -> tuple[bytes, int] | None:
        """Answers one want; returns what the other side was told by now."""
        held = self._store.held(want.root, want.size)
        known = told[1] if told is not None and told[0] == want.root else all_chunks(want.size)
        if held is None:
            await self._send(stream, Absent(), limit)
            return told
        if held != known or not want.indexes:
            await self._send(stream, Haves(chunks=held), limit)
            told = (want.root, held)
        step = max(1, min(READ_AHEAD, READ_CHUNKS // self._served.open.total()))
        for at in range(0, len(want.indexes), step):
            limit.deadline = inf  # our own disk is not the other side's fault
            for answer in await self._read(want, want.indexes[at : at + step]):
                await self._send(stream, answer, limit)
        return told

    async def _send(self, stream: Stream, answer: Answer, limit: trio.CancelScope) -> None:
        limit.deadline = trio.current_time() + CHUNK_TIMEOUT
        head, *pieces = encode_answer(answer)
        if pieces:
            first = memoryview(pieces[0])
            head, pieces[0] = b"".join([head, first[:HEAD_BLOCK]]), first[HEAD_BLOCK:]
        for piece in filter(len, (head, *pieces)):
            await stream.send_all(piece)
            self.bytes_sent += len(piece)

    async def _read(self, want: Want, indexes: Sequence[int]) -> list[Answer]:
        """Chunks from the store; a folder that cannot be read holds nothing."""
        chunks: list[Chunk | None] = [None] * len(indexes)
        try:
            if self._store.unchecked(want.root):
                await self._stored(lambda: self._store.check(want.root, want.size))
            # allocated here: every thread that allocates keeps megabytes of what it freed
            buffer = memoryview(bytearray(len(indexes) * CHUNK_SIZE))
            if self._store.in_memory(want.root) is not None:
                chunks = self._store.chunks_at(want.root, want.size, indexes, buffer)
            else:
                chunks = await self._soon(
                    lambda: self._store.chunks_at(want.root, want.size, indexes, buffer)
                )
        except OSError as exc:
            logger.warning("blob %s cannot be read: %s", want.root.hex()[:16], exc)
        return [chunk or Lacking(index=index) for index, chunk in zip(indexes, chunks, strict=True)]
