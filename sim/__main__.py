"""`python -m sim`: lists the scenarios and runs one of them."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from random import Random

from federated.manifest import MAX_MEMBERS, MAX_ROUNDS, MAX_SEED
from p2p.arguments import Parser, number
from p2p.errors import InvalidInput
from sim.gossip import GossipSettings, run_gossip
from sim.network import LinkModel, Partition
from sim.report import Result, Step, write_json, write_step, write_table
from sim.rounds import RoundsSettings, run_rounds

MAX_PEERS = 10_000  # of a gossip run: about 40 KiB each, and hours beyond it
MAX_SECONDS = 3600.0  # simulated
MAX_CRASHES = 10_000
MAX_RATE = 10_000.0  # messages a second

EXAMPLES = """\
examples:
  python -m sim list
  python -m sim run gossip --peers 100 --seed 1
  python -m sim run gossip --peers 30 --seed 7 --loss 0.1 --partition 6:3 --json
  python -m sim run rounds --peers 10 --rounds 20 --seed 1 --crash 6

The same scenario, arguments and seed give the same trace hash, on any machine.
Exit status: 0 when every check holds, 1 when one fails, 2 when the arguments are unusable.
"""

SCENARIOS = {
    "gossip": "real gossipsub routers on a random graph publish to one topic",
    "rounds": "real round machines go through a training task, some of them crashing",
}


def _span(text: str) -> tuple[float, float]:
    """START:SECONDS as (start, end)."""
    start, _, length = text.partition(":")
    try:
        begins, lasts = float(start), float(length)
    except ValueError:
        begins, lasts = -1.0, -1.0
    if not (0 <= begins <= MAX_SECONDS and 0 < lasts <= MAX_SECONDS):
        raise argparse.ArgumentTypeError(f"{text!r} is not START:SECONDS, like 6:3")
    return begins, begins + lasts


def _parser() -> Parser:
    parser = Parser(
        prog="python -m sim",
        description="Run the machines of ATCP under a virtual clock.",
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    names = commands.add_parser("list", help="name the scenarios")
    names.add_argument("--json", action="store_true", help="one JSON object a line")
    run = commands.add_parser("run", help="run one scenario")
    scenarios = run.add_subparsers(dest="scenario", required=True, metavar="SCENARIO")
    _add_gossip(scenarios.add_parser("gossip", help=SCENARIOS["gossip"]))
    _add_rounds(scenarios.add_parser("rounds", help=SCENARIOS["rounds"]))
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seed", type=number(int, 0, MAX_SEED), default=1, help="decides the whole run (default 1)")
    add("--latency-ms", type=number(float, 0, 10_000), default=50.0, help="median one way (default 50)")
    add("--loss", type=number(float, 0, 0.9), default=0.0, help="share of packets lost (default 0)")
    add(
        "--partition",
        type=_span,
        metavar="START:SECONDS",
        help="cut the network into two halves, for a while",
    )
    add("--json", action="store_true", help="one JSON object a line; the last is the result")


def _add_gossip(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--peers", type=number(int, 2, MAX_PEERS), default=50, help="how many (default 50)")
    add(
        "--rate",
        type=number(float, 0.01, MAX_RATE),
        default=10.0,
        help="messages a second in all (default 10)",
    )
    add("--seconds", type=number(float, 0.1, MAX_SECONDS), default=10.0, help="of publishing (default 10)")
    _add_common(parser)


def _add_rounds(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--peers", type=number(int, 1, MAX_MEMBERS), default=6, help="members of the task (default 6)")
    add("--rounds", type=number(int, 1, MAX_ROUNDS), default=10, help="how many (default 10)")
    add(
        "--crash",
        type=number(int, 0, MAX_CRASHES),
        default=0,
        metavar="TIMES",
        help="kill a random member, which starts again seconds later, so many times (default 0)",
    )
    _add_common(parser)


def _links(arguments: argparse.Namespace) -> LinkModel:
    return LinkModel(latency=arguments.latency_ms / 1000, loss=arguments.loss)


def _partition(arguments: argparse.Namespace) -> Partition | None:
    if arguments.partition is None:
        return None
    start, end = arguments.partition
    return Partition(start=start, end=end, border=arguments.peers // 2)


def _run(arguments: argparse.Namespace, step: Step) -> Result:
    links, partition, rng = _links(arguments), _partition(arguments), Random(arguments.seed)
    peers, seed = arguments.peers, arguments.seed
    if arguments.scenario == "rounds":
        task = RoundsSettings(
            peers=peers,
            rounds=arguments.rounds,
            seed=seed,
            crashes=arguments.crash,
            links=links,
            partition=partition,
        )
        return run_rounds(task, rng, step)
    gossip = GossipSettings(
        peers=peers,
        seed=seed,
        rate=arguments.rate,
        seconds=arguments.seconds,
        links=links,
        partition=partition,
    )
    return run_gossip(gossip, rng, step)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser().parse_args(words)
    except InvalidInput as exc:
        print(f"sim: {exc}", file=sys.stderr)
        return 2
    if arguments.command == "list":
        for name, description in SCENARIOS.items():
            scenario = {"event": "scenario", "name": name, "description": description}
            print(json.dumps(scenario) if arguments.json else f"{name:<8} {description}")
        return 0
    gc.freeze()  # what the modules made stays; the collector walks only what the run makes
    started = time.perf_counter()
    if arguments.json:
        result = _run(arguments, lambda step: write_step(step, sys.stdout))
        write_json(result, time.perf_counter() - started, sys.stdout)
    else:
        result = _run(arguments, lambda step: None)
        write_table(result, time.perf_counter() - started, sys.stdout)
    if not result.passed:
        print(f"sim: a check failed; repeat with: python -m sim {' '.join(words)}", file=sys.stderr)
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
