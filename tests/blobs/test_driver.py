from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2p.blobs import PROTOCOL, Blobs, BlobStore, BlobUnavailable, blob_root, open_blobs
from p2p.blobs.driver import IDLE_TIMEOUT, MAX_STREAMS_PER_PEER, RESOURCE_LIMIT
from p2p.blobs.merkle import CHUNK_SIZE, EMPTY_ROOT
from p2p.blobs.transfer import CHUNK_TIMEOUT
from p2p.blobs.wire import (
    MAX_ANSWER,
    MAX_BLOB,
    MAX_REQUEST,
    Missing,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from p2p.errors import LocalProtocolError, StreamReset
from p2p.files import FolderFiles
from p2p.framing import DelimitedReader, receive_exactly
from p2p.host import Host
from p2p.peer_id import PeerId
from p2p.stream import Stream
from tests.blobs.support import THREE, blob
from tests.support import connect, open_memory_hosts

CAPACITY = 1 << 24
ROOT, SIZE = blob_root(THREE), len(THREE)


def memory() -> BlobStore:
    return BlobStore(None, CAPACITY)


@asynccontextmanager
async def open_pair(held: BlobStore, fetched: BlobStore) -> AsyncIterator[tuple[Blobs, Host, Host]]:
    """(the exchange of a host that fetches, that host, the host that holds), connected."""
    async with (
        open_memory_hosts(2) as (ours, theirs),
        open_blobs(theirs, held),
        open_blobs(ours, fetched) as blobs,
    ):
        await connect(ours, theirs)
        yield blobs, ours, theirs


@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_blob_is_fetched_and_then_held(on_disk: bool, tmp_path: Path) -> None:
    held = BlobStore(FolderFiles(tmp_path / "held") if on_disk else None, CAPACITY)
    fetched = BlobStore(FolderFiles(tmp_path / "fetched") if on_disk else None, CAPACITY)
    assert held.put(THREE) == ROOT
    async with open_pair(held, fetched) as (blobs, _, theirs):
        assert await blobs.fetch(ROOT, SIZE, [theirs.peer_id]) == THREE
        assert fetched.get(ROOT) == THREE
        held.discard(ROOT)
        assert await blobs.fetch(ROOT, SIZE, []) == THREE  # from our own store
        await blobs.discard(ROOT)
        assert ROOT not in fetched


async def test_a_blob_of_many_requests_is_fetched(autojump_clock: MockClock) -> None:
    data = blob(70 * CHUNK_SIZE + 1)
    held, fetched = BlobStore(None, 1 << 26), BlobStore(None, 1 << 10)
    root = held.put(data)
    async with open_pair(held, fetched) as (blobs, _, theirs):
        assert await blobs.fetch(root, len(data), [theirs.peer_id]) == data
        assert root not in fetched  # it is over the capacity: the caller has it all the same


async def test_what_is_put_is_served(autojump_clock: MockClock) -> None:
    async with open_pair(memory(), memory()) as (blobs, ours, theirs):
        root = await blobs.put(THREE)
        theirs.unhandle(PROTOCOL)
        async with open_blobs(theirs, memory()) as other:
            assert await other.fetch(root, SIZE, [ours.peer_id]) == THREE


async def test_the_empty_blob_needs_no_holder(autojump_clock: MockClock) -> None:
    async with open_pair(memory(), memory()) as (blobs, _, theirs):
        assert await blobs.fetch(EMPTY_ROOT, 0, []) == b""
        with pytest.raises(BlobUnavailable):
            await blobs.fetch(ROOT, 0, [theirs.peer_id])


async def test_a_blob_nobody_has_is_unavailable_with_the_reasons(autojump_clock: MockClock) -> None:
    async with open_pair(memory(), memory()) as (blobs, ours, theirs):
        with pytest.raises(BlobUnavailable, match=f"{theirs.peer_id.short} does not have it") as caught:
            await blobs.fetch(ROOT, SIZE, [ours.peer_id, theirs.peer_id])
        assert caught.value.root == ROOT
        assert len(caught.value.reasons) == 1  # ourselves we do not ask
        with pytest.raises(BlobUnavailable, match="no holder"):
            await blobs.fetch(ROOT, SIZE, [ours.peer_id])


async def test_a_size_that_is_not_the_blobs_is_unavailable(autojump_clock: MockClock) -> None:
    held, fetched = memory(), memory()
    held.put(THREE)
    async with open_pair(held, fetched) as (blobs, _, theirs):
        with pytest.raises(BlobUnavailable):
            await blobs.fetch(ROOT, SIZE - 1, [theirs.peer_id])
        fetched.put(THREE)
        with pytest.raises(BlobUnavailable, match=f"does not have {SIZE + 1} bytes"):
            await blobs.fetch(ROOT, SIZE + 1, [theirs.peer_id])


@pytest.mark.parametrize("size", [-1, MAX_BLOB + 1])
async def test_a_size_out_of_bounds_is_our_own_mistake(size: int, autojump_clock: MockClock) -> None:
    async with open_pair(memory(), memory()) as (blobs, _, theirs):
        with pytest.raises(LocalProtocolError):
            await blobs.fetch(ROOT, size, [theirs.peer_id])


async def is_silent(stream: Stream) -> None:
    await trio.sleep_forever()


async def closes(stream: Stream) -> None:
    await stream.send_eof()


async def resets(stream: Stream) -> None:
    stream.reset()


async def sends_garbage(stream: Stream) -> None:
    await stream.send_all(b"\xff" * 100)


async def sends_too_much(stream: Stream) -> None:
    await stream.send_all((MAX_ANSWER + 1).to_bytes(3, "little"))
    await stream.send_all(b"\x83\x80\x10" + b"x" * 100)


async def sends_something_else(stream: Stream) -> None:
    await stream.send_all(b"\x02\x91\x05")


async def sends_other_bytes(stream: Stream) -> None:
    await serve(stream, THREE[:CHUNK_SIZE] + bytes(SIZE - CHUNK_SIZE))


async def sends_one_chunk_and_stops(stream: Stream) -> None:
    await serve(stream, THREE, 1)
    await stream.send_all(encode_answer(Missing()))


async def sends_half_a_chunk_and_is_silent(stream: Stream) -> None:
    await stream.send_all(b"\x90\x80\x10" + THREE[:1000])
    await trio.sleep_forever()


async def serve(stream: Stream, data: bytes, count: int = 3) -> None:
    """Answers the first request with the first `count` chunks of `data`, whatever root was asked."""
    message = await DelimitedReader(stream, MAX_REQUEST).receive()
    assert message is not None
    request = decode_request(message)
    store = memory()
    root = store.put(data)
    for index in range(request.first, request.first + count):
        chunk = store.chunk(root, len(data), index)
        assert chunk is not None
        await stream.send_all(encode_answer(chunk))


BAD_HOLDERS = [
    is_silent,
    closes,
    resets,
    sends_garbage,
    sends_too_much,
    sends_something_else,
    sends_other_bytes,
    sends_one_chunk_and_stops,
    sends_half_a_chunk_and_is_silent,
]


@pytest.mark.parametrize("handler", BAD_HOLDERS)
async def test_a_bad_holder_costs_one_deadline_at_most_and_the_next_one_gives_the_rest(
    handler: Callable[[Stream], Awaitable[None]], autojump_clock: MockClock
) -> None:
    held = memory()
    held.put(THREE)
    async with open_memory_hosts(3) as (ours, bad, good), open_blobs(good, held):
        bad.handle(PROTOCOL, handler)
        async with open_blobs(ours, memory()) as blobs:
            for other in (bad, good):
                await ours.connect(other.peer_id, other.addresses())
            start = trio.current_time()
            assert await blobs.fetch(ROOT, SIZE, [bad.peer_id, good.peer_id]) == THREE
            assert trio.current_time() - start <= CHUNK_TIMEOUT
            with pytest.raises(BlobUnavailable, match=bad.peer_id.short):
                await blobs.fetch(bytes(32), SIZE, [bad.peer_id])


async def test_a_holder_that_is_unknown_or_does_not_serve_is_passed_over(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(3) as (ours, plain, unknown), open_blobs(ours, memory()) as blobs:
        await ours.connect(plain.peer_id, plain.addresses())
        with pytest.raises(BlobUnavailable) as caught:
            await blobs.fetch(ROOT, SIZE, [plain.peer_id, unknown.peer_id])
        assert len(caught.value.reasons) == 2


async def test_a_second_holder_resumes_where_the_first_left(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(3) as (ours, first, second), open_blobs(ours, memory()) as blobs:
        asked: list[Request] = []

        async def records(stream: Stream) -> None:
            message = await DelimitedReader(stream, MAX_REQUEST).receive()
            assert message is not None
            asked.append(decode_request(message))

        first.handle(PROTOCOL, sends_one_chunk_and_stops)
        second.handle(PROTOCOL, records)
        for other in (first, second):
            await ours.connect(other.peer_id, other.addresses())
        with pytest.raises(BlobUnavailable):
            await blobs.fetch(ROOT, SIZE, [first.peer_id, second.peer_id])
        assert asked == [Request(root=ROOT, size=SIZE, first=1, count=2)]


async def test_a_cancelled_fetch_resets_its_stream(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(2) as (ours, theirs), open_blobs(ours, memory()) as blobs:
        ended = trio.Event()

        async def waits(stream: Stream) -> None:
            try:
                while await stream.receive_some():
                    pass
            except StreamReset:
                ended.set()

        theirs.handle(PROTOCOL, waits)
        await ours.connect(theirs.peer_id, theirs.addresses())
        with trio.move_on_after(1):
            await blobs.fetch(ROOT, SIZE, [theirs.peer_id])
        await ended.wait()


async def test_a_peer_has_so_many_streams_at_once_and_no_more(autojump_clock: MockClock) -> None:
    held = memory()
    held.put(THREE)
    codes: list[int] = []

    async def wait_for_reset(host: Host, peer: PeerId) -> None:
        try:
            stream = await host.open_stream(peer, [PROTOCOL])
            await stream.receive_some()
        except StreamReset as exc:
            codes.append(exc.code)

    async with open_pair(held, memory()) as (blobs, ours, theirs):
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_STREAMS_PER_PEER + 1):
                nursery.start_soon(wait_for_reset, ours, theirs.peer_id)
        assert sorted(codes) == [0] * MAX_STREAMS_PER_PEER + [RESOURCE_LIMIT]
        assert await blobs.fetch(ROOT, SIZE, [theirs.peer_id]) == THREE


async def test_a_served_stream_that_asks_nothing_is_reset(autojump_clock: MockClock) -> None:
    async with open_pair(memory(), memory()) as (_, ours, theirs):
        stream = await ours.open_stream(theirs.peer_id, [PROTOCOL])
        start = trio.current_time()
        with pytest.raises(StreamReset):
            await stream.receive_some()
        assert trio.current_time() - start == pytest.approx(IDLE_TIMEOUT)


async def test_a_reader_that_takes_nothing_is_reset(autojump_clock: MockClock) -> None:
    held = memory()
    held.put(THREE)
    async with open_pair(held, memory()) as (_, ours, theirs):
        stream = await ours.open_stream(theirs.peer_id, [PROTOCOL])
        await stream.send_all(encode_request(Request(root=ROOT, size=SIZE, first=0, count=3)))
        await trio.sleep(CHUNK_TIMEOUT + 1)
        with pytest.raises(StreamReset):
            await receive_exactly(stream, SIZE)


@pytest.mark.parametrize("request_bytes", [b"\x01\xc0", b"\xff\x7f", b"\x02\x91\x01"])
async def test_a_request_that_is_none_is_reset(request_bytes: bytes, autojump_clock: MockClock) -> None:
    async with open_pair(memory(), memory()) as (_, ours, theirs):
        stream = await ours.open_stream(theirs.peer_id, [PROTOCOL])
        await stream.send_all(request_bytes)
        with pytest.raises(StreamReset):
            await stream.receive_some()


async def test_a_disk_that_fails_holds_nothing_and_the_peer_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs_files, our_files = FolderFiles(tmp_path / "held"), FolderFiles(tmp_path / "fetched")
    held, fetched = BlobStore(theirs_files, CAPACITY), BlobStore(our_files, CAPACITY)
    held.put(THREE)

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async with open_pair(held, fetched) as (blobs, ours, theirs):
        with monkeypatch.context() as patch:
            patch.setattr(our_files, "write", fails)  # full: what was fetched is returned all the same
            assert await blobs.fetch(ROOT, SIZE, [theirs.peer_id]) == THREE
            assert ROOT not in fetched
        fetched.put(THREE)
        with monkeypatch.context() as patch:
            patch.setattr(our_files, "read", fails)  # our own copy cannot be read: ask for another
            assert await blobs.fetch(ROOT, SIZE, [theirs.peer_id]) == THREE
            patch.setattr(theirs_files, "read", fails)
            stream = await ours.open_stream(theirs.peer_id, [PROTOCOL])
            await stream.send_all(encode_request(Request(root=ROOT, size=SIZE, first=0, count=1)))
            answer = await DelimitedReader(stream, MAX_ANSWER).receive()
            assert answer is not None
            assert decode_answer(answer) == Missing()


async def test_after_the_end_nothing_is_served(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(2) as (ours, theirs), open_blobs(ours, memory()) as blobs:
        async with open_blobs(theirs, memory()):
            pass
        await ours.connect(theirs.peer_id, theirs.addresses())
        with pytest.raises(BlobUnavailable):
            await blobs.fetch(ROOT, SIZE, [theirs.peer_id])
