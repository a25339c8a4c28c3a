from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from p2p import varint
from p2p.blobs import PROTOCOL, Blobs, BlobStore, BlobUnavailable, StoreFull, blob_root, open_blobs
from p2p.blobs import partial as partial_module
from p2p.blobs import store as store_module
from p2p.blobs.holder import CHUNK_TIMEOUT
from p2p.blobs.merkle import CHUNK_SIZE, EMPTY_ROOT
from p2p.blobs.serving import IDLE_TIMEOUT, MAX_STREAMS_PER_PEER, RESOURCE_LIMIT
from p2p.blobs.transfer import HEDGE
from p2p.blobs.wire import (
    MAX_BLOB,
    MAX_HEADER,
    MAX_REQUEST,
    Absent,
    Answer,
    AnswerDecoder,
    Haves,
    Lacking,
    Want,
    decode_want,
    encode_answer,
    encode_want,
)
from p2p.errors import LocalProtocolError, StreamReset
from p2p.files import FolderFiles
from p2p.framing import DelimitedReader, receive_exactly
from p2p.host import Host
from p2p.peer_id import PeerId
from p2p.stream import Stream
from sim.disk import SimDisk
from tests.blobs.support import THREE, blob, chunk_of
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


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three chunks are many, and go to files."""
    monkeypatch.setattr(store_module, "SMALL", 10)


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
    await stream.send_all(varint.encode(MAX_HEADER + 1) + b"x" * 100)


async def sends_something_else(stream: Stream) -> None:
    await stream.send_all(b"\x02\x91\x05")


async def sends_other_bytes(stream: Stream) -> None:
    await serve(stream, THREE[:CHUNK_SIZE] + bytes(SIZE - CHUNK_SIZE))


async def sends_one_chunk_and_stops(stream: Stream) -> None:
    await serve(stream, THREE, 1)
    await send(stream, Absent())


async def sends_half_a_chunk_and_is_silent(stream: Stream) -> None:
    (head, data) = encode_answer(chunk_of(THREE, 0))
    await stream.send_all(head + data[:1000])
    await trio.sleep_forever()


async def tells_and_takes_back(stream: Stream) -> None:
    await send(stream, Haves(chunks=0b111))
    for index in range(3):
        await send(stream, Lacking(index=index))


async def serve(stream: Stream, data: bytes, count: int = 3) -> None:
    """Answers the first want with the first `count` chunks of `data`, whatever root was asked."""
    want = await receive_want(stream)
    for index in want.indexes[:count]:
        await send(stream, chunk_of(data, index))


async def receive_want(stream: Stream) -> Want:
    message = await DelimitedReader(stream, MAX_REQUEST).receive()
    assert message is not None
    return decode_want(message)


async def send(stream: Stream, answer: Answer) -> None:
    for piece in encode_answer(answer):
        await stream.send_all(piece)


async def receive_answer(stream: Stream) -> Answer:
    """The first answer."""
    decoder = AnswerDecoder()
    while (answer := decoder.next_event()) is None:
        data = await stream.receive_some()
        assert data
        decoder.receive_data(data)
    return answer


def want(*indexes: int) -> bytes:
    return encode_want(Want(root=ROOT, size=SIZE, indexes=indexes))


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
    tells_and_takes_back,
]


@pytest.mark.parametrize("handler", BAD_HOLDERS)
async def test_a_bad_holder_costs_a_second_at_most_and_the_next_one_gives_the_rest(
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
            assert trio.current_time() - start <= HEDGE
            with pytest.raises(BlobUnavailable, match=bad.peer_id.short):
                await blobs.fetch(bytes(32), SIZE, [bad.peer_id])


async def test_a_holder_that_is_unknown_or_does_not_serve_is_passed_over(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(3) as (ours, plain, unknown), open_blobs(ours, memory()) as blobs:
        await ours.connect(plain.peer_id, plain.addresses())
        with pytest.raises(BlobUnavailable) as caught:
            await blobs.fetch(ROOT, SIZE, [plain.peer_id, unknown.peer_id])
        assert len(caught.value.reasons) == 2


async def test_a_second_holder_is_asked_for_what_the_first_left(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(3) as (ours, first, second), open_blobs(ours, memory()) as blobs:
        asked: list[Want] = []

        async def records(stream: Stream) -> None:
            asked.append(await receive_want(stream))

        first.handle(PROTOCOL, sends_one_chunk_and_stops)
        second.handle(PROTOCOL, records)
        for other in (first, second):
            await ours.connect(other.peer_id, other.addresses())
        with pytest.raises(BlobUnavailable):
            await blobs.fetch(ROOT, SIZE, [first.peer_id, second.peer_id])
        assert [len(each.indexes) for each in asked] == [2]


async def test_several_holders_give_a_part_each(autojump_clock: MockClock) -> None:
    data = blob(40 * CHUNK_SIZE)
    async with AsyncExitStack() as stack:
        ours, *others = await stack.enter_async_context(open_memory_hosts(4))
        served = []
        for other in others:
            store = memory()
            root = store.put(data)
            served.append(await stack.enter_async_context(open_blobs(other, store)))
            await connect(ours, other)
        blobs = await stack.enter_async_context(open_blobs(ours, memory()))
        assert await blobs.fetch(root, len(data), [other.peer_id for other in others]) == data
        assert all(each.bytes_sent > 4 * CHUNK_SIZE for each in served)
        assert sum(each.bytes_sent for each in served) < len(data) + 16 * CHUNK_SIZE


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("on_disk", [False, True])
async def test_what_is_on_its_way_is_given_to_others(on_disk: bool, autojump_clock: MockClock) -> None:
    """The first holder gives one chunk, and the rest when it is told to."""
    go_on, halfway = trio.Event(), trio.Event()

    async def waits(stream: Stream) -> None:
        want = await receive_want(stream)
        for count, index in enumerate(want.indexes):
            if count == 1:
                halfway.set()
                await go_on.wait()
            await send(stream, chunk_of(THREE, index))
        await stream.receive_some()

    async with open_memory_hosts(3) as (owner, one, other):
        owner.handle(PROTOCOL, waits)
        await connect(one, owner)
        await connect(other, one)
        ones = BlobStore(SimDisk(Random(1)).mount() if on_disk else None, CAPACITY)
        async with (
            open_blobs(one, ones) as first,
            open_blobs(other, memory()) as second,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(first.fetch_into_store, ROOT, SIZE, [owner.peer_id])
            await halfway.wait()
            stream = await other.open_stream(one.peer_id, [PROTOCOL])
            await stream.send_all(want())
            before = await receive_answer(stream)
            assert isinstance(before, Haves)
            assert before.chunks.bit_count() <= 1
            nursery.start_soon(second.fetch_into_store, ROOT, SIZE, [one.peer_id])
            await trio.testing.wait_all_tasks_blocked(0.01)
            go_on.set()
        assert first.store.get(ROOT) == second.store.get(ROOT) == THREE


@pytest.mark.usefixtures("large")
async def test_a_fetch_goes_on_where_an_earlier_one_was_cut_off(tmp_path: Path) -> None:
    async with open_memory_hosts(3) as (ours, first, second):
        asked: list[Want] = []

        async def records(stream: Stream) -> None:
            asked.append(await receive_want(stream))

        first.handle(PROTOCOL, sends_one_chunk_and_stops)
        second.handle(PROTOCOL, records)
        for other in (first, second):
            await ours.connect(other.peer_id, other.addresses())
        for _ in range(2):  # by another process the second time
            async with open_blobs(ours, BlobStore(FolderFiles(tmp_path), CAPACITY)) as blobs:
                with pytest.raises(BlobUnavailable):
                    await blobs.fetch_into_store(ROOT, SIZE, [first.peer_id])
                assert ROOT not in blobs.store
        async with open_blobs(ours, BlobStore(FolderFiles(tmp_path), CAPACITY)) as blobs:
            with pytest.raises(BlobUnavailable):
                await blobs.fetch_into_store(ROOT, SIZE, [second.peer_id])
        assert [len(each.indexes) for each in asked] == [1]
        second.unhandle(PROTOCOL)
        held = memory()
        held.put(THREE)
        async with (
            open_blobs(second, held) as server,
            open_blobs(ours, BlobStore(FolderFiles(tmp_path), CAPACITY)) as blobs,
        ):
            assert await blobs.fetch(ROOT, SIZE, [second.peer_id]) == THREE
            assert server.bytes_sent < CHUNK_SIZE + 1000
            await blobs.fetch_into_store(ROOT, SIZE, [])  # it is here


async def test_two_fetches_of_one_blob_are_one(autojump_clock: MockClock) -> None:
    held = memory()
    held.put(THREE)
    async with open_memory_hosts(3) as (ours, bad, good), open_blobs(good, held) as server:
        bad.handle(PROTOCOL, is_silent)
        for other in (bad, good):
            await connect(ours, other)
        async with open_blobs(ours, memory()) as blobs, trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def fetch(holder: Host) -> None:
                assert await blobs.fetch(ROOT, SIZE, [holder.peer_id]) == THREE

            async def is_cancelled() -> None:
                with scope:
                    await fetch(bad)

            nursery.start_soon(fetch, bad)  # it is told of the good holder by the next one
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(fetch, good)
            nursery.start_soon(blobs.fetch_into_store, ROOT, SIZE, [bad.peer_id])
        assert server.bytes_sent < SIZE + 2000
        async with open_blobs(ours, memory()) as blobs, trio.open_nursery() as nursery:
            nursery.start_soon(is_cancelled)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(fetch, good)
            nursery.start_soon(fetch, good)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()  # the next one takes over
        assert server.bytes_sent < 2 * SIZE + 4000


async def test_all_who_wait_for_a_fetch_hear_why_it_failed(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(2) as (ours, bad), open_blobs(ours, memory()) as blobs:
        bad.handle(PROTOCOL, is_silent)
        await connect(ours, bad)
        failed = []

        async def fetch() -> None:
            with pytest.raises(BlobUnavailable, match="nothing of use"):
                await blobs.fetch(ROOT, SIZE, [bad.peer_id])
            failed.append(trio.current_time())

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(fetch)
        assert [each - start for each in failed] == pytest.approx([CHUNK_TIMEOUT] * 3)


async def test_holders_that_are_found_later_are_asked_too(autojump_clock: MockClock) -> None:
    held = memory()
    held.put(THREE)

    async def search() -> AsyncIterator[PeerId]:
        await trio.sleep(60)
        yield theirs.peer_id
        await trio.sleep(60)

    async def find_nobody() -> AsyncIterator[PeerId]:
        await trio.sleep(60)
        return
        yield theirs.peer_id

    async with open_pair(held, memory()) as (blobs, ours, theirs):
        start = trio.current_time()
        with pytest.raises(BlobUnavailable, match="no holder"):
            await blobs.fetch(ROOT, SIZE, [ours.peer_id], found=find_nobody())
        assert trio.current_time() - start == pytest.approx(60)
        assert await blobs.fetch(ROOT, SIZE, [], found=search()) == THREE
        assert trio.current_time() - start < 121


async def test_a_blob_that_does_not_fit_is_returned_or_refused(autojump_clock: MockClock) -> None:
    held, fetched = memory(), memory()
    held.put(THREE)
    needed = fetched.put(blob(CAPACITY - 1000))
    fetched.retain("a task", [needed])
    async with open_pair(held, fetched) as (blobs, _, theirs):
        with pytest.raises(StoreFull):
            await blobs.put(THREE)
        with pytest.raises(StoreFull):
            await blobs.fetch_into_store(ROOT, SIZE, [theirs.peer_id])
        assert await blobs.fetch(ROOT, SIZE, [theirs.peer_id]) == THREE
        assert fetched.roots() == [needed]
        with pytest.raises(BlobUnavailable, match="does not have 0 bytes"):
            await blobs.fetch_into_store(needed, 0, [])
        await blobs.fetch_into_store(EMPTY_ROOT, 0, [])


async def test_a_small_blob_that_does_not_fit_is_fetched_once_and_returned_or_refused(
    autojump_clock: MockClock,
) -> None:
    small = blob(1000)
    held, fetched = memory(), memory()
    root = held.put(small)
    fetched.retain("a task", [fetched.put(blob(CAPACITY - 999))])
    async with open_pair(held, fetched) as (blobs, _, theirs):
        reads: list[bytes] = []
        real = held.chunks_at
        held.chunks_at = lambda *args: (reads.append(args[0]), real(*args))[1]  # type: ignore[method-assign]
        assert await blobs.fetch(root, 1000, [theirs.peer_id]) == small
        assert reads == [root]
        with pytest.raises(StoreFull):
            await blobs.fetch_into_store(root, 1000, [theirs.peer_id])
        assert root not in fetched


async def test_a_small_blob_costs_one_change_of_threads_and_none_to_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, changes = blob(1000), 0

    async def count(*args: object, **options: object) -> object:
        nonlocal changes
        changes += 1
        return await run_sync(*args, **options)  # type: ignore[arg-type]

    run_sync = trio.to_thread.run_sync
    held, fetched = (BlobStore(FolderFiles(tmp_path / name), CAPACITY) for name in ("held", "fetched"))
    root = held.put(small)
    async with open_pair(held, fetched) as (blobs, _, theirs):
        monkeypatch.setattr(trio.to_thread, "run_sync", count)
        assert await blobs.fetch(root, 1000, [theirs.peer_id]) == small
        assert await blobs.fetch(root, 1000, []) == small
        assert changes == 1
    assert BlobStore(FolderFiles(tmp_path / "fetched"), CAPACITY).get(root) == small


async def test_what_was_put_meanwhile_needs_no_fetch(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_pair(memory(), memory()) as (blobs, _, theirs):
        real = blobs.store.begin

        def put_first(root: bytes, size: int) -> object:
            blobs.store.put(THREE)
            return real(root, size)

        blobs.store.begin = put_first  # type: ignore[method-assign, assignment]
        assert await blobs.fetch(ROOT, SIZE, [theirs.peer_id]) == THREE
        await blobs.discard(ROOT)
        await blobs.fetch_into_store(ROOT, SIZE, [theirs.peer_id])
        assert blobs.store.get(ROOT) == THREE


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
        await stream.send_all(want(0, 1, 2))
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
            with pytest.raises(OSError, match="Input/output"):
                await blobs.fetch_into_store(ROOT, SIZE, [theirs.peer_id])
            patch.setattr(store_module, "SMALL", 10)
            patch.setattr(our_files, "open", fails)
            assert await blobs.fetch(ROOT, SIZE, [theirs.peer_id]) == THREE
            patch.undo()
            patch.setattr(store_module, "SMALL", 10)
            patch.setattr(partial_module.FilePartial, "write", fails)
            assert await blobs.fetch(ROOT, SIZE, [theirs.peer_id]) == THREE
            with pytest.raises(OSError, match="Input/output"):
                await blobs.fetch_into_store(ROOT, SIZE, [theirs.peer_id])
            assert ROOT not in fetched
        fetched.put(THREE)
        with monkeypatch.context() as patch:
            patch.setattr(our_files, "read", fails)  # our own copy cannot be read: ask for another
            assert await blobs.fetch(ROOT, SIZE, [theirs.peer_id]) == THREE
            patch.setattr(theirs_files, "read_into", fails)
            stream = await ours.open_stream(theirs.peer_id, [PROTOCOL])
            await stream.send_all(want(0))
            assert await receive_answer(stream) == Lacking(index=0)


async def test_after_the_end_nothing_is_served(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(2) as (ours, theirs), open_blobs(ours, memory()) as blobs:
        async with open_blobs(theirs, memory()):
            pass
        await ours.connect(theirs.peer_id, theirs.addresses())
        with pytest.raises(BlobUnavailable):
            await blobs.fetch(ROOT, SIZE, [theirs.peer_id])
