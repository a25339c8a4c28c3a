from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2p.encrypted import BLOCKS_PER_SEND, MAX_ANSWERS, EncryptedStream
from p2p.errors import AuthenticationFailed, ConnectionLost, LocalProtocolError, RemoteProtocolError
from p2p.noise.cipher import Cipher
from p2p.reading import thread_scratch
from p2p.scope import open_scope
from p2p.stream import MAX_BLOCK, Data, SecureChannel, SecureStream
from p2p.transport.memory import memory_stream_pair
from p2p.turns import TURN
from tests.byte_streams import PipeEnd, cancel_at_each_await, open_pipe
from tests.support import key_number

KEYS = bytes([1]) * 32, bytes([2]) * 32
ALICE, BOB = key_number(1), key_number(2)
FRAME = 2 + 16  # bytes around the plaintext of a noise frame


def ciphers() -> tuple[Cipher, Cipher]:
    scratch = thread_scratch()
    return (
        Cipher(send_key=KEYS[0], receive_key=KEYS[1], scratch=scratch),
        Cipher(send_key=KEYS[1], receive_key=KEYS[0], scratch=scratch),
    )


def frames(*plains: bytes) -> bytes:
    """What Alice's cipher makes of `plains`, from the first frame on."""
    return bytes(ciphers()[0].seal(plains))


@asynccontextmanager
async def open_secure_pipe() -> AsyncIterator[tuple[EncryptedStream, EncryptedStream, PipeEnd, PipeEnd]]:
    """Both ends of an encrypted stream, and the raw ends beneath."""
    async with open_pipe() as (near, far):
        ours, theirs = ciphers()
        alice = EncryptedStream(near, ours, remote_key=BOB.public)
        bob = EncryptedStream(far, theirs, remote_key=ALICE.public)
        yield alice, bob, near, far


def bounded_pair(size: int) -> tuple[EncryptedStream, EncryptedStream]:
    """The same, with at most `size` bytes on their way."""
    (near, far), (ours, theirs) = memory_stream_pair(size), ciphers()
    return (
        EncryptedStream(near, ours, remote_key=BOB.public),
        EncryptedStream(far, theirs, remote_key=ALICE.public),
    )


async def receive_exactly(stream: SecureStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some()
        assert chunk, "ended early"
        data += chunk
    assert len(data) == size
    return bytes(data)


async def receive_all(stream: SecureStream) -> bytes:
    data = bytearray()
    while chunk := await stream.receive_some():
        data += chunk
    return bytes(data)


class TalkingChannel:
    """A channel in clear that answers each "?" with `answer`, and ends at a "."."""

    mid_frame = False

    def __init__(self, answer: bytes = b"!") -> None:
        self.ended = False
        self._answer = answer
        self._out = b""

    def seal(self, blocks: Sequence[Data]) -> Data:
        return b"".join(map(bytes, blocks))

    def open(self, data: memoryview) -> Data:
        self._out += self._answer * bytes(data).count(b"?")
        if b"#" in bytes(data):
            self._out += b"alert"
            raise AuthenticationFailed("a record failed authentication")
        self.ended = b"." in bytes(data)
        return bytes(data).partition(b".")[0].replace(b"?", b"")

    def data_to_send(self) -> Data:
        out, self._out = self._out, b""
        return out


@asynccontextmanager
async def open_talking(answer: bytes = b"!") -> AsyncIterator[tuple[EncryptedStream, PipeEnd, PipeEnd]]:
    async with open_pipe() as (near, far):
        channel: SecureChannel = TalkingChannel(answer)
        yield EncryptedStream(near, channel, remote_key=BOB.public), near, far


async def test_it_says_who_is_at_the_other_end_and_what_was_settled() -> None:
    raw, _ = memory_stream_pair()
    stream: SecureStream = EncryptedStream(
        raw, ciphers()[0], remote_key=BOB.public, early_muxer="/yamux/1.0.0"
    )
    assert stream.remote_key == BOB.public
    assert str(stream.remote_peer).startswith("12D3Koo")
    assert stream.early_muxer == "/yamux/1.0.0"
    assert bounded_pair(1)[0].early_muxer is None


async def test_a_mebibyte_goes_both_ways_at_once_however_little_fits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there, back = bytes(range(256)) * 4096, bytes(range(255, -1, -1)) * 4096
    for size in (1009, 100_003, 1 << 22):
        alice, bob = bounded_pair(size)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alice.send_all, there)
                nursery.start_soon(bob.send_all, memoryview(back))
                nursery.start_soon(_expect, bob, there)
                nursery.start_soon(_expect, alice, back)


async def _expect(stream: SecureStream, data: bytes) -> None:
    assert await receive_exactly(stream, len(data)) == data


async def test_large_data_goes_out_in_full_frames_several_a_write() -> None:
    async with open_secure_pipe() as (alice, bob, near, _):
        await alice.send_all(bytes(2 * BLOCKS_PER_SEND * MAX_BLOCK + 1))
        full = BLOCKS_PER_SEND * (MAX_BLOCK + FRAME)
        assert [len(write) for write in near.writes] == [full, full, 1 + FRAME]
        await _expect(bob, bytes(2 * BLOCKS_PER_SEND * MAX_BLOCK + 1))


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 80), st.integers(1, 30))
def test_blocks_come_out_the_same_however_the_stream_cuts_them(
    blocks: list[bytes], size: int, max_bytes: int
) -> None:
    async def main() -> None:
        alice, bob = bounded_pair(size)

        async def send() -> None:
            for block in blocks:
                if not alice.send_nowait([block]):
                    await alice.flush()
            await alice.aclose()

        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while data := await bob.receive_some(max_bytes):
                assert len(data) <= max_bytes
                received += data
        assert received == b"".join(blocks)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_what_does_not_leave_is_held_until_a_flush() -> None:
    async with open_secure_pipe() as (alice, bob, near, _):
        near.allowance = 10
        assert not alice.send_nowait([b"hello", b"world"])
        with pytest.raises(LocalProtocolError, match="flush"):
            alice.send_nowait([b"more"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.flush)
            await trio.testing.wait_all_tasks_blocked()
            for attempt in (alice.flush(), alice.send_all(b"x")):
                with pytest.raises(LocalProtocolError, match="another task"):
                    await attempt
            with pytest.raises(LocalProtocolError, match="another task"):
                alice.send_nowait([b"x"])
            near.allowance = 1
            await trio.testing.wait_all_tasks_blocked()
            near.allowance = None
        assert [len(write) for write in near.writes] == [10, 1, 2 * (5 + FRAME) - 11]
        assert alice.send_nowait([b"!"])
        await _expect(bob, b"helloworld!")


async def test_a_send_all_finishes_what_was_held_before() -> None:
    async with open_secure_pipe() as (alice, bob, near, _):
        near.allowance = 10
        alice.send_nowait([b"hello"])
        near.allowance = None
        await alice.send_all(b"world")
        await _expect(bob, b"helloworld")


async def test_a_flush_can_be_cancelled_at_each_await_and_repeated(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        alice, bob = bounded_pair(20)
        received = bytearray()

        async def read() -> None:
            while len(received) < 100:
                received.extend(await bob.receive_some())

        async with open_scope() as scope:
            assert not alice.send_nowait([b"0123456789" * 5] * 2)
            scope.start_soon(read)
            yield alice.flush
            await alice.flush()
            await trio.testing.wait_all_tasks_blocked()
            assert alice.send_nowait([b""])
        assert received == b"0123456789" * 10

    assert await cancel_at_each_await(world) >= 5


async def test_a_block_too_large_is_our_own_error_and_harms_nothing() -> None:
    async with open_secure_pipe() as (alice, bob, _, _):
        with pytest.raises(LocalProtocolError):
            alice.send_nowait([b"x", bytes(MAX_BLOCK + 1)])
        assert alice.send_nowait([b"fine"])
        await _expect(bob, b"fine")


async def test_a_reader_gets_no_more_than_it_asks_for() -> None:
    async with open_secure_pipe() as (alice, bob, _, _):
        await alice.send_all(b"one")
        await alice.send_all(b"two")
        assert await bob.receive_some(2) == b"on"
        with pytest.raises(LocalProtocolError, match="max_bytes"):
            await bob.receive_some(0)
        assert await bob.receive_some(2) == b"et"
        assert await bob.receive_some(100) == b"wo"
        await alice.send_all(b"rest")
        assert await bob.receive_some(1) == b"r"
        assert await bob.receive_some() == b"est"


async def test_what_a_reader_left_survives_that_others_read_through_the_same_memory() -> None:
    async with open_secure_pipe() as (alice, bob, _, _), open_secure_pipe() as (carol, dave, _, _):
        await alice.send_all(b"alice's words")
        await carol.send_all(b"CAROL'S WORDS")
        first = bytes(await bob.receive_some(5))
        assert await dave.receive_some() == b"CAROL'S WORDS"
        assert first + bytes(await bob.receive_some()) == b"alice's words"


async def test_two_readers_at_once_are_our_own_error() -> None:
    async with open_secure_pipe() as (alice, _, _, _), open_scope() as scope:
        scope.start_soon(alice.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LocalProtocolError, match="another task"):
            await alice.receive_some()


async def test_two_senders_at_once_are_our_own_error_and_a_cancelled_one_ends_sending() -> None:
    alice, _ = bounded_pair(8)
    async with open_scope() as scope:
        scope.start_soon(alice.send_all, b"x")
        await trio.testing.wait_all_tasks_blocked()
        for attempt in (alice.send_all(b"y"), alice.flush()):
            with pytest.raises(LocalProtocolError, match="another task"):
                await attempt
        with pytest.raises(LocalProtocolError, match="another task"):
            alice.send_nowait([b"y"])
    with pytest.raises(ConnectionLost, match="did not finish"):
        await alice.send_all(b"z")
    with pytest.raises((ConnectionLost, LocalProtocolError)):
        alice.send_nowait([b"z"])


async def test_after_a_send_all_cancelled_at_any_await_nothing_follows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        alice, bob = bounded_pair(MAX_BLOCK)
        finished = False

        async def send() -> None:
            nonlocal finished
            await alice.send_all(bytes(BLOCKS_PER_SEND * MAX_BLOCK + 1))
            finished = True

        async def read() -> None:
            while await bob.receive_some():
                pass

        async with open_scope() as scope:
            scope.start_soon(read)
            yield send
            if finished:
                await alice.send_all(b"more")
            else:
                with pytest.raises(ConnectionLost, match="did not finish"):
                    await alice.send_all(b"more")

    assert await cancel_at_each_await(world) >= 3


async def test_a_cancelled_read_loses_no_byte(autojump_clock: trio.testing.MockClock) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        alice, bob = bounded_pair(30)
        received = bytearray()

        async def read_all() -> None:
            while len(received) < 20:
                received.extend(await bob.receive_some(3))

        async with open_scope() as scope:
            scope.start_soon(alice.send_all, b"0123456789abcdefghij")
            yield read_all
            with trio.fail_after(1):
                await read_all()
        assert received == b"0123456789abcdefghij"

    assert await cancel_at_each_await(world) >= 5


async def test_closing_can_be_cancelled_at_each_await_and_closes_all_the_same() -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with open_secure_pipe() as (alice, bob, _, _):
            yield alice.aclose
            await alice.aclose()
            assert await bob.receive_some() == b""
            with pytest.raises(ConnectionLost):
                alice.send_nowait([b"x"])
            with pytest.raises(ConnectionLost):
                await alice.receive_some()

    assert await cancel_at_each_await(world) >= 1


async def test_sending_nothing_sends_nothing_and_can_be_cancelled() -> None:
    async with open_secure_pipe() as (alice, _, near, _):
        await alice.send_all(b"")
        assert alice.send_nowait([])
        await alice.flush()
        assert near.writes == []
        with trio.move_on_after(0) as scope:
            await alice.send_all(b"x")
        assert scope.cancelled_caught
        assert near.writes == []


async def test_a_writer_whose_bytes_always_leave_lets_others_run() -> None:
    async with open_secure_pipe() as (alice, _, _, _), open_scope() as scope:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        scope.start_soon(count)
        for _ in range(2 * TURN):
            await alice.send_all(b"x")
        assert 1 <= turns <= 2 * TURN


async def test_sending_on_a_lost_connection_says_so_each_time() -> None:
    async with open_secure_pipe() as (alice, bob, _, _):
        await bob.aclose()
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                alice.send_nowait([b"x"])
            with pytest.raises(ConnectionLost):
                await alice.send_all(b"x")


async def test_a_connection_that_closes_while_a_flush_waits_is_lost() -> None:
    alice, bob = bounded_pair(8)
    assert not alice.send_nowait([b"too long"])
    async with trio.open_nursery() as nursery:

        async def flush() -> None:
            with pytest.raises(ConnectionLost):
                await alice.flush()

        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        await bob.aclose()


async def test_the_end_between_frames_is_the_end() -> None:
    async with open_secure_pipe() as (alice, bob, _, _):
        await alice.send_all(b"bye")
        await alice.aclose()
        assert await bob.receive_some() == b"bye"
        assert await bob.receive_some() == b""
        assert await bob.receive_some(5) == b""


async def test_an_end_after_any_byte_of_a_frame_is_a_lost_connection_or_the_end() -> None:
    sent = frames(b"one", b"", b"three")
    ends = {0: b"", 3 + FRAME: b"one", 3 + 2 * FRAME: b"one", len(sent): b"onethree"}
    for cut in range(len(sent) + 1):
        async with open_secure_pipe() as (_, bob, near, _):
            await near.send_all(sent[:cut])
            await near.send_eof()
            if cut in ends:
                assert await receive_all(bob) == ends[cut]
            else:
                with pytest.raises(ConnectionLost, match="within an encrypted frame"):
                    await receive_all(bob)


async def test_frames_without_content_are_not_the_end() -> None:
    async with open_secure_pipe() as (_, bob, near, _):
        await near.send_all(frames(b"", b"", b"x"))
        assert await bob.receive_some() == b"x"


async def test_after_a_changed_frame_nothing_more_is_read() -> None:
    async with open_secure_pipe() as (_, bob, near, far):
        changed = bytearray(frames(b"pay 1"))
        changed[3] ^= 1
        await near.send_all(changed)
        with pytest.raises(AuthenticationFailed):
            await bob.receive_some()
        await near.send_all(b"next")
        with pytest.raises(RemoteProtocolError, match="failed before: a noise frame failed"):
            await bob.receive_some()
        assert await far.receive_some() == b"next"


async def test_what_came_behind_the_handshake_is_read_first() -> None:
    near, far = memory_stream_pair()
    ours, theirs = ciphers()
    sent = bytes(ours.seal([b"first", b"second"]))
    bob = EncryptedStream(far, theirs, remote_key=ALICE.public, surplus=sent[:-3])
    await near.send_all(sent[-3:])
    assert await bob.receive_some(3) == b"fir"
    assert await bob.receive_some() == b"st"
    assert await bob.receive_some() == b"second"
    with pytest.raises(AuthenticationFailed):
        EncryptedStream(far, ciphers()[1], remote_key=ALICE.public, surplus=framed_zeros())


def framed_zeros() -> bytes:
    return b"\x00\x10" + bytes(16)


async def test_what_the_channel_answers_leaves_with_the_next_send_in_its_order() -> None:
    async with open_talking() as (stream, near, far):
        await far.send_all(b"a?b?")
        assert await stream.receive_some() == b"ab"
        assert near.writes == []  # a reader never writes
        assert stream.send_nowait([b"c"])
        await far.send_all(b"?")
        await far.send_all(b"d")
        assert await stream.receive_some() == b"d"
        await stream.flush()
        assert b"".join(near.writes) == b"!!c!"


async def test_an_answer_that_comes_while_a_flush_waits_goes_behind_what_is_held() -> None:
    async with open_talking() as (stream, near, far):
        near.allowance = 2
        assert not stream.send_nowait([b"held"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.flush)
            await trio.testing.wait_all_tasks_blocked()
            await far.send_all(b"?x")
            assert await stream.receive_some() == b"x"
            near.allowance = None
        assert b"".join(near.writes) == b"held!"


async def test_answers_that_do_not_leave_hold_the_next_blocks_back() -> None:
    async with open_talking(b"!!!") as (stream, near, far):
        await far.send_all(b"?x")
        await stream.receive_some()
        near.allowance = 1
        assert not stream.send_nowait([b"ab"])
        near.allowance = None
        await stream.flush()
        assert b"".join(near.writes) == b"!!!ab"


async def test_an_alert_leaves_when_the_stream_closes() -> None:
    async with open_talking() as (stream, near, far):
        await far.send_all(b"#")
        with pytest.raises(AuthenticationFailed):
            await stream.receive_some()
        assert near.writes == []
        await stream.aclose()
        assert b"".join(near.writes) == b"alert"


async def test_a_peer_that_asks_for_answers_and_takes_none_is_refused() -> None:
    async with open_talking(bytes(1000)) as (stream, _, far):
        for _ in range(MAX_ANSWERS // 1000):
            await far.send_all(b"?x")
            assert await stream.receive_some() == b"x"
            assert len(stream._held) <= MAX_ANSWERS
        await far.send_all(b"?x")
        with pytest.raises(RemoteProtocolError, match="faster than they leave"):
            await stream.receive_some()
        with pytest.raises(RemoteProtocolError):
            await stream.receive_some()
        assert len(stream._held) <= MAX_ANSWERS


async def test_answers_that_leave_in_between_add_up_to_nothing() -> None:
    async with open_talking(bytes(1000)) as (stream, _, far):
        for _ in range(2 * MAX_ANSWERS // 1000):
            await far.send_all(b"?x")
            assert await stream.receive_some() == b"x"
            await stream.flush()


async def test_a_farewell_is_the_end_and_what_was_said_before_it_is_read() -> None:
    async with open_talking() as (stream, _, far):
        await far.send_all(b"last words.ignored")
        assert await stream.receive_some() == b"last words"
        for _ in range(2):
            assert await stream.receive_some() == b""


def test_each_thread_has_memory_of_its_own() -> None:
    other = []
    thread = threading.Thread(target=lambda: other.append(thread_scratch()))
    thread.start()
    thread.join()
    assert other[0] is not thread_scratch()
    assert thread_scratch() is thread_scratch()


# Handling each piece


async def test_each_piece_of_plaintext_is_handled_until_the_end() -> None:
    async with open_secure_pipe() as (alice, bob, near, _):
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bob.receive_each, got.extend)
            await alice.send_all(b"one")
            await alice.send_all(bytes(200_000))
            await near.send_eof()
        assert got == b"one" + bytes(200_000)
        await bob.receive_each(got.extend)


async def test_what_came_with_the_handshake_or_was_left_by_a_read_is_handled_first() -> None:
    async with open_pipe() as (near, far):
        sealed = frames(b"surplus", b"more")
        stream = EncryptedStream(near, ciphers()[1], remote_key=ALICE.public, surplus=sealed)
        assert await stream.receive_some(3) == b"sur"
        await far.send_eof()
        got = bytearray()
        await stream.receive_each(got.extend)
        assert got == b"plusmore"


async def test_an_end_within_a_frame_is_a_loss_however_it_is_read() -> None:
    async with open_secure_pipe() as (_, bob, near, _):
        await near.send_all(frames(b"cut off")[:-1])
        await near.send_eof()
        with pytest.raises(ConnectionLost, match="within an encrypted frame"):
            await bob.receive_each(lambda data: None)


async def test_a_forged_frame_ends_the_handling_for_good() -> None:
    async with open_secure_pipe() as (_, bob, near, _):
        await near.send_all(frames(b"x")[:-1] + b"\0")
        with pytest.raises(AuthenticationFailed):
            await bob.receive_each(lambda data: None)
        with pytest.raises(RemoteProtocolError, match="failed before"):
            await bob.receive_each(lambda data: None)


async def test_what_a_handler_raises_leaves_and_the_stream_goes_on() -> None:
    async with open_secure_pipe() as (alice, bob, near, _):
        got = bytearray()

        def handle(data: Data) -> None:
            got.extend(data)
            if got == b"one":
                raise KeyError("one")

        await alice.send_all(b"one")
        with pytest.raises(KeyError):
            await bob.receive_each(handle)
        await alice.send_all(b"two")
        await near.send_eof()
        await bob.receive_each(handle)
        assert got == b"onetwo"


async def test_a_farewell_ends_the_handling_while_the_connection_stays() -> None:
    async with open_talking() as (stream, _, far):
        got = bytearray()
        await far.send_all(b"last words.ignored")
        for _ in range(2):
            with trio.fail_after(5):
                await stream.receive_each(got.extend)
        assert got == b"last words"


async def test_a_second_reader_is_refused_while_one_handles() -> None:
    async with open_secure_pipe() as (_, bob, _, _), open_scope() as nursery:
        nursery.start_soon(bob.receive_each, lambda data: None)
        await trio.testing.wait_all_tasks_blocked()
        for read in (bob.receive_some, lambda: bob.receive_each(lambda data: None)):
            with pytest.raises(LocalProtocolError):
                await read()
