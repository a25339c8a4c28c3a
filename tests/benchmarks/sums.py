"""What secure sums cost: bytes and processor time of a step, and of its parts by the size of an update.

    python -m tests.benchmarks.sums [--peers N] [--steps N] [--values N] [--json]

    whole   tasks on scikit-learn's digits with all members in one process: `robust`, `private` and `grouped`,
            per step that changes the model, with the accuracy at the end
    parts   what one member does with an update of N values and nine holders, and what all do with the sums

Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio
from rich.console import Console
from rich.table import Table

from federated.compute import ThreadCompute
from federated.manifest import STEP, PluginRef, SecureSums, TaskManifest
from federated.parameters import schema_of
from federated.registry import Registry
from federated.rounds.committee import Membership
from federated.sums.documents import Opening
from federated.sums.grid import Grid
from federated.sums.holders import draw_holders
from federated.sums.sets import Sums
from federated.sums.steps import Terms, add_share, checks_of, deal, factors, open_share, open_sums
from p2p.blobs import BlobStore
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.federated.lab import Lab, open_lab, peer_number, start_with
from tests.support import key_number

HOLDERS = 9
CAPACITY = 1 << 28  # bytes of blobs of a member
SEED = 7


@dataclass(frozen=True, slots=True)
class Whole:
    """A task, per step that changes the model: bytes that a peer sends, seconds of all peers together."""

    mode: str
    bytes_sent: float
    seconds: float
    accuracy: float


class Town(Lab):
    """Members with room for all shares, on a network in memory."""

    def store(self, number: int) -> BlobStore:
        """The blobs of a member."""
        return self._stores.setdefault(number, BlobStore(None, CAPACITY))


async def finish(town: Town, members: range) -> None:
    """Runs the task to its end."""
    async with open_lab(town) as nursery:
        for number in members:
            await nursery.start(start_with, town, number, Registry())
        await town.until_finished(*members)


def run_task(mode: str, peers: int, steps: int, sums: SecureSums | None) -> Whole:
    """Runs a task in one process, over the overlay in memory."""
    rounds, members = steps * (1 if sums is None else STEP), range(1, peers + 1)
    task = TaskManifest(
        name="sums",
        seed=SEED,
        rounds=rounds,
        members=[str(peer_number(number)) for number in members],
        preprocessor=PluginRef(name="digits"),
        trainer=PluginRef(name="numpy-mlp"),
        aggregator=PluginRef(name="weighted-mean" if sums is None or sums.group is None else "median"),
        validator=PluginRef(name="update-check"),
        sums=sums,
    )
    town, began = Town(task, compute=ThreadCompute), time.process_time()
    trio.run(finish, town, members)
    seconds = time.process_time() - began
    last = [town.rounds(number)[rounds] for number in members]
    sent = sum(report["bytes_sent"] for report in last) / len(last)
    return Whole(mode=mode, bytes_sent=sent / steps, seconds=seconds / steps, accuracy=last[0]["accuracy"])


def run_parts(values: int, members: int) -> dict[str, float]:
    """Seconds of each part, for an update of so many values."""
    keys = {peer_number(number): key_number(number) for number in range(1, members + 1)}
    dealers = tuple(sorted(keys))
    task = bytes(32)
    holders = draw_holders(Membership(task, dealers), 1, task, HOLDERS)
    assert holders is not None
    delta = {"w": np.random.default_rng(SEED).standard_normal(values).astype(np.float32)}
    terms = Terms(task=task, round=1, holders=holders, grid=Grid(schema_of(delta), members, 4.0))
    found: dict[str, float] = {}

    def timed(name: str, began: float) -> None:
        found[name] = time.process_time() - began

    began = time.process_time()
    sealed = list(deal(terms, dealers[0], delta, bytes(32)))
    timed("deal to all holders", began)
    began = time.process_time()
    shares = [open_one(terms, dealers[0], keys, place, sealed) for place in range(len(sealed))]
    found["open one share"] = (time.process_time() - began) / len(sealed)
    counts = factors(terms, task)
    began = time.process_time()
    checks_of(shares[0], counts)
    timed("check one share", began)
    openings = {}
    began = time.process_time()
    for place, share in enumerate(shares):
        total = np.zeros(terms.grid.size, np.uint32)
        add_share(total, share)
        openings[place] = Opening((total,))
    found["add one share"] = (time.process_time() - began) / len(shares)
    sums = Sums(groups=((0,),), openers=tuple(range(len(sealed))))
    began = time.process_time()
    assert open_sums(terms, sums, openings).means
    timed("find a sum", began)
    openings[3].sums[0][:] = 1
    openings[5].sums[0][:] = 2
    began = time.process_time()
    assert open_sums(terms, sums, openings).liars == (3, 5)
    timed("find a sum, two wrong", began)
    return found


def open_one(
    terms: Terms, dealer: PeerId, keys: dict[PeerId, KeyPair], place: int, sealed: Sequence[bytes]
) -> Any:
    """The share of one holder."""
    holder = terms.holders.peers[place]
    return open_share(terms, dealer, keys[holder], holder, sealed[place])


def main() -> None:
    """Measures, and prints two tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", type=int, default=12, help="members of the tasks (12)")
    parser.add_argument("--steps", type=int, default=6, help="times that the model changes (6)")
    parser.add_argument("--values", type=int, default=1_000_000, help="of the update in the parts (1000000)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    tasks = {
        "robust": None,
        "private": SecureSums(range=1.0, holders=HOLDERS),
        "grouped": SecureSums(range=1.0, holders=HOLDERS, group=4),
    }
    whole = [run_task(mode, arguments.peers, arguments.steps, sums) for mode, sums in tasks.items()]
    parts = run_parts(arguments.values, arguments.peers)
    if arguments.json:
        rows = [{name: getattr(item, name) for name in Whole.__slots__} for item in whole]
        print(json.dumps({"whole": rows, "parts": parts}))
        return
    table = Table("task", "kB sent, peer, step", "CPU s, step", "accuracy")
    for item in whole:
        sent, seconds = f"{item.bytes_sent / 1000:.0f}", f"{item.seconds:.2f}"
        table.add_row(item.mode, sent, seconds, f"{item.accuracy:.3f}")
    Console().print(table)
    table = Table(f"{arguments.values} values", "ms")
    for name, seconds in parts.items():
        table.add_row(name, f"{1000 * seconds:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
