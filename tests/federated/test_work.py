from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import cast

import pytest

from federated import capability, codec
from federated.capability import Meter
from federated.compute import InlineCompute
from federated.manifest import PluginRef
from federated.pace import Pace
from federated.parameters import Parameters
from federated.plugin import PeerContext
from federated.rounds.actions import Adopt, Aggregate, Fetch, Validate
from federated.rounds.events import (
    AdoptFailed,
    Aggregated,
    Fetched,
    FetchFailed,
    Input,
    ModelAdopted,
    Validated,
)
from federated.rounds.messages import Model
from federated.snapshots import Snapshots
from federated.storage import Disk, Shelf
from federated.work import RoundWork
from federated.workbench import digest, prepare
from p2p.blobs import Blobs, BlobUnavailable, blob_root
from p2p.peer_id import PeerId
from tests.federated import tiny
from tests.federated.lab import certified, peer_number, tiny_manifest

HOLDERS = (peer_number(2), peer_number(3))


class FakeBlobs:
    """Has what it was given, and nobody else to ask."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.store: dict[bytes, bytes] = {}  # what needs no network

    async def fetch(self, root: bytes, size: int, holders: Sequence[PeerId]) -> bytes:
        assert tuple(holders) == HOLDERS
        if root not in self.held:
            raise BlobUnavailable(root, ["nobody has it"])
        return self.held[root]

    async def keep(self, data: bytes, *, needed: bool = True) -> bytes:
        root = blob_root(data)
        self.held[root] = data
        return root

    def expect(self, root: bytes) -> None:
        """As `Shelf.expect`."""

    async def turn(self, root: bytes, data: bytes) -> None:
        assert blob_root(data) == root


def refuse(failure: str | None) -> None:
    raise AssertionError(failure)


class Place:
    """The work of one member on a fake blob store, at the first model."""

    def __init__(self, validator: str = "update-check") -> None:
        manifest = tiny_manifest(3, validator=PluginRef(name=validator))
        plugins = tiny.registry().load(manifest)
        peers = manifest.peer_ids
        self.bench = prepare(manifest, plugins, PeerContext(peer=peers[0], members=peers, index=0))
        self.blobs = FakeBlobs()
        self.complaints: list[str] = []
        self.work = RoundWork(
            bench=self.bench,
            blobs=cast("Blobs", self.blobs),
            trainer=InlineCompute(),
            compute=InlineCompute(),
            shelf=cast("Shelf", self.blobs),
            disk=Disk(compute=InlineCompute(), tell=refuse),
            snapshots=Snapshots(None, manifest.task_id, len(self.bench.initial)),
            complain=self.complaints.append,
        )

    async def begin(self) -> Model:
        model = await self.work.add_model(self.bench.initial)
        await self.work.turn(model)
        return model


def parameters(value: float) -> Parameters:
    changed = tiny.Pull().init(0)
    changed["w"] += value
    return changed


def adopt(data: bytes) -> Adopt:
    model = Model(digest=digest(data), root=blob_root(data), size=len(data))
    return Adopt(certificate=certified(model, 7), holders=HOLDERS)


async def test_a_certified_model_is_fetched_and_is_at_hand() -> None:
    place = Place()
    old = await place.begin()
    data = codec.encode(parameters(1.0))
    assert await place.work.perform(adopt(data)) == AdoptFailed(round=7)
    await place.blobs.keep(data)
    action = adopt(data)
    assert await place.work.perform(action) == ModelAdopted(round=7)
    model = action.certificate.block.model
    assert place.work.model(model.digest) == data
    await place.work.turn(model)
    with pytest.raises(KeyError):
        place.work.model(old.digest)


async def test_a_model_that_is_at_hand_is_not_fetched() -> None:
    place = Place()
    await place.begin()
    place.blobs.held.clear()
    assert await place.work.perform(adopt(place.bench.initial)) == ModelAdopted(round=7)


async def test_bytes_that_are_not_the_certified_model_are_refused() -> None:
    place = Place()
    await place.begin()
    action = adopt(codec.encode(parameters(1.0)))
    place.blobs.held[action.certificate.block.model.root] = codec.encode(parameters(2.0))
    assert await place.work.perform(action) == AdoptFailed(round=7)
    other = codec.encode({"other": parameters(0.0)["w"]})
    await place.blobs.keep(other)
    assert await place.work.perform(adopt(other)) == AdoptFailed(round=7)


async def test_an_update_that_makes_the_validator_fail_is_refused() -> None:
    place = Place("failingcheck")
    await place.begin()
    data = codec.encode(parameters(1.0))
    root = await place.blobs.keep(data)
    fetch = Fetch(round=1, root=root, size=len(data), holders=HOLDERS)
    assert await place.work.perform(fetch) == Fetched(round=1, root=root)
    item = Input(peer=HOLDERS[0], root=root, size=len(data), examples=1)
    validated = await place.work.perform(Validate(round=1, input=item))
    assert validated == Validated(round=1, root=root, rule="validator")
    [line] = place.complaints
    told = "refused: validator 'failingcheck' failed: KeyError: 'w' (tiny.py, line "
    assert line.startswith(f"round 1: the update of {HOLDERS[0]} is {told}")


async def validated(place: Place, value: float, number: int) -> Input:
    """An update that moves the model by `value`, fetched from a member and fine."""
    data = codec.encode(parameters(value))
    root = await place.blobs.keep(data)
    item = Input(peer=peer_number(number), root=root, size=len(data), examples=1)
    await place.work.perform(Fetch(round=1, root=root, size=len(data), holders=HOLDERS))
    assert await place.work.perform(Validate(round=1, input=item)) == Validated(round=1, root=root, rule=None)
    return item


async def test_an_aggregate_counts_the_examples_of_its_inputs() -> None:
    place = Place()
    await place.begin()
    items = [await validated(place, 1.0, 1), await validated(place, 5.0, 2)]
    inputs = (items[0], replace(items[1], examples=3))  # a twin that claims more
    done = await place.work.perform(Aggregate(round=1, inputs=inputs))
    assert isinstance(done, Aggregated)
    model = place.bench.decode(place.work.model(done.model.digest))
    assert model["w"] == pytest.approx(3 + (1.0 + 3 * 5.0) / 4)
    assert place.blobs.held[done.model.root] == place.work.model(done.model.digest)


async def test_the_updates_of_a_round_are_forgotten_with_it() -> None:
    place = Place()
    model = await place.begin()
    inputs = (await validated(place, 1.0, 1),)
    await place.work.turn(model)
    with pytest.raises(KeyError):
        await place.work.perform(Aggregate(round=1, inputs=inputs))
    with pytest.raises(KeyError):
        await place.work.perform(Validate(round=1, input=inputs[0]))


async def test_an_update_that_nobody_has_is_not_fetched() -> None:
    place = Place()
    fetch = Fetch(round=1, root=bytes(32), size=1, holders=HOLDERS)
    assert await place.work.perform(fetch) == FetchFailed(round=1, root=bytes(32))


async def test_what_comes_from_others_and_what_is_averaged_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capability, "MIN_AVERAGED", 1)
    place = Place()
    await place.begin()
    ticks = count(0.0, 0.5)  # each look at the clock takes half a second
    place.work.meter = meter = Meter(lambda: next(ticks), Pace(), memory=1, cores=1)
    items = [await validated(place, 1.0, 1), await validated(place, 5.0, 2)]
    large = Fetch(round=1, root=items[0].root, size=1 << 20, holders=HOLDERS)
    place.blobs.store[items[0].root] = b"our own"
    await place.work.perform(large)
    assert meter.down.rate == 0
    place.blobs.store.clear()
    await place.work.perform(large)
    assert meter.down.rate == 2 << 20
    assert await place.work.perform(adopt(codec.encode(parameters(9.0)))) == AdoptFailed(round=7)
    assert meter.down.rate == 2 << 20
    await place.work.perform(Aggregate(round=1, inputs=tuple(items)))
    found = meter.news()
    assert found is not None
    assert found.aggregate_bytes_per_second == 2 * sum(item.size for item in items)
