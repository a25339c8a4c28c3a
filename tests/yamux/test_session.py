"""One session against hand-written frames: every rule, and every attack that broke another implementation."""

from __future__ import annotations

import pytest

from p2p.errors import ConnectionLost, LocalProtocolError, MessageTooLarge, RemoteProtocolError
from p2p.yamux.events import (
    DataReceived,
    GoAwayReceived,
    PongReceived,
    StreamAcked,
    StreamClosed,
    StreamReset,
    WindowOpened,
)
from p2p.yamux.outbox import MAX_QUEUED_PONGS, MAX_QUEUED_REPLIES
from p2p.yamux.session import DISCARD_TIMEOUT, MAX_UNACKED_STREAMS, Session
from p2p.yamux.wire import (
    ACK,
    FIN,
    INITIAL_WINDOW,
    MAX_BODY_SENT,
    MAX_STREAM_ID,
    MAX_WINDOW,
    RST,
    SYN,
    GoAwayCode,
    StreamErrorCode,
    encode_header,
)
from tests.yamux.frames import (
    DATA,
    GO_AWAY,
    PING,
    WINDOW_UPDATE,
    Frame,
    data_to_send,
    encode,
    happened,
    opened,
    sent,
)

GO_AWAY_PROTOCOL_ERROR = Frame(GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR)


def dialer() -> Session:
    return Session(True, now=0.0)


def listener(**limits: int) -> Session:
    return Session(False, now=0.0, **limits)


def with_outbound() -> tuple[Session, int]:
    """A dialer's session with one acked stream, and nothing waiting."""
    session = dialer()
    stream_id = session.open_stream(0.0).id
    session.receive_data(encode(WINDOW_UPDATE, ACK, stream_id), 0.0)
    happened(session)
    sent(session)
    return session, stream_id


def with_inbound(stream_id: int = 1) -> Session:
    """A listener's session with one stream of the peer, and nothing waiting."""
    session = listener()
    session.receive_data(encode(WINDOW_UPDATE, SYN, stream_id), 0.0)
    happened(session)
    sent(session)
    return session


def breaks_the_rules(session: Session, data: bytes, match: str | None = None) -> None:
    with pytest.raises(RemoteProtocolError, match=match):
        session.receive_data(data, 0.0)
    assert sent(session)[-1] == GO_AWAY_PROTOCOL_ERROR


# --- opening


def test_the_dialer_opens_odd_streams_and_the_listener_even_ones():
    one, other = dialer(), listener()
    assert [one.open_stream(0.0).id for _ in range(3)] == [1, 3, 5]
    assert [other.open_stream(0.0).id for _ in range(3)] == [2, 4, 6]
    assert sent(one) == [Frame(WINDOW_UPDATE, SYN, i, 0) for i in (1, 3, 5)]


def test_data_may_follow_a_syn_at_once():
    session = dialer()
    stream_id = session.open_stream(0.0).id
    session.send_data(stream_id, b"hello")
    assert sent(session) == [Frame(WINDOW_UPDATE, SYN, 1, 0), Frame(DATA, 0, 1, 5, b"hello")]


def test_an_inbound_stream_is_acked_at_once_even_if_its_handler_never_writes():
    session = listener()
    session.receive_data(encode(WINDOW_UPDATE, SYN, 1), 0.0)
    assert happened(session) == [opened(1)]
    assert sent(session) == [Frame(WINDOW_UPDATE, ACK, 1, 0)]


def test_a_syn_may_carry_data_and_fin():
    session = listener()
    session.receive_data(encode(DATA, SYN | FIN, 1, body=b"all"), 0.0)
    assert happened(session) == [
        opened(1),
        DataReceived(stream_id=1, data=b"all"),
        StreamClosed(stream_id=1),
    ]


def test_a_window_update_never_has_a_body_whatever_its_flags():
    session = listener()
    session.receive_data(encode(WINDOW_UPDATE, SYN, 1, 4) + encode(DATA, 0, 1, body=b"x"), 0.0)
    assert happened(session) == [
        opened(1),
        WindowOpened(stream_id=1),
        DataReceived(stream_id=1, data=b"x"),
    ]


def test_a_syn_of_the_wrong_parity_breaks_the_rules():
    breaks_the_rules(listener(), encode(WINDOW_UPDATE, SYN, 2), "not the peer's to open")
    breaks_the_rules(dialer(), encode(WINDOW_UPDATE, SYN, 1), "not the peer's to open")


def test_a_syn_for_the_session_id_breaks_the_rules():
    breaks_the_rules(dialer(), encode(WINDOW_UPDATE, SYN, 0))
    breaks_the_rules(listener(), encode(WINDOW_UPDATE, SYN, 0))


def test_a_duplicate_syn_breaks_the_rules():
    breaks_the_rules(with_inbound(1), encode(WINDOW_UPDATE, SYN, 1), "opened twice")


def test_syns_may_come_out_of_order():
    session = with_inbound(5)
    session.receive_data(encode(WINDOW_UPDATE, SYN, 3), 0.0)
    assert happened(session) == [opened(3)]


def test_ids_are_never_reused_and_end_with_32_bits():
    session = dialer()
    session.reset(session.open_stream(0.0).id)
    assert session.open_stream(0.0).id == 3
    session._next_id = MAX_STREAM_ID
    assert session.open_stream(0.0).id == MAX_STREAM_ID
    with pytest.raises(LocalProtocolError, match="used up"):
        session.open_stream(0.0)


def test_at_most_256_outbound_streams_wait_for_an_ack():
    session = dialer()
    ids = [session.open_stream(0.0).id for _ in range(MAX_UNACKED_STREAMS)]
    assert session.backlog_full
    with pytest.raises(LocalProtocolError, match="ACK"):
        session.open_stream(0.0)
    session.receive_data(encode(WINDOW_UPDATE, ACK, ids[7]) * 2, 0.0)  # a second ACK changes nothing
    assert happened(session) == [StreamAcked(stream_id=ids[7])]
    assert not session.backlog_full
    session.open_stream(0.0)
    assert session.backlog_full


@pytest.mark.parametrize("kind", [DATA, WINDOW_UPDATE])
def test_an_ack_may_ride_on_any_frame(kind):
    session = dialer()
    stream_id = session.open_stream(0.0).id
    session.receive_data(encode(kind, ACK | FIN, stream_id), 0.0)
    assert happened(session) == [StreamAcked(stream_id=stream_id), StreamClosed(stream_id=stream_id)]


def test_a_reset_stream_leaves_the_backlog():
    session = dialer()
    ids = [session.open_stream(0.0).id for _ in range(MAX_UNACKED_STREAMS)]
    session.reset(ids[0])
    session.receive_data(encode(WINDOW_UPDATE, RST, ids[1]), 0.0)
    session.open_stream(0.0)
    assert not session.backlog_full


def test_inbound_streams_over_the_cap_are_reset():
    session = listener(max_inbound_streams=2)
    for stream_id in (1, 3, 5):
        session.receive_data(encode(DATA, SYN, stream_id, body=b"x"), 0.0)
    assert session.num_streams == 2
    assert sent(session)[-1] == Frame(WINDOW_UPDATE, RST, 5, StreamErrorCode.RESOURCE_LIMIT)
    assert len(happened(session)) == 4
    session.reset(1)
    session.receive_data(encode(WINDOW_UPDATE, SYN, 7), 0.0)
    assert happened(session) == [opened(7)]


def test_our_own_streams_do_not_count_for_the_inbound_cap():
    session = listener(max_inbound_streams=1)
    session.open_stream(0.0)
    session.receive_data(encode(WINDOW_UPDATE, SYN, 1), 0.0)
    assert happened(session) == [opened(1)]


def test_answers_to_a_peer_that_reads_none_are_bounded():
    """CVE-2024-32984: control replies pile up for a slow reader."""
    session = listener(max_inbound_streams=1)
    syns = b"".join(encode(WINDOW_UPDATE, SYN, 1 + 2 * i) for i in range(MAX_QUEUED_REPLIES))
    session.receive_data(syns, 0.0)
    with pytest.raises(RemoteProtocolError, match="answers wait"):
        session.receive_data(encode(WINDOW_UPDATE, SYN, 0x10001), 0.0)
    assert len(sent(session)) == MAX_QUEUED_REPLIES + 1


def test_answers_that_were_sent_do_not_count():
    session = listener(max_inbound_streams=1)
    for _ in range(3):
        for i in range(MAX_QUEUED_REPLIES):
            session.receive_data(
                encode(WINDOW_UPDATE, SYN, 3 + 2 * i) + encode(WINDOW_UPDATE, RST, 3 + 2 * i), 0
            )
        assert len(sent(session)) == MAX_QUEUED_REPLIES


# --- windows


def test_a_write_is_cut_into_frames_that_fill_a_noise_message():
    session, stream_id = with_outbound()
    assert session.send_data(stream_id, bytes(150_000)) == 150_000
    assert [frame.length for frame in sent(session)] == [
        MAX_BODY_SENT,
        MAX_BODY_SENT,
        150_000 - 2 * MAX_BODY_SENT,
    ]


def test_small_writes_that_wait_share_a_frame():
    session, stream_id = with_outbound()
    for _ in range(100):
        session.send_data(stream_id, b"0123456789")
    [frame] = sent(session)
    assert frame.body == b"0123456789" * 100
    session.send_data(stream_id, b"later")
    assert sent(session) == [Frame(DATA, 0, stream_id, 5, b"later")]


def test_a_shared_frame_is_filled_and_no_more():
    session, stream_id = with_outbound()
    for _ in range(3):
        session.send_data(stream_id, bytes(40_000))
    assert [frame.length for frame in sent(session)] == [MAX_BODY_SENT, 120_000 - MAX_BODY_SENT]


def test_writes_of_two_streams_keep_their_frames_apart():
    session, one = with_outbound()
    two = session.open_stream(0.0).id
    for stream_id, data in ((one, b"a"), (two, b"b"), (one, b"c")):
        session.send_data(stream_id, data)
    assert [(f.stream_id, f.body) for f in sent(session)[1:]] == [(one, b"a"), (two, b"b"), (one, b"c")]


def test_a_frame_between_two_writes_keeps_them_apart():
    session, stream_id = with_outbound()
    session.send_data(stream_id, b"a")
    session.open_stream(0.0)
    session.send_data(stream_id, b"b")
    assert [frame.body for frame in sent(session)] == [b"a", b"", b"b"]


def test_a_sender_stops_at_the_end_of_the_window():
    session, stream_id = with_outbound()
    assert session.send_data(stream_id, bytes(300_000)) == INITIAL_WINDOW
    assert session.send_window(stream_id) == 0
    assert session.send_data(stream_id, b"x") == 0
    assert sum(frame.length for frame in sent(session)) == INITIAL_WINDOW


def test_window_deltas_add_up_and_are_not_absolute():
    session, stream_id = with_outbound()
    session.send_data(stream_id, bytes(100))
    session.receive_data(encode(WINDOW_UPDATE, 0, stream_id, 1000), 0.0)
    assert happened(session) == [WindowOpened(stream_id=stream_id)]
    assert session.send_window(stream_id) == INITIAL_WINDOW - 100 + 1000


def test_a_window_may_be_granted_with_the_ack_or_the_syn():
    session = dialer()
    stream_id = session.open_stream(0.0).id
    session.receive_data(encode(WINDOW_UPDATE, ACK, stream_id, 5), 0.0)
    session.receive_data(encode(WINDOW_UPDATE, SYN, 2, 7), 0.0)
    assert session.send_window(stream_id) == INITIAL_WINDOW + 5
    assert session.send_window(2) == INITIAL_WINDOW + 7


def test_a_window_that_overflows_32_bits_breaks_the_rules():
    """CVE-2026-31814."""
    session, stream_id = with_outbound()
    session.receive_data(encode(WINDOW_UPDATE, 0, stream_id, MAX_WINDOW - INITIAL_WINDOW), 0.0)
    assert session.send_window(stream_id) == MAX_WINDOW
    breaks_the_rules(session, encode(WINDOW_UPDATE, 0, stream_id, 1), "overflows")
    breaks_the_rules(listener(), encode(WINDOW_UPDATE, SYN, 1, MAX_WINDOW), "overflows")


def test_a_syn_with_data_over_the_window_is_refused_before_there_is_a_stream():
    """CVE-2026-32314."""
    session = listener()
    with pytest.raises(MessageTooLarge):
        session.receive_data(encode_header(DATA, SYN, 1, INITIAL_WINDOW + 1), 0.0)
    assert session.num_streams == 0
    assert happened(session) == []
    assert sent(session) == [GO_AWAY_PROTOCOL_ERROR]


def test_an_oversized_frame_is_refused_at_its_header():
    """GHSA-hmj8-5xmh-5573, also on streams that do not exist."""
    for stream_id in (1, 99):
        session = with_inbound(1)
        with pytest.raises(MessageTooLarge):
            session.receive_data(encode_header(DATA, 0, stream_id, 0xFFFFFFFF), 0.0)


def test_a_peer_over_its_window_breaks_the_rules():
    session = with_inbound(1)
    session.receive_data(encode(DATA, 0, 1, body=bytes(INITIAL_WINDOW)), 0.0)
    breaks_the_rules(session, encode(DATA, 0, 1, body=b"x"), "overrun")


def test_a_frame_over_the_window_is_refused_before_its_body_comes():
    session = with_inbound(1)
    session.receive_data(encode(DATA, 0, 1, body=bytes(100)), 0.0)
    breaks_the_rules(session, encode_header(DATA, 0, 1, INITIAL_WINDOW - 99), "overrun")


def test_consumed_bytes_are_granted_again_from_half_a_window_on():
    session = with_inbound(1)
    session.receive_data(encode(DATA, 0, 1, body=bytes(INITIAL_WINDOW)), 0.0)
    session.consume(session.stream(1), INITIAL_WINDOW // 2 - 1, 0.0)
    assert sent(session) == []
    session.consume(session.stream(1), 11, 0.0)
    assert sent(session)[1:] == [Frame(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW // 2 + 10)]
    session.receive_data(encode(DATA, 0, 1, body=bytes(INITIAL_WINDOW // 2 + 10)), 0.0)
    breaks_the_rules(session, encode(DATA, 0, 1, body=b"x"), "overrun")


def test_nothing_is_granted_to_a_peer_that_finished():
    session = with_inbound(1)
    session.receive_data(encode(DATA, FIN, 1, body=bytes(INITIAL_WINDOW)), 0.0)
    session.consume(session.stream(1), INITIAL_WINDOW, 0.0)
    assert sent(session) == []


def test_more_cannot_be_consumed_than_came():
    session = with_inbound(1)
    session.receive_data(encode(DATA, 0, 1, body=b"abc"), 0.0)
    session.consume(session.stream(1), 2, 0.0)
    with pytest.raises(LocalProtocolError, match="consumed"):
        session.consume(session.stream(1), 2, 0.0)


def test_empty_data_and_window_frames_mean_nothing():
    session = with_inbound(1)
    session.receive_data(encode(DATA, 0, 1) + encode(WINDOW_UPDATE, 0, 1), 0.0)
    assert happened(session) == []


# --- closing and resetting


def test_half_close_leaves_the_other_half_open():
    session, stream_id = with_outbound()
    session.close_write(stream_id)
    assert sent(session) == [Frame(WINDOW_UPDATE, FIN, stream_id, 0)]
    session.receive_data(encode(DATA, 0, stream_id, body=b"still"), 0.0)
    assert happened(session) == [DataReceived(stream_id=stream_id, data=b"still")]
    with pytest.raises(LocalProtocolError, match="closed"):
        session.send_data(stream_id, b"x")
    with pytest.raises(LocalProtocolError, match="closed"):
        session.close_write(stream_id)
    session.receive_data(encode(WINDOW_UPDATE, FIN, stream_id), 0.0)
    assert happened(session) == [StreamClosed(stream_id=stream_id)]
    assert session.num_streams == 0


def test_writing_goes_on_after_the_peers_fin():
    session = with_inbound(1)
    session.receive_data(encode(WINDOW_UPDATE, FIN, 1), 0.0)
    assert session.send_data(1, b"answer") == 6
    session.close_write(1)
    assert session.num_streams == 0
    assert sent(session) == [Frame(DATA, 0, 1, 6, b"answer"), Frame(WINDOW_UPDATE, FIN, 1, 0)]


def test_a_fin_on_data_comes_behind_its_body():
    session = with_inbound(1)
    frame = encode(DATA, FIN, 1, body=b"abcdef")
    session.receive_data(frame[:-2], 0.0)
    assert happened(session) == [DataReceived(stream_id=1, data=b"abcd")]
    session.receive_data(frame[-2:], 0.0)
    assert happened(session) == [DataReceived(stream_id=1, data=b"ef"), StreamClosed(stream_id=1)]


def test_a_second_fin_and_data_behind_a_fin_are_dropped():
    session = with_inbound(1)
    session.receive_data(encode(WINDOW_UPDATE, FIN, 1), 0.0)
    happened(session)
    session.receive_data(encode(DATA, FIN, 1, body=b"late") + encode(WINDOW_UPDATE, FIN, 1), 0.0)
    assert happened(session) == []
    assert session.num_streams == 1


def test_a_stream_that_both_sides_finished_is_unknown():
    session = with_inbound(1)
    session.receive_data(encode(DATA, FIN, 1, body=b"last"), 0.0)
    stream = session.stream(1)
    session.close_write(1)
    session.consume(stream, 4, 0.0)  # still being read: no error, nothing to grant
    with pytest.raises(LocalProtocolError, match="not open"):
        session.send_data(1, b"x")
    with pytest.raises(LocalProtocolError, match="not open"):
        session.send_window(1)


def test_our_reset_carries_a_code_and_ends_both_halves():
    session = with_inbound(1)
    session.reset(1, 0x1003)
    session.reset(1)  # gone already
    assert sent(session) == [Frame(WINDOW_UPDATE, RST, 1, 0x1003)]
    assert session.num_streams == 0


def test_data_for_a_stream_that_we_reset_is_dropped():
    session = with_inbound(1)
    session.reset(1)
    sent(session)
    session.receive_data(encode(DATA, 0, 1, body=bytes(70_000)) + encode(PING, SYN, 0, 9), 0.0)
    assert happened(session) == []
    assert sent(session) == [Frame(PING, ACK, 0, 9)]


def test_a_reset_within_a_body_drops_the_rest():
    session = with_inbound(1)
    frame = encode(DATA, FIN, 1, body=b"abcdef")
    session.receive_data(frame[:-2], 0.0)
    session.reset(1)
    session.receive_data(frame[-2:], 0.0)
    assert happened(session) == [DataReceived(stream_id=1, data=b"abcd")]
    session.receive_data(encode(WINDOW_UPDATE, SYN, 3), 0.0)
    assert happened(session) == [opened(3)]


def test_the_length_of_a_reset_is_an_error_code_and_no_window():
    session, stream_id = with_outbound()
    session.receive_data(encode(WINDOW_UPDATE, RST, stream_id, 0x1002), 0.0)
    assert happened(session) == [StreamReset(stream_id=stream_id, code=0x1002)]
    full, stream_id = with_outbound()
    full.receive_data(encode(WINDOW_UPDATE, RST, stream_id, 0xFFFFFFFF), 0.0)
    assert happened(full) == [StreamReset(stream_id=stream_id, code=0xFFFFFFFF)]


def test_a_reset_on_a_data_frame_drops_its_body():
    session = with_inbound(1)
    session.receive_data(encode(DATA, RST, 1, body=b"junk") + encode(WINDOW_UPDATE, SYN, 3), 0.0)
    assert happened(session) == [StreamReset(stream_id=1, code=0), opened(3)]


def test_frames_for_unknown_streams_are_consumed_and_never_answered():
    session = listener()
    for flags in (0, ACK, FIN, RST):
        session.receive_data(
            encode(DATA, flags, 7, body=b"crossed") + encode(WINDOW_UPDATE, flags, 8, 5), 0.0
        )
    session.receive_data(encode(DATA, 0, 0, body=b"on the session id"), 0.0)
    assert happened(session) == []
    assert sent(session) == []
    session.receive_data(encode(WINDOW_UPDATE, SYN, 1), 0.0)
    assert happened(session) == [opened(1)]


# --- discarding


def test_a_discarded_stream_is_read_into_nothing_with_credit_until_its_fin():
    session = with_inbound(1)
    session.receive_data(encode(DATA, 0, 1, body=bytes(INITIAL_WINDOW)), 0.0)
    happened(session)
    session.close_write(1)
    session.discard(session.stream(1), now=5.0)
    session.discard(session.stream(1), now=9.0)  # the first deadline stays
    assert sent(session) == [Frame(WINDOW_UPDATE, FIN, 1, 0), Frame(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW)]
    assert session.next_deadline() == 5.0 + DISCARD_TIMEOUT
    session.receive_data(encode(DATA, FIN, 1, body=bytes(INITIAL_WINDOW)), 6.0)
    assert happened(session) == []
    assert session.num_streams == 0
    assert session.next_deadline() > 5.0 + DISCARD_TIMEOUT


def test_a_discarded_stream_without_a_fin_is_reset_in_time():
    session = with_inbound(1)
    session.receive_data(encode(WINDOW_UPDATE, SYN, 3), 0.0)
    session.discard(session.stream(1), now=5.0)
    session.discard(session.stream(3), now=6.0)
    sent(session)
    session.handle_timer(5.0 + DISCARD_TIMEOUT)
    assert sent(session) == [Frame(WINDOW_UPDATE, RST, 1, 0)]
    assert session.next_deadline() == 6.0 + DISCARD_TIMEOUT
    session.handle_timer(6.0 + DISCARD_TIMEOUT)
    assert session.num_streams == 0


def test_discarding_within_a_body_grants_no_byte_twice():
    session = with_inbound(1)
    frame = encode(DATA, 0, 1, body=bytes(INITIAL_WINDOW))
    session.receive_data(frame[: INITIAL_WINDOW // 2 + 12], 0.0)
    session.discard(session.stream(1), now=0.0)
    session.receive_data(frame[INITIAL_WINDOW // 2 + 12 :], 0.0)
    assert sum(frame.length for frame in sent(session)) == INITIAL_WINDOW


def test_a_discarded_stream_ends_without_an_event():
    session = with_inbound(1)
    stream = session.stream(1)
    session.discard(stream, now=0.0)
    session.receive_data(encode(WINDOW_UPDATE, RST, 1), 0.0)
    session.discard(stream, now=0.0)
    assert happened(session) == []
    assert session.num_streams == 0


# --- ping, keepalive, go away


def test_a_ping_is_answered_ahead_of_queued_data():
    session, stream_id = with_outbound()
    session.send_data(stream_id, b"queued")
    session.receive_data(encode(PING, SYN, 0, 0xCAFE), 0.0)
    assert sent(session) == [Frame(PING, ACK, 0, 0xCAFE), Frame(DATA, 0, stream_id, 6, b"queued")]


def test_queued_pongs_are_capped():
    session = listener()
    pings = b"".join(encode(PING, SYN, 0, i) for i in range(1000))
    session.receive_data(pings, 0.0)
    assert sent(session) == [Frame(PING, ACK, 0, i) for i in range(MAX_QUEUED_PONGS)]
    session.receive_data(pings, 0.0)
    assert len(sent(session)) == MAX_QUEUED_PONGS


def test_a_ping_measures_the_round_trip():
    session = dialer()
    session.ping(1.0)
    session.ping(1.5)  # one at a time
    [ping] = sent(session)
    assert (ping.kind, ping.flags, ping.stream_id) == (PING, SYN, 0)
    session.receive_data(encode(PING, ACK, 0, ping.length), 3.0)
    assert happened(session) == [PongReceived(value=ping.length, rtt=2.0)]


def test_an_unsolicited_pong_is_ignored_and_none_is_ever_sent():
    session = dialer()
    session.receive_data(encode(PING, ACK, 0, 1), 0.0)
    session.ping(0.0)
    [ping] = sent(session)
    session.receive_data(encode(PING, ACK, 0, ping.length + 1), 0.0)
    assert happened(session) == []
    assert sent(session) == []


@pytest.mark.parametrize("flags", [0, SYN | ACK, FIN, RST])
def test_a_ping_with_other_flags_breaks_the_rules(flags):
    breaks_the_rules(dialer(), encode(PING, flags, 0, 1), "ping")


def test_a_silent_peer_is_pinged_after_30_s_and_given_up_10_s_later():
    session = dialer()
    assert session.next_deadline() == 30.0
    session.handle_timer(30.0)
    assert [frame.kind for frame in sent(session)] == [PING]
    assert session.next_deadline() == 40.0
    with pytest.raises(ConnectionLost):
        session.handle_timer(40.0)


def test_a_peer_that_sends_or_answers_lives_on():
    session = dialer()
    session.receive_data(encode(PING, SYN, 0, 1), 25.0)
    assert session.next_deadline() == 55.0
    session.handle_timer(30.0)
    sent(session)
    session.handle_timer(55.0)
    [ping] = sent(session)
    session.receive_data(encode(PING, ACK, 0, ping.length), 60.0)
    assert session.next_deadline() == 90.0


def test_after_our_go_away_streams_of_the_peer_are_reset_and_ours_not_opened():
    session = with_inbound(1)
    session.go_away()
    session.receive_data(encode(DATA, SYN, 3, body=b"x"), 0.0)
    assert sent(session) == [
        Frame(GO_AWAY, 0, 0, GoAwayCode.NORMAL),
        Frame(WINDOW_UPDATE, RST, 3, StreamErrorCode.SHUTDOWN),
    ]
    with pytest.raises(LocalProtocolError, match="going away"):
        session.open_stream(0.0)
    assert session.send_data(1, b"live ones go on") == 15


@pytest.mark.parametrize("code", [0, 1, 2, 3, 0x1006, 0xFFFFFFFF])
def test_any_go_away_code_is_taken(code):
    session = dialer()
    session.receive_data(encode(GO_AWAY, 0, 0, code), 0.0)
    assert happened(session) == [GoAwayReceived(code=code)]
    with pytest.raises(LocalProtocolError, match="going away"):
        session.open_stream(0.0)


def test_what_comes_after_a_broken_rule_is_ignored():
    session = listener()
    breaks_the_rules(session, b"\xff" * 12)
    session.receive_data(encode(WINDOW_UPDATE, SYN, 1), 0.0)
    assert happened(session) == []
    assert sent(session) == []


def test_events_before_a_broken_rule_are_kept():
    session = listener()
    with pytest.raises(RemoteProtocolError):
        session.receive_data(encode(WINDOW_UPDATE, SYN, 1) + b"\xff" * 12, 0.0)
    assert happened(session) == [opened(1)]


# --- the end


def test_a_session_is_idle_between_frames_with_no_stream():
    session = listener()
    assert session.idle
    session.receive_data(b"\x00", 0.0)
    assert not session.idle
    session.receive_data(encode(DATA, 0, 1, body=b"abc")[1:-1], 0.0)  # an unknown stream's body
    assert not session.idle
    session.receive_data(b"c", 0.0)
    assert session.idle
    session.receive_data(encode(WINDOW_UPDATE, SYN, 1), 0.0)
    assert not session.idle


def test_what_is_queued_is_what_will_be_sent():
    session = dialer()
    assert data_to_send(session) == b""
    assert session.queued == 0
    session.send_data(session.open_stream(0.0).id, bytes(100_000))
    session.ping(0.0)
    session.receive_data(encode(PING, SYN, 0, 1), 0.0)
    assert session.queued == len(data_to_send(session)) > 100_000
    assert session.queued == 0
