"""A task without a network: its members one after the other, through `federated.workbench`."""

from __future__ import annotations

from dataclasses import replace

from federated.errors import AggregationError
from federated.manifest import TaskManifest
from federated.plugin import ModelUpdate, PeerContext
from federated.registry import Registry
from federated.rounds.events import Input
from federated.workbench import Workbench, digest, prepare
from sim.adversaries.league import League
from tests.benchmarks.attacks.task import Case, attack_of, liars, manifest
from tests.federated.samples import members


def run(case: Case) -> list[float]:
    """The accuracy on the examples held out after each round, in percent."""
    task = manifest(case, members(case.clients))
    benches = open_benches(task, case)
    model, accuracies = benches[0].initial, []
    for number in range(1, task.rounds + 1):
        model = one_round(task, benches, model, number)
        accuracies.append(100 * (benches[0].evaluate(benches[0].decode(model))["accuracy"] or 0.0))
    return accuracies


def open_benches(task: TaskManifest, case: Case) -> list[Workbench]:
    """One for each member, in their order; those of the liars lie."""
    lying = liars(case)
    league = League([task.peer_ids[number] for number in lying])
    honest = Registry().load(task)
    benches = []
    for index, peer in enumerate(task.peer_ids):
        plugins = league.registry(attack_of(case)).load(task) if index in lying else honest
        context = PeerContext(peer=peer, members=task.peer_ids, index=index)
        benches.append(prepare(task, plugins, context))
    return benches


def one_round(task: TaskManifest, benches: list[Workbench], model: bytes, number: int) -> bytes:
    """The next model; the same one when the rule finds none, as a round that is skipped."""
    first, updates = benches[0], []
    base = first.decode(model)
    for index, bench in enumerate(benches):
        made = bench.train(base, number, lambda: False)
        item = Input(
            peer=task.peer_ids[index],
            root=digest(made.data),
            size=len(made.data),
            examples=made.examples,
        )
        checked = first.check(item, made.data, base)
        if isinstance(checked, ModelUpdate):
            updates.append(replace(checked, root=item.root))
    try:
        following = first.aggregate(base, updates)
    except AggregationError:
        return model
    if not isinstance(following, bytes):
        raise AssertionError(f"updates are screened: {following}")
    return following
