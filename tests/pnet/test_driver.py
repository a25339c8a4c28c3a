from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2p import multistream
from p2p.errors import ConnectionLost, LocalProtocolError, P2PError, RemoteProtocolError
from p2p.pnet import PreSharedKey, PrivateStream, protect
from p2p.pnet.cipher import XSalsa20
from p2p.pnet.driver import CHUNK
from tests.byte_streams import cancel_at_each_await
from tests.pnet.pipes import End, end_pair

PSK = PreSharedKey(bytes(range(32)))
OTHER = PreSharedKey(bytes(range(1, 33)))
NONCES = bytes(range(24)), bytes(range(100, 124))


async def private_pair(
    capacity: int = 1 << 16, keys: tuple[PreSharedKey, PreSharedKey] = (PSK, PSK)
) -> tuple[PrivateStream, PrivateStream, End, End]:
    """Two members of a network, and the streams beneath them."""
    near, far = end_pair(capacity)
    streams = [
        await protect(raw, key, nonce) for raw, key, nonce in zip((near, far), keys, NONCES, strict=True)
    ]
    return streams[0], streams[1], near, far


async def receive_exactly(stream: PrivateStream, size: int, at_a_time: int | None = None) -> bytes:
    received = b""
    while len(received) < size:
        limit = size - len(received)
        data = await stream.receive_some(min(limit, at_a_time) if at_a_time else limit)
        assert data
        received += data
    return received


def on_the_wire(end: End, nonce: bytes) -> bytes:
    """What `end` sent, decrypted by hand."""
    assert end.outbound.sent[:24] == nonce
    return XSalsa20(PSK.secret, nonce).apply(end.outbound.sent[24:])


async def test_members_understand_each_other_and_nobody_else_does() -> None:
    near, far, raw_near, raw_far = await private_pair()
    await near.send_all(b"hello, world")
    assert await receive_exactly(far, 12) == b"hello, world"
    await far.send_all(b"hello yourself")
    assert await receive_exactly(near, 14) == b"hello yourself"
    assert on_the_wire(raw_near, NONCES[0]) == b"hello, world"
    assert on_the_wire(raw_far, NONCES[1]) == b"hello yourself"
    assert b"hello" not in raw_near.outbound.sent + raw_far.outbound.sent


async def test_the_nonce_goes_out_first_and_waits_for_nothing() -> None:
    near, _ = end_pair()
    stream = await protect(near, PSK, NONCES[0])
    assert near.outbound.sent == NONCES[0]
    await stream.send_all(b"proposal")
    assert on_the_wire(near, NONCES[0]) == b"proposal"


async def test_members_understand_each_other_byte_by_byte() -> None:
    raw, far = end_pair()
    await far.send_all(NONCES[1])
    near = await protect(raw, PSK, NONCES[0])
    raw.inbound.data.clear()
    async with trio.open_nursery() as nursery:

        async def dribble() -> None:
            for byte in NONCES[1] + XSalsa20(PSK.secret, NONCES[1]).apply(b"one byte at a time"):
                await far.send_all(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            await far.aclose()

        nursery.start_soon(dribble)
        assert await receive_exactly(near, 18) == b"one byte at a time"
    assert await near.receive_some() == b""


async def test_bytes_arrive_in_a_buffer_too() -> None:
    near, far, _, _ = await private_pair()
    await near.send_all(b"abcdef")
    buffer = bytearray(b"........")
    assert await far.receive_into(memoryview(buffer)[:4]) == 4
    assert buffer == b"abcd...."
    assert await far.receive_into(memoryview(buffer)[4:]) == 2
    assert buffer == b"abcdef.."
    await near.aclose()
    assert await far.receive_into(memoryview(buffer)) == 0


async def test_each_piece_is_handled_in_clear() -> None:
    near, far, _, _ = await private_pair()
    got = bytearray()
    await near.send_all(b"abcdef")
    await near.aclose()
    await far.receive_each(got.extend)
    assert got == b"abcdef"


@pytest.mark.parametrize("capacity", [24, 25, 1000, CHUNK + 1])
async def test_more_than_the_socket_takes_arrives_whole(capacity: int) -> None:
    data = random.Random(capacity).randbytes(3 * CHUNK + 5 if capacity > 1000 else 5000)
    near, far, raw, _ = await private_pair(capacity)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, data)
        assert await receive_exactly(far, len(data)) == data
    assert on_the_wire(raw, NONCES[0]) == data


async def test_a_socket_that_takes_a_part_gets_the_rest_or_something_else_later() -> None:
    """Only what left has used key stream: a caller may change its mind about the rest."""
    near, far, raw, _ = await private_pair(capacity=24 + 10)
    assert near.send_nowait(b"0123456789abcdef") == 10
    assert near.send_nowait(b"abcdef") == 0
    assert await receive_exactly(far, 10) == b"0123456789"
    assert near.send_nowait(b"ABC") == 3
    assert near.send_nowait(memoryview(b"defghi" * 10)) == 34 - 3
    assert await receive_exactly(far, 34) == b"ABC" + (b"defghi" * 10)[:31]
    assert near.send_nowait(b"") == 0
    assert on_the_wire(raw, NONCES[0]) == b"0123456789ABC" + (b"defghi" * 10)[:31]


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=12), st.integers(1, 40), st.integers(1, 40))
def test_every_byte_that_left_is_read_however_it_was_cut(
    pieces: list[bytes], capacity: int, at_a_time: int
) -> None:
    async def main() -> None:
        near, far, _, _ = await private_pair(capacity + 24)
        meant = b""
        for piece in pieces:
            sent = near.send_nowait(piece)
            meant += piece[:sent]
            assert await receive_exactly(far, sent, at_a_time) == piece[:sent]
        near.send_nowait(b"end")

    trio.run(main)


async def test_a_full_stream_says_when_it_takes_more() -> None:
    near, far, _, _ = await private_pair(capacity=24)
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            await near.wait_writable()
            assert near.send_nowait(b"x") == 1

        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        assert near.send_nowait(b"x") == 0
        assert await far.receive_some() == b"x"


async def test_an_end_is_an_end() -> None:
    near, far, _, _ = await private_pair()
    await near.send_all(b"last")
    await near.aclose()
    await near.aclose()
    assert await receive_exactly(far, 4) == b"last"
    assert await far.receive_some() == b""
    with pytest.raises(ConnectionLost):
        far.send_nowait(b"more")
    with pytest.raises(ConnectionLost):
        await far.send_all(b"more")


async def test_a_peer_that_leaves_without_a_word_just_ended() -> None:
    raw, far = end_pair()
    stream = await protect(raw, PSK, NONCES[0])
    await far.aclose()
    assert await stream.receive_some() == b""
    assert await stream.receive_into(memoryview(bytearray(1))) == 0


@pytest.mark.parametrize("size", [1, 23])
async def test_a_peer_that_leaves_within_its_nonce_is_lost(size: int) -> None:
    raw, far = end_pair()
    stream = await protect(raw, PSK, NONCES[0])
    await far.send_all(bytes(size))
    await far.aclose()
    with pytest.raises(ConnectionLost, match="within the nonce"):
        await stream.receive_some()


async def test_a_peer_that_echoes_us_is_refused() -> None:
    """Without the key it could make us read what we wrote."""
    raw, far = end_pair()
    stream = await protect(raw, PSK, NONCES[0])
    await stream.send_all(b"/multistream/1.0.0")
    await far.send_all(await far.receive_some())
    with pytest.raises(RemoteProtocolError, match="echoes"):
        await stream.receive_some()
    with pytest.raises(RemoteProtocolError, match="echoes"):
        await stream.receive_some()


@pytest.mark.parametrize("nonce", [b"", bytes(23), bytes(25)])
async def test_a_nonce_of_another_size_is_our_mistake(nonce: bytes) -> None:
    raw, _ = end_pair()
    with pytest.raises(LocalProtocolError, match="24 bytes"):
        await protect(raw, PSK, nonce)
    assert raw.outbound.sent == b""


@pytest.mark.parametrize("keys", [(PSK, OTHER), (OTHER, PSK)])
async def test_members_of_different_networks_part_with_a_typed_error(
    keys: tuple[PreSharedKey, PreSharedKey], autojump_clock: trio.testing.MockClock
) -> None:
    near, far, _, _ = await private_pair(keys=keys)
    failures: list[BaseException] = []

    async def upgrade(stream: PrivateStream, negotiate: Callable[[PrivateStream], Awaitable[str]]) -> None:
        try:
            with trio.fail_after(10):
                await negotiate(stream)
        except (P2PError, trio.TooSlowError) as exc:
            failures.append(exc)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(upgrade, near, lambda stream: multistream.select(stream, ["/noise"]))
        nursery.start_soon(upgrade, far, lambda stream: multistream.handle(stream, ["/noise"]))
    assert len(failures) == 2
    assert trio.current_time() - autojump_clock.autojump_threshold <= 10


async def test_a_stranger_without_a_key_parts_with_a_typed_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    raw, stranger = end_pair()
    stream = await protect(raw, PSK, NONCES[0])
    await stranger.send_all(b"\x13/multistream/1.0.0\n\x07/noise\n")
    with pytest.raises((P2PError, trio.TooSlowError)), trio.fail_after(10):
        await multistream.handle(stream, ["/noise"])


# --- cancelled at each await, a stream goes on as if nothing had been


@pytest.mark.parametrize("whole_nonce", [True, False])
@pytest.mark.parametrize("into", [True, False])
async def test_a_cancelled_read_loses_nothing(whole_nonce: bool, into: bool) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        near, far = end_pair()
        stream = await protect(near, PSK, NONCES[0])
        sealed = XSalsa20(PSK.secret, NONCES[1]).apply(b"ab" * 10)
        await far.send_all(NONCES[1] if whole_nonce else NONCES[1][:7])
        read = bytearray()

        async def operation() -> None:
            if into:
                buffer = bytearray(4)
                read.extend(buffer[: await stream.receive_into(memoryview(buffer))])
            else:
                read.extend(await stream.receive_some(4))

        async with trio.open_nursery() as nursery:

            async def feed() -> None:
                for at in range(0, 17, 5):
                    await trio.testing.wait_all_tasks_blocked()
                    await far.send_all(b"" if whole_nonce else NONCES[1][7:][at : at + 5])
                await far.send_all(sealed)

            nursery.start_soon(feed)
            yield operation
        await far.aclose()
        while data := await stream.receive_some():
            read += data
        assert read == b"ab" * 10

    assert await cancel_at_each_await(world) >= 2


async def test_a_cancelled_write_stays_in_step() -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        near, far, raw, _ = await private_pair(capacity=30)
        data = b"0123456789" * 12
        read = bytearray()
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                while received := await far.receive_some(7):
                    read.extend(received)

            nursery.start_soon(drain)
            yield lambda: near.send_all(data)
            left = len(raw.outbound.sent) - 24
            await near.send_all(b"next")
            await trio.testing.wait_all_tasks_blocked()
            await near.aclose()
        assert read == data[:left] + b"next"

    assert await cancel_at_each_await(world) >= 3


async def test_a_cancelled_protect_leaves_a_stream_to_be_closed() -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        near, far = end_pair(capacity=5)
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                while await far.receive_some():
                    pass

            nursery.start_soon(drain)
            yield lambda: protect(near, PSK, NONCES[0])
            await near.aclose()
        assert NONCES[0].startswith(near.outbound.sent)

    assert await cancel_at_each_await(world) >= 2
