"""Blobs over a host: serves what the store holds, fetches what it does not."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from p2p.blobs.errors import BlobUnavailable, StoreFull
from p2p.blobs.fetching import Fetch
from p2p.blobs.lane import Lane
from p2p.blobs.merkle import CHUNK_SIZE, EMPTY_ROOT
from p2p.blobs.partial import MemoryPartial, Partial
from p2p.blobs.picking import Budget
from p2p.blobs.serving import Server
from p2p.blobs.store import BlobStore
from p2p.blobs.wire import MAX_BLOB, PROTOCOL
from p2p.errors import LocalProtocolError
from p2p.host import Host
from p2p.peer_id import PeerId

FETCH_CHUNKS = 32  # chunks that all fetches together have asked for and not written: 8 MiB
FETCH_LEAST = 2  # chunks of one of them: one is on its way while the other is asked for
MAX_THREADS = 2  # with long calls on the store; a disk gains little from more, each keeps some memory

T = TypeVar("T")

Unstored = StoreFull | OSError
"""Why a blob that came is not in the store."""

logger = logging.getLogger(__name__)


class Blobs:
    """The blob exchange of one host; get it from `open_blobs`."""

    def __init__(self, host: Host, store: BlobStore) -> None:
        self.store = store
        self._host = host
        self._threads = trio.CapacityLimiter(MAX_THREADS)
        self._lane = Lane()
        self._server = Server(store, self._soon, self._stored)
        self.serve = self._server.serve
        self._budget = Budget(FETCH_CHUNKS, FETCH_LEAST)
        self._running: dict[bytes, _Running] = {}  # fetches into the store, by root

    @property
    def bytes_sent(self) -> int:
        """Bytes of answers, to all peers."""
        return self._server.bytes_sent

    async def put(self, data: bytes) -> bytes:
        """Keeps `data` in the store, off the event loop when that means files; returns its root.

        Raises `StoreFull`.
        """
        return await self._stored(lambda: self.store.put(data))

    async def discard(self, root: bytes) -> None:
        """Forgets the blob, if it is here and nobody retains it."""
        await self._stored(lambda: self.store.discard(root))

    async def fetch(
        self,
        root: bytes,
        size: int,
        holders: Sequence[PeerId],
        found: AsyncIterable[PeerId] | None = None,
    ) -> bytes:
        """The blob `root` of exactly `size` bytes: from the store, or verified from `holders`, as bytes.

        It is put in the store, where that has room; see `fetch_into_store` for all else.
        """
        _check_size(root, size)
        if root == EMPTY_ROOT:
            return b""
        while True:
            await self._wait_for_others(root, size, holders)
            data = await self._kept(root)
            if data is not None or root not in self._running:
                break
        if data is not None and len(data) != size:  # a root stands for one content
            raise BlobUnavailable(root, [f"it does not have {size} bytes"])
        if root not in self.store:
            try:
                partial, _ = await self._fetch_into_store(root, size, holders, found)
                data = partial.data() if isinstance(partial, MemoryPartial) else await self._kept(root)
            except (StoreFull, OSError) as exc:  # the caller gets it; only others cannot get it from here
                logger.warning("blob %s is not stored: %s", root.hex()[:16], exc)
            except LocalProtocolError:  # it was put meanwhile
                data = await self._kept(root)
        if data is None:
            memory = MemoryPartial(root, size)
            await Fetch(self._host, memory, holders, self._budget, self._soon).run(found)
            data = memory.data()
        return data

    async def fetch_into_store(
        self,
        root: bytes,
        size: int,
        holders: Sequence[PeerId],
        found: AsyncIterable[PeerId] | None = None,
    ) -> None:
        """Returns when the store has the blob `root` of exactly `size` > 0 bytes, from `holders`.

        Several are asked at once, the first ones first, and those that `found` yields meanwhile. A large
        blob goes to the files of the store chunk by chunk: a fetch that did not end well, even by the death
        of the process, is gone on with by the next one. While a blob is on its way, what came of it is
        served to others, and a second fetch of it waits for the first, to which it adds its holders.

        A holder has `CHUNK_TIMEOUT` for each chunk: limit the whole with a cancel scope. Raises
        `BlobUnavailable`, `StoreFull`, `OSError` as the files do, and `LocalProtocolError` when `size` is
        over `MAX_BLOB`.
        """
        _check_size(root, size)
        if root == EMPTY_ROOT:
            return
        while True:
            await self._wait_for_others(root, size, holders)
            if await self._stored(lambda: self.store.check(root, size)):
                return
            if root not in self._running:
                break
        try:
            _, failure = await self._fetch_into_store(root, size, holders, found)
        except LocalProtocolError:
            if await self._stored(lambda: self.store.check(root, size)):
                return  # it was put meanwhile
            raise
        if failure is not None:
            raise failure

    async def _wait_for_others(self, root: bytes, size: int, holders: Sequence[PeerId]) -> None:
        """Returns when nobody else here is fetching the blob; `holders` are for them meanwhile.

        Raises `BlobUnavailable` as it came to them.
        """
        while (running := self._running.get(root)) is not None:
            if running.size == size:
                running.add(holders)
            await running.ended.wait()
            if running.size == size and running.failure is not None:
                raise BlobUnavailable(root, running.failure.reasons)

    async def _fetch_into_store(
        self, root: bytes, size: int, holders: Sequence[PeerId], found: AsyncIterable[PeerId] | None
    ) -> tuple[Partial, Unstored | None]:
        """The chunks of the blob, and why they could not be put in the store in the end.

        Raises as `fetch_into_store`.
        """
        running = self._running[root] = _Running(size, list(holders))
        try:
            if size <= CHUNK_SIZE:
                return await self._fetch_chunk(running, root, found)
            return await self._fetch_chunks(running, root, found)
        except BlobUnavailable as exc:
            running.failure = exc
            raise
        finally:
            del self._running[root]
            running.ended.set()

    async def _fetch_chunk(
        self, running: _Running, root: bytes, found: AsyncIterable[PeerId] | None
    ) -> tuple[Partial, Unstored | None]:
        """The same for a blob of one chunk: before it is whole there is nothing for the store to do.

        So it takes one change of threads, and not three.
        """
        partial = MemoryPartial(root, running.size)
        running.fetch = Fetch(self._host, partial, running.holders, self._budget, self._soon)
        await running.fetch.run(found)
        return partial, await self._finish(partial, lambda: self.store.put(partial.data()))

    async def _fetch_chunks(
        self, running: _Running, root: bytes, found: AsyncIterable[PeerId] | None
    ) -> tuple[Partial, Unstored | None]:
        partial = await self._stored(lambda: self.store.begin(root, running.size))
        try:
            running.fetch = Fetch(self._host, partial, running.holders, self._budget, self._soon)
            await running.fetch.run(found)
            return partial, await self._finish(partial, lambda: self.store.finish(partial))
        finally:
            with trio.CancelScope(shield=True):  # a worker thread that does not take long
                await self._stored(lambda: self.store.suspend(partial))

    async def _finish(self, partial: Partial, call: Callable[[], object]) -> Unstored | None:
        try:
            await self._stored(call)
        except (StoreFull, OSError) as exc:
            logger.warning("blob %s is not stored: %s", partial.root.hex()[:16], exc)
            return exc
        return None

    async def _kept(self, root: bytes) -> bytes | None:
        """The blob in the store; a folder that cannot be read holds nothing."""
        if root not in self.store:
            return None
        if (data := self.store.in_memory(root)) is not None:
            return data
        try:
            return await self._stored(lambda: self.store.get(root))
        except OSError as exc:
            logger.warning("blob %s cannot be read: %s", root.hex()[:16], exc)
            return None

    async def _stored(self, call: Callable[[], T]) -> T:
        """The result of a call on the store; files are read and written in a worker thread."""
        return await trio.to_thread.run_sync(call, limiter=self._threads) if self.store.blocking else call()

    async def _soon(self, call: Callable[[], T]) -> T:
        """As `_stored`, for a call that reads or writes a few chunks: it waits for no long one."""
        return await self._lane.run(call) if self.store.blocking else call()


class _Running:
    """A fetch into the store, for others who want the same blob."""

    def __init__(self, size: int, holders: list[PeerId]) -> None:
        self.size = size
        self.holders = holders
        self.fetch: Fetch | None = None  # until the store has a place for the blob
        self.failure: BlobUnavailable | None = None
        self.ended = trio.Event()

    def add(self, holders: Sequence[PeerId]) -> None:
        """Lets these be asked too."""
        if self.fetch is None:
            self.holders += holders
        else:
            self.fetch.add(holders)


def _check_size(root: bytes, size: int) -> None:
    if not 0 <= size <= MAX_BLOB:
        raise LocalProtocolError(f"blob of {size} bytes is over the limit of {MAX_BLOB}")
    if (size == 0) != (root == EMPTY_ROOT):
        raise BlobUnavailable(root, [f"it does not have {size} bytes"])


@asynccontextmanager
async def open_blobs(host: Host, store: BlobStore) -> AsyncIterator[Blobs]:
    """The blob exchange of `host`, which serves `store` until the body ends."""
    blobs = Blobs(host, store)
    host.handle(PROTOCOL, blobs.serve)
    try:
        yield blobs
    finally:
        host.unhandle(PROTOCOL)
