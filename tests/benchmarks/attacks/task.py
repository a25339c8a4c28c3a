"""The tasks of the attack table: data, models, rules, and the root set that one of the rules has."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from federated.manifest import PluginRef, RoundPolicy, TaskManifest
from federated.plugin import Dataset, PeerContext, TrainContext
from federated.registry import Registry
from plugins.aggregation.root_training import RootSet
from sim.adversaries.poisoning import ATTACKS, Attack
from tests.benchmarks.attacks.tailored import tailored
from tests.federated.samples import peer

CLEAN = "none"
TAILORED = "tailored"
COLUMNS = (CLEAN, *ATTACKS, TAILORED)
DATASETS = ("digits", "generated")
MODELS: dict[str, PluginRef] = {
    "mlp": PluginRef(name="numpy-mlp", settings={"hidden": [64]}),
    "softmax": PluginRef(name="softmax"),
}
# every validator beside the rule would help it: what is refused here is only what no rule could work with
VALIDATOR = PluginRef(name="update-check", settings={"max_ratio": 1e6, "max_norm": 1e6})


class Case(NamedTuple):
    """One task: everything that its result depends on. `root` is how many examples the root set has."""

    rule: str
    attack: str
    seed: int
    dataset: str = "digits"
    model: str = "mlp"
    clients: int = 20
    byzantine: int = 6
    alpha: float = 0.5
    rounds: int = 40
    root: int = 50


def rules(f: int, clients: int, root: str) -> dict[str, PluginRef]:
    """The rules by name, each told that f of the updates may be lies, or as many as it can stand."""
    share = {"trim": f / clients}
    mixed: list[Any] = [{"name": "nnm", "settings": {"f": f}}]
    return {
        "mean": PluginRef(name="weighted-mean"),
        "median": PluginRef(name="median"),
        "trimmed mean": PluginRef(name="trimmed-mean", settings=share),
        "Krum": PluginRef(name="krum", settings={"f": min(f, (clients - 3) // 2)}),
        "Multi-Krum": PluginRef(name="multi-krum", settings={"f": min(f, (clients - 3) // 2)}),
        "Bulyan": PluginRef(name="bulyan", settings={"f": min(f, (clients - 3) // 4)}),
        "geometric median": PluginRef(name="geometric-median"),
        "centered clipping": PluginRef(name="centered-clipping"),
        "FLAME": PluginRef(name="flame"),
        "NNM, trimmed mean": PluginRef(
            name="pipeline",
            settings={"steps": mixed, "rule": {"name": "trimmed-mean", "settings": share}},
        ),
        "FLTrust": PluginRef(name="fltrust", settings={"root": root}),
        "FLTrust, unbounded": PluginRef(name="fltrust", settings={"root": root, "max_trust": None}),
    }


RULES = tuple(rules(6, 20, ""))


def data(case: Case) -> PluginRef:
    """The preprocessor, which splits the data among the members."""
    return PluginRef(name=case.dataset, settings={"alpha": case.alpha, "seed": case.seed})


@cache
def whole(dataset: str, seed: int) -> Dataset:
    """All examples of the training part in one shard, and those held out."""
    alone = PeerContext(peer=peer(0), members=(peer(0),), index=0)
    ref = PluginRef(name=dataset, settings={"seed": seed})
    loaded: Dataset = Registry().create("preprocessor", ref).load(alone)
    return loaded


def root_rows(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.intp]:
    """Which examples of the training part are the root set: as many of each class, drawn at random."""
    classes = np.unique(labels)
    if count % len(classes):
        raise ValueError(f"{count} examples cannot be as many of each of {len(classes)} classes")
    order = np.random.default_rng([seed, count]).permutation(len(labels))
    each = [order[labels[order] == label][: count // len(classes)] for label in classes]
    return np.sort(np.concatenate(each))


def root_set(case: Case) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The examples that everybody trusts; they stay in their members' shards too."""
    x, y = whole(case.dataset, case.seed).train
    rows = root_rows(y, case.root, case.seed)
    return x[rows], y[rows]


@cache
def packed_root(case: Case) -> str:
    """The root set as the setting `root` wants it."""
    x, y = root_set(case)
    file = io.BytesIO()
    np.savez_compressed(file, x=x, y=y)
    return base64.b64encode(file.getvalue()).decode()


def aggregator(case: Case) -> PluginRef:
    """The rule of the case."""
    return rules(case.byzantine, case.clients, packed_root(case))[case.rule]


def manifest(case: Case, members: Sequence[str]) -> TaskManifest:
    """The task, for these members."""
    return TaskManifest(
        name="attacks",
        seed=case.seed,
        rounds=case.rounds,
        members=members,
        preprocessor=data(case),
        trainer=MODELS[case.model],
        aggregator=aggregator(case),
        validator=VALIDATOR,
        policy=RoundPolicy(train_deadline_s=60.0, phase_deadline_s=30.0),
    )


def liars(case: Case) -> list[int]:
    """Which members lie, by their number: drawn at random, the same for every rule and attack."""
    if case.attack == CLEAN:
        return []
    drawn = np.random.default_rng([case.seed, case.clients]).permutation(case.clients)
    return sorted(drawn[: case.byzantine].tolist())


def attack_of(case: Case) -> Attack:
    """What the liars of the case do."""
    if case.attack != TAILORED:
        return ATTACKS[case.attack]
    x, y = root_set(case)
    return tailored(RootSet(x.astype(np.float64), y))


def alone(case: Case) -> Mapping[str, float]:
    """The controls, accuracy in percent: one machine with all the data, and one with the root set alone.

    Both train for as many rounds as the task has.
    """
    found = {}
    held = whole(case.dataset, case.seed).holdout
    for name, examples in (("all data", whole(case.dataset, case.seed).train), ("root set", root_set(case))):
        trainer = Registry().create("trainer", MODELS[case.model])
        model = trainer.init(case.seed)
        for number in range(1, case.rounds + 1):
            context = TrainContext(round=number, seed=number, should_stop=lambda: False)
            model = trainer.train(model, examples, context).parameters
        found[name] = 100 * trainer.evaluate(model, held)["accuracy"]
    return found
