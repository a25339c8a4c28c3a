from __future__ import annotations

import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import RemoteProtocolError
from sim.record.pubsub_trace import BLOCK, PubsubTrace
from sim.record.wire import MAX_EVENT, decode_events, encode_event


def test_bytes_are_those_of_go_libp2p_pubsub() -> None:
    # worked out by hand from pb/trace.proto: field numbers and wire types
    assert encode_event("deliver_message", b"me", 5, message_id=b"id", topic="t", received_from=b"you") == (
        b"\x16\x08\x03\x12\x02me\x18\x05:\x0c\x0a\x02id\x12\x01t\x1a\x03you"
    )
    assert encode_event("leave", b"me", 5, topic="t") == b"\x0d\x08\x0a\x12\x02me\x18\x05r\x03\x12\x01t"


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 1 << 62), st.text(max_size=8)), max_size=8))
def test_a_stream_of_events_reads_back(events: list[tuple[bytes, int, str]]) -> None:
    data = b"".join(encode_event("graft", peer, at, peer_id=peer, topic=topic) for peer, at, topic in events)
    wanted = [("graft", peer, at, {"peer_id": peer, "topic": topic}) for peer, at, topic in events]
    assert list(decode_events(data)) == wanted


@given(st.binary(max_size=60))
def test_garbage_is_an_error_of_whoever_wrote_it(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        list(decode_events(data))


def test_a_stream_that_ends_early_is_refused() -> None:
    data = encode_event("join", b"me", 5, topic="t")
    for end in range(1, len(data)):
        with pytest.raises(RemoteProtocolError):
            list(decode_events(data[:end]))
    with pytest.raises(RemoteProtocolError):
        list(decode_events(b"\x02\xff\xff"))
    with pytest.raises(RemoteProtocolError):
        list(decode_events(b"\xff\xff\xff\x7f" + bytes(MAX_EVENT)))


def test_events_are_written_while_the_run_goes_on() -> None:
    out = io.BytesIO()
    trace = PubsubTrace(out, [b"zero"])
    for _ in range(4000):
        trace.join(1.0, 0, "topic")
    assert len(out.getvalue()) >= BLOCK
    trace.flush()
    assert len(list(decode_events(out.getvalue()))) == 4000
