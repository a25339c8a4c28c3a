"""What privacy costs: accuracy on scikit-learn's digits, beside the ε that each member has given away.

    python -m tests.benchmarks.privacy [--members N] [--rounds N] [--seeds N] [--json]

    none      `softmax`, nothing hidden
    updates   the same in a private task (`privacy`): all data of a member, by the noise of each delta
    examples  `dp-mlp` without hidden layers: one example, by the noise of each step

All members in one process, through `federated.workbench`; accuracy is the mean over the seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from federated import codec
from federated.manifest import DifferentialPrivacy, PluginRef, TaskManifest
from federated.parameters import Parameters
from federated.plugin import ModelUpdate, PeerContext
from federated.privacy import KEY
from federated.registry import Registry
from federated.rounds.events import Input
from federated.workbench import Workbench, prepare
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from plugins.privacy.dp_mlp import RATE, TAKEN, PrivateMLP

DELTA = 1e-5
UNBOUNDED = 1e300  # the budget is what is measured here
STEPS, BATCH = 5, 16  # of one round of dp-mlp
UPDATES = (0.1, 0.3, 1.0)  # noise multipliers
EXAMPLES = (0.5, 1.0, 2.0, 4.0)
MAX_STATE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Found:
    """Of one kind of privacy: the mean accuracy, and the largest ε of a member."""

    kind: str
    noise: float
    accuracy: float
    epsilon: float | None


def manifest(
    members: int, seed: int, trainer: PluginRef, privacy: DifferentialPrivacy | None
) -> TaskManifest:
    """The task of so many members, with digits that are dealt out unevenly."""
    keys = [KeyPair.from_seed(number.to_bytes(32, "big")) for number in range(1, members + 1)]
    return TaskManifest(
        name="privacy",
        seed=seed,
        rounds=1,
        members=[str(PeerId.from_public_key(key.public)) for key in keys],
        preprocessor=PluginRef(name="digits", settings={"alpha": 1.0}),
        trainer=trainer,
        aggregator=PluginRef(name="weighted-mean"),
        validator=PluginRef(name="update-check"),
        privacy=privacy,
    )


def train(task: TaskManifest, rounds: int) -> tuple[float, list[Parameters]]:
    """(accuracy at the end, what each member's trainer has kept)."""
    plugins = Registry().load(task)
    benches = [
        prepare(task, plugins, PeerContext(peer=peer, members=task.peer_ids, index=index))
        for index, peer in enumerate(task.peer_ids)
    ]
    secrets = np.random.default_rng(task.seed)
    states: list[Parameters] = [{} for _ in benches]
    base = benches[0].decode(benches[0].initial)
    for number in range(1, rounds + 1):
        updates = []
        for index, bench in enumerate(benches):
            made = bench.train(base, number, lambda: False, None, states[index], secrets.bytes(KEY))
            states[index] = codec.decode_any(made.state, MAX_STATE) if made.state else {}
            updates.append(checked(bench, task.peer_ids[index], made.data, made.examples, base))
        model = benches[0].aggregate(base, updates)
        assert isinstance(model, bytes)
        base = benches[0].decode(model)
    accuracy = benches[0].evaluate(base)["accuracy"]
    assert accuracy is not None
    return accuracy, states


def checked(bench: Workbench, peer: PeerId, data: bytes, examples: int, base: Parameters) -> ModelUpdate:
    """The update as the others take it."""
    item = Input(
        peer=peer, root=hashlib.sha256(str(peer).encode()).digest(), size=len(data), examples=examples
    )
    update = bench.check(item, data, base)
    assert isinstance(update, ModelUpdate), update
    return update


def measure(members: int, rounds: int, seeds: int) -> Iterator[Found]:
    """All kinds, one after the other."""
    softmax = PluginRef(name="softmax", settings={"epochs": 2, "lr": 0.1})

    def accuracy(trainer: PluginRef, privacy: DifferentialPrivacy | None = None) -> tuple[float, Any]:
        runs = [train(manifest(members, seed, trainer, privacy), rounds) for seed in range(1, seeds + 1)]
        return statistics.mean(run[0] for run in runs), [state for run in runs for state in run[1]]

    yield Found("none", 0.0, accuracy(softmax)[0], None)
    for noise in UPDATES:
        policy = DifferentialPrivacy(clip=1.0, noise=noise, delta=DELTA, epsilon=UNBOUNDED)
        yield Found("updates", noise, accuracy(softmax, policy)[0], policy.cost(rounds))
    for noise in EXAMPLES:
        settings = {"steps": STEPS, "batch": BATCH, "noise": noise, "delta": DELTA, "epsilon": UNBOUNDED}
        mean, states = accuracy(PluginRef(name="dp-mlp", settings={**settings}))
        plain = PrivateMLP(steps=STEPS, batch=BATCH, noise=noise, delta=DELTA)
        costs = {(float(state[RATE]), int(state[TAKEN])) for state in states}
        yield Found("examples", noise, mean, max(plain.cost(*cost) for cost in sorted(costs)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args(argv)
    table = Table("privacy of", "noise", "accuracy", "ε")
    with threadpool_limits(1):
        for found in measure(arguments.members, arguments.rounds, arguments.seeds):
            epsilon = "" if found.epsilon is None else f"{found.epsilon:.3g}"
            table.add_row(found.kind, f"{found.noise:g}", f"{found.accuracy:.3f}", epsilon)
            if arguments.json:
                values = {"kind": found.kind, "noise": found.noise, "accuracy": found.accuracy}
                print(json.dumps(values | {"epsilon": found.epsilon, "delta": DELTA}), flush=True)
    if not arguments.json:
        Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
