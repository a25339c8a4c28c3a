"""What liars do to secure sums: accuracy on scikit-learn's digits by what a task lets be seen.

    python -m tests.benchmarks.groups [--members N] [--steps N] [--seeds N] [--range R] [--group G] [--json]

    robust    every update is seen: the mean, or the coordinate-wise median of the updates
    private   one sum
    grouped   a sum for each group of G members, drawn anew each time; the coordinate-wise median of the means

    flip      a liar sends its delta times −5, as far as the range lets it
    push      a liar deals what puts the mean of its sum at the end of the range, against the honest ones

Members in one process, through `federated.workbench`, and sums by `federated.sums.grid`: what the shares
would come to, without dealing them. Accuracy is the mean over the seeds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from itertools import product

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from federated import codec
from federated.manifest import PluginRef, SecureSums, TaskManifest
from federated.parameters import Parameters, schema_of
from federated.plugin import ModelUpdate, PeerContext
from federated.registry import Registry
from federated.rounds.events import Input
from federated.sums.grid import Grid
from federated.sums.steps import add_share
from federated.workbench import Workbench, prepare
from p2p.blobs import blob_root
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

FLIP = -5.0
LIARS = (0, 1, 2, 4)
CHOICES = ("robust mean", "robust median", "private", "grouped")


class Trial:
    """One task of so many members, of whom the first `liars` lie."""

    def __init__(
        self, members: int, seed: int, choice: str, sums: SecureSums, liars: int, attack: str
    ) -> None:
        keys = [KeyPair.from_seed(number.to_bytes(32, "big")) for number in range(1, members + 1)]
        rule = "median" if choice in ("robust median", "grouped") else "weighted-mean"
        self.task = TaskManifest(
            name="groups",
            seed=seed,
            rounds=3,
            members=[str(PeerId.from_public_key(key.public)) for key in keys],
            preprocessor=PluginRef(name="digits", settings={"alpha": 1.0}),
            trainer=PluginRef(name="softmax", settings={"epochs": 2, "lr": 0.1}),
            aggregator=PluginRef(name=rule),
            validator=PluginRef(name="update-check"),
            sums=None if choice.startswith("robust") else sums,
        )
        plugins, peers = Registry().load(self.task), self.task.peer_ids
        contexts = [PeerContext(peer=peer, members=peers, index=index) for index, peer in enumerate(peers)]
        self.benches = [prepare(self.task, plugins, context) for context in contexts]
        self._reach, self._group = sums.range, sums.group if choice == "grouped" else None
        self._liars, self._attack = liars, attack
        self._rng = random.Random(seed)

    def accuracy(self, steps: int) -> float:
        """At the end."""
        bench = self.benches[0]
        base = bench.decode(bench.initial)
        for number in range(1, steps + 1):
            updates = self._updates(number, base)
            while not isinstance(model := bench.aggregate(base, updates), bytes):
                refused = dict(model.refused)
                updates = [update for update in updates if update.root not in refused]
            base = bench.decode(model)
        found = bench.evaluate(base)["accuracy"]
        assert found is not None
        return found

    def _updates(self, number: int, base: Parameters) -> list[ModelUpdate]:
        """What is aggregated: updates, or means of groups."""
        schema = schema_of(base)
        trained = [bench.train(base, number, lambda: False) for bench in self.benches]
        deltas = [codec.decode(made.data, schema, len(made.data)) for made in trained]
        honest = deltas[self._liars :]
        for liar in range(self._liars):
            deltas[liar] = {name: np.float32(FLIP) * array for name, array in deltas[liar].items()}
        groups = [[at] for at in range(len(deltas))]
        if self.task.sums is not None:
            groups = self._groups(len(deltas))
        grid = Grid(schema, len(deltas), self._reach)
        means = [self._mean(grid, group, deltas, honest) for group in groups]
        return [
            _checked(self.benches[0], self.task.peer_ids[group[0]], mean, len(group), base)
            for group, mean in zip(groups, means, strict=True)
        ]

    def _groups(self, members: int) -> list[list[int]]:
        order = self._rng.sample(range(members), members)
        count = 1 if self._group is None else members // self._group
        return [sorted(order[at::count]) for at in range(count)]

    def _mean(
        self, grid: Grid, group: list[int], deltas: list[Parameters], honest: list[Parameters]
    ) -> Parameters:
        if self._attack == "push" and group[0] < self._liars:
            return {
                name: (-self._reach * np.sign(sum(delta[name] for delta in honest))).astype(array.dtype)
                for name, array in deltas[0].items()
            }
        if self.task.sums is None:
            return deltas[group[0]]
        total = np.zeros(grid.size, np.uint32)
        for number in group:
            add_share(total, grid.elements(deltas[number]))
        return grid.mean(total, len(group))


def _checked(
    bench: Workbench, peer: PeerId, delta: Parameters, members: int, base: Parameters
) -> ModelUpdate:
    data = codec.encode(delta)
    item = Input(peer=peer, root=blob_root(data), size=len(data), examples=members)
    update = bench.check(item, data, base)
    assert isinstance(update, ModelUpdate), update
    return update


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints a table, or one JSON object a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--range", type=float, default=0.1)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(argv)
    sums = SecureSums(range=options.range, group=options.group)
    cases = [("flip", 0), *product(("flip", "push"), LIARS[1:])]
    table = Table("choice", *(f"{attack}, {liars}" if liars else "no liars" for attack, liars in cases))
    with threadpool_limits(1):
        for choice in CHOICES:
            row = []
            for attack, liars in cases:
                trials = [
                    Trial(options.members, seed, choice, sums, liars, attack)
                    for seed in range(1, options.seeds + 1)
                ]
                found = statistics.mean(trial.accuracy(options.steps) for trial in trials)
                row.append(f"{found:.3f}")
                if options.json:
                    values = {"choice": choice, "attack": attack, "liars": liars, "accuracy": found}
                    print(json.dumps(values), flush=True)
            table.add_row(choice, *row)
    if not options.json:
        Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
