"""What the streams of one connection share: its session, its output queue, and who waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from p2p.errors import ConnectionLost, LocalProtocolError
from p2p.yamux.flow import StreamState
from p2p.yamux.session import Session

if TYPE_CHECKING:
    from p2p.peer_id import PeerId
    from p2p.yamux.stream import YamuxStream

HIGH_WATER = 512 * 1024  # bytes that wait to be sent: 8 full noise messages, more gains nothing


class Link:
    """The meeting point of a connection's streams with its reader, its writer and its clock."""

    def __init__(self, peer: PeerId, session: Session) -> None:
        self.peer = peer
        self.session = session
        self.streams: dict[int, YamuxStream] = {}  # those that still expect events
        self.lost: str | None = None  # why the connection is over
        self.timer = trio.CancelScope()  # around the sleep until the session's next deadline
        self.senders = trio.lowlevel.ParkingLot()  # who waits for room in the output queue, in order
        self._sends = True  # whether the writer still runs, or will
        self._writer = trio.lowlevel.ParkingLot()  # the writer, while there is nothing to send
        self._flushers = trio.lowlevel.ParkingLot()  # who waits until there is nothing to send
        self._openers = trio.lowlevel.ParkingLot()  # who waits for a place among the unacked streams

    @property
    def room(self) -> int:
        """Bytes that the output queue still takes."""
        return max(0, HIGH_WATER - self.session.queued)

    def kick(self) -> None:
        """Wakes the writer when the session has bytes for it, and openers when streams were acked."""
        if self._writer and self.session.queued:
            self._writer.unpark()
        if self._openers and not self.session.backlog_full:
            self._openers.unpark_all()

    async def wait_for_output(self) -> None:
        """The writer's wait: returns after the next `kick` with something to send."""
        self._flushers.unpark_all()
        await self._writer.park()

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

    async def open_stream(self) -> int:
        """The id of a new stream, once the peer acked enough of the others. Raises `ConnectionLost`."""
        await trio.lowlevel.checkpoint()
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
        self.timer.deadline = min(self.timer.deadline, self.session.next_deadline())
        self.kick()

    def check_alive(self) -> None:
        """Raises `ConnectionLost` when the connection is over."""
        if self.lost is not None:
            raise ConnectionLost(self.lost)

    def lose(self, reason: str) -> None:
        """Ends every stream and wakes everybody who waits, once."""
        if self.lost is None:
            self.lost = reason
            for stream in self.streams.values():
                stream.wake()
            self.streams.clear()
            self._openers.unpark_all()
            self.senders.unpark_all()
