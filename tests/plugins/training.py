"""A small classification problem, and rounds without a network, for the tests of the plugins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from federated.manifest import TaskManifest
from federated.parameters import Parameters, difference
from federated.plugin import ModelUpdate, PeerContext, TrainContext
from federated.registry import Registry
from plugins.training.mlp import Features, Labels


def never() -> bool:
    return False


def context(seed: int = 1, round_number: int = 0, state: Parameters | None = None) -> TrainContext:
    return TrainContext(round=round_number, seed=seed, should_stop=never, state=state or {})


def blobs(count: int = 60, inputs: int = 4, classes: int = 3) -> tuple[Features, Labels]:
    """Points around one corner for each class."""
    generator = np.random.default_rng(3)
    labels = np.arange(count) % classes
    points = 3 * np.eye(classes, inputs)[labels] + 0.3 * generator.standard_normal((count, inputs))
    return points.astype(np.float32), labels.astype(np.int64)


def run_rounds(manifest: TaskManifest, absent: Sequence[tuple[int, int]] = ()) -> list[float]:
    """Held-out accuracy after each round of the task, all members in this process.

    `absent` has (round, index of the member) for each time that somebody misses a round.
    """
    plugins = Registry().load(manifest)
    members = manifest.peer_ids
    data = [
        plugins.preprocessor.load(PeerContext(peer=peer, members=members, index=index))
        for index, peer in enumerate(members)
    ]
    base: Parameters = plugins.trainer.init(manifest.seed)
    curve = []
    for number in range(1, manifest.rounds + 1):
        updates = []
        for index, peer in enumerate(members):
            if (number, index) in absent:
                continue
            seed = manifest.seed * 1_000_000 + number * 1000 + index
            result = plugins.trainer.train(base, data[index].train, context(seed, number))
            delta = difference(result.parameters, base)
            update = ModelUpdate(peer=peer, root=bytes([index]), delta=delta, examples=result.examples)
            assert plugins.validator.check(update, base) is None
            updates.append(update)
        assert plugins.validator.screen(updates) == []
        base = plugins.aggregator.aggregate(base, updates)
        curve.append(plugins.trainer.evaluate(base, data[0].holdout)["accuracy"])
    return curve
