from __future__ import annotations

import itertools
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.errors import ConnectionLost, LocalProtocolError, NegotiationFailed, RemoteProtocolError, StreamReset
from p2p.perf import (
    BLOCK,
    DEADLINE,
    IDLE_TIMEOUT,
    MAX_PER_PEER,
    MAX_SIZE,
    MAX_STREAMS,
    PROTOCOL,
    PerfService,
    measure,
    open_perf,
)
from p2p.scope import reset_on_error
from tests.byte_streams import cancel_at_each_await
from tests.support import open_memory_hosts


@asynccontextmanager
async def open_pair():
    """(the host that measures, the peer that serves), connected."""
    async with open_memory_hosts(2) as [one, other], open_perf(other) as service:
        await one.connect(other.peer_id, other.addresses())
        yield one, other, service


@pytest.mark.parametrize(("upload", "download"), [(0, 0), (1, 0), (0, 1), (300_000, 5), (5, 1_000_000)])
async def test_both_directions_are_measured(autojump_clock, upload, download):
    async with open_pair() as (one, other, service):
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        result = await measure(stream, upload=upload, download=download)
        assert result.upload_seconds >= 0
        assert result.download_seconds >= 0
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert not service._streams.open


async def test_nobody_serves_unasked(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        await one.connect(other.peer_id, other.addresses())
        async with open_perf(other):
            pass
        with pytest.raises(NegotiationFailed):
            await one.open_stream(other.peer_id, [PROTOCOL])


async def test_the_answer_waits_for_the_end_of_the_upload(autojump_clock):
    async with open_pair() as (one, other, _):
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        await stream.send_all((3).to_bytes(8, "big") + b"upload")
        with trio.move_on_after(1) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        await stream.send_eof()
        assert await stream.receive_some() == b"\0\0\0"
        assert await stream.receive_some() == b""


@pytest.mark.parametrize("sizes", [(-1, 0), (0, MAX_SIZE + 1)])
async def test_sizes_that_cannot_be_said_are_our_own_mistake(sizes):
    with pytest.raises(LocalProtocolError):
        await measure(None, upload=sizes[0], download=sizes[1])


async def test_a_client_that_wants_everything_gets_what_fits_into_the_time(autojump_clock):
    async with open_pair() as (one, other, service):
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        start = trio.current_time()
        await stream.send_all(b"\xff" * 8)
        await stream.send_eof()
        with pytest.raises(ConnectionLost):
            for second in itertools.count(1):  # a reader that is slow, but not idle
                assert await stream.receive_some()
                await trio.sleep_until(start + second)
        assert trio.current_time() - start == pytest.approx(DEADLINE, abs=10)
        assert not service._streams.open


async def test_a_client_that_uploads_without_end_is_reset(autojump_clock):
    async with open_pair() as (one, other, _):
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        start = trio.current_time()
        with pytest.raises(StreamReset):
            for second in itertools.count(1):
                await stream.send_all(BLOCK)
                await trio.sleep_until(start + second)
        assert trio.current_time() - start == pytest.approx(DEADLINE, abs=3)


@pytest.mark.parametrize("said", [b"", b"\0" * 7, b"\0" * 8, b"\0" * 20])
async def test_a_client_that_falls_silent_is_reset(autojump_clock, said):
    async with open_pair() as (one, other, service):
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        await stream.send_all(said)
        start = trio.current_time()
        with pytest.raises(StreamReset):
            await stream.receive_some()
        assert trio.current_time() - start == pytest.approx(IDLE_TIMEOUT, abs=1)
        assert not service._streams.open


async def test_a_client_that_does_not_read_is_reset(autojump_clock):
    async with open_pair() as (one, other, service):
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        await stream.send_all(b"\xff" * 8)
        await stream.send_eof()
        await trio.sleep(IDLE_TIMEOUT + 1)
        assert not service._streams.open


async def test_a_header_that_is_cut_off_costs_its_stream(autojump_clock):
    async with open_pair() as (one, other, service):
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        await stream.send_all(b"\0\0")
        await stream.send_eof()
        with pytest.raises(ConnectionLost):
            await stream.receive_some()
        assert not service._streams.open
        assert one.is_connected(other.peer_id)


async def test_more_streams_than_allowed_are_reset(autojump_clock):
    async with open_pair() as (one, other, _):
        streams = [await one.open_stream(other.peer_id, [PROTOCOL]) for _ in range(MAX_PER_PEER)]
        await wait_all_tasks_blocked()  # they are served before the next one comes
        late = await one.open_stream(other.peer_id, [PROTOCOL])
        with pytest.raises(StreamReset):
            await late.receive_some()
        await measure(streams[0], upload=1, download=1)


async def test_all_peers_together_have_a_limit(autojump_clock):
    count = MAX_STREAMS // MAX_PER_PEER
    async with open_memory_hosts(count + 2) as [server, *clients], open_perf(server):
        for client in clients:
            await client.connect(server.peer_id, server.addresses())
        for client in clients[:count]:
            for _ in range(MAX_PER_PEER):
                await (await client.open_stream(server.peer_id, [PROTOCOL])).send_all(b"\0" * 8)
        await wait_all_tasks_blocked()
        late = await clients[-1].open_stream(server.peer_id, [PROTOCOL])
        with pytest.raises(StreamReset):
            await late.receive_some()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"", "0 of 5"), (b"1234", "4 of 5"), (b"123456", "more than 5"), (None, "more than 5")],
)
async def test_a_server_that_sends_another_number_of_bytes_is_caught(autojump_clock, answer, reason):
    async def lie(stream):
        if answer is None:
            while True:
                await stream.send_all(BLOCK)
        await stream.send_all(answer)

    async with open_memory_hosts(2) as [one, other]:
        other.handle(PROTOCOL, lie)
        await one.connect(other.peer_id, other.addresses())
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        with pytest.raises(RemoteProtocolError, match=f"with {reason} bytes"):
            with reset_on_error(stream):
                await measure(stream, upload=0, download=5)


async def test_either_side_can_be_cancelled_anywhere(autojump_clock):
    @asynccontextmanager
    async def measuring():
        async with open_pair() as (one, other, service):
            stream = await one.open_stream(other.peer_id, [PROTOCOL])

            async def operation():
                with reset_on_error(stream):
                    await measure(stream, upload=1_000_000, download=1_000_000)
                    await stream.aclose()

            yield operation
            await trio.testing.wait_all_tasks_blocked()
            assert not service._streams.open
            await measure(await one.open_stream(other.peer_id, [PROTOCOL]), upload=1, download=1)

    @asynccontextmanager
    async def serving():
        async with open_memory_hosts(2) as [one, other], trio.open_nursery() as nursery:
            service, streams = PerfService(), []

            async def hand_over(stream):
                streams.append(stream)
                await trio.sleep_forever()

            other.handle(PROTOCOL, hand_over)
            await one.connect(other.peer_id, other.addresses())
            mine = await one.open_stream(other.peer_id, [PROTOCOL])
            await trio.testing.wait_all_tasks_blocked()

            @nursery.start_soon
            async def ask():
                with suppress(ConnectionLost):
                    await measure(mine, upload=1_000_000, download=1_000_000)

            async def operation():
                with reset_on_error(streams[0]):
                    await service.serve(streams[0])

            try:
                yield operation
            finally:
                nursery.cancel_scope.cancel()
            assert not service._streams.open

    assert await cancel_at_each_await(measuring) >= 3
    assert await cancel_at_each_await(serving) >= 3
