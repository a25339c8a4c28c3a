import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import RemoteProtocolError
from p2p.noise.wire import MAX_STREAM_MUXERS, HandshakePayload, decode_payload, encode_payload


def test_a_payload_is_the_two_fields_and_nothing_else() -> None:
    payload = HandshakePayload(identity_key=b"key", identity_signature=b"sig")
    assert encode_payload(payload) == b"\x0a\x03key\x12\x03sig"
    assert decode_payload(encode_payload(payload)) == payload


def test_offered_muxers_travel_in_the_extensions() -> None:
    payload = HandshakePayload(
        identity_key=b"key", identity_signature=b"sig", stream_muxers=("/yamux/1.0.0",)
    )
    assert encode_payload(payload) == b"\x0a\x03key\x12\x03sig\x22\x0e\x12\x0c/yamux/1.0.0"
    assert decode_payload(encode_payload(payload)) == payload


def test_unknown_fields_and_the_retired_data_field_are_skipped() -> None:
    encoded = b"\x1a\x04data" + b"\x0a\x03key\x12\x03sig" + b"\x7a\x03new" + b"\x22\x05\x0a\x03abc"
    assert decode_payload(encoded) == HandshakePayload(identity_key=b"key", identity_signature=b"sig")


@pytest.mark.parametrize("count", [MAX_STREAM_MUXERS, MAX_STREAM_MUXERS + 1])
def test_a_list_of_too_many_muxers_counts_as_none(count: int) -> None:
    encoded = encode_payload(
        HandshakePayload(identity_key=b"", identity_signature=b"", stream_muxers=("/m",) * count)
    )
    expected = ("/m",) * count if count <= MAX_STREAM_MUXERS else ()
    assert decode_payload(encoded).stream_muxers == expected


@pytest.mark.parametrize(
    "encoded", [b"\x0a", b"\x0a\x05key", b"\xff" * 12, b"\x22\x03\x12\x01\xff", b"\x22\x02\x12\x05"]
)
def test_a_malformed_payload_is_a_remote_error(encoded: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_payload(encoded)


@given(st.binary(max_size=200))
def test_random_payloads_decode_or_fail_with_a_typed_error(encoded: bytes) -> None:
    try:
        payload = decode_payload(encoded)
    except RemoteProtocolError:
        return
    assert isinstance(payload, HandshakePayload)
