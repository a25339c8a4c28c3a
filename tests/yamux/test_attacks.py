"""Every way in which a peer broke another yamux, by its name, and the bound that holds here."""

from __future__ import annotations

import tracemalloc

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.errors import ConnectionLost, MessageTooLarge, RemoteProtocolError, StreamReset
from p2p.yamux.driver import MAX_HANDLERS
from p2p.yamux.outbox import MAX_QUEUED_PONGS, MAX_QUEUED_REPLIES
from p2p.yamux.session import MAX_INBOUND_STREAMS, Session
from p2p.yamux.wire import (
    ACK,
    FIN,
    HEADER_SIZE,
    INITIAL_WINDOW,
    MAX_WINDOW,
    RST,
    SYN,
    GoAwayCode,
    StreamErrorCode,
    encode_header,
)
from tests.yamux.connections import echo, open_node, open_nodes, read_all, wait
from tests.yamux.frames import DATA, GO_AWAY, PING, WINDOW_UPDATE, Frame, encode, happened, opened, sent

PROTOCOL_ERROR = Frame(GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR)


def listener() -> Session:
    """A session that has one inbound stream, number 1."""
    session = Session(False, now=0.0)
    session.receive_data(encode(WINDOW_UPDATE, SYN, 1), 0.0)
    happened(session)
    sent(session)
    return session


def is_refused(session: Session, data: bytes, error: type[RemoteProtocolError] = RemoteProtocolError) -> None:
    with pytest.raises(error):
        session.receive_data(data, 0.0)
    assert sent(session)[-1] == PROTOCOL_ERROR
    happened(session)
    session.receive_data(b"whatever comes now", 0.0)  # is not even looked at
    assert happened(session) == sent(session) == []


# --- windows


@pytest.mark.parametrize("delta", [MAX_WINDOW - INITIAL_WINDOW + 1, MAX_WINDOW])
@pytest.mark.parametrize("flags", [0, SYN])
def test_cve_2026_31814_a_window_past_32_bits_ends_the_session(delta, flags):
    session = listener()
    is_refused(session, encode(WINDOW_UPDATE, flags, 3 if flags else 1, delta))


def test_cve_2026_31814_a_window_of_32_bits_makes_us_queue_no_more_than_was_written():
    session = listener()
    session.receive_data(encode(WINDOW_UPDATE, 0, 1, MAX_WINDOW - INITIAL_WINDOW), 0.0)
    assert session.send_data(1, bytes(1000)) == 1000
    assert session.queued == 1000 + HEADER_SIZE


@pytest.mark.parametrize("size", [INITIAL_WINDOW + 1, 1 << 20, 0xFFFFFFFF])
def test_cve_2026_32314_a_syn_with_data_over_the_window_makes_no_stream(size):
    session = listener()
    is_refused(session, encode_header(DATA, SYN, 3, size), MessageTooLarge)
    assert session.num_streams == 1


@pytest.mark.parametrize("stream_id", [1, 3, 99])
def test_ghsa_hmj8_5xmh_5573_an_oversized_frame_is_refused_at_its_header(stream_id):
    session = listener()
    tracemalloc.start()
    try:
        is_refused(session, encode_header(DATA, 0, stream_id, 0xFFFFFFFF), MessageTooLarge)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


def test_more_than_the_window_ends_the_session_however_it_is_cut():
    session = listener()
    for _ in range(INITIAL_WINDOW // 4096):
        session.receive_data(encode(DATA, 0, 1, body=bytes(4096)), 0.0)
    happened(session)
    is_refused(session, encode_header(DATA, 0, 1, 1))


async def test_a_peer_that_fills_every_stream_it_may_open_costs_its_windows(autojump_clock):
    async with open_node(wait) as (node, wire):
        for i in range(MAX_INBOUND_STREAMS + 20):
            await wire.send(encode(DATA, SYN, 1 + 2 * i, body=bytes(1000)))
        assert node.connection.num_streams == MAX_INBOUND_STREAMS
        unread = sum(stream.unread for stream in node.connection._session._streams.values())
        assert unread == MAX_INBOUND_STREAMS * 1000
        refused = [frame for frame in await wire.received() if frame.flags == RST]
        assert [frame.length for frame in refused] == [StreamErrorCode.RESOURCE_LIMIT] * 20


async def test_a_peer_that_grants_no_window_holds_up_its_own_stream_only(autojump_clock):
    async with open_node(echo) as (node, wire):
        await wire.send(encode(WINDOW_UPDATE, SYN, 1), encode(WINDOW_UPDATE, SYN, 3))
        stuck = await node.open_stream()
        with trio.move_on_after(5) as deadline:  # the caller's, and what frees the sender
            await stuck.send_all(bytes(INITIAL_WINDOW + 1))
        assert deadline.cancelled_caught
        await wire.received()
        await wire.send(encode(DATA, 0, 3, body=b"still there?"))
        assert await wire.received() == [Frame(DATA, 0, 3, 12, b"still there?")]
        assert node.connection._session.queued == 0


async def test_empty_window_updates_wake_nobody(autojump_clock):
    session = listener()
    for _ in range(1000):
        session.receive_data(encode(WINDOW_UPDATE, 0, 1, 0), 0.0)
    assert happened(session) == []
    assert session.queued == 0


# --- what we answer by ourselves


def test_cve_2024_32984_answers_to_a_peer_that_reads_none_are_bounded():
    session = listener()
    with pytest.raises(RemoteProtocolError, match="answers wait"):
        for i in range(100_000):
            session.receive_data(
                encode(WINDOW_UPDATE, SYN, 3 + 2 * i) + encode(WINDOW_UPDATE, RST, 3 + 2 * i), 0.0
            )
            happened(session)
    assert session.queued <= (MAX_QUEUED_REPLIES + 1) * HEADER_SIZE


def test_a_ping_flood_to_a_slow_reader_queues_32_pongs():
    session = listener()
    session.receive_data(b"".join(encode(PING, SYN, 0, value) for value in range(50_000)), 0.0)
    assert session.queued == MAX_QUEUED_PONGS * HEADER_SIZE
    assert sent(session) == [Frame(PING, ACK, 0, value) for value in range(MAX_QUEUED_PONGS)]


def test_a_pong_leaves_before_queued_data():
    session = listener()
    session.send_data(1, bytes(200_000))
    session.receive_data(encode(PING, SYN, 0, 7), 0.0)
    assert sent(session)[0] == Frame(PING, ACK, 0, 7)


def test_an_unsolicited_pong_means_nothing():
    session = listener()
    for value in (0, 1, 7):
        session.receive_data(encode(PING, ACK, 0, value), 0.0)
    assert session.rtt is None
    assert happened(session) == sent(session) == []


def test_a_pong_with_the_wrong_value_measures_nothing_and_we_never_send_one():
    session = listener()
    session.ping(0.0)
    [ping] = sent(session)
    session.receive_data(encode(PING, ACK, 0, ping.length + 1), 1.0)
    assert session.rtt is None
    session.receive_data(encode(PING, ACK, 0, ping.length), 2.0)
    assert session.rtt == 2.0
    session.receive_data(encode(PING, ACK, 0, ping.length), 3.0)  # once more
    assert session.rtt == 2.0
    assert sent(session) == []


@pytest.mark.parametrize("flags", [0, SYN | ACK, FIN, RST, SYN | RST, 0x10])
def test_a_ping_with_other_flags_ends_the_session(flags):
    is_refused(listener(), encode(PING, flags, 0, 1))


# --- streams


def test_cve_2022_23492_streams_without_limit_are_reset_over_the_cap():
    session = listener()
    for i in range(1, 1000):
        session.receive_data(encode(WINDOW_UPDATE, SYN, 1 + 2 * i), 0.0)
    assert session.num_streams == MAX_INBOUND_STREAMS
    assert sum(frame.flags == RST for frame in sent(session)) == 1000 - MAX_INBOUND_STREAMS


async def test_rapid_reset_floods_start_no_tasks_and_leave_nothing(autojump_clock):
    started = 0

    async def handler(stream) -> None:
        nonlocal started
        started += 1
        await trio.sleep_forever()

    async with open_node(handler) as (node, wire):
        for batch in range(20):
            ids = [1 + 2 * (batch * 100 + i) for i in range(100)]
            await wire.send(*(encode(WINDOW_UPDATE, SYN | RST, i) for i in ids[:50]))
            await wire.send(
                *(encode(WINDOW_UPDATE, SYN, i) + encode(WINDOW_UPDATE, RST, i) for i in ids[50:])
            )
            await wire.received()
        assert started == 0
        assert node.connection.num_streams == 0
        assert not node.connection._link.streams
        assert not node.connection.closed


async def test_rapid_resets_with_data_in_them_start_no_more_tasks_than_streams_are_allowed(autojump_clock):
    running = 0

    async def handler(stream) -> None:
        nonlocal running
        running += 1
        await trio.sleep_forever()

    async with open_node(handler) as (node, wire):
        for i in range(MAX_HANDLERS + 50):
            stream_id = 1 + 2 * i
            await wire.send(encode(DATA, SYN, stream_id, body=b"x"), encode(WINDOW_UPDATE, RST, stream_id))
            await wire.received()
        assert running == MAX_HANDLERS
        assert node.connection.num_streams == 0


def test_a_duplicate_syn_ends_the_session():
    is_refused(listener(), encode(WINDOW_UPDATE, SYN, 1))
    is_refused(listener(), encode(DATA, SYN, 1, body=b"x"))


@pytest.mark.parametrize("initiator", [True, False])
def test_a_syn_of_our_own_parity_or_of_the_session_ends_the_session(initiator):
    ours = 1 if initiator else 2
    is_refused(Session(initiator, now=0.0), encode(WINDOW_UPDATE, SYN, ours))
    is_refused(Session(initiator, now=0.0), encode(WINDOW_UPDATE, SYN, 0))


def test_frames_for_unknown_streams_are_dropped_without_an_answer():
    session = listener()
    for flags in (0, ACK, FIN, RST, FIN | RST):
        session.receive_data(encode(WINDOW_UPDATE, flags, 77, 5), 0.0)
        session.receive_data(encode(DATA, flags, 78, body=bytes(INITIAL_WINDOW)), 0.0)
    session.receive_data(encode(DATA, 0, 1, body=b"x"), 0.0)
    assert len(happened(session)) == 1
    assert sent(session) == []


def test_the_code_of_a_reset_is_no_window():
    session = listener()
    session.receive_data(encode(WINDOW_UPDATE, RST, 1, MAX_WINDOW), 0.0)
    [event] = happened(session)
    assert event.code == MAX_WINDOW


# --- memory


def test_a_window_of_tiny_frames_costs_less_than_twice_its_size():
    from p2p.yamux.buffer import ReceiveBuffer

    session, buffer = listener(), ReceiveBuffer()
    frame = encode(DATA, 0, 1, body=b"ab")
    tracemalloc.start()
    try:
        for _ in range(INITIAL_WINDOW // 2):
            session.receive_data(frame, 0.0)
            buffer.append(session.next_event().data)
        assert tracemalloc.get_traced_memory()[0] < 2 * INITIAL_WINDOW
    finally:
        tracemalloc.stop()


def test_empty_frames_cost_nothing():
    session = listener()
    session.receive_data((encode(DATA, 0, 1) + encode(WINDOW_UPDATE, 0, 1)) * 1000, 0.0)
    assert happened(session) == sent(session) == []


# --- silence and stalls


async def test_a_half_open_connection_is_found_within_40_s(autojump_clock):
    async with open_node() as (node, wire):
        await trio.sleep(17)
        await wire.send(encode(WINDOW_UPDATE, SYN, 1))  # its last sign of life
        start = trio.current_time()
        await node.ended.wait()
        assert trio.current_time() - start <= 40
        assert isinstance(node.error, ConnectionLost)


async def test_a_half_open_connection_is_found_within_40_s_while_we_wait_for_a_round_trip(autojump_clock):
    async def read(stream) -> None:
        await read_all(stream)

    async with open_node(read) as (node, wire):
        await trio.sleep(12)
        await wire.send(encode(DATA, SYN, 1, body=bytes(INITIAL_WINDOW)))  # makes us ask for the round trip
        assert any(frame.kind == PING for frame in await wire.received())
        start = trio.current_time()
        await node.ended.wait()
        assert trio.current_time() - start <= 40
        assert isinstance(node.error, ConnectionLost)


async def test_a_peer_that_takes_no_bytes_is_left_after_10_s(autojump_clock):
    async with open_node(initiator=True) as (node, _), trio.open_nursery() as nursery:
        node.end.gate = trio.Event()
        stream = await node.open_stream()
        await stream.send_all(b"x")
        start = trio.current_time()

        async def send() -> None:
            with pytest.raises(ConnectionLost):
                while True:
                    await stream.send_all(bytes(100_000))

        nursery.start_soon(send)
        await node.ended.wait()
        assert trio.current_time() - start == pytest.approx(10)


# --- the end


@pytest.mark.parametrize("code", [0, 1, 2, 0x1001, 0x1007, 0xFFFFFFFF])
async def test_a_go_away_with_any_code_ends_the_connection_in_order(autojump_clock, code):
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        await wire.send(encode(GO_AWAY, 0, 0, code), encode(WINDOW_UPDATE, SYN, 2))
        await node.ended.wait()
        assert (node.error is None) == (code == 0)
        with pytest.raises(ConnectionLost):
            await stream.receive_some()


def test_streams_that_come_behind_a_go_away_are_refused_with_shutdown():
    session = listener()
    session.go_away()
    session.receive_data(encode(WINDOW_UPDATE, SYN, 3), 0.0)
    assert sent(session)[-1] == Frame(WINDOW_UPDATE, RST, 3, StreamErrorCode.SHUTDOWN)
    assert opened(3) not in happened(session)


async def test_any_stream_error_code_reaches_the_other_end(autojump_clock):
    codes = [code for code in StreamErrorCode if code]

    async def handler(stream) -> None:
        stream.reset(codes[(stream.id - 1) // 2])

    async with open_nodes(on_other=handler) as (one, _):
        for code in codes:
            stream = await one.open_stream()
            with pytest.raises(StreamReset) as caught:
                await stream.receive_some()
            assert caught.value.code == code
        await wait_all_tasks_blocked()
        assert one.connection.num_streams == 0
