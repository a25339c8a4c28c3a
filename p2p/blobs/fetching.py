"""Runs one fetch: a task for each holder that is asked, one that writes chunks, one that keeps the time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from typing import Any

import trio

from p2p.blobs.errors import BlobUnavailable
from p2p.blobs.merkle import chunk_count
from p2p.blobs.partial import Partial
from p2p.blobs.picking import Budget
from p2p.blobs.transfer import (
    Action,
    Answered,
    Ask,
    Begin,
    Complete,
    Event,
    Failed,
    GiveUp,
    HoldersFound,
    Leave,
    Save,
    Saved,
    SearchEnded,
    Transfer,
)
from p2p.blobs.wire import PROTOCOL, AnswerDecoder, Pieces, Want, encode_want
from p2p.errors import ConnectionLost, DialFailed, NegotiationFailed, RemoteProtocolError
from p2p.host import Host
from p2p.peer_id import PeerId
from p2p.scope import open_scope
from p2p.stream import Stream
from p2p.waiter import Waiter

CLOSE_GRACE = 1.0  # seconds
WRITE_DELAY = 0.5  # seconds that a chunk waits for others to be written with
MAX_BATCH = 8  # chunks written at once: a change of threads costs as much as a write
NOT_OUR_FAULT = (ConnectionLost, DialFailed, NegotiationFailed, RemoteProtocolError)

Stored = Callable[[Callable[[], Any]], Awaitable[Any]]  # runs a call on the store

logger = logging.getLogger(__name__)


class Fetch:
    """One fetch of what `partial` lacks; `stored` makes calls that may take time."""

    def __init__(
        self, host: Host, partial: Partial, holders: Sequence[PeerId], budget: Budget, stored: Stored
    ) -> None:
        self._host = host
        self._partial = partial
        self._budget = budget
        self._stored = stored
        self._transfer = Transfer(
            partial.root,
            partial.size,
            partial.tree,
            partial.have,
            [holder for holder in holders if holder != host.peer_id],
            start=int.from_bytes(host.peer_id.raw[-4:], "big") % chunk_count(partial.size),
            budget=budget,
        )
        self._lines: dict[PeerId, _Line] = {}
        self._inbox: deque[Event] = deque()
        self._handling = False
        self._unsaved: list[tuple[int, Pieces]] = []
        self._writer = Waiter()
        self._timer = trio.CancelScope()
        self._ended = trio.Event()
        self._reasons: tuple[str, ...] = ()
        self._nursery: trio.Nursery

    def add(self, holders: Sequence[PeerId]) -> None:
        """Tells of further holders."""
        self.handle(HoldersFound(holders=tuple(each for each in holders if each != self._host.peer_id)))

    async def run(self, found: AsyncIterable[PeerId] | None) -> None:
        """Returns when `partial` is whole; `found` yields further holders meanwhile.

        Raises `BlobUnavailable`, and `OSError` as writing does.
        """
        self._budget.open()
        try:
            async with open_scope() as self._nursery:
                self._nursery.start_soon(self._write)
                self._nursery.start_soon(self._keep_time)
                self.handle(Begin(searching=found is not None))
                if found is not None:
                    self._nursery.start_soon(self._search, found)
                await self._ended.wait()
        finally:
            self._budget.close()
            if self._unsaved:  # for the next fetch
                with trio.CancelScope(shield=True):
                    await self._save_all()
        if not self._transfer.whole:
            raise BlobUnavailable(self._partial.root, self._reasons)

    def handle(self, event: Event) -> None:
        """Lets the machine handle `event`, and what comes of its actions; carries them out."""
        self._inbox.append(event)
        if self._handling or self._ended.is_set():
            return
        self._handling = True
        try:
            while self._inbox:
                self._perform(self._transfer.handle(self._inbox.popleft(), trio.current_time()))
        finally:
            self._handling = False
        self._set_timer()
        self._wake_writer()

    def is_done_with(self, holder: PeerId) -> bool:
        """Whether the blob is whole and `holder` has nothing more to send."""
        return self._transfer.whole and self._transfer.is_idle(holder)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Ask(holder=holder, want=want):
                    if holder not in self._lines:
                        self._lines[holder] = _Line(self, self._host, holder)
                        self._nursery.start_soon(self._lines[holder].run)
                    self._lines[holder].ask(want)
                case Leave(holder=holder, reason=reason):
                    logger.debug("fetching from %s: it %s", holder, reason)
                    self._lines.pop(holder).leave()
                case Save(index=index, pieces=pieces):
                    self._save(index, pieces)
                case Complete():
                    self._ended.set()
                case GiveUp(reasons=reasons):
                    self._reasons = reasons
                    self._ended.set()

    def _save(self, index: int, pieces: Pieces) -> None:
        if self._partial.on_disk:
            self._unsaved.append((index, pieces))
        else:
            self._partial.write([(index, pieces)])
            self._inbox.append(Saved(count=1))

    @property
    def _batch_ready(self) -> bool:
        """Whether it is time to write: there is enough, or what is there is all that is to come."""
        enough = min(MAX_BATCH, max(1, self._budget.share // 2))
        return len(self._unsaved) >= enough or not self._transfer.expects_chunks

    def _wake_writer(self) -> None:
        if self._unsaved and (len(self._unsaved) == 1 or self._batch_ready):
            self._writer.wake()

    async def _write(self) -> None:
        """Writes what came since the last write, when that is enough, or nothing more comes soon."""
        while True:
            if not self._unsaved:
                await self._writer.wait()
            with trio.move_on_after(WRITE_DELAY):
                while not self._batch_ready:
                    await self._writer.wait()
            if self._unsaved:
                self.handle(Saved(count=await self._save_all()))

    async def _save_all(self) -> int:
        """Writes what is not saved; how many chunks. Raises `OSError`, and drops them then."""
        chunks = list(self._unsaved)
        try:
            await self._stored(lambda: self._partial.write(chunks))
        except OSError:
            self._unsaved.clear()
            raise
        del self._unsaved[: len(chunks)]  # only now: cancelled, it has saved nothing
        return len(chunks)

    async def _search(self, found: AsyncIterable[PeerId]) -> None:
        async for holder in found:
            self.add([holder])
        self.handle(SearchEnded())

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope() as self._timer:
                self._set_timer()
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()  # what has come is read first: we may have been late ourselves
            self._perform(self._transfer.handle_timer(trio.current_time()))
            self._wake_writer()

    def _set_timer(self) -> None:
        """Brings the timer forward; one that fires too early is set again, which costs less."""
        deadline = self._transfer.next_deadline
        if deadline is not None and deadline < self._timer.deadline:
            self._timer.deadline = deadline


class _Line:
    """The stream to one holder: a task that reads, and one that sends what is to be asked."""

    def __init__(self, fetch: Fetch, host: Host, holder: PeerId) -> None:
        self._fetch = fetch
        self._host = host
        self._holder = holder
        self._scope = trio.CancelScope()
        self._wants: deque[Want] = deque()
        self._sender = Waiter()

    def ask(self, want: Want) -> None:
        """Sends `want`, behind those before it."""
        self._wants.append(want)
        self._sender.wake()

    def leave(self) -> None:
        """Ends the stream at once."""
        self._scope.cancel()

    async def run(self) -> None:
        """Asks and listens, until the fetch or the stream ends."""
        with self._scope:
            try:
                stream = await self._host.open_stream(self._holder, [PROTOCOL])
                try:
                    async with open_scope() as nursery:
                        nursery.start_soon(self._send, stream)
                        await self._receive(stream)
                finally:
                    await self._end(stream)
            except NOT_OUR_FAULT as exc:
                self._fail(exc)

    async def _end(self, stream: Stream) -> None:
        """In good order when the holder owes us nothing."""
        if self._fetch.is_done_with(self._holder):
            with trio.move_on_after(CLOSE_GRACE, shield=True):
                await stream.aclose()
        else:
            stream.reset()

    def _fail(self, exc: Exception) -> None:
        self._fetch.handle(Failed(holder=self._holder, reason=f"failed: {exc}"))

    async def _send(self, stream: Stream) -> None:
        try:
            while True:
                if not self._wants:
                    await self._sender.wait()
                await stream.send_all(encode_want(self._wants.popleft()))
        except NOT_OUR_FAULT as exc:
            self._fail(exc)

    async def _receive(self, stream: Stream) -> None:
        decoder = AnswerDecoder()

        def take(data: bytes) -> None:
            decoder.receive_data(data)
            while (answer := decoder.next_event()) is not None:
                self._fetch.handle(Answered(holder=self._holder, answer=answer))

        await stream.receive_each(take)
        raise ConnectionLost("it closed the stream")
