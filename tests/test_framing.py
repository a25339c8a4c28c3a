import itertools
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import ConnectionLost, MessageTooLarge, RemoteProtocolError
from p2p.framing import DelimitedDecoder, DelimitedReader, encode_delimited, receive_exactly
from tests.byte_streams import open_pipe

LIMIT = 300


def drain(decoder: DelimitedDecoder) -> list[bytes]:
    return list(iter(decoder.next_event, None))


def test_a_message_is_behind_its_length() -> None:
    assert encode_delimited(b"") == b"\x00"
    assert encode_delimited(b"abc") == b"\x03abc"
    assert encode_delimited(bytes(300)) == b"\xac\x02" + bytes(300)


@given(
    st.lists(st.binary(max_size=LIMIT), max_size=6),
    st.lists(st.integers(min_value=1, max_value=200), min_size=1, max_size=6),
)
def test_messages_come_out_the_same_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(encode_delimited, messages))
    decoder, found = DelimitedDecoder(LIMIT), []
    for cut in itertools.cycle(cuts):
        decoder.receive_data(memoryview(data)[:cut])
        found += drain(decoder)
        data = data[cut:]
        if not data:
            break
    assert found == messages
    assert not decoder.mid_message


@pytest.mark.parametrize("announced", ["ad02", "80808080808080807f"])
def test_a_message_over_the_limit_is_refused_at_its_length(announced: str) -> None:
    decoder = DelimitedDecoder(LIMIT)
    decoder.receive_data(bytes.fromhex(announced))
    with pytest.raises(MessageTooLarge) as caught:
        decoder.next_event()
    assert caught.value.limit == LIMIT
    assert caught.value.size > LIMIT


def test_the_largest_message_is_taken() -> None:
    decoder = DelimitedDecoder(LIMIT)
    decoder.receive_data(encode_delimited(bytes(LIMIT)))
    assert drain(decoder) == [bytes(LIMIT)]


@pytest.mark.parametrize("length", ["8000", "ff" * 9])
def test_good_messages_in_front_of_a_malformed_length_come_out_first(length: str) -> None:
    decoder = DelimitedDecoder(LIMIT)
    decoder.receive_data(b"\x01a\x01b" + bytes.fromhex(length))
    assert decoder.next_event() == b"a"
    assert decoder.next_event() == b"b"
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            decoder.next_event()


def test_an_unfinished_message_shows() -> None:
    decoder = DelimitedDecoder(LIMIT)
    assert not decoder.mid_message
    for byte in b"\xac\x02" + bytes(299):
        decoder.receive_data(bytes([byte]))
        assert decoder.next_event() is None
        assert decoder.mid_message
    decoder.receive_data(b"\x00")
    assert drain(decoder) == [bytes(300)]
    assert not decoder.mid_message


@given(st.binary(max_size=60))
def test_random_bytes_are_messages_or_a_typed_error(data: bytes) -> None:
    decoder = DelimitedDecoder(20)
    decoder.receive_data(data)
    with suppress(RemoteProtocolError):
        assert all(len(message) <= 20 for message in drain(decoder))


async def test_a_reader_returns_messages_then_none(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        await near.send_all(b"\x03abc\x00\x01")
        reader = DelimitedReader(far, LIMIT)
        assert await reader.receive() == b"abc"
        assert await reader.receive() == b""
        await near.send_all(b"x")
        await near.send_eof()
        assert await reader.receive() == b"x"
        assert await reader.receive() is None


async def test_the_end_within_a_message_is_a_lost_connection(autojump_clock: trio.testing.MockClock) -> None:
    for cut in range(1, 4):
        async with open_pipe() as (near, far):
            await near.send_all(b"\x01a" + b"\x03abc"[:cut])
            await near.send_eof()
            reader = DelimitedReader(far, LIMIT)
            assert await reader.receive() == b"a"
            with pytest.raises(ConnectionLost, match="within a message"):
                await reader.receive()


async def test_a_reader_refuses_what_is_too_large(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        await near.send_all(b"\x01a\xad\x02")
        reader = DelimitedReader(far, LIMIT)
        assert await reader.receive() == b"a"
        with pytest.raises(MessageTooLarge):
            await reader.receive()


async def test_exactly_so_many_bytes_are_read(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:

        async def send() -> None:
            for piece in (b"ab", b"c", b"defgh"):
                await near.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()

        nursery.start_soon(send)
        assert await receive_exactly(far, 5) == b"abcde"
        assert await far.receive_some() == b"fgh"
        assert await receive_exactly(far, 0) == b""


async def test_an_early_end_is_a_lost_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        await near.send_all(b"abc")
        await near.send_eof()
        with pytest.raises(ConnectionLost, match="3 of 5"):
            await receive_exactly(far, 5)
