"""A task on the simulator: the round machines of all members, in virtual time, on the rung `cores`."""

from __future__ import annotations

from federated.manifest import PluginRef
from sim.run import simulate
from sim.scenario.model import Adversary, Checks, Scenario, Selection, TaskLoad, Topology
from tests.benchmarks.attacks.task import MODELS, VALIDATOR, Case, aggregator, data, liars

TRAINER = {"epochs": 5, "batch": 32, "lr": 0.1, "decay": 1.0}  # the plugins' own; the simulator has others
COMMITTEE = 16  # who votes: honestly, since it is only the trainers that lie


def run(case: Case) -> list[float]:
    """The accuracy on the examples held out after each round, in percent: the median over the members."""
    outcome = simulate(scenario(case), case.seed)
    broken = [check.name for check in outcome.checks if not check.holds]
    if broken:
        raise AssertionError(f"{case}: it does not hold that {broken[0]}")
    rounds = outcome.recorder.rounds.of("attacks")
    return [100 * sorted(one.accuracy)[len(one.accuracy) // 2] for one in rounds]


def scenario(case: Case) -> Scenario:
    """As many peers as the task has members, all connected; the liars are poisoners."""
    plugins: dict[str, PluginRef] = {
        "preprocessor": data(case),
        "trainer": MODELS[case.model],
        "aggregator": aggregator(case),
        "validator": VALIDATOR,
    }
    settings = {role: dict(ref.settings) for role, ref in plugins.items()}
    settings["trainer"] = TRAINER | settings["trainer"]
    load = TaskLoad(
        name="attacks",
        members=0,
        committee=COMMITTEE,
        rounds=case.rounds,
        settings=settings,
        train_seconds=1.0,
        **{role: ref.name for role, ref in plugins.items()},
    )
    lying = [
        Adversary(role="poisoner", who=Selection(nodes=(number,)), settings={"attack": case.attack})
        for number in liars(case)
    ]
    return Scenario(
        name="attacks",
        rung="cores",
        peers=case.clients,
        topology=Topology(degree=10),
        task=(load,),
        adversaries=tuple(lying),
        checks=Checks(certified=1.0),
    )
