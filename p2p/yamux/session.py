"""The yamux state machine of one connection: bytes in, events out; calls in, bytes out (sans-I/O).

    open_stream ──WU|SYN──► ┌──────┐ ──FIN from one side──► half closed ──FIN from the other──► gone
    SYN received ─WU|ACK──► │ open │
                            └──────┘ ──RST from either side, at any time──────────────────────► gone

A stream that is gone leaves no trace: whatever still comes for it crossed with our FIN or RST and
is dropped without an answer. A peer that breaks the rules makes `receive_data` raise
`RemoteProtocolError`, with a GoAway queued for it.

Memory: nothing of a body is kept here. Each stream's owner holds at most its window of bytes that it
has not consumed: 256 KiB, and what the window grew by, which is taken from a `WindowBudget`. At most
`MAX_INBOUND_STREAMS` streams exist that we did not open, so a peer can make us hold 64 MiB on these
(256 KiB more on each stream that we opened), and 32 MiB of growth. What we answer by ourselves waits
in an `Outbox`, which bounds it.

Source: hashicorp/yamux spec.md; libp2p/specs yamux/README.md.
"""

from __future__ import annotations

from collections import deque

from p2p.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError
from p2p.yamux import events
from p2p.yamux.budget import WindowBudget
from p2p.yamux.flow import StreamState
from p2p.yamux.keepalive import Keepalive
from p2p.yamux.outbox import Outbox
from p2p.yamux.reader import FrameReader
from p2p.yamux.wire import (
    ACK,
    FIN,
    INITIAL_WINDOW,
    MAX_STREAM_ID,
    RST,
    SESSION_ID,
    SYN,
    FrameType,
    GoAwayCode,
    StreamErrorCode,
)

MAX_UNACKED_STREAMS = 256  # streams; libp2p/specs yamux, "ACK backlog"
MAX_INBOUND_STREAMS = 256  # streams of one connection; go-libp2p resource manager, streams of one peer
DISCARD_TIMEOUT = 10.0  # seconds that a stream nobody reads may take to end; go-yamux gives 5 minutes


class Session:
    """One yamux session; `initiator` is the side that dialed. Times are seconds on any one clock."""

    def __init__(
        self,
        initiator: bool,
        *,
        now: float,
        max_inbound_streams: int = MAX_INBOUND_STREAMS,
        budget: WindowBudget | None = None,
    ) -> None:
        self._peer_parity = 0 if initiator else 1  # of the stream ids that the peer opens
        self._next_id = 1 if initiator else 2
        self._max_inbound = max_inbound_streams
        self._budget = (budget or WindowBudget()).share()
        self._streams: dict[int, StreamState] = {}
        self._inbound = 0
        self._unacked = 0
        self._going_away = False  # a side sent GoAway
        self._failed = False  # the peer broke the rules
        self._events: deque[events.Event] = deque()
        self._outbox = Outbox()
        self._keepalive = Keepalive(now)
        self._discarding: dict[int, float] = {}  # stream -> deadline, the earliest first
        self._reader = FrameReader()
        self._body_stream: StreamState | None = None  # whose body comes; None: it is dropped
        self._body_fin = False

    @property
    def num_streams(self) -> int:
        """How many streams are open, half closed ones included."""
        return len(self._streams)

    @property
    def backlog_full(self) -> bool:
        """Whether as many streams as allowed wait for the peer's ACK."""
        return self._unacked >= MAX_UNACKED_STREAMS

    @property
    def idle(self) -> bool:
        """Whether the connection may end here: no stream is open and no frame is half received."""
        return not self._streams and not self._reader.mid_frame

    @property
    def queued(self) -> int:
        """Bytes that wait for `blocks_to_send`."""
        return self._outbox.size

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip, smoothed; None before a stream was busy enough to ask for it."""
        return self._keepalive.rtt

    # --- from the wire

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Takes what came; events wait for `next_event`. Nothing of `data` is kept.

        Raises `RemoteProtocolError` when the peer broke the rules; a GoAway is queued then, and
        what comes later is ignored.
        """
        if self._failed:
            return
        self._keepalive.heard(now)
        try:
            self._receive(memoryview(data), now)
        except RemoteProtocolError:
            self._failed = self._going_away = True
            self._outbox.add(FrameType.GO_AWAY, 0, SESSION_ID, GoAwayCode.PROTOCOL_ERROR)
            raise

    def next_event(self) -> events.Event | None:
        """What happened next, or None."""
        return self._events.popleft() if self._events else None

    def _receive(self, data: memoryview, now: float) -> None:
        for item in self._reader.cut(data):
            if isinstance(item, tuple):
                self._receive_frame(*item, now)
            else:
                self._receive_body(item, now)

    def _receive_frame(self, kind: int, flags: int, stream_id: int, length: int, now: float) -> None:
        match kind:
            case FrameType.DATA | FrameType.WINDOW_UPDATE:
                self._receive_stream_frame(kind, flags, stream_id, length, now)
            case FrameType.PING:
                self._receive_ping(flags, length, now)
            case _:
                self._going_away = True
                self._events.append(events.GoAwayReceived(code=length))

    def _receive_stream_frame(self, kind: int, flags: int, stream_id: int, length: int, now: float) -> None:
        body = length if kind == FrameType.DATA else 0  # the length of a WindowUpdate is never a body
        if flags & SYN:
            if body > INITIAL_WINDOW:  # before there is a stream (CVE-2026-32314)
                raise MessageTooLarge(body, INITIAL_WINDOW)
            self._receive_syn(stream_id, now)
        self._body_stream = None
        stream = self._streams.get(stream_id)
        if stream is None:  # it crossed with our RST or FIN; an answer could hit a live stream
            return
        if flags & ACK and not stream.acked:
            stream.acked = True
            self._unacked -= 1
            self._events.append(events.StreamAcked(stream_id=stream_id))
        if flags & RST:
            code = length if kind == FrameType.WINDOW_UPDATE else 0
            self._forget(stream)
            if not stream.discarded:
                self._events.append(events.StreamReset(stream_id=stream_id, code=code))
        elif body and not stream.remote_closed:
            stream.check_body(body)
            self._body_stream = stream
            self._body_fin = bool(flags & FIN)
        else:
            if kind == FrameType.WINDOW_UPDATE and length:
                stream.grow_send_window(length)
                self._events.append(events.WindowOpened(stream_id=stream_id))
            if flags & FIN:
                self._receive_fin(stream)

    def _receive_syn(self, stream_id: int, now: float) -> None:
        if stream_id == SESSION_ID or stream_id % 2 != self._peer_parity:
            raise RemoteProtocolError(f"stream id {stream_id} is not the peer's to open")
        if stream_id in self._streams:
            raise RemoteProtocolError(f"stream {stream_id} is opened twice")
        if self._going_away:
            self._outbox.add_reply(RST, stream_id, StreamErrorCode.SHUTDOWN)
        elif self._inbound >= self._max_inbound:
            self._outbox.add_reply(RST, stream_id, StreamErrorCode.RESOURCE_LIMIT)
        else:
            self._outbox.add_reply(ACK, stream_id, 0)
            self._inbound += 1
            stream = StreamState(id=stream_id, outbound=False, acked=True, granted_at=now)
            self._streams[stream_id] = stream
            self._events.append(events.StreamOpened(stream_id=stream_id, stream=stream))

    def _receive_body(self, piece: memoryview, now: float) -> None:
        stream = self._body_stream
        if stream is None:
            return
        stream.receive_window -= len(piece)
        if stream.discarded:
            self._credit(stream, len(piece), now)
        else:
            self._events.append(events.DataReceived(stream_id=stream.id, data=bytes(piece)))
        if self._body_fin and not self._reader.body_left:
            self._receive_fin(stream)

    def _receive_fin(self, stream: StreamState) -> None:
        if stream.remote_closed:
            return
        stream.remote_closed = True
        if not stream.discarded:
            self._events.append(events.StreamClosed(stream_id=stream.id))
        if stream.local_closed:
            self._forget(stream)

    def _receive_ping(self, flags: int, value: int, now: float) -> None:
        if flags == SYN:
            self._outbox.add_pong(value)
        elif flags != ACK:
            raise RemoteProtocolError(f"ping with flags {flags:#x}")
        elif (rtt := self._keepalive.receive_pong(value, now)) is not None:
            self._events.append(events.PongReceived(value=value, rtt=rtt))

    # --- from the application

    def open_stream(self, now: float) -> StreamState:
        """A new stream, at once usable.

        Raises `LocalProtocolError` when the backlog is full, ids are used up or a side said GoAway.
        """
        if self._going_away:
            raise LocalProtocolError("the session is going away")
        if self.backlog_full:
            raise LocalProtocolError(f"{MAX_UNACKED_STREAMS} streams wait for the peer's ACK")
        if self._next_id > MAX_STREAM_ID:
            raise LocalProtocolError("the stream ids of this session are used up")
        stream_id = self._next_id
        self._next_id += 2
        self._unacked += 1
        stream = StreamState(id=stream_id, outbound=True, acked=False, granted_at=now)
        self._streams[stream_id] = stream
        self._outbox.add(FrameType.WINDOW_UPDATE, SYN, stream_id, 0)
        return stream

    def stream(self, stream_id: int) -> StreamState:
        """The state of a stream that is open. Raises `KeyError`."""
        return self._streams[stream_id]

    def send_window(self, stream_id: int) -> int:
        """How many bytes the peer takes on this stream now. Raises as `send_data` does."""
        return self._writable(stream_id).send_window

    def send_data(self, stream_id: int, data: bytes | bytearray | memoryview) -> int:
        """Queues as much of `data` as the peer's window allows; how many bytes that is.

        Raises `LocalProtocolError` when our half is closed or the stream is gone.
        """
        stream = self._writable(stream_id)
        size = min(len(data), stream.send_window)
        stream.send_window -= size
        self._outbox.add_data(stream_id, data if size == len(data) else memoryview(data)[:size])
        return size

    def send_fitting(self, stream: StreamState, data: bytes | bytearray | memoryview) -> None:
        """Queues all of `data`; the caller made sure that our half is open and the window takes it."""
        stream.send_window -= len(data)
        self._outbox.add_data(stream.id, data)

    def close_write(self, stream_id: int) -> None:
        """Queues our FIN behind what was written. Raises as `send_data` does."""
        stream = self._writable(stream_id)
        stream.local_closed = True
        self._outbox.add(FrameType.WINDOW_UPDATE, FIN, stream_id, 0)
        if stream.remote_closed:
            self._forget(stream)

    def reset(self, stream_id: int, code: int = StreamErrorCode.NONE) -> None:
        """Ends both halves at once, with a stream error code. A stream that is gone stays so."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._forget(stream)
            self._outbox.add(FrameType.WINDOW_UPDATE, RST, stream_id, code)

    def consume(self, stream: StreamState, size: int, now: float) -> None:
        """The application took `size` bytes that were received; the peer may send as many again."""
        if stream.gone:
            stream.consume(size)
            stream.settle(self._budget)
        else:
            self._credit(stream, size, now)

    def discard(self, stream: StreamState, now: float) -> None:
        """Nobody reads this stream any more: what comes is dropped without an event.

        The peer gets `DISCARD_TIMEOUT` seconds to finish its half; then the stream is reset.
        """
        if not stream.discarded:
            stream.discarded = True
            if stream.gone:
                stream.settle(self._budget)
            else:
                self._discarding[stream.id] = now + DISCARD_TIMEOUT
                self._credit(stream, stream.unread, now)

    def close(self) -> None:
        """The connection is over: gives back all memory that windows had reserved."""
        for stream in self._streams.values():
            stream.gone = stream.discarded = True
        self._budget.close()

    def go_away(self, code: int = GoAwayCode.NORMAL) -> None:
        """Queues a GoAway: no stream is opened any more, from either side."""
        self._going_away = True
        self._outbox.add(FrameType.GO_AWAY, 0, SESSION_ID, code)

    def blocks_to_send(self, *, whole: bool = False) -> list[memoryview]:
        """What waits, pings and pongs first, in at most `MAX_TAKEN` blocks; empty when nothing does.

        With `whole` a block that has room for more is left to fill up. The blocks are good until
        `blocks_sent` is called, which must come before the next call.
        """
        return self._outbox.take(whole=whole)

    def blocks_sent(self) -> None:
        """The blocks are used up."""
        self._outbox.sent()

    # --- timers

    def ping(self, now: float) -> None:
        """Queues a ping ahead of everything else, unless one is on its way already."""
        value = self._keepalive.ping(now)
        if value is not None:
            self._outbox.add_ping(value)

    def next_deadline(self) -> float:
        """When `handle_timer` has something to do."""
        keepalive = self._keepalive.next_deadline()
        return min(keepalive, next(iter(self._discarding.values()), keepalive))

    def handle_timer(self, now: float) -> None:
        """Pings a silent peer, resets what nobody reads. Raises `ConnectionLost` when no pong came."""
        for stream_id, deadline in list(self._discarding.items()):
            if deadline > now:
                break
            self.reset(stream_id)
        value = self._keepalive.handle_timer(now, ping_waits=self._outbox.ping_waits)
        if value is not None:
            self._outbox.add_ping(value)

    # --- shared

    def _writable(self, stream_id: int) -> StreamState:
        stream = self._streams.get(stream_id)
        if stream is None:
            raise LocalProtocolError(f"stream {stream_id} is not open")
        if stream.local_closed:
            raise LocalProtocolError(f"our half of stream {stream_id} is closed")
        return stream

    def _credit(self, stream: StreamState, size: int, now: float) -> None:
        if stream.consume(size):
            rtt = None if stream.discarded else self._keepalive.rtt
            self._outbox.add(FrameType.WINDOW_UPDATE, 0, stream.id, stream.grant(now, rtt, self._budget))
            if not stream.discarded and self._keepalive.wants_rtt(now):
                self.ping(now)

    def _forget(self, stream: StreamState) -> None:
        del self._streams[stream.id]
        self._discarding.pop(stream.id, None)
        if not stream.outbound:
            self._inbound -= 1
        elif not stream.acked:
            self._unacked -= 1
        if self._body_stream is stream:
            self._body_stream = None
        stream.gone = True
        stream.settle(self._budget)
