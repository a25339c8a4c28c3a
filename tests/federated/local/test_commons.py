"""What members share: each thing is computed once, and comes out as everybody alone would have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from federated import codec
from federated.errors import PluginError
from federated.local import commons as module
from federated.local.commons import MAX_AGGREGATES, MAX_BASES, Commons
from federated.manifest import PluginRef, TaskManifest
from federated.parameters import Parameters
from federated.plugin import Dataset, ModelUpdate, PeerContext
from federated.registry import GROUP, Registry
from federated.rounds.committee import verify_signature
from federated.rounds.events import Input
from federated.workbench import Workbench, prepare
from p2p.peer_id import PeerId
from tests.federated import tiny
from tests.federated.lab import peer_number, tiny_manifest
from tests.support import key_number


class Counting:
    """Counts, for all members together, what was asked of validators, aggregators and trainers."""

    asked: dict[str, int]

    @classmethod
    def count(cls, what: str) -> None:
        cls.asked[what] = cls.asked.get(what, 0) + 1


class CountingCheck(Counting):
    kind = "validator"

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        self.count("check")
        return "examples" if update.examples > 5 else None

    def screen(self, updates: Sequence[ModelUpdate]) -> list[ModelUpdate]:
        self.count("screen")
        return [update for update in updates if update.delta["w"][0] > 50]


class CountingMean(Counting):
    kind = "aggregator"

    def aggregate(self, base: Parameters, updates: Sequence[ModelUpdate]) -> Parameters:
        self.count("aggregate")
        return base | {"w": base["w"] + sum(update.delta["w"] for update in updates)}


class CountingPull(tiny.Pull, Counting):
    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        self.count("evaluate")
        return {"loss": float(np.abs(parameters["w"] - np.sum(data[0])).max())}


class Remembering(CountingPull):
    """Measures with what it keeps."""

    is_personal = True

    def evaluate_with(self, parameters: Parameters, data: Any, state: Parameters) -> dict[str, float]:
        return self.evaluate(parameters, data)


class Held:
    """Every second member has other data held out."""

    kind = "preprocessor"

    def load(self, context: PeerContext) -> Dataset:
        held = (np.full(3, float(context.index % 2)), np.zeros(3, np.int64))
        return Dataset(train=np.float32(context.index), holdout=held, examples=1)


@pytest.fixture(autouse=True)
def count() -> None:
    Counting.asked = {}


def manifest(members: int = 3, trainer: str = "pull") -> TaskManifest:
    names = {"preprocessor": "held", "trainer": trainer, "aggregator": "mean", "validator": "check"}
    return tiny_manifest(members, **{kind: PluginRef(name=name) for kind, name in names.items()})


def benches(task: TaskManifest, commons: Commons | None) -> list[Workbench]:
    """The workbenches of all members; as on a network without `commons`."""
    names = {"held": "Held", "pull": "CountingPull", "mean": "CountingMean", "check": "CountingCheck"}
    names["remembering"] = "Remembering"
    points = [EntryPoint(name, f"{__name__}:{value}", GROUP) for name, value in names.items()]
    registry = Registry(installed=points)
    make = prepare if commons is None else commons.prepare
    contexts = [
        PeerContext(peer=peer, members=task.peer_ids, index=index) for index, peer in enumerate(task.peer_ids)
    ]
    return [make(task, registry.load(task), context) for context in contexts]


def model(value: float) -> bytes:
    return codec.encode({"count": np.zeros((), np.int64), "w": np.full(4, value, np.float32)})


def item(number: int, examples: int = 1) -> Input:
    return Input(peer=peer_number(number), root=bytes([number]) * 32, size=1, examples=examples)


def test_in_the_first_round_each_judges_for_itself() -> None:
    made = benches(manifest(), Commons())
    for bench in made:
        base = bench.decode(bench.initial)
        update = bench.check(item(1), model(1.0), base)
        assert isinstance(update, ModelUpdate)
        assert bench.aggregate(base, [update]) == model(4.0)
        bench.evaluate(base)
    assert Counting.asked == {"check": 3, "screen": 3, "aggregate": 3, "evaluate": 3}


def test_later_on_one_judges_for_all_and_comes_to_what_each_alone_would() -> None:
    task = manifest(4)
    alone, shared = benches(task, None), benches(task, Commons())
    results: list[list[object]] = []
    for made in (alone, shared):
        Counting.asked = {}
        found: list[object] = []
        for bench in made:
            base = bench.decode(bytes(bytearray(model(7.0))))  # equal bytes, at each member its own
            items = [item(1), item(2), item(3, examples=9)]
            checked = [bench.check(each, model(float(n)), base) for n, each in enumerate(items, 1)]
            updates = [each for each in checked if isinstance(each, ModelUpdate)]
            found += [each if isinstance(each, str) else (each.root, each.delta["w"][0]) for each in checked]
            found += [bench.aggregate(base, updates), bench.aggregate(base, updates[:1])]
            found += [bench.check(item(4), model(60.0), base) != "", bench.check(item(5), b"x", base)]
            wide = replace(updates[0], root=bytes(32), delta={"w": np.full(4, 60.0), "count": np.zeros(())})
            found.append(bench.aggregate(base, [wide]))
            found += [*bench.evaluate(base).values()]
        results.append(found)
        results.append([Counting.asked])
    for mine, theirs in zip(results[0], results[2], strict=True):
        assert str(mine) == str(theirs)
    assert results[1] == [{"check": 16, "screen": 12, "aggregate": 8, "evaluate": 4}]
    assert results[3] == [{"check": 4, "screen": 3, "aggregate": 2, "evaluate": 2}]


def test_an_update_that_is_claimed_in_another_way_is_another_one() -> None:
    one, other, _ = benches(manifest(), Commons())
    base = one.decode(model(7.0))
    first, second = one.check(item(1), model(1.0), base), other.check(item(1, 2), model(1.0), base)
    assert isinstance(first, ModelUpdate)
    assert isinstance(second, ModelUpdate)
    assert (first.examples, second.examples) == (1, 2)
    assert one.aggregate(base, [first]) == other.aggregate(base, [second])
    assert Counting.asked == {"check": 2, "screen": 2, "aggregate": 2}


def test_not_all_that_was_ever_made_is_remembered() -> None:
    one, other, _ = benches(manifest(), Commons())
    base = one.decode(model(7.0))
    sets = [
        [replace(_update(), root=bytes([number]) * 32, delta=base)] for number in range(MAX_AGGREGATES + 1)
    ]
    made = [bench.aggregate(base, updates) for updates in sets for bench in (one, other)]
    assert Counting.asked["aggregate"] == MAX_AGGREGATES + 1
    assert one.aggregate(base, sets[0]) == made[0]
    assert Counting.asked["aggregate"] == MAX_AGGREGATES + 2


def test_a_failure_is_not_shared() -> None:
    one, other, _ = benches(manifest(), Commons())
    base = one.decode(model(7.0))
    for bench in (one, other):
        with pytest.raises(PluginError, match="mean"):
            bench.aggregate(base, [replace(_update(), delta={"w": np.zeros(3, np.float32)})])
    assert Counting.asked["aggregate"] == 2


def _update() -> ModelUpdate:
    return ModelUpdate(peer=peer_number(1), root=bytes(32), delta={}, examples=1)


def test_a_trainer_that_measures_with_what_it_keeps_measures_for_itself() -> None:
    for bench in benches(manifest(trainer="remembering"), Commons()):
        bench.evaluate(bench.decode(model(7.0)), {})
    assert Counting.asked == {"evaluate": 3}


def test_old_models_are_forgotten() -> None:
    one, other, _ = benches(manifest(), Commons())
    first = one.decode(model(0.5))
    assert other.decode(model(0.5)) is first
    for number in range(MAX_BASES):
        one.decode(model(number + 10.0))
    again = other.decode(model(0.5))
    assert again is not first
    one.check(item(1), model(1.0), first)  # of a model that nobody remembers
    one.check(item(1), model(1.0), first)
    assert Counting.asked == {"check": 2}


def test_a_signature_is_checked_once_as_long_as_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[PeerId, bytes]] = []

    def verify(peer: PeerId, data: bytes, signature: bytes) -> bool:
        asked.append((peer, data))
        return verify_signature(peer, data, signature)

    monkeypatch.setattr(module, "verify_signature", verify)
    monkeypatch.setattr(module, "MAX_SIGNATURES", 2)
    commons, one, other = Commons(), peer_number(1), peer_number(2)
    signature = key_number(1).sign(b"true")
    for _ in range(2):
        assert commons.verify(one, b"true", signature)
        assert not commons.verify(one, b"false", signature)
    assert asked == [(one, b"true"), (one, b"false")]
    assert not commons.verify(other, b"true", signature)
    assert commons.verify(one, b"true", signature)  # the oldest was forgotten
    assert asked[2:] == [(other, b"true"), (one, b"true")]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((np.zeros(2),), (np.zeros(2),), True),
        ((np.zeros(2),), (np.ones(2),), False),
        ((np.zeros(2),), (np.zeros(2, np.float32),), False),
        ((np.zeros(2),), (np.zeros(2), np.zeros(2)), False),
        ((np.zeros(2),), ([0.0, 0.0],), False),
        ([1], [1], False),
        ((np.array([object()]),), (np.array([object()]),), False),
    ],
)
def test_only_what_is_surely_the_same_is_taken_for_it(one: object, other: object, same: bool) -> None:
    commons = Commons()
    assert (commons.number_of(one) == commons.number_of(other)) is same
    assert commons.number_of(one) == commons.number_of(one)
