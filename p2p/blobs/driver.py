"""Blobs over a host: serves what the store holds, fetches what it does not."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from p2p.blobs.merkle import EMPTY_ROOT
from p2p.blobs.store import BlobStore
from p2p.blobs.transfer import (
    CHUNK_TIMEOUT,
    Action,
    Answered,
    Ask,
    Begin,
    BlobUnavailable,
    Complete,
    Event,
    Failed,
    GiveUp,
    Leave,
    Transfer,
)
from p2p.blobs.wire import (
    MAX_ANSWER,
    MAX_BLOB,
    MAX_REQUEST,
    PROTOCOL,
    Answer,
    Chunk,
    Missing,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from p2p.errors import (
    ConnectionLost,
    DialFailed,
    LocalProtocolError,
    NegotiationFailed,
    RemoteProtocolError,
)
from p2p.framing import DelimitedReader
from p2p.host import Host
from p2p.limits import StreamLimit
from p2p.peer_id import PeerId
from p2p.stream import Stream

IDLE_TIMEOUT = 10.0  # seconds a served stream may wait for the next request; go's kad response timeout
CLOSE_GRACE = 1.0  # seconds
MAX_STREAMS = 256  # streams served at once; each holds a few chunks: 256 MiB in all at most
MAX_STREAMS_PER_PEER = 32  # streams served at once to one peer: a third of 64 members fall back on one holder
RESOURCE_LIMIT = 0x1002  # stream error code; libp2p/specs error-codes

_NOT_OUR_FAULT = (ConnectionLost, DialFailed, NegotiationFailed, RemoteProtocolError)
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Blobs:
    """The blob exchange of one host; get it from `open_blobs`."""

    def __init__(self, host: Host, store: BlobStore) -> None:
        self.store = store
        self.bytes_sent = 0  # of answers, to all peers
        self._host = host
        self._served = StreamLimit(MAX_STREAMS_PER_PEER, MAX_STREAMS, code=RESOURCE_LIMIT)

    async def put(self, data: bytes) -> bytes:
        """Keeps `data` in the store, off the event loop when that means files; returns its root."""
        return await self._stored(lambda: self.store.put(data))

    async def discard(self, root: bytes) -> None:
        """Forgets the blob, if it is here."""
        await self._stored(lambda: self.store.discard(root))

    async def fetch(self, root: bytes, size: int, holders: Sequence[PeerId]) -> bytes:
        """The blob `root` of exactly `size` bytes: from the store, or verified from one of `holders`.

        The holders are tried in turn; chunks that one delivered are not asked of the next. The result
        is put in the store. A holder has `CHUNK_TIMEOUT` for each chunk: limit the whole with a cancel
        scope. Raises `BlobUnavailable`, and `LocalProtocolError` when `size` is over `MAX_BLOB`.
        """
        if not 0 <= size <= MAX_BLOB:
            raise LocalProtocolError(f"blob of {size} bytes is over the limit of {MAX_BLOB}")
        if size == 0 and root == EMPTY_ROOT:
            return b""
        kept = await self._kept(root)
        if kept is not None and len(kept) == size:
            return kept
        if kept is not None or size == 0:  # a root stands for one content
            raise BlobUnavailable(root, [f"it does not have {size} bytes"])
        others = [holder for holder in holders if holder != self._host.peer_id]
        data = await self._transfer(root, Transfer(root, size, others))
        try:
            if size <= self.store.capacity:
                await self.put(data)
        except OSError as exc:  # the caller has its data; only others cannot get it from here
            logger.warning("blob %s is not stored: %s", root.hex()[:16], exc)
        return data

    async def _kept(self, root: bytes) -> bytes | None:
        """The blob in the store; a folder that cannot be read holds nothing."""
        try:
            return await self._stored(lambda: self.store.get(root)) if root in self.store else None
        except OSError as exc:
            logger.warning("blob %s cannot be read: %s", root.hex()[:16], exc)
            return None

    async def _stored(self, call: Callable[[], T]) -> T:
        """The result of a call on the store; files are read and written in a worker thread."""
        return await trio.to_thread.run_sync(call) if self.store.blocking else call()

    async def _transfer(self, root: bytes, transfer: Transfer) -> bytes:
        """Runs one fetch to its end."""
        line = _Line(self._host)
        try:
            actions = transfer.handle(Begin(), trio.current_time())
            while True:
                match _perform(actions, line):
                    case Complete(data=data):
                        await line.close()
                        return data
                    case GiveUp(reasons=reasons):
                        raise BlobUnavailable(root, reasons)
                event: Event | None = None
                deadline = transfer.next_deadline
                assert deadline is not None
                with trio.move_on_at(deadline):
                    event = await line.next_event()
                now = trio.current_time()
                actions = transfer.handle(event, now) if event is not None else transfer.handle_timer(now)
        finally:
            line.reset()

    async def _serve(self, stream: Stream) -> None:
        """Answers the requests on one stream until its end."""
        with self._served.admitted(stream) as admitted:
            if not admitted:
                return
            try:
                reader = DelimitedReader(stream, MAX_REQUEST)
                while (request := await _next_request(reader)) is not None:
                    await self._answer(stream, request)
            except (*_NOT_OUR_FAULT, trio.TooSlowError) as exc:
                logger.debug("serving blobs to %s: %s", stream.peer, exc)
                stream.reset()

    async def _answer(self, stream: Stream, request: Request) -> None:
        """Sends what was asked, one chunk in memory at a time."""
        for index in range(request.first, request.first + request.count):
            answer = await self._read(request, index) or Missing()
            encoded = encode_answer(answer)
            with trio.fail_after(CHUNK_TIMEOUT):
                await stream.send_all(encoded)
            self.bytes_sent += len(encoded)
            if isinstance(answer, Missing):
                break

    async def _read(self, request: Request, index: int) -> Chunk | None:
        """One chunk from the store; a folder that cannot be read holds nothing."""
        try:
            return await self._stored(lambda: self.store.chunk(request.root, request.size, index))
        except OSError as exc:
            logger.warning("blob %s cannot be read: %s", request.root.hex()[:16], exc)
            return None


class _Line:
    """The stream to the holder that is being asked."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ask: Ask | None = None  # to be sent first
        self._holder: PeerId | None = None
        self._stream: Stream | None = None
        self._reader: DelimitedReader | None = None

    def ask(self, ask: Ask) -> None:
        """Sends `ask` before the next event is awaited."""
        self._ask, self._holder = ask, ask.holder

    async def next_event(self) -> Event:
        """What comes of the open request."""
        assert self._holder is not None
        try:
            return Answered(holder=self._holder, answer=await self._answer(self._holder))
        except _NOT_OUR_FAULT as exc:
            return Failed(holder=self._holder, reason=f"failed: {exc}")

    async def _answer(self, holder: PeerId) -> Answer:
        if self._stream is None or self._reader is None:
            self._stream = await self._host.open_stream(holder, [PROTOCOL])
            self._reader = DelimitedReader(self._stream, MAX_ANSWER)
        if self._ask is not None:
            await self._stream.send_all(encode_request(self._ask.request))
            self._ask = None
        message = await self._reader.receive()
        if message is None:
            raise ConnectionLost("it closed the stream")
        return decode_answer(message)

    async def close(self) -> None:
        """Ends the stream in good order."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with trio.move_on_after(CLOSE_GRACE):
                await stream.aclose()

    def reset(self) -> None:
        """Ends the stream at once, if there is one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset()


def _perform(actions: list[Action], line: _Line) -> Complete | GiveUp | None:
    """Carries out `actions`; returns the one that ends the fetch, if it is among them."""
    for action in actions:
        match action:
            case Ask():
                line.ask(action)
            case Leave(holder=holder, reason=reason):
                logger.debug("fetching from %s: it %s", holder, reason)
                line.reset()
            case Complete() | GiveUp():
                return action
    return None


async def _next_request(reader: DelimitedReader) -> Request | None:
    """The next request on a stream, None at its end. Raises `trio.TooSlowError` when none comes."""
    with trio.fail_after(IDLE_TIMEOUT):
        message = await reader.receive()
    return decode_request(message) if message is not None else None


@asynccontextmanager
async def open_blobs(host: Host, store: BlobStore) -> AsyncIterator[Blobs]:
    """The blob exchange of `host`, which serves `store` until the body ends."""
    blobs = Blobs(host, store)
    host.handle(PROTOCOL, blobs._serve)
    try:
        yield blobs
    finally:
        host.unhandle(PROTOCOL)
