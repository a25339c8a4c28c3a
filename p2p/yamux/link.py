"""What the streams of one connection share: its session, its output queue, and who waits for them.

Whoever has something to send may do so from its own task, since sending never waits: `push`. What
does not leave, because the peer is slow, is the writer's, and so is all that is queued between two
pushes: it leaves together, at the latest before the connection waits again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from p2p.errors import ConnectionLost, LocalProtocolError, P2PError
from p2p.stream import MAX_BLOCK
from p2p.waiter import Waiter
from p2p.yamux.flow import StreamState
from p2p.yamux.session import Session

if TYPE_CHECKING:
    from p2p.stream import Data, SecureStream
    from p2p.yamux.stream import YamuxStream

HIGH_WATER = 8 * MAX_BLOCK  # bytes that wait to be sent; more gains nothing
PUSH_SIZE = 4 * MAX_BLOCK  # bytes that are worth a system call of their own, and still fit the caches


class Link:
    """The meeting point of a connection's streams with its reader and its writer."""

    def __init__(self, stream: SecureStream, session: Session) -> None:
        self.peer = stream.remote_peer
        self.session = session
        self.streams: dict[int, YamuxStream] = {}  # those that still expect events
        self.lost: str | None = None  # why the connection is over
        self.prompt = False  # whether the next write leaves at once: nothing did since bytes came
        self.blocked = 0  # blocks that the stream beneath holds some of: only the writer may go on
        self.broken: P2PError | None = None  # why nothing can be sent any more
        self.bytes_sent = 0
        self.timer = trio.CancelScope()  # around the reading until the session's next deadline
        self.senders = trio.lowlevel.ParkingLot()  # who waits for room in the output queue, in order
        self._stream = stream
        self._sends = True  # whether the writer still runs, or will
        self._writer = Waiter()  # the writer, while there is nothing to send
        self._flushers = trio.lowlevel.ParkingLot()  # who waits until there is nothing to send
        self._openers = trio.lowlevel.ParkingLot()  # who waits for a place among the unacked streams

    @property
    def room(self) -> int:
        """Bytes that the output queue still takes."""
        return max(0, HIGH_WATER - self.session.queued)

    def kick(self) -> None:
        """Wakes the writer when the session has bytes for it, and openers when streams were acked."""
        if self._writer and self.session.queued:
            self._writer.wake()
        if self._openers and not self.session.backlog_full:
            self._openers.unpark_all()

    def push(self, *, whole: bool = False) -> None:
        """Sends what waits (only `whole` blocks if asked) as far as that goes without waiting.

        Never raises: whatever breaks is the writer's to report.
        """
        session = self.session
        if self.blocked or self.broken is not None or not self._sends:
            return
        try:
            while not self.blocked and (blocks := session.blocks_to_send(whole=whole)):
                if not self._stream.send_nowait(blocks):
                    self.blocked = len(blocks)
                self.bytes_sent += sum(map(len, blocks))
                session.blocks_sent()
        except P2PError as exc:
            self.broken = exc
        if self.blocked or self.broken is not None:
            self._writer.wake()

    def takes(self, stream: StreamState, size: int) -> bool:
        """Whether `size` bytes fit into the peer's window and into the output queue."""
        return size <= stream.send_window and size + self.session.queued <= HIGH_WATER

    def send(self, stream: StreamState, data: Data) -> None:
        """Sends `data`, which the link `takes`, on a stream that is open for writing."""
        self.session.send_fitting(stream, data)
        self.answer()

    def send_at_once(self, stream: StreamState, data: Data) -> None:
        """As `send`; it leaves before this returns, if the peer is not slow."""
        self.session.send_fitting(stream, data)
        self.prompt = False
        self.push()

    def answer(self) -> None:
        """Sends what was just queued: at once when it is the first since bytes came, else soon."""
        if self.prompt:
            self.prompt = False
            self.push()
        elif self.session.queued >= PUSH_SIZE:
            self.push(whole=True)
            self.kick()
        elif self._writer:
            self.kick()

    async def wait_for_output(self) -> None:
        """The writer's wait: returns when there is something to send, or nothing can be sent."""
        self._flushers.unpark_all()
        await self._writer.wait()

    async def flush(self) -> None:
        """Returns when the writer sent everything, or when it will not any more."""
        while self._sends and not self._writer:
            await self._flushers.park()

    def end_output(self) -> None:
        """Nothing is sent any more."""
        self._sends = False
        self._flushers.unpark_all()

    def pass_turn(self) -> None:
        """Wakes the next sender while the output queue has room.

        One at a time, and each passes the turn on when it leaves or waits: with many senders, waking
        all of them each time would cost more than sending.
        """
        if self.senders and self.room:
            self.senders.unpark()

    async def open_stream(self) -> StreamState:
        """A new stream, once the peer acked enough of the others. Raises `ConnectionLost`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_alive()
        while self.session.backlog_full:
            await self._openers.park()
            self.check_alive()
        try:
            return self.session.open_stream(trio.current_time())
        except LocalProtocolError as exc:
            raise ConnectionLost(f"no stream can be opened: {exc}") from exc

    def forget(self, stream: YamuxStream) -> None:
        """The stream expects no events any more. Its id may be in use again, by a peer that reuses ids."""
        if self.streams.get(stream.id) is stream:
            del self.streams[stream.id]

    def discard(self, stream: StreamState) -> None:
        """Nobody reads the stream any more; brings the timer forward to its deadline."""
        self.session.discard(stream, trio.current_time())
        deadline = self.session.next_deadline()
        if deadline < self.timer.deadline:
            self.timer.deadline = deadline
        self.kick()

    def check_alive(self) -> None:
        """Raises `ConnectionLost` when the connection is over."""
        if self.lost is not None:
            raise ConnectionLost(self.lost)

    def lose(self, reason: str) -> None:
        """Ends every stream and wakes everybody who waits, once."""
        if self.lost is None:
            self.lost = reason
            streams, self.streams = self.streams, {}
            for stream in streams.values():
                stream.wake()
            self._openers.unpark_all()
            self.senders.unpark_all()
