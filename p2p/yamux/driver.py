"""Runs a yamux session over a secured connection: one task reads, one writes, handlers do the rest.

The reader never waits for a handler: what it reads goes into per-stream buffers, which the windows
bound, or straight to the handler that waits in `receive_each`. Senders put whole frames into the
session. The first one after bytes came sends at once, from its own task, as far as that goes without
waiting; the rest is joined and left to the writer task. So an answer is not held up by a task switch,
small writes share messages and system calls, and a cancelled sender never leaves half a frame behind.
The reader's deadline is the connection's clock.

Memory of one connection: 256 KiB to read for each stream (at most 256 of them opened by the peer), 32
MiB that windows grow by, and twice `HIGH_WATER` to send: what is on its way, what waits meanwhile.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from p2p.errors import ConnectionLost, P2PError, RemoteProtocolError
from p2p.handlers import run_handler
from p2p.peer_id import PeerId
from p2p.scope import open_scope
from p2p.stream import Data, SecureStream
from p2p.yamux import events
from p2p.yamux.budget import WindowBudget
from p2p.yamux.flow import StreamState
from p2p.yamux.link import Link
from p2p.yamux.session import MAX_INBOUND_STREAMS, Session
from p2p.yamux.stream import YamuxStream
from p2p.yamux.wire import GoAwayCode, StreamErrorCode

WRITE_STALL = 10.0  # seconds for each block; go-yamux, ConnectionWriteTimeout for each 64 KiB
CLOSE_GRACE = 1.0  # seconds for the last frames, and again for closing the stream beneath
MAX_HANDLERS = MAX_INBOUND_STREAMS  # tasks; a peer that opens and resets at once piles up no more

logger = logging.getLogger(__name__)


class YamuxConnection:
    """One muxed connection: `run` owns its tasks and the stream beneath, and all of it ends with `run`."""

    def __init__(self, stream: SecureStream, *, initiator: bool, budget: WindowBudget | None = None) -> None:
        self.bytes_received = 0
        self._stream = stream
        self._session = Session(initiator, now=trio.current_time(), budget=budget)
        self._link = Link(stream, self._session)
        self._parts = trio.CancelScope()  # around the reader and the writer
        self._failure: P2PError | None = None  # what `run` raises
        self._started = False
        self._finished = trio.Event()
        self._num_handlers = 0

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self._link.peer

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the encryption so far."""
        return self._link.bytes_sent

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip as far as known: a connection that moves no bytes does not ask."""
        return self._session.rtt

    @property
    def closed(self) -> bool:
        """Whether the connection is over, or about to be."""
        return self._link.lost is not None

    @property
    def num_streams(self) -> int:
        """How many streams are open, half closed ones included."""
        return self._session.num_streams

    async def open_stream(self) -> YamuxStream:
        """A new stream; waits while 256 of ours were not acked. Raises `ConnectionLost`."""
        stream = YamuxStream(self._link, await self._link.open_stream())
        self._link.streams[stream.id] = stream
        self._link.kick()
        return stream

    async def aclose(self, code: int = GoAwayCode.NORMAL) -> None:
        """Says GoAway, sends what waits for at most `CLOSE_GRACE`, and ends `run`. Safe to repeat."""
        if not self.closed:
            self._session.go_away(code)
            self._link.lose("the connection was closed on this side")
            self._link.kick()
            try:
                if self._started:
                    await self._flush()
            finally:
                self._parts.cancel()
        if not self._started:
            await self._close_stream()
        await self._finished.wait()

    async def run(self, on_stream: Callable[[YamuxStream], Awaitable[None]]) -> None:
        """Reads, writes and handles inbound streams until the connection ends.

        Returns when it ended in order: by `aclose`, by the peer's normal GoAway, or at the end of the
        bytes with no stream open. Raises `ConnectionLost` or `RemoteProtocolError` otherwise.
        Whatever the reason: the stream beneath is closed, everybody who waits gets `ConnectionLost`,
        and the handlers of inbound streams are cancelled.
        """
        self._started = self._link.prompt = True
        async with open_scope() as handlers:

            def accept(stream: YamuxStream) -> None:
                handlers.start_soon(self._handle, stream, on_stream)

            try:
                with self._parts:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._run_part, self._write)
                        await self._run_part(partial(self._read, accept))
            finally:
                self._link.lose("the connection was closed")
                await self._close_stream()
        if self._failure is not None:
            raise self._failure

    async def _run_part(self, part: Callable[[], Awaitable[None]]) -> None:
        """Runs one of the two tasks; whichever ends, ends both."""
        try:
            await part()
        except P2PError as exc:
            self._fail(exc)
            if isinstance(exc, RemoteProtocolError):
                self._link.kick()
                await self._flush()  # the session's GoAway
        self._parts.cancel()

    async def _read(self, accept: Callable[[YamuxStream], None]) -> None:
        session, link = self._session, self._link
        take = partial(self._take, accept)
        ended = False
        while not ended:
            with trio.CancelScope(deadline=session.next_deadline()) as link.timer:
                await self._stream.receive_each(take)
                ended = True
            if not ended:
                session.handle_timer(trio.current_time())
                link.kick()
        if not session.idle:
            raise ConnectionLost(f"the peer closed the connection with {session.num_streams} open streams")
        link.lose("the peer closed the connection")

    def _take(self, accept: Callable[[YamuxStream], None], data: Data) -> None:
        """Handles what came. Never waits, and needs no current task."""
        session, link = self._session, self._link
        self.bytes_received += len(data)
        link.prompt = True
        session.receive_data(data, trio.current_time())
        while (event := session.next_event()) is not None:
            self._handle_event(event, accept)
        link.kick()

    def _handle_event(self, event: events.Event, accept: Callable[[YamuxStream], None]) -> None:
        streams = self._link.streams
        match event:
            case events.DataReceived(stream_id=stream_id, data=data):
                if stream := streams.get(stream_id):
                    stream.receive_data(data)
            case events.WindowOpened(stream_id=stream_id):
                if stream := streams.get(stream_id):
                    stream.wake()
            case events.StreamOpened(stream=state):
                self._accept(state, accept)
            case events.StreamClosed(stream_id=stream_id):
                if stream := streams.get(stream_id):
                    stream.receive_eof()
            case events.StreamReset(stream_id=stream_id, code=code):
                if stream := streams.get(stream_id):
                    stream.receive_reset(code)
            case events.GoAwayReceived(code=code):
                self._handle_go_away(code)
            case events.StreamAcked():
                pass  # the kick behind every batch of events wakes who waits for this
            case events.PongReceived(rtt=rtt):
                logger.debug("%s answered a ping after %.1f ms", self.peer, rtt * 1000)

    def _accept(self, state: StreamState, accept: Callable[[YamuxStream], None]) -> None:
        if state.gone and not state.unread:  # opened and reset in one breath: not worth a task
            return
        if self._num_handlers >= MAX_HANDLERS:
            self._session.reset(state.id, StreamErrorCode.RESOURCE_LIMIT)
            return
        stream = self._link.streams[state.id] = YamuxStream(self._link, state)
        self._num_handlers += 1
        accept(stream)

    def _handle_go_away(self, code: int) -> None:
        if code == GoAwayCode.NORMAL:
            self._link.lose("the peer closed the connection")
        else:
            self._fail(ConnectionLost(f"the peer ended the session with code {code:#x}"))
        self._parts.cancel()

    async def _handle(self, stream: YamuxStream, on_stream: Callable[[YamuxStream], Awaitable[None]]) -> None:
        try:
            await run_handler(stream, on_stream)
        finally:
            self._num_handlers -= 1

    async def _write(self) -> None:
        link = self._link
        with trio.CancelScope() as stall:  # one scope, re-armed: a new one for each send costs more
            while True:
                link.push()
                if link.broken is not None:
                    raise link.broken
                link.pass_turn()
                if link.blocked:
                    stall.deadline = trio.current_time() + WRITE_STALL * link.blocked
                    await self._stream.flush()
                    stall.deadline = math.inf
                    link.blocked = 0
                else:
                    await link.wait_for_output()
        raise ConnectionLost("the peer takes no bytes")

    async def _flush(self) -> None:
        with trio.move_on_after(CLOSE_GRACE):
            await self._link.flush()

    def _fail(self, error: P2PError) -> None:
        """`run` will raise `error`, unless the connection is over already."""
        if not self.closed:
            self._failure = error
            self._link.lose(str(error))

    async def _close_stream(self) -> None:
        self._link.end_output()
        self._session.close()
        try:
            with trio.move_on_after(CLOSE_GRACE, shield=True):
                await self._stream.aclose()
        finally:
            self._finished.set()
