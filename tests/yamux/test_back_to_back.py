"""Two sessions that feed each other: whole, byte by byte, and under random cuts and operations."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.errors import RemoteProtocolError
from p2p.yamux import events
from p2p.yamux.flow import StreamState
from p2p.yamux.outbox import MAX_QUEUED_PONGS
from p2p.yamux.session import Session
from p2p.yamux.wire import HEADER_SIZE, INITIAL_WINDOW, FrameType
from tests.yamux.frames import data_to_send, encode, happened, opened

PATTERN = bytes(i * 7 + (i >> 8) & 0xFF for i in range(1 << 16))


def content(stream_id: int, start: int, size: int) -> bytes:
    """What a stream carries at `start`: different for each stream, and nowhere the same twice in a row."""
    start += stream_id * 977
    repeated = PATTERN * (2 + size // len(PATTERN))
    return repeated[start % len(PATTERN) :][:size]


def transcript(session: Session) -> list[object]:
    """The events, neighbouring pieces of one stream's data joined."""
    joined: list[object] = []
    for event in happened(session):
        last = joined[-1] if joined else None
        match (last, event):
            case (events.DataReceived(stream_id=a, data=x), events.DataReceived(stream_id=b, data=y)) if (
                a == b
            ):
                joined[-1] = events.DataReceived(stream_id=a, data=x + y)
            case _:
                joined.append(event)
    return joined


def talk(one: Session, other: Session, step: int) -> None:
    """Carries bytes both ways, `step` at a time, until nobody has any."""
    while one.queued or other.queued:
        for source, sink in ((one, other), (other, one)):
            data = data_to_send(source)
            for at in range(0, len(data), step):
                sink.receive_data(data[at : at + step], 0.0)


@pytest.mark.parametrize("step", [1, 7, 65519, 1 << 20])
def test_two_sessions_agree_however_the_bytes_are_cut(step):
    one, other = Session(True, now=0.0), Session(False, now=0.0)
    first, second, back = one.open_stream(0.0).id, one.open_stream(0.0).id, other.open_stream(0.0).id
    one.send_data(first, content(first, 0, 100_000))
    one.close_write(first)
    one.send_data(second, b"x")
    one.reset(second, 0x1001)
    other.send_data(back, b"from the listener")
    other.ping(0.0)
    talk(one, other, step)
    one.go_away(2)
    talk(one, other, step)
    assert transcript(other) == [
        opened(first),
        opened(second),
        events.DataReceived(stream_id=first, data=content(first, 0, 100_000)),
        events.StreamClosed(stream_id=first),
        events.DataReceived(stream_id=second, data=b"x"),
        events.StreamReset(stream_id=second, code=0x1001),
        events.PongReceived(value=1, rtt=0.0),
        events.StreamAcked(stream_id=back),
        events.GoAwayReceived(code=2),
    ]
    assert transcript(one) == [
        opened(back),
        events.DataReceived(stream_id=back, data=b"from the listener"),
        events.StreamAcked(stream_id=first),
    ]


@dataclass
class Side:
    """One session, its application and the bytes on their way to it."""

    session: Session
    states: dict[int, StreamState] = field(default_factory=dict)
    incoming: bytearray = field(default_factory=bytearray)
    streams: list[int] = field(default_factory=list)
    written: dict[int, int] = field(default_factory=dict)
    unread: dict[int, int] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)
    eof: set[int] = field(default_factory=set)  # the peer's FIN came
    closed: set[int] = field(default_factory=set)  # our FIN went
    dead: set[int] = field(default_factory=set)  # reset or discarded, by either side

    def add(self, stream_id: int, state: StreamState | None = None) -> None:
        self.states[stream_id] = state or self.session.stream(stream_id)
        self.streams.append(stream_id)
        self.written[stream_id] = self.unread[stream_id] = self.read[stream_id] = 0

    def writable(self, stream_id: int) -> bool:
        return stream_id not in self.closed | self.dead

    def take_events(self) -> None:
        while (event := self.session.next_event()) is not None:
            match event:
                case events.StreamOpened(stream_id=stream_id, stream=state):
                    self.add(stream_id, state)
                case events.DataReceived(stream_id=stream_id, data=data):
                    assert stream_id not in self.dead | self.eof
                    at = self.read[stream_id] + self.unread[stream_id]
                    assert data == content(stream_id, at, len(data))
                    self.unread[stream_id] += len(data)
                    assert self.unread[stream_id] <= INITIAL_WINDOW
                case events.StreamClosed(stream_id=stream_id):
                    self.eof.add(stream_id)
                case events.StreamReset(stream_id=stream_id):
                    self.dead.add(stream_id)

    def receive(self, size: int) -> None:
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        self.session.receive_data(data, 0.0)
        self.take_events()

    def consume(self, stream_id: int, size: int) -> None:
        size = min(size, self.unread[stream_id])
        self.session.consume(self.states[stream_id], size, 0.0)
        self.unread[stream_id] -= size
        self.read[stream_id] += size

    def act(self, verb: str, stream_id: int, size: int) -> None:
        match verb:
            case "write" if self.writable(stream_id):
                data = content(stream_id, self.written[stream_id], size)
                self.written[stream_id] += self.session.send_data(stream_id, data)
            case "consume" if stream_id not in self.dead:
                self.consume(stream_id, size)
            case "close" if self.writable(stream_id):
                self.session.close_write(stream_id)
                self.closed.add(stream_id)
            case "reset":
                self.session.reset(stream_id, 5)
                self.dead.add(stream_id)
            case "discard":
                self.session.discard(self.states[stream_id], 0.0)
                self.dead.add(stream_id)


def send(source: Side, sink: Side) -> None:
    sink.incoming += data_to_send(source.session)


# resets and discards end a stream, so they are rarer than the rest
VERBS = [
    *["write"] * 12,
    *["consume"] * 8,
    *["carry"] * 10,
    *["open", "ping"] * 2,
    "close",
    "reset",
    "discard",
]
SIZES = st.sampled_from([1, 3, 12, 100, 5000, 65507, 65520, 131072, 300_000])
STEPS = st.lists(
    st.tuples(st.sampled_from(VERBS), st.booleans(), st.integers(0, 5), SIZES), min_size=20, max_size=120
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_every_byte_arrives_once_in_order_and_no_window_is_overrun(steps):
    sides = [Side(Session(True, now=0.0)), Side(Session(False, now=0.0))]
    for side in sides * 2:
        side.add(side.session.open_stream(0.0).id)
    for verb, which, index, size in steps:
        side, other = sides[which], sides[not which]
        if verb == "open":
            side.add(side.session.open_stream(0.0).id)
        elif verb == "ping":
            side.session.ping(0.0)
        elif verb == "carry":
            send(other, side)
            side.receive(size)
        elif side.streams:
            side.act(verb, side.streams[index % len(side.streams)], size)
    drain(*sides)
    check_end(*sides)


def drain(one: Side, other: Side) -> None:
    """Reads and carries everything that is still on its way."""
    moving = True
    while moving:
        for side in (one, other):
            for stream_id in side.streams:
                if stream_id not in side.dead:
                    side.consume(stream_id, INITIAL_WINDOW)
        send(one, other)
        send(other, one)
        moving = bool(one.incoming or other.incoming)
        for side in (one, other):
            side.receive(len(side.incoming))


def check_end(one: Side, other: Side) -> None:
    for side, peer in ((one, other), (other, one)):
        for stream_id in side.streams:
            if stream_id in side.dead | peer.dead:
                continue
            assert side.read[stream_id] == peer.written[stream_id]
            assert (stream_id in side.eof) == (stream_id in peer.closed)
            if side.writable(stream_id):
                assert side.session.send_window(stream_id) > INITIAL_WINDOW // 2
    assert one.session.num_streams == other.session.num_streams


FRAMES = st.builds(
    encode,
    st.sampled_from(FrameType),
    st.integers(0, 15),
    st.integers(0, 6),
    st.sampled_from([0, 1, 2, 0x1002, INITIAL_WINDOW, 0xFFFFFFFF]),
) | st.builds(
    encode,
    st.just(FrameType.DATA),
    st.integers(0, 15),
    st.integers(0, 6),
    body=st.binary(min_size=1, max_size=30),
)


@given(st.lists(FRAMES | st.binary(max_size=30), max_size=30), st.booleans(), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_the_only_error_is_the_peers_and_cuts_change_nothing(frames, initiator, step):
    data = b"".join(frames)
    whole, cut = Session(initiator, now=0.0), Session(initiator, now=0.0)
    errors = []
    for session, size in ((whole, max(len(data), 1)), (cut, step)):
        try:
            for at in range(0, len(data), size):
                session.receive_data(data[at : at + size], 0.0)
        except RemoteProtocolError as exc:
            errors.append(str(exc))
    assert len(errors) in (0, 2)
    assert len(set(errors)) <= 1
    assert transcript(whole) == transcript(cut)
    assert data_to_send(whole) == data_to_send(cut)


@given(st.lists(st.sampled_from(["syn", "syn+rst", "ping", "data"]), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_what_a_peer_that_reads_nothing_makes_us_queue_is_bounded(kinds):
    session, stream_id = Session(False, now=0.0), 1
    for kind in kinds * 600:
        stream_id += 2
        match kind:
            case "syn":
                data = encode(FrameType.WINDOW_UPDATE, 1, stream_id)
            case "syn+rst":
                data = encode(FrameType.WINDOW_UPDATE, 1 | 8, stream_id)
            case "ping":
                data = encode(FrameType.PING, 1, 0, stream_id)
            case _:
                data = encode(FrameType.DATA, 0, stream_id, body=b"x" * 100)
        try:
            session.receive_data(data, 0.0)
        except RemoteProtocolError:
            break
        happened(session)
    assert session.queued <= (4096 + MAX_QUEUED_PONGS + 1) * HEADER_SIZE
