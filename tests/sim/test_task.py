"""A few lines of a scenario make a task whose members learn."""

from __future__ import annotations

import numpy as np
import pytest

from federated.manifest import MAX_SEED, TaskManifest
from federated.plugin import PeerContext, TrainContext
from federated.registry import Registry
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId
from sim.identity import key_of
from sim.scenario.model import TaskLoad
from sim.task import manifest_of


def peers(count: int) -> list[PeerId]:
    return [PeerId.from_public_key(key_of(1, node).public) for node in range(count)]


def made(load: TaskLoad, seed: int = 1, count: int = 4) -> TaskManifest:
    return manifest_of(load, seed, peers(count))


def test_the_manifest_has_the_scenario_s_members_deadlines_and_rounds() -> None:
    manifest = made(TaskLoad(name="small", rounds=3, train_deadline=7, phase_deadline=2))
    assert (manifest.name, manifest.rounds, manifest.seed) == ("small", 3, 1)
    assert manifest.peer_ids == tuple(sorted(peers(4)))
    assert (manifest.policy.train_deadline_s, manifest.policy.phase_deadline_s) == (7, 2)


def test_settings_come_on_top_of_those_that_learn() -> None:
    manifest = made(
        TaskLoad(settings={"trainer": {"lr": 0.1}, "aggregator": {"trim": 0.1}}, aggregator="trimmed-mean")
    )
    assert manifest.trainer.settings["lr"] == 0.1
    assert manifest.trainer.settings["hidden"] == [32]
    assert manifest.aggregator.settings == {"trim": 0.1}
    assert manifest.preprocessor.settings["seed"] == 1


def test_any_seed_of_a_run_makes_a_task() -> None:
    assert made(TaskLoad(), seed=(1 << 63) - 1).seed <= MAX_SEED


def test_a_name_that_no_plugin_can_have_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^task digits: name: "):
        made(TaskLoad(trainer="no such!"))


def test_forty_members_with_few_samples_learn() -> None:
    manifest = made(TaskLoad(rounds=4), count=40)
    plugins = Registry().load(manifest)
    shards = [
        plugins.preprocessor.load(PeerContext(peer=peer, members=manifest.peer_ids, index=index))
        for index, peer in enumerate(manifest.peer_ids)
    ]
    model = plugins.trainer.init(manifest.seed)
    for number in range(1, manifest.rounds + 1):
        results = [
            plugins.trainer.train(
                model, shard.train, TrainContext(round=number, seed=number, should_stop=lambda: False)
            ).parameters
            for shard in shards
        ]
        examples = [shard.examples for shard in shards]
        model = {name: np.average([one[name] for one in results], axis=0, weights=examples) for name in model}
    assert plugins.trainer.evaluate(model, shards[0].holdout)["accuracy"] > 0.8
