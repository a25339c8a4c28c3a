"""Members in league: what they know is what the honest do, and what they hand in is the attack's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated import codec
from federated.errors import PluginError
from federated.manifest import PluginRef, TaskManifest
from federated.parameters import Parameters
from federated.plugin import PeerContext
from federated.registry import Registry
from federated.workbench import Workbench, prepare
from sim.adversaries import league as module
from sim.adversaries.league import League, flat, moved, registry_of
from sim.adversaries.poisoning import ATTACKS, Attack, Scene, Vector
from sim.adversaries.roles import HONEST, role
from sim.adversaries.training import CorruptedRegistry
from sim.run import simulate
from sim.scenario.model import Scenario
from tests.federated.samples import manifest, members

TASK = manifest(
    members=members(4),
    preprocessor=PluginRef(name="digits", settings={"holdout": 0.9}),
    trainer=PluginRef(name="softmax", settings={"epochs": 1}),
)
LIARS = (TASK.peer_ids[0], TASK.peer_ids[2])


def bench(registry: Registry, index: int, task: TaskManifest = TASK) -> Workbench:
    context = PeerContext(peer=task.peer_ids[index], members=task.peer_ids, index=index)
    return prepare(task, registry.load(task), context)


def delta(bench: Workbench, base: Parameters, number: int) -> Vector:
    data = bench.train(base, number, lambda: False).data
    return flat(codec.decode(data, bench.schema, len(data)))


def base_of(seed: int) -> Parameters:
    generator = np.random.default_rng(seed)
    return {
        "layer0.bias": generator.standard_normal(10).astype(np.float32),
        "layer0.weight": generator.standard_normal((10, 64)).astype(np.float32),
    }


def test_it_knows_what_the_honest_hand_in() -> None:
    league = League(LIARS)
    for number, seed in ((1, 1), (2, 1), (2, 2)):
        base = base_of(seed)
        expected = [delta(bench(Registry(), index), base, number) for index in (1, 3)]
        assert (league.honest(TASK, base, number) == np.stack(expected)).all()


def test_a_round_is_computed_once_for_all_liars(monkeypatch: pytest.MonkeyPatch) -> None:
    league, calls = League(LIARS), []
    train = Workbench.train

    def counted(self: Workbench, *arguments: Any, **more: Any) -> Any:
        calls.append(self)
        return train(self, *arguments, **more)

    monkeypatch.setattr(Workbench, "train", counted)
    for index in (0, 2):
        bench(league.registry(ATTACKS["ipm"]), index).train(base_of(1), 1, lambda: False)
    assert len(calls) == 4  # the two liars, and each honest one once


def test_a_liar_hands_in_what_its_attack_says() -> None:
    seen: list[Scene] = []

    def attack(scene: Scene) -> Vector:
        seen.append(scene)
        return 2.0 * scene.honest()[0]

    league, base = League(LIARS), base_of(1)
    found = delta(bench(league.registry(Attack(attack)), 2), base, 1)
    assert found == pytest.approx(2.0 * league.honest(TASK, base, 1)[0], abs=1e-5)
    [scene] = seen
    assert scene.members == 4
    assert (scene.own == delta(bench(Registry(), 2), base, 1)).all()
    assert all((scene.base[name] == base[name]).all() for name in base)


def test_flipped_labels_are_those_of_its_own_shard_and_not_of_what_is_held_out() -> None:
    honest = Registry().load(TASK).preprocessor
    flipped = League(LIARS).registry(ATTACKS["label-flip"]).load(TASK).preprocessor
    context = PeerContext(peer=TASK.peer_ids[2], members=TASK.peer_ids, index=2)
    mine, theirs = honest.load(context), flipped.load(context)
    assert (theirs.train[0] == mine.train[0]).all()
    assert (theirs.train[1] == 9 - mine.train[1]).all()
    assert mine.holdout is not None
    assert theirs.holdout is not None
    assert (theirs.holdout[1] == mine.holdout[1]).all()


def test_it_measures_as_everybody_does() -> None:
    base = base_of(1)
    lying = bench(League(LIARS).registry(ATTACKS["sign"]), 0)
    assert lying.evaluate(base) == bench(Registry(), 0).evaluate(base)
    assert lying.initial == bench(Registry(), 0).initial


@pytest.mark.parametrize(
    "change",
    [
        {"compressor": PluginRef(name="int8")},
        {"privacy": {"clip": 1.0, "noise": 10.0, "delta": 1e-5, "epsilon": 50.0}},
    ],
)
def test_what_is_hidden_it_does_not_claim_to_know(change: dict[str, Any]) -> None:
    task = manifest(**{**TASK.model_dump(), **change})
    with pytest.raises(PluginError, match="only known where updates travel as they are"):
        League(LIARS).honest(task, base_of(1), 1)


def test_flat_and_back() -> None:
    base: Parameters = {"w": np.ones((2, 3), np.float32), "a": np.array([5, 7])}
    values = flat(base)
    assert values.tolist() == [5, 7, 1, 1, 1, 1, 1, 1]
    found = moved(base, values)
    assert found["a"].tolist() == [10, 14]
    assert (found["w"] == 2).all()
    assert {name: array.dtype for name, array in found.items()} == {"a": np.int64, "w": np.float32}


def test_a_node_has_the_plugins_of_its_role() -> None:
    league = League(LIARS)
    assert type(registry_of(HONEST, league)) is Registry
    assert isinstance(registry_of(role("nan"), league), CorruptedRegistry)
    assert isinstance(registry_of(role("poisoner"), league), module._PoisonedRegistry)


@pytest.mark.parametrize("attack", ["alie", "label-flip"])
def test_poisoners_of_a_scenario_do_the_same_on_every_rung(attack: str) -> None:
    fields = {
        "name": "poison",
        "peers": 5,
        "settle": 3,
        "topology": {"kind": "full"},
        "task": [{"members": 5, "rounds": 2, "train_seconds": 0.5, "settings": {"trainer": {"epochs": 1}}}],
    }
    lying = {"role": "poisoner", "who": {"nodes": [1, 3]}, "settings": {"attack": attack}}
    honest = simulate(Scenario.model_validate({**fields, "rung": "cores"}), seed=2)
    found = [
        simulate(Scenario.model_validate({**fields, "rung": rung, "adversaries": [lying]}), seed=2)
        for rung in ("cores", "light")
    ]
    assert all(each.holds for each in found)
    assert found[0].results_hash == found[1].results_hash != honest.results_hash
