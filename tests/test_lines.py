from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2p.lines import LineSplitter


def test_a_line_over_the_limit_is_dropped_whole():
    splitter = LineSplitter(3)
    assert splitter.receive_data(b"abc\nabcd") == [b"abc"]
    assert splitter.receive_data(b"efghij\nx\n") == [b"x"]
    assert splitter.dropped == 1
    assert splitter.receive_data(b"long one") == []
    assert splitter.finish() == []
    assert splitter.dropped == 2


def test_the_last_line_needs_no_newline():
    splitter = LineSplitter(3)
    assert splitter.receive_data(b"a\nb") == [b"a"]
    assert splitter.finish() == [b"b"]
    assert splitter.finish() == []


@given(st.lists(st.binary(max_size=20)), st.integers(0, 30))
def test_splitting_does_not_depend_on_how_the_bytes_come(pieces, limit):
    whole = b"".join(pieces)
    splitter = LineSplitter(limit)
    lines = [line for piece in pieces for line in splitter.receive_data(piece)] + splitter.finish()
    expected = whole.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert lines == [line for line in expected if len(line) <= limit]
    assert splitter.dropped == len(expected) - len(lines)
