import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p import varint
from p2p.errors import RemoteProtocolError


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (255, "ff01"),
        (300, "ac02"),
        (16384, "808001"),
        ((1 << 63) - 1, "ffffffffffffffff7f"),
    ],
)
def test_values_have_the_bytes_of_the_specification(value: int, encoded: str) -> None:
    assert varint.encode(value).hex() == encoded
    assert varint.decode(bytes.fromhex(encoded)) == (value, len(encoded) // 2)


@given(st.integers(min_value=0, max_value=(1 << 63) - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_a_value_is_found_between_other_bytes(value: int, before: bytes, behind: bytes) -> None:
    encoded = varint.encode(value)
    data = memoryview(before + encoded + behind)
    assert varint.decode(data, len(before)) == (value, len(before) + len(encoded))
    assert all(varint.decode(encoded[:size]) is None for size in range(len(encoded)))


@pytest.mark.parametrize("value", [-1, 1 << 63, 1 << 64])
def test_what_does_not_fit_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        varint.encode(value)


@pytest.mark.parametrize("encoded", ["8000", "ff00", "808000", "80808080808080808001", "ff" * 9, "80" * 9])
def test_long_ways_to_write_a_value_are_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        varint.decode(bytes.fromhex(encoded))


@given(st.binary(max_size=12))
def test_random_bytes_decode_to_what_encodes_the_same(data: bytes) -> None:
    try:
        decoded = varint.decode(data)
    except RemoteProtocolError:
        return
    if decoded is None:
        assert all(byte >= 0x80 for byte in data)
    else:
        assert varint.encode(decoded[0]) == data[: decoded[1]]
