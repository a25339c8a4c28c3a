import sys

from hypothesis import given
from hypothesis import strategies as st

from p2p.yamux.buffer import ReceiveBuffer


def held(buffer: ReceiveBuffer) -> int:
    return sys.getsizeof(buffer._chunks) + sum(sys.getsizeof(chunk) for chunk in buffer._chunks)


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 500, 1023, 1024, 5000, 17_000]), st.none() | st.integers(1, 3000)),
        max_size=40,
    )
)
def test_bytes_leave_in_the_order_in_which_they_came(steps):
    buffer, came, left = ReceiveBuffer(), b"", b""
    for size, limit in steps:
        piece = bytes(len(came) + i & 0xFF for i in range(size))
        buffer.append(piece)
        came += piece
        if limit is not None:
            taken = buffer.take(limit)
            assert 1 <= len(taken) <= limit
            left += taken
    while buffer:
        left += buffer.take()
    assert left == came


def test_a_large_piece_is_handed_over_without_a_copy():
    buffer, piece = ReceiveBuffer(), bytes(2000)
    buffer.append(piece)
    assert buffer.take() is piece
    assert not buffer


def test_small_pieces_are_read_together():
    buffer = ReceiveBuffer()
    for _ in range(100):
        buffer.append(b"four")
    assert buffer.take() == b"four" * 100


def test_merging_stops_before_a_read_copies_much():
    buffer = ReceiveBuffer()
    for _ in range(300):
        buffer.append(bytes(1000))
    assert len(buffer.take()) < 18_000


def test_tiny_pieces_cost_less_than_twice_their_size():
    buffer = ReceiveBuffer()
    for _ in range(128 * 1024):
        buffer.append(b"ab")
    assert held(buffer) < 2 * 256 * 1024


def test_large_and_tiny_pieces_in_turn_cost_less_than_twice_their_size():
    buffer = ReceiveBuffer()
    for _ in range(256):
        buffer.append(bytes(1024))
        buffer.append(b"a")
    assert held(buffer) < 2 * 256 * 1025


def test_a_cleared_buffer_is_empty():
    buffer = ReceiveBuffer()
    buffer.append(b"abc")
    buffer.take(1)
    buffer.clear()
    assert not buffer
    buffer.append(b"xyz")
    assert buffer.take() == b"xyz"
