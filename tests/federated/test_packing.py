"""Updates that are compressed: by a peer alone, from round to round, and in a whole task."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import numpy as np
import pytest
from trio.testing import MockClock

from federated import codec
from federated.errors import PluginError
from federated.manifest import MAX_UPDATE, PluginRef, TaskManifest, parse_manifest
from federated.packing import COMPRESSOR, join, part
from federated.parameters import Parameters, Schema, schema_of
from federated.plugin import Compressed, ModelUpdate, PeerContext, TrainContext, TrainResult
from federated.registry import GROUP, Registry
from federated.snapshots import max_state
from federated.workbench import Workbench, digest, prepare
from plugins.compression.flat import LEFT, PACKED
from plugins.compression.top_k import TopK
from sim.disk import SimDisk
from tests.federated import tiny
from tests.federated.lab import (
    Lab,
    Member,
    open_lab,
    peer_number,
    refused,
    start_with,
    tiny_manifest,
)
from tests.federated.mortal import assert_every_kill_is_survived
from tests.federated.test_work_state import Life
from tests.federated.test_workbench import base, item, never

SPARSE = PluginRef(name="top-k", settings={"share": 0.25, "bits": 16, "small": 0})  # one number of four
HERE = __name__


class Sends:
    """A compressor with a fault; what is right comes from `TopK`."""

    kind = "compressor"

    def __init__(self) -> None:
        self.inner = TopK(**SPARSE.settings)

    def compress(self, delta: Parameters, state: Parameters, seed: int) -> Compressed:
        return self.inner.compress(delta, state, seed)

    def decompress(self, payload: Parameters, schema: Schema) -> Parameters:
        return self.inner.decompress(payload, schema)


class Fails(Sends):
    """Packs the first model, and no update."""

    def compress(self, delta: Parameters, state: Parameters, seed: int) -> Compressed:
        if seed:
            raise ValueError("no room\nat all")
        return super().compress(delta, state, seed)


class Misspells(Sends):
    """Makes a payload that does not travel."""

    def compress(self, delta: Parameters, state: Parameters, seed: int) -> Compressed:
        return Compressed(payload={"a b": np.zeros(1)})


class Muddles(Sends):
    """Wants something back that is no array."""

    def compress(self, delta: Parameters, state: Parameters, seed: int) -> Compressed:
        return replace(super().compress(delta, state, seed), state={"left": 3.0})


class Reshapes(Sends):
    """Makes other tensors of a payload."""

    def decompress(self, payload: Parameters, schema: Schema) -> Parameters:
        return {"w": np.zeros(5, np.float32)}


class Forgets(Sends):
    """Makes a payload that its own other half refuses."""

    def compress(self, delta: Parameters, state: Parameters, seed: int) -> Compressed:
        made = super().compress(delta, state, seed)
        return replace(made, payload={PACKED: made.payload[PACKED]})


class Grows(Sends):
    """Makes updates that are larger than the first model was."""

    def compress(self, delta: Parameters, state: Parameters, seed: int) -> Compressed:
        made = super().compress(delta, state, seed)
        return replace(made, payload=made.payload | {"more": np.zeros(1000 if seed else 0)})

    def decompress(self, payload: Parameters, schema: Schema) -> Parameters:
        return super().decompress({name: payload[name] for name in payload if name != "more"}, schema)


class Lies(Sends):
    """A member's compressor that sends indices out of range, once the task runs."""

    def compress(self, delta: Parameters, state: Parameters, seed: int) -> Compressed:
        made = super().compress(delta, state, seed)
        if seed:
            made.payload[PACKED][0] = 0xFF
        return made


class NanPull(tiny.Nan):
    """Trains to something that is no number."""


class Hoards(tiny.Pull):
    """Wants something back in the first round only, and changes it in place."""

    seen: ClassVar[list[list[float]]] = []

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        result = super().train(parameters, data, context)
        Hoards.seen.append([float(array[0]) for array in context.state.values()])
        if not context.state:
            return replace(result, state={"mine": np.ones(1)})
        context.state["mine"] += 1
        return result


class Squats(tiny.Pull):
    """Wants the name of what a compressor keeps."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        result = super().train(parameters, data, context)
        return replace(result, state={COMPRESSOR + "left": np.zeros(1)})


def registry(**instead: str) -> Registry:
    """The plugins of the tiny task; `instead` has classes of this file under names of theirs."""
    names = {name: f"tests.federated.tiny:{name.title()}" for name in ("points", "pull", "glides")}
    found = tiny.BUILT_IN | names | {name: f"{HERE}:{own}" for name, own in instead.items()}
    return Registry(installed=[EntryPoint(name, value, GROUP) for name, value in sorted(found.items())])


def bench(
    compressor: str = "", trainer: str = "", number: int = 1, max_update_bytes: int = 1000
) -> Workbench:
    """The workbench of a member whose compressor or trainer is a class of this file."""
    instead = {name.lower(): name for name in (compressor, trainer) if name}
    manifest = tiny_manifest(
        3,
        compressor=PluginRef(name=compressor.lower()) if compressor else SPARSE,
        trainer=PluginRef(name=trainer.lower() or "pull"),
        max_update_bytes=max_update_bytes,
    )
    peer = peer_number(number)
    context = PeerContext(peer=peer, members=manifest.peer_ids, index=manifest.peer_ids.index(peer))
    return prepare(manifest, registry(**instead).load(manifest), context)


def state_of(data: bytes | None, made: Workbench) -> Parameters:
    return {} if data is None else codec.decode_any(data, max_state(len(made.initial)))


def test_a_task_without_a_compressor_says_nothing_of_one() -> None:
    assert b"compressor" not in tiny_manifest(3).canonical()
    task = tiny_manifest(3, compressor=SPARSE)
    assert parse_manifest(task.canonical()) == task
    assert parse_manifest(task.canonical()).compressor == SPARSE
    assert (tiny_manifest(3).max_model_bytes, task.max_model_bytes) == (1 << 26, MAX_UPDATE)


def test_a_state_is_put_together_and_taken_apart() -> None:
    own, kept = {"left": np.zeros(1)}, {"left": np.ones(2), "factors": np.ones(3)}
    whole = join(own, kept)
    assert sorted(whole) == [COMPRESSOR + "factors", COMPRESSOR + "left", "left"]
    assert part(whole) == (own, kept)


def test_an_update_is_what_the_compressor_leaves_of_it() -> None:
    made = bench(number=2)
    update = made.train(base(made), 1, never)
    checked = made.check(item(update.data, update.examples), update.data, base(made))
    assert isinstance(checked, ModelUpdate)
    assert checked.delta["count"] == 1
    whole = (update.examples - 1 - 3) / 2
    assert checked.delta["w"] == pytest.approx([whole, 0, 0, 0])
    state = state_of(update.state, made)
    assert state[COMPRESSOR + LEFT] == pytest.approx([0, whole, whole, whole], abs=1e-4)
    later = made.train(base(made), 2, never, state=state)
    again = made.check(item(later.data), later.data, base(made))
    assert isinstance(again, ModelUpdate)
    assert again.delta["w"] == pytest.approx([0, 2 * whole, 0, 0])


def test_an_update_that_is_not_compressed_is_refused() -> None:
    made = bench()
    plain = codec.encode({"count": np.ones((), np.int64), "w": np.ones(4, np.float32)})
    assert made.check(item(plain), plain, base(made)) == "schema"
    assert made.check(item(plain), bytes(9), base(made)) == "header"
    assert made.check(item(plain), bytes(1001), base(made)) == "size"


def test_the_trainer_never_sees_what_the_compressor_keeps() -> None:
    made, state, datas = bench(trainer="Hoards"), Parameters(), []
    Hoards.seen.clear()
    for number in (1, 2, 2, 3):
        update = made.train(base(made), number, never, state=state)
        datas.append(update.data)
        if number != 2 or len(datas) == 3:
            state = state_of(update.state, made)
        assert sorted(state) == [COMPRESSOR + LEFT, "mine"]
        assert state["mine"] == 1  # as it was given back
    assert Hoards.seen == [[], [1], [1], [1]]
    assert datas[1] == datas[2] != datas[0]


@pytest.mark.parametrize(
    ("compressor", "line"),
    [
        (
            "Misspells",
            "compressor 'misspells': its payload: schema: tensor a b float64[1] is over the limits",
        ),
        ("Muddles", "compressor 'muddles': its state has a float, not an array, as left"),
        ("Reshapes", "compressor 'reshapes': tensor count int64[] is missing"),
        ("Forgets", "compressor 'forgets': it does not take what it makes: schema: tensor count int64[] is"),
    ],
)
def test_a_compressor_with_a_fault_is_named_before_the_first_round(compressor: str, line: str) -> None:
    with pytest.raises(PluginError) as caught:
        bench(compressor)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("compressor", "trainer", "line"),
    [
        ("Fails", "", "compressor 'fails' failed: ValueError: no room"),
        ("Grows", "", "compressor 'grows': an update has 8206 bytes; raise max_update_bytes, which is 1000"),
        ("", "NanPull", "trainer 'nanpull': its update of w is not finite, and cannot be compressed"),
        ("", "Squats", f"trainer 'squats': its state has the name {COMPRESSOR}left, of one that"),
    ],
)
def test_what_fails_in_a_round_is_named_in_one_line(compressor: str, trainer: str, line: str) -> None:
    made = bench(compressor, trainer)
    with pytest.raises(PluginError) as caught:
        made.train(base(made), 1, never)
    assert str(caught.value).startswith(line)


def test_the_limit_is_of_what_travels() -> None:
    made = bench()
    data = made.train(base(made), 1, never).data
    assert len(data) < len(made.initial)
    assert bench(max_update_bytes=len(data)).train(base(made), 1, never).data == data
    with pytest.raises(
        PluginError, match=f"'top-k': an update has {len(data)} bytes; raise max_update_bytes"
    ):
        bench(max_update_bytes=len(data) - 1)


def test_a_model_is_bounded_where_updates_are_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federated.manifest.MAX_UPDATE", 100)
    with pytest.raises(
        PluginError, match="trainer 'pull': an update has 144 bytes; no model has more than 100"
    ):
        bench()


def test_a_peer_without_the_compressor_refuses_the_task_in_one_line() -> None:
    manifest = tiny_manifest(3, compressor=PluginRef(name="zip"))
    with pytest.raises(
        PluginError,
        match=r"^no compressor 'zip' is installed; there are: int4, int8, power-sgd, sign, top-k$",
    ):
        tiny.registry().load(manifest)
    with pytest.raises(PluginError, match=r"^plugin 'pull' is of kind trainer, not compressor$"):
        tiny.registry().load(tiny_manifest(3, compressor=PluginRef(name="pull")))
    enabled = Registry(["points", "pull", "weighted-mean", "update-check"], _points())
    with pytest.raises(PluginError, match=r"^plugin 'top-k' is not enabled here: add --plugin top-k$"):
        enabled.load(tiny_manifest(3, compressor=SPARSE))


def _points() -> list[EntryPoint]:
    found = tiny.BUILT_IN | {name: f"tests.federated.tiny:{name.title()}" for name in ("points", "pull")}
    return [EntryPoint(name, value, GROUP) for name, value in found.items()]


ROUNDS = 5


def lives(trainer: str) -> Callable[[], tuple[Workbench, TaskManifest]]:
    manifest = tiny_manifest(3, trainer=PluginRef(name=trainer), compressor=SPARSE)
    context = PeerContext(peer=peer_number(1), members=manifest.peer_ids, index=0)
    return lambda: (prepare(manifest, tiny.registry().load(manifest), context), manifest)


@pytest.mark.parametrize("trainer", ["pull", "glides"])
async def test_what_is_left_outlives_the_process(trainer: str) -> None:
    """Killed at any moment, the member makes the updates of one that was not."""
    task = lives(trainer)
    whole = Life(*task(), None)
    expected = [await whole.train(number) for number in range(1, ROUNDS + 1)]
    assert len(set(expected)) > 3  # another number each time: the model stays, what is left grows
    await assert_every_kill_is_survived(lambda files: Life(*task(), files), expected)


async def test_a_round_without_an_update_leaves_what_was_left() -> None:
    task, disk = lives("pull"), SimDisk(random.Random(1))
    whole = Life(*task(), None)
    expected = [await whole.train(number) for number in (1, 2)]
    life = Life(*task(), disk.mount())
    assert await life.train(1) == expected[0]
    assert await life.train(4) == expected[1]  # two rounds were missed: it is what the newest training left


async def test_members_of_a_task_send_the_largest_and_agree(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(3, rounds=8, compressor=SPARSE))
    async with open_lab(lab, 1, 2, 3):
        await lab.until_finished(1, 2, 3)
    assert lab.digests() == {number + 1: [name] for number, name in enumerate(alone(lab.manifest))}
    assert all(len(lab.rounds(1)[number]["participants"]) == 3 for number in range(1, 9))


def alone(manifest: TaskManifest) -> list[str]:
    """The digests that the members of a task come to without a network."""
    plugins = tiny.registry().load(manifest)
    members = [
        prepare(manifest, plugins, PeerContext(peer=peer, members=manifest.peer_ids, index=index))
        for index, peer in enumerate(manifest.peer_ids)
    ]
    model, digests = members[0].initial, []
    states = [Parameters() for _ in members]
    for number in range(1, manifest.rounds + 1):
        before = members[0].decode(model)
        updates = []
        for index, made in enumerate(members):
            update = made.train(before, number, never, state=states[index])
            states[index] = state_of(update.state, made)
            checked = made.check(item(update.data, update.examples, index + 1), update.data, before)
            assert isinstance(checked, ModelUpdate)
            updates.append(replace(checked, root=digest(update.data)))
        result = members[0].aggregate(before, updates)
        assert isinstance(result, bytes)
        model = result
        digests.append(digest(model).hex())
    return digests


async def test_a_payload_with_a_fault_is_refused_by_its_rule(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(4, rounds=3, compressor=SPARSE))
    liar = registry(**{"top-k": "Liar"})
    async with open_lab(lab, 1, 2, 3) as nursery:
        member: Member = await nursery.start(start_with, lab, 4, liar)
        await lab.until_finished(1, 2, 3)
        assert member.number == 4
    for number in (1, 2, 3):
        assert all(
            refused(lab, number, round_number) == [(str(peer_number(4)), "indices")]
            for round_number in (1, 2, 3)
        )


class Liar(Lies):
    """`Lies`, made with the settings of the task."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()


def test_a_schema_is_what_comes_back() -> None:
    made = bench()
    delta = base(made)
    packing = made._packing
    assert schema_of(packing.unpack(packing.pack(delta, {}, 1)[0])) == schema_of(delta)
