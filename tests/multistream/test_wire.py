import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError
from p2p.multistream.wire import HEADER, MAX_LINE, MULTISTREAM, NOT_AVAILABLE, LineDecoder, encode_line


def decoder(after_header: bytes = b"") -> LineDecoder:
    lines = LineDecoder()
    lines.receive_data(HEADER + after_header)
    return lines


def test_lines_have_the_bytes_of_the_specification() -> None:
    assert encode_line(NOT_AVAILABLE).hex() == "036e610a"
    assert encode_line(MULTISTREAM).hex() == "132f6d756c746973747265616d2f312e302e300a"
    assert encode_line(MULTISTREAM) == HEADER
    assert encode_line("x" * 200)[:2] == b"\xc9\x01"


@pytest.mark.parametrize("text", ["x" * MAX_LINE, "é" * 512, "two\nlines", "end\n"])
def test_what_cannot_be_a_line_is_our_own_error(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_line(text)


@pytest.mark.parametrize("text", ["", "/a", "x" * 126, "x" * 127, "x" * 128, "x" * (MAX_LINE - 1), "/ü/☃"])
def test_a_line_comes_out_as_it_went_in(text: str) -> None:
    lines = decoder(encode_line(text) + b"behind")
    assert lines.next_line() == text.encode()
    assert lines.surplus == b"behind"


@pytest.mark.parametrize("at", range(len(HEADER)))
def test_another_header_is_refused_at_its_first_wrong_byte(at: int) -> None:
    lines = LineDecoder()
    lines.receive_data(HEADER[:at])
    assert lines.next_line() is None
    lines.receive_data(bytes([HEADER[at] ^ 1]))
    with pytest.raises(RemoteProtocolError, match="multistream-select"):
        lines.next_line()


@pytest.mark.parametrize(
    "line",
    [b"\x00", b"\x03nax", b"\x81\x00", b"\xff" * 9],
    ids=["empty", "no newline", "varint not minimal", "varint too long"],
)
def test_a_malformed_line_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decoder(line).next_line()


def test_a_line_over_the_limit_is_refused_at_its_length() -> None:
    assert decoder(b"\x80\x08").next_line() is None
    with pytest.raises(MessageTooLarge):
        decoder(b"\x81\x08").next_line()


@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=200), max_size=5))
def test_reading_only_what_is_wanted_stops_behind_the_last_line(texts: list[str]) -> None:
    stream = HEADER + b"".join(map(encode_line, texts)) + b"application data"
    lines, at = LineDecoder(), 0
    found: list[str] = []
    while len(found) < len(texts):
        if (line := lines.next_line()) is not None:
            found.append(line.decode())
            continue
        wanted = lines.wanted
        assert wanted >= 1
        lines.receive_data(stream[at : at + wanted])
        at += wanted
    assert found == texts
    assert lines.surplus == b""


@given(st.binary(max_size=80), st.booleans())
def test_random_bytes_are_lines_or_a_typed_error(data: bytes, with_header: bool) -> None:
    lines = LineDecoder()
    lines.receive_data(HEADER + data if with_header else data)
    try:
        while (line := lines.next_line()) is not None:
            assert len(line) < MAX_LINE
        assert lines.wanted >= 1
    except RemoteProtocolError:
        pass


def test_no_more_is_wanted_than_what_must_still_come() -> None:
    lines = LineDecoder()
    for have in range(len(HEADER)):
        assert lines.wanted == len(HEADER) - have
        lines.receive_data(HEADER[have : have + 1])
    assert lines.next_line() is None
    for wanted, byte in zip((1, 3, 2, 1), b"\x03na\n", strict=True):
        assert lines.wanted == wanted
        lines.receive_data(bytes([byte]))
    assert lines.next_line() == b"na"
