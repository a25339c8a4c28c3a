import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import MessageTooLarge, RemoteProtocolError
from p2p.tls.record import MAX_RECORD, RecordFraming


def record(size: int, kind: int = 23) -> bytes:
    return bytes([kind, 3, 3]) + size.to_bytes(2, "big") + bytes(size)


@given(st.lists(st.integers(1, 40), max_size=6), st.lists(st.integers(1, 30)))
def test_ends_are_found_whatever_the_pieces(sizes: list[int], pieces: list[int]) -> None:
    data, expected = b"", []
    for size in sizes:
        data += record(size)
        expected.append(len(data))
    framing, found, at = RecordFraming(), [], 0
    for piece in [*pieces, len(data)]:
        found += [at + end for end in framing.ends(memoryview(data[at : at + piece]))]
        at = min(at + piece, len(data))
        assert framing.mid_record == (at not in (0, *expected))
    assert found == expected


@pytest.mark.parametrize("data", [b"GET /", b"\x13/mul", b"\x16\x02\x00\x00\x05", b"\x17\x03\x03\x00\x00"])
def test_what_is_no_record_is_refused_at_its_header(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not a TLS record"):
        RecordFraming().ends(memoryview(data))


def test_an_impossible_length_is_refused_before_it_is_waited_for() -> None:
    assert RecordFraming().ends(memoryview(record(MAX_RECORD))) == [MAX_RECORD + 5]
    with pytest.raises(MessageTooLarge):
        RecordFraming().ends(memoryview(record(MAX_RECORD + 1)[:5]))
