import pytest

from p2p.errors import MessageTooLarge, RemoteProtocolError
from p2p.yamux.wire import (
    ACK,
    FIN,
    HEADER_SIZE,
    MAX_BODY_RECEIVED,
    MAX_BODY_SENT,
    SYN,
    FrameType,
    decode_header,
    encode_header,
    set_length,
)


def test_a_header_is_twelve_bytes_in_network_order():
    header = encode_header(FrameType.WINDOW_UPDATE, SYN | FIN, 0x01020304, 0x0A0B0C0D)
    assert header == bytes.fromhex("00 01 0005 01020304 0a0b0c0d")
    assert decode_header(header) == (FrameType.WINDOW_UPDATE, SYN | FIN, 0x01020304, 0x0A0B0C0D)


def test_a_header_is_decoded_where_it_lies():
    header = encode_header(FrameType.PING, ACK, 0, 7)
    assert decode_header(b"xx" + header, 2) == (FrameType.PING, ACK, 0, 7)


def test_a_full_frame_fills_a_noise_message():
    assert HEADER_SIZE + MAX_BODY_SENT == 65519


def test_the_length_of_a_waiting_frame_can_be_rewritten():
    buffer = bytearray(b"xx" + encode_header(FrameType.DATA, 0, 5, 1))
    set_length(buffer, 2, 70_000)
    assert decode_header(buffer, 2) == (FrameType.DATA, 0, 5, 70_000)


def test_another_version_is_refused():
    with pytest.raises(RemoteProtocolError, match="version 1"):
        decode_header(b"\x01" + bytes(11))


def test_an_unknown_type_is_refused():
    with pytest.raises(RemoteProtocolError, match="type 4"):
        decode_header(b"\x00\x04" + bytes(10))


def test_a_body_over_the_cap_is_refused():
    decode_header(encode_header(FrameType.DATA, 0, 1, MAX_BODY_RECEIVED))
    with pytest.raises(MessageTooLarge) as caught:
        decode_header(encode_header(FrameType.DATA, 0, 1, MAX_BODY_RECEIVED + 1))
    assert (caught.value.size, caught.value.limit) == (MAX_BODY_RECEIVED + 1, MAX_BODY_RECEIVED)


def test_lengths_that_are_no_body_may_be_anything():
    for kind in (FrameType.WINDOW_UPDATE, FrameType.PING, FrameType.GO_AWAY):
        assert decode_header(encode_header(kind, 0, 0, 0xFFFFFFFF))[3] == 0xFFFFFFFF
