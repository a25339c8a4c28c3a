"""One stream of a yamux connection, for the tasks that read and write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from p2p.errors import ConnectionLost, LocalProtocolError, P2PError, StreamReset
from p2p.waiter import Waiter
from p2p.yamux.buffer import ReceiveBuffer
from p2p.yamux.wire import StreamErrorCode

if TYPE_CHECKING:
    from p2p.multistream.negotiation import Initiator
    from p2p.peer_id import PeerId
    from p2p.stream import Data
    from p2p.yamux.flow import StreamState
    from p2p.yamux.link import Link

YIELD_EVERY = 64  # operations of one stream that need not wait, until other tasks get a turn


class YamuxStream(trio.abc.HalfCloseableStream):
    """One stream, as `p2p.stream.Stream` and as trio's `HalfCloseableStream`.

    One task may send and one receive at a time; another gets `trio.BusyResourceError`. What came
    before the peer's reset or the loss of the connection can still be read. Operations that need
    not wait are cancellation points all the same, and give way to others once in `YIELD_EVERY`.
    """

    def __init__(self, link: Link, state: StreamState) -> None:
        self.id = state.id
        self.protocol = ""
        self._link = link
        self._session = link.session
        self._state = state
        self._buffer = ReceiveBuffer()
        self._readable = Waiter()
        self._handler: Callable[[bytes], None] | None = None  # of who waits in `receive_each`
        self._failure: Exception | None = None  # that it raised
        self._writable = Waiter()
        self._operations = 0
        self._receiving = False
        self._sending = False
        self._torn = False  # an interrupted send_all left a part of its data with the peer
        self._received_eof = False
        self._sent_eof = False
        self._closed = False
        self._reset: StreamReset | None = None
        self._proposal: Initiator | None = None  # that the peer has not answered yet
        self._broken: Callable[[], None] | None = None  # for who watches

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self._link.peer

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or b"" once the peer closed its side.

        Raises `StreamReset` and `ConnectionLost` behind the last byte that came, and
        `LocalProtocolError` after `aclose`. On a stream whose protocol was selected lazily, the first
        call also raises what the selection would have: `NegotiationFailed`, `RemoteProtocolError`; the
        stream is reset then. A cancelled call has taken nothing.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task receives from this stream")
        self._receiving = True
        try:
            await self._take_turn()
            while not self._has_data():
                if self._at_end():
                    return b""
                await self._readable.wait()
        finally:
            self._receiving = False
        return self._take(max_bytes)

    async def receive_each(self, handle: Callable[[bytes], None]) -> None:
        """Calls `handle` with every piece that comes, until the peer closed its side.

        While this waits, the connection's reader calls `handle` itself: no task is switched to. What
        `handle` raises leaves here, at once, and ends nothing else. Raises as `receive_some` does.
        Cancelled, it has lost nothing: what was not handled comes with the next call.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task receives from this stream")
        self._receiving = True
        try:
            while True:
                await self._take_turn()
                if self._has_data():
                    handle(self._take(None))
                elif self._at_end():
                    return
                else:
                    await self._let_handle(handle)
        finally:
            self._receiving = False

    async def _let_handle(self, handle: Callable[[bytes], None]) -> None:
        """Waits until there is something that the reader cannot hand to `handle`; raises what that raised."""
        self._handler = handle
        try:
            await self._readable.wait()
        finally:
            self._handler = None
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _has_data(self) -> bool:
        """Whether something can be taken; the answer to a proposal is checked first."""
        return bool(self._buffer) and (self._proposal is None or self._take_answer())

    def _at_end(self) -> bool:
        """Whether the peer closed its side, with nothing left to read; raises when nothing will come."""
        if self._received_eof and not self._closed and self._reset is None:
            if self._proposal is not None:
                raise ConnectionLost("the peer closed the stream before it answered the proposal")
            return True
        self._check_open()
        return False

    async def send_all(self, data: Data) -> None:
        """Returns when all is handed to the connection within the peer's window.

        Raises `StreamReset`, `ConnectionLost`, and `LocalProtocolError` after `send_eof`. After a
        cancellation an unknown part of `data` was sent, as with any stream of trio; `aclose` then
        resets the stream, so that the peer does not take the part for the whole.
        """
        size, link, turn = len(data), self._link, self._operations + 1
        if (
            turn % YIELD_EVERY
            and not self._sending
            and link.takes(self._state, size)
            and self._writable_now()
        ):
            self._operations = turn  # mostly so: it fits, nobody waits
            await trio.lowlevel.checkpoint_if_cancelled()
            link.send(self._state, data)
        else:
            await self._send_in_parts(data)

    def send_nowait(self, data: Data) -> bool:
        """Hands all of `data` to the connection if that goes without waiting, else nothing; whether.

        What the connection can send leaves before this returns. It needs no current task. Raises as
        `send_all` does.
        """
        if self._sending:
            return False
        self._check_writable()
        if not self._link.takes(self._state, len(data)):
            return False
        self._link.send_at_once(self._state, data)
        return True

    async def _send_in_parts(self, data: Data) -> None:
        self._start_sending()
        sent, size = 0, len(data)
        link, session = self._link, self._session
        try:
            await self._take_turn()
            self._check_writable()
            with memoryview(data) as view:
                while sent < size:
                    if not link.room:
                        link.push()
                    if part := session.send_data(self.id, view[sent : sent + link.room]):
                        sent += part
                        link.answer()
                    else:
                        await self._wait_writable()
        finally:
            self._stop_sending()
            self._torn = self._torn or 0 < sent < size

    async def wait_send_all_might_not_block(self) -> None:
        """Returns when the peer's window and the connection have room. Raises as `send_all` does."""
        self._start_sending()
        try:
            await self._take_turn()
            self._check_writable()
            while not (self._link.room and self._session.send_window(self.id)):
                await self._wait_writable()
        finally:
            self._stop_sending()

    async def send_eof(self) -> None:
        """Closes our side for writing; reading goes on. Safe to repeat. Raises as `send_all` does."""
        self._start_sending()
        try:
            await self._take_turn()
        finally:
            self._stop_sending()
        self._check_open()
        if not self._sent_eof:
            self._close_write()

    async def aclose(self) -> None:
        """Closes both sides; what the peer still sends within 10 s is dropped, then the stream is reset.

        Safe to repeat. The stream is closed even when the call is cancelled.
        """
        if not self._closed:
            self._closed = True
            if self._torn or self._sending:
                self.reset()
            elif self._reset is None and self._link.lost is None:
                if not self._sent_eof:
                    self._close_write()
                if not self._received_eof:
                    self._link.discard(self._state)
            self._drop()
        await trio.lowlevel.checkpoint()

    def reset(self, code: int = StreamErrorCode.NONE) -> None:
        """Ends both directions at once; the peer sees `StreamReset`. Never blocks, safe to repeat."""
        if self._reset is None:
            if not (self._received_eof and self._sent_eof):  # else it is gone already
                self._session.reset(self.id, code)
            self._reset = StreamReset("the stream was reset on this side", code)
            self._drop()

    def watch(self, broken: Callable[[], None]) -> None:
        """As `Stream.watch`."""
        self._broken = broken
        self._tell()

    def _tell(self) -> None:
        """Tells who watches, if there is reason to."""
        if self._broken is not None and (self._reset is not None or self._link.lost is not None):
            broken, self._broken = self._broken, None
            broken()

    # --- for the negotiation of the stream's protocol

    def send_soon(self, data: bytes) -> None:
        """Queues a few first bytes: they leave with the next write, or else when this task waits.

        Raises as `send_all` does, and `LocalProtocolError` when they are more than the peer's window.
        """
        self._check_writable()
        if len(data) > self._state.send_window:
            raise LocalProtocolError(f"{len(data)} bytes are over the window of stream {self.id}")
        self._session.send_data(self.id, data)
        self._link.kick()

    def expect_answer(self, proposal: Initiator) -> None:
        """What comes first is the answer to `proposal`, which was sent: `receive_some` checks it."""
        self._proposal = proposal

    def peek(self) -> bytes | bytearray:
        """The first piece that came, without taking it; empty when nothing is there."""
        return self._buffer.peek()

    def skip(self, size: int) -> None:
        """Takes the first `size` bytes of what `peek` returned."""
        self._take(size)

    # --- called by the connection

    def receive_data(self, data: bytes) -> None:
        """Bytes came, within the window: for the handler of who waits, if the answer to a proposal is not.

        A task that was woken or cancelled does not wait any more: it, or the next, finds them in order.
        """
        if self._handler is None or not self._readable or self._proposal is not None:
            self._buffer.append(data)
            self._readable.wake()
            return
        self._session.consume(self._state, len(data), trio.current_time())
        try:
            self._handler(data)
        except Exception as exc:  # anybody's code: the task gets it, the connection goes on
            self._failure = exc
            self._readable.wake()

    def receive_eof(self) -> None:
        """The peer closed its side."""
        self._received_eof = True
        self._readable.wake()
        if self._sent_eof:
            self._link.forget(self)

    def receive_reset(self, code: int) -> None:
        """The peer ended both sides."""
        self._reset = StreamReset("the peer reset the stream", code)
        self._let_go()

    def wake(self) -> None:
        """Lets whoever waits look again: the window grew, or the connection is lost."""
        self._readable.wake()
        self._writable.wake()
        self._tell()

    # --- private

    def _take(self, max_bytes: int | None) -> bytes:
        data = self._buffer.take(max_bytes)
        self._session.consume(self._state, len(data), trio.current_time())
        self._link.kick()
        return data

    def _take_answer(self) -> bool:
        """Checks what came against the proposal; whether there is something behind the answer."""
        proposal = self._proposal
        while self._buffer and proposal is not None:
            whole = proposal.whole_answer
            size = len(whole) if whole and self._buffer.peek().startswith(whole) else proposal.wanted
            try:
                proposal.receive_data(self._take(size))
            except P2PError:
                self.reset(StreamErrorCode.NEGOTIATION_FAILED)
                raise
            if proposal.next_event() is not None:
                self._proposal = proposal = None
        return bool(self._buffer)

    def _drop(self) -> None:
        """Nothing is read any more, not even what came already."""
        self._buffer.clear()
        if self._state.gone:
            self._link.discard(self._state)
        self._let_go()

    def _let_go(self) -> None:
        """Expects no events any more, and wakes whoever waits."""
        self._link.forget(self)
        self.wake()
        if self._sending:
            self._link.senders.unpark_all()
        self._link.kick()

    def _close_write(self) -> None:
        self._sent_eof = True
        self._session.close_write(self.id)
        self._link.kick()
        if self._received_eof:
            self._link.forget(self)

    def _start_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task sends on this stream")
        self._sending = True

    def _stop_sending(self) -> None:
        self._sending = False
        self._link.pass_turn()

    async def _take_turn(self) -> None:
        self._operations += 1
        if self._operations % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    async def _wait_writable(self) -> None:
        """Waits for room in the output queue if it has none, for the peer's window otherwise."""
        if self._link.room:
            self._link.kick()
            self._link.pass_turn()
            await self._writable.wait()
        else:
            await self._link.senders.park()
        self._check_writable()

    def _writable_now(self) -> bool:
        """Whether a write raises nothing. The peer's reset is in `_reset`, the connection's end in `lost`."""
        return not (self._sending or self._sent_eof or self._closed or self._reset or self._link.lost)

    def _check_open(self) -> None:
        if self._reset is not None:
            raise StreamReset(str(self._reset), self._reset.code)
        if self._closed:
            raise LocalProtocolError("the stream is closed")
        self._link.check_alive()

    def _check_writable(self) -> None:
        self._check_open()
        if self._sent_eof:
            raise LocalProtocolError("our side of the stream is closed")
