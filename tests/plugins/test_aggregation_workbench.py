from __future__ import annotations

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from federated import codec
from federated.errors import PluginError
from federated.manifest import PluginRef
from federated.parameters import AGGREGATOR, Parameters, split
from federated.plugin import ModelUpdate, PeerContext, TrainContext, TrainResult
from federated.registry import GROUP, Registry
from federated.rounds.events import Input
from federated.workbench import Workbench, digest, prepare
from plugins.aggregation.server import FedAdam
from tests.federated import tiny
from tests.federated.lab import tiny_manifest
from tests.sim.cores.bench import Bench, full

RESERVED = AGGREGATOR + "m/w"


class Watched(tiny.Pull):
    """A trainer that says what it is shown."""

    seen: list[list[str]] = []  # noqa: RUF012 - of all instances

    def train(self, parameters: Parameters, data: float, context: TrainContext) -> TrainResult:
        Watched.seen.append(sorted(parameters))
        return super().train(parameters, data, context)

    def evaluate(self, parameters: Parameters, data: float) -> dict[str, float]:
        Watched.seen.append(sorted(parameters))
        return super().evaluate(parameters, data)


class WatchedCheck:
    """A validator that says what it is shown."""

    kind = "validator"

    def check(self, update: ModelUpdate, base: Parameters) -> str | None:
        Watched.seen += [sorted(update.delta), sorted(base)]
        return None

    def screen(self, updates: object) -> list[ModelUpdate]:
        return []


class TakesReserved(tiny.Pull):
    """A trainer with a tensor that has a reserved name."""

    def init(self, seed: int) -> Parameters:
        return super().init(seed) | {RESERVED: np.zeros(1, np.float32)}


class KeepsElsewhere(FedAdam):
    """An aggregator that keeps something under a name of the trainer's."""

    def init(self, parameters: Parameters) -> Parameters:
        return {"momentum": np.zeros(4, np.float32)}


class Forgets(FedAdam):
    """An aggregator that does not give back what it keeps."""

    def aggregate(self, base: Parameters, updates: object) -> Parameters:
        return split(base)[0]


OWN = {
    "watched": "Watched",
    "watched-check": "WatchedCheck",
    "takes-reserved": "TakesReserved",
    "keeps-elsewhere": "KeepsElsewhere",
    "forgets": "Forgets",
}


def registry() -> Registry:
    points = {name: f"{__name__}:{own}" for name, own in OWN.items()}
    points["fedadam"] = "plugins.aggregation.server:FedAdam"
    points["weighted-mean"] = "plugins.aggregation.weighted_mean:WeightedMean"
    points["points"] = "tests.federated.tiny:Points"
    points["update-check"] = "plugins.validation.update_check:UpdateCheck"
    return Registry(installed=[EntryPoint(name, value, GROUP) for name, value in points.items()])


def bench(
    member: int,
    *,
    trainer: str = "watched",
    aggregator: str = "fedadam",
    validator: str = "update-check",
    max_update_bytes: int = 2000,
) -> Workbench:
    manifest = tiny_manifest(
        3,
        trainer=PluginRef(name=trainer),
        aggregator=PluginRef(name=aggregator),
        validator=PluginRef(name=validator),
        max_update_bytes=max_update_bytes,
    )
    peer = manifest.peer_ids[member]
    context = PeerContext(peer=peer, members=manifest.peer_ids, index=member)
    return prepare(manifest, registry().load(manifest), context)


def play(members: list[Workbench], model: bytes, number: int) -> list[bytes]:
    """What each member makes of the round."""
    trained = [made.train(made.decode(model), number, lambda: False) for made in members]
    assert len({len(update.data) for update in trained}) == 1
    inputs = [
        Input(peer=peer, root=digest(update.data), size=len(update.data), examples=update.examples)
        for peer, update in zip(tiny_manifest(3).peer_ids, trained, strict=True)
    ]
    models = []
    for made in members:
        base = made.decode(model)
        checked = [made.check(item, update.data, base) for item, update in zip(inputs, trained, strict=True)]
        updates = [update for update in checked if isinstance(update, ModelUpdate)]
        assert len(updates) == len(members)
        result = made.aggregate(base, updates)
        assert isinstance(result, bytes)
        models.append(result)
    return models


def test_members_carry_what_the_aggregator_keeps_from_round_to_round() -> None:
    members = [bench(index) for index in range(3)]
    assert len({made.initial for made in members}) == 1
    model = members[0].initial
    for number in range(4):
        first, *others = play(members, model, number)
        assert others == [first, first]
        model = first
        members[2] = bench(2)  # forgets all but the model
    kept = split(members[0].decode(model))[1]
    assert sorted(kept) == [AGGREGATOR + "m/w", AGGREGATOR + "v/w"]
    assert np.abs(kept[RESERVED]).min() > 0
    members[0].verify(model, digest(model))


def test_trainers_and_validators_do_not_see_it_and_updates_do_not_have_it() -> None:
    made = bench(1, validator="watched-check")
    base = made.decode(made.initial)
    assert RESERVED in base
    Watched.seen.clear()
    update = made.train(base, 0, lambda: False)
    item = Input(peer=tiny_manifest(3).peer_ids[1], root=bytes(32), size=len(update.data), examples=1)
    checked = made.check(item, update.data, base)
    made.evaluate(base)
    assert Watched.seen == [["count", "w"]] * 4
    assert isinstance(checked, ModelUpdate)
    whole = codec.encode({name: np.zeros_like(array) for name, array in base.items()})
    assert made.check(item, whole, base) == "schema"


def test_a_rule_that_keeps_nothing_leaves_the_model_as_it_is() -> None:
    made = bench(0, aggregator="weighted-mean")
    assert sorted(made.decode(made.initial)) == ["count", "w"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"trainer": "takes-reserved"},
            f"trainer 'takes-reserved': tensor {RESERVED} has the name of one that an",
        ),
        (
            {"aggregator": "keeps-elsewhere"},
            "aggregator 'keeps-elsewhere': it keeps momentum; what it keeps has names",
        ),
        (
            {"max_update_bytes": 200},
            "aggregator 'fedadam': a model with what it keeps has .* bytes; raise max_update",
        ),
        (
            {"max_update_bytes": 100},
            "trainer 'watched': an update has 144 bytes; raise max_update_bytes, which is 100",
        ),
    ],
)
def test_what_cannot_be_kept_is_explained_before_the_first_round(
    changes: dict[str, object], line: str
) -> None:
    with pytest.raises(PluginError, match=line):
        bench(0, **changes)  # type: ignore[arg-type]


def test_an_aggregator_that_loses_what_it_keeps_is_named() -> None:
    made = bench(0, aggregator="forgets")
    with pytest.raises(PluginError, match=r"aggregator 'forgets': tensor atcp\.aggregator/m/w .* is missing"):
        made.aggregate(made.decode(made.initial), [])


def test_a_task_with_an_optimiser_is_certified_and_a_member_that_crashed_goes_on_with_it() -> None:
    pipeline = {
        "name": "pipeline",
        "settings": {"steps": [{"name": "nnm", "settings": {"f": 1}}], "rule": {"name": "median"}},
    }
    task = {
        "members": 4,
        "rounds": 3,
        "aggregator": "fedadam",
        "settings": {"aggregator": {"rule": pipeline, "rate": 0.05}},
    }
    bench = Bench(4, full(4), task=[task])
    bench.run(2.0)
    for node in range(4):
        bench.rung.join_task(node, "digits")
    while not any(told for told in bench.watcher.rounds.values()):
        bench.run(0.5)
    bench.rung.crash(2)
    bench.run(1.0)
    bench.rung.start(2)
    bench.run(120.0)
    assert sorted(bench.watcher.finished) == [0, 1, 2, 3]
    last = [told[-1] for told in bench.watcher.rounds.values()]
    assert {entry["round"] for entry in last} == {3}
    assert len({entry["digest"] for entry in last}) == 1
    assert last[0]["measured"]["accuracy"] > 0.5
    assert not bench.watcher.failures
