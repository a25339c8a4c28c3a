from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from p2p.errors import ConnectionLost, NegotiationFailed, P2PError, RemoteProtocolError
from p2p.multistream import handle, select
from p2p.multistream.negotiation import MAX_PROPOSALS
from p2p.multistream.wire import HEADER, encode_line
from p2p.scope import open_scope
from tests.byte_streams import PipeEnd, Unwritable, cancel_at_each_await, open_pipe

NA = encode_line("na")


async def receive_exactly(stream: PipeEnd, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        assert chunk, f"ended after {data!r}"
        data += chunk
    return data


async def test_two_sides_agree_and_data_follows(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:

        async def accept() -> None:
            assert await handle(far, ["/x", "/b"]) == "/b"
            assert await receive_exactly(far, 4) == b"ping"
            await far.send_all(b"pong")

        nursery.start_soon(accept)
        assert await select(near, ["/a", "/b"]) == "/b"
        await near.send_all(b"ping")
        assert await receive_exactly(near, 4) == b"pong"


async def test_a_mebibyte_follows_both_ways(autojump_clock: trio.testing.MockClock) -> None:
    there, back = bytes(range(256)) * 4096, bytes(range(255, -1, -1)) * 4096

    async def run(end: PipeEnd, protocol: Awaitable[str], ours: bytes, theirs: bytes) -> None:
        assert await protocol == "/bulk"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end.send_all, ours)
            assert await receive_exactly(end, len(theirs)) == theirs

    async with open_pipe() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(run, near, select(near, ["/bulk"]), there, back)
        nursery.start_soon(run, far, handle(far, lambda name: name == "/bulk"), back, there)


async def test_header_and_first_proposal_are_one_write(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(handle, far, ["/b"])
        await select(near, ["/a", "/b"])
        assert near.writes == [HEADER + encode_line("/a"), encode_line("/b")]
        assert far.writes == [HEADER, NA, encode_line("/b")]


async def test_what_an_eager_initiator_sends_behind_its_proposal_stays_in_the_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pipe() as (near, far):
        await near.send_all(HEADER + encode_line("/no") + encode_line("/p") + b"\x03na\nearly data")
        assert await handle(far, ["/p"]) == "/p"
        assert await far.receive_some() == b"\x03na\nearly data"


async def test_what_a_responder_sends_behind_its_answer_stays_in_the_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pipe() as (near, far):
        await far.send_all(HEADER + NA + encode_line("/p") + b"early data")
        assert await select(near, ["/q", "/p"]) == "/p"
        assert await near.receive_some() == b"early data"


async def test_a_responder_that_waits_for_our_header_gets_it(autojump_clock: trio.testing.MockClock) -> None:
    """py-libp2p reads the other header before it sends anything more."""
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(handle, far, ["/p"])
        assert await receive_exactly(near, len(HEADER)) == HEADER  # before we said anything
        await near.send_all(HEADER)
        await trio.testing.wait_all_tasks_blocked()
        await near.send_all(encode_line("/p"))
        assert await receive_exactly(near, 4) == encode_line("/p")


async def test_a_peer_that_has_sent_all_and_closed_its_side_is_served(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pipe() as (near, far):
        await near.send_all(HEADER + encode_line("/p") + b"request")
        await near.send_eof()
        assert await handle(far, ["/p"]) == "/p"
        assert await far.receive_some() == b"request"
        assert await far.receive_some() == b""
        assert await receive_exactly(near, len(HEADER) + 4) == HEADER + encode_line("/p")


@pytest.mark.parametrize("writes", [0, 1])
async def test_a_peer_that_reads_no_more_is_served_as_long_as_its_data_is_there(writes: int) -> None:
    stream = Unwritable(HEADER + encode_line("/p") + b"request", writes=writes)
    assert await handle(stream, ["/p"]) == "/p"
    assert await stream.receive_some() == b"request"


async def test_nothing_is_written_after_a_write_failed() -> None:
    """An echo without its header would be nonsense on the wire."""
    attempts: list[bytes] = []

    class Counting(Unwritable):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            attempts.append(bytes(data))
            await super().send_all(data)

    assert await handle(Counting(HEADER + encode_line("/no") + encode_line("/p")), ["/p"]) == "/p"
    assert attempts == [HEADER]


async def test_a_peer_that_is_gone_is_not_negotiated_with() -> None:
    with pytest.raises(NegotiationFailed):
        await handle(Unwritable(b""), ["/p"])
    with pytest.raises(ConnectionLost):
        await select(Unwritable(b""), ["/p"])


async def test_refusing_all_proposals_fails_on_both_sides(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(NegotiationFailed, match="ended the stream"):
                await handle(far, ["/x"])

        nursery.start_soon(accept)
        with pytest.raises(NegotiationFailed, match="none of /a, /b"):
            await select(near, ["/a", "/b"])
        await near.aclose()


async def test_a_peer_that_proposes_without_end_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        await near.send_all(HEADER + encode_line("/no") * (MAX_PROPOSALS + 10))
        with pytest.raises(NegotiationFailed):
            await handle(far, ["/p"])
        assert b"".join(far.writes) == HEADER + NA * (MAX_PROPOSALS - 1)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n", bytes(30), b"\xff" * 30, HEADER + b"\x00", HEADER + b"\xff" * 12]
)
async def test_garbage_is_a_remote_error_on_either_side(
    garbage: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pipe() as (near, far):
        await near.send_all(garbage)
        with pytest.raises(RemoteProtocolError):
            await handle(far, ["/p"])
    async with open_pipe() as (near, far):
        await far.send_all(garbage)
        with pytest.raises(RemoteProtocolError):
            await select(near, ["/p"])


async def test_a_negotiation_cut_after_any_byte_is_a_typed_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    proposal, answer = HEADER + encode_line("/no") + encode_line("/p"), HEADER + NA + encode_line("/p")
    for cut in range(len(proposal)):
        async with open_pipe() as (near, far):
            await near.send_all(proposal[:cut])
            await near.send_eof()
            with pytest.raises(NegotiationFailed):
                await handle(far, ["/p"])
    for cut in range(len(answer)):
        async with open_pipe() as (near, far):
            await far.send_all(answer[:cut])
            await far.send_eof()
            with pytest.raises(ConnectionLost):
                await select(near, ["/no", "/p"])


async def test_a_silent_peer_is_left_at_the_callers_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        with pytest.raises(trio.TooSlowError), trio.fail_after(10):
            await select(near, ["/p"])
        async with open_scope() as scope:
            scope.cancel_scope.deadline = trio.current_time() + 10
            await handle(far, ["/other"])
        assert scope.cancel_scope.cancelled_caught


@pytest.mark.parametrize("initiating", [True, False])
async def test_a_negotiation_can_be_cancelled_at_each_await(
    initiating: bool, autojump_clock: trio.testing.MockClock
) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        outcome: list[object] = []

        async def other_end() -> None:
            try:
                outcome.append(await (handle(far, ["/b"]) if initiating else select(far, ["/a", "/b"])))
            except P2PError as exc:
                outcome.append(exc)

        async with open_pipe() as (near, far):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other_end)
                if initiating:
                    yield lambda: select(near, ["/a", "/b"])
                else:
                    yield lambda: handle(near, ["/b"])
                await near.aclose()
            assert len(outcome) == 1
            assert outcome == ["/b"] or isinstance(outcome[0], NegotiationFailed | ConnectionLost)

    assert await cancel_at_each_await(world) >= 5
