"""`atcp run`: a task at once, in this process, for whoever writes one."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from federated.cli.settings import SUMS, add_options, add_tell, given, manifest_of
from federated.listeners import load_listeners, open_listeners
from federated.local import Tell, local_keys, run_local
from federated.manifest import MAX_ROUNDS, MAX_SEED, TaskManifest
from federated.reports import Report
from p2p.arguments import Parser, number
from p2p.peer_id import PeerId
from p2p.scope import open_scope_until_signal

MAX_PEERS = 128  # of a run in one process
ALL_VOTE = 16  # members; of more, a committee is drawn for each round
COMMITTEE = 4  # voters: the fewest of which one may lie, and here all belong to one person
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXAMPLES = """\
examples:
  atcp run                                  the digits, six peers, ten rounds
  atcp run wine --peers 10 --rounds 20      a task of yours: see atcp plugin new
  atcp run --trainer torch-mlp --set trainer.hidden=[32] --set aggregator.max_weight=1
  atcp run wine --json | tail -n 1          the result for a program

The members are those of every task, but all in this process, without a network, and nothing is kept. Of
more than 16 a committee of 4 is drawn for each round. atcp demo does the same with processes, python -m sim
run with hundreds of peers, faults and attacks.
"""


def add_parser(commands: Any) -> None:
    """Adds the command and its options to the subparsers `commands`."""
    parser: Parser = commands.add_parser("run", help="train a task here, in one process", epilog=EXAMPLES)
    parser.add_argument("task", nargs="?", metavar="TASK", help="a plugin that has both data and model")
    parser.add_argument("--peers", type=number(int, 1, MAX_PEERS), default=6, help="members (6)")
    parser.add_argument("--rounds", type=number(int, 1, MAX_ROUNDS), default=10, help="rounds (10)")
    parser.add_argument("--seed", type=number(int, 0, MAX_SEED), default=7, help="of the first model (7)")
    add_options(parser)
    add_tell(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    parser.set_defaults(run=run)


class Rounds:
    """What the peers report of the rounds, collected until all have."""

    def __init__(self, peers: int, as_json: bool) -> None:
        self.found: list[dict[str, Any]] = []
        self._peers = peers
        self._as_json = as_json
        self._reports: dict[int, list[Report]] = {}
        self._console = Console(stderr=True)

    def tell(self, peer: PeerId, report: Report) -> None:
        """Takes in what a peer reports; shows a round once all have reported it, and what failed."""
        if self._as_json:
            print(json.dumps({"peer": str(peer), **report}), flush=True)
        if report["event"] != "round":
            return
        reports = self._reports.setdefault(report["round"], [])
        reports.append(report)
        if len(reports) == self._peers:
            self._add(self._reports.pop(report["round"]))

    def _add(self, reports: list[Report]) -> None:
        first = reports[0]
        row = {
            "round": first["round"],
            "accuracy": _mean(report["accuracy"] for report in reports),
            "loss": _mean(report["loss"] for report in reports),
            "updates": len(first["participants"]),
            "skipped": first["skipped"],
            "seconds": max(report["seconds"] for report in reports),
            "agree": len({report["digest"] for report in reports}) == 1,
        }
        self.found.append(row)
        if not self._as_json:
            line = (
                "skipped"
                if row["skipped"]
                else f"accuracy {_text(row['accuracy'])}  {row['updates']} updates"
            )
            self._console.print(f"round {row['round']}: {line}  {row['seconds']:.2f} s", highlight=False)


def run(arguments: argparse.Namespace) -> int:
    """`atcp run`: 0 when all rounds are certified, with one model at all peers; 1 otherwise.

    Where a privacy budget ends the run, it is all rounds up to then.
    """
    rounds, begun = Rounds(arguments.peers, arguments.json), time.monotonic()
    is_spent = train(arguments, rounds.tell)
    if is_spent is None:
        return INTERRUPTED
    return _conclude(arguments, rounds.found, time.monotonic() - begun, is_spent=is_spent)


def train(arguments: argparse.Namespace, tell: Tell) -> bool | None:
    """Trains the task; `tell` hears all reports. Whether its privacy budget is spent; None after a signal."""
    keys = local_keys(arguments.peers, arguments.seed)
    manifest = manifest_for(arguments, [PeerId.from_public_key(key.public) for key in keys])
    listeners = load_listeners(arguments.tell)

    async def until_signal() -> bool | None:
        async with open_scope_until_signal(), open_listeners(listeners) as hear:

            def tell_all(peer: PeerId, report: Report) -> None:
                hear(str(peer), report)
                tell(peer, report)

            return await run_local(manifest, keys, tell_all)
        return None

    gc.freeze()  # what is loaded by now stays: to look through it for garbage again and again takes long
    try:
        return trio.run(until_signal)
    finally:
        gc.unfreeze()


def manifest_for(arguments: argparse.Namespace, members: Sequence[PeerId]) -> TaskManifest:
    """The task of these members. Of many a committee votes, but for tasks with secure sums: there all do."""
    sums = any(text.startswith(f"{SUMS}.") for text in arguments.set)
    return manifest_of(
        arguments,
        arguments.task,
        name=arguments.task or "digits",
        seed=arguments.seed,
        rounds=arguments.rounds,
        members=[str(member) for member in members],
        **given(committee=COMMITTEE if len(members) > ALL_VOTE and not sums else None),
    )


def _conclude(
    arguments: argparse.Namespace, rounds: list[dict[str, Any]], seconds: float, *, is_spent: bool
) -> int:
    """Shows the result; the exit status."""
    learned = [row for row in rounds if not row["skipped"]]
    through = len(learned) == arguments.rounds or (is_spent and bool(learned))
    complete = through and all(row["agree"] for row in rounds)
    last = rounds[-1] if rounds else {"accuracy": None, "loss": None}
    if arguments.json:
        result = {"event": "result", "peers": arguments.peers, "rounds": len(learned), "seconds": seconds}
        figures = {"accuracy": last["accuracy"], "loss": last["loss"], "digests_agree": complete}
        print(json.dumps({**result, **figures, "history": rounds}))
    else:
        Console().print(_table(rounds))
        spent = "; the privacy budget is spent" if is_spent else ""
        print(f"{len(learned)} of {arguments.rounds} rounds trained and certified, {seconds:.1f} s{spent}")
    return 0 if complete else 1


def _table(rounds: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0)
    for name in ("round", "accuracy", "loss", "updates", "seconds", "model"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rounds:
        figures = [_text(row["accuracy"]), _text(row["loss"]), str(row["updates"]), f"{row['seconds']:.2f}"]
        model = "skipped" if row["skipped"] else "the same" if row["agree"] else "[red]differs[/]"
        table.add_row(str(row["round"]), *figures, model)
    return table


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
