"""What a task keeps while disk and blob store are short of room."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from federated.compute import InlineCompute
from federated.errors import StorageError
from federated.rounds.recent import EVIDENCE_ROUNDS
from federated.storage import STORAGE_RETRY, Disk, Shelf
from p2p.blobs import BlobStore, blob_root

SIZE = 100  # bytes of each blob here


def blob(number: int) -> bytes:
    return bytes([number]) * SIZE


class Place:
    """A shelf in a store with room for so many blobs."""

    def __init__(self, room: int) -> None:
        self.told: list[str | None] = []
        self.store = BlobStore(None, room * SIZE)
        self.disk = Disk(compute=InlineCompute(), tell=self.told.append)
        self.shelf = Shelf(store=self.store, disk=self.disk, owner="task")

    def has(self, *numbers: int) -> bool:
        return sorted(self.store.roots()) == sorted(blob_root(blob(number)) for number in numbers)

    async def begin(self, number: int) -> None:
        await self.shelf.turn(await self.shelf.keep(blob(number), needed=True), blob(number))


async def test_what_a_round_needs_stays_and_what_others_put_goes(autojump_clock: MockClock) -> None:
    place = Place(3)
    await place.begin(1)
    place.store.put(blob(8))
    place.store.put(blob(9))
    await place.shelf.keep(blob(2), needed=True)
    await place.shelf.keep(blob(3), needed=False)
    assert place.has(1, 2, 3)
    assert place.told == []


async def test_what_others_have_gives_way_to_what_is_needed(autojump_clock: MockClock) -> None:
    place = Place(3)
    await place.begin(1)
    for number in (2, 3):
        place.shelf.expect(blob_root(blob(number)))
        place.store.put(blob(number))
    await place.shelf.keep(blob(4), needed=True)
    assert place.has(1, 3, 4)
    assert place.told == []


async def test_a_model_that_had_to_give_way_is_put_again_when_its_round_begins(
    autojump_clock: MockClock,
) -> None:
    place = Place(2)
    await place.begin(1)
    root = await place.shelf.keep(blob(2), needed=False)
    await place.shelf.keep(blob(3), needed=False)
    assert place.has(1, 3)
    await place.shelf.turn(root, blob(2))
    assert place.store.get(root) == blob(2)


async def test_blobs_of_a_round_are_kept_for_one_more(autojump_clock: MockClock) -> None:
    place = Place(9)
    await place.begin(1)
    await place.shelf.keep(blob(2), needed=True)
    await place.begin(3)
    assert place.has(1, 2, 3)
    await place.begin(4)
    assert place.has(3, 4)


async def test_a_full_store_is_waited_for_and_said_once(autojump_clock: MockClock) -> None:
    place = Place(2)
    place.store.retain("another", [blob_root(blob(8)), blob_root(blob(9))])
    place.store.put(blob(8))
    place.store.put(blob(9))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.begin, 1)
        await trio.sleep(3.5 * STORAGE_RETRY)
        [line] = place.told
        assert line is not None
        assert "over the store's limit" in line
        place.store.retain("another", ())
    assert blob_root(blob(1)) in place.store
    assert place.told == [line, None]


async def test_a_call_that_is_given_up_does_not_make_the_task_wait(autojump_clock: MockClock) -> None:
    place = Place(1)

    def fail() -> None:
        raise StorageError("no space")

    with trio.move_on_after(2.5 * STORAGE_RETRY):
        await place.disk.run(fail)
    assert place.told == ["no space"]
    assert await place.disk.run(lambda: 7) == 7
    assert place.told == ["no space", None]


async def test_what_the_end_of_a_task_leaves_may_go(autojump_clock: MockClock) -> None:
    place = Place(1)
    await place.begin(1)
    place.shelf.clear()
    place.store.put(blob(2))
    assert place.has(2)


async def test_a_blob_that_cannot_be_removed_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError(30, "Read-only file system")

    await Place(1).disk.try_once(fail)
    assert "cannot be removed" in caplog.text


async def test_a_blob_that_cannot_be_removed_keeps_no_other(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(9)

    def discard(root: bytes) -> None:
        if root == blob_root(blob(1)):
            raise OSError(30, "Read-only file system")
        real(root)

    real = place.store.discard
    monkeypatch.setattr(place.store, "discard", discard)
    await place.begin(1)
    await place.shelf.keep(blob(2), needed=False)
    for number in (3, 4):
        await place.begin(number)
    assert place.has(1, 3, 4)
    assert caplog.text.count("cannot be removed") == 1


async def test_what_shows_a_fraud_stays_for_as_many_rounds_as_others_may_ask_for_it(
    autojump_clock: MockClock,
) -> None:
    place = Place(4)
    await place.begin(1)
    await place.shelf.keep(blob(2), needed=False)
    place.shelf.hold([blob_root(blob(2))])
    for _ in range(EVIDENCE_ROUNDS - 1):
        await place.begin(1)
    assert place.has(1, 2)
    for _ in range(2):
        await place.begin(1)
    assert place.has(1)
