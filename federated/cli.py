"""`atcp`: the command line of the training layer."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import trio
from rich.console import Console

from federated.demo.ledger import Ledger
from federated.demo.progress import ProgressView, result_table
from federated.demo.report import make_folder, write_report
from federated.demo.run import DemoSettings, default_trainer, run_demo
from federated.errors import FederatedError
from federated.manifest import MAX_ROUNDS, MAX_SEED
from p2p.arguments import Parser, number
from p2p.data_dir import open_data_dir
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId
from p2p.scope import open_scope

EXAMPLES = """\
examples:
  atcp demo                          six peers train together on this machine
  atcp demo --kill --rounds 9        the same, with a kill -9 in every third round
  atcp demo --json | tail -n 1       the result for a program
  atcp identity --data-dir ~/.atcp   the peer id of a folder, for a manifest's "members"
"""
MAX_PROCESSES = 64  # of a demo on one machine
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = Parser(prog="atcp", description="Train together without a server.", epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="several peers on this machine train a model")
    demo.add_argument("--peers", type=number(int, 1, MAX_PROCESSES), default=6, help="processes (default 6)")
    demo.add_argument("--rounds", type=number(int, 1, MAX_ROUNDS), default=15, help="rounds (default 15)")
    demo.add_argument("--seed", type=number(int, 0, MAX_SEED), default=7, help="of data and model (7)")
    demo.add_argument("--trainer", choices=["numpy", "torch"], help="default: torch where it is installed")
    demo.add_argument("--kill", action="store_true", help="kill -9 a random peer in every third round")
    demo.add_argument("--report", type=Path, default=Path("atcp-demo"), help="parent of the report folder")
    demo.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    identity = commands.add_parser("identity", help="print a folder's peer id, made when new")
    identity.add_argument("--data-dir", type=Path, required=True)
    identity.add_argument("--json", action="store_true", help="as a JSON object")
    return parser


def show_identity(arguments: argparse.Namespace) -> int:
    """`atcp identity`."""
    with open_data_dir(arguments.data_dir) as key:
        peer = str(PeerId.from_public_key(key.public))
    print(json.dumps({"event": "identity", "peer_id": peer}) if arguments.json else peer)
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """`atcp demo`: 0 when all rounds are through and all models agree, 1 otherwise."""
    settings = DemoSettings(
        peers=arguments.peers,
        rounds=arguments.rounds,
        seed=arguments.seed,
        trainer=arguments.trainer or default_trainer(),
        kill=arguments.kill,
    )
    folder = make_folder(arguments.report, datetime.now().strftime("%Y%m%d-%H%M%S"))
    results = trio.run(_run_until_signal, settings, folder, arguments.json)
    if results is None:
        return INTERRUPTED
    write_report(folder, results)
    return _conclude(results, folder, as_json=arguments.json)


async def _run_until_signal(settings: DemoSettings, folder: Path, as_json: bool) -> dict[str, Any] | None:
    """The results, or None after SIGINT or SIGTERM; the peers are gone in either case."""
    view = ProgressView(Console(stderr=True), settings.rounds)
    results: dict[str, Any] | None = None

    def tell(event: Mapping[str, Any], ledger: Ledger) -> None:
        view(event, ledger)
        if as_json:
            print(json.dumps(event), flush=True)

    async def watch(signals: Any, nursery: trio.Nursery) -> None:
        async for _ in signals:
            nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, view.shown():
        async with open_scope() as nursery:
            nursery.start_soon(watch, signals, nursery)
            results = await run_demo(settings, folder, tell)
    return results


def _conclude(results: Mapping[str, Any], folder: Path, *, as_json: bool) -> int:
    names = ["accuracy", "centralised_accuracy", "rounds", "peers", "digests_agree", "seconds", "bytes_sent"]
    event = {"event": "result", **{name: results[name] for name in names}, "report": str(folder)}
    complete = results["rounds"] == results["settings"]["rounds"] and results["digests_agree"]
    if as_json:
        print(json.dumps(event), flush=True)
        return 0 if complete else 1
    console = Console()
    console.print(result_table(results))
    for kill in results["kills"]:
        back = kill["back_in_round"]
        console.print(
            f"killed …{kill['peer'][-8:]} in round {kill['round']}; "
            + (f"trained again in round {back}" if back else "back, with no round left to train in")
        )
    console.print(
        f"accuracy {results['accuracy']:.4f} (centralised {results['centralised_accuracy']:.4f}), "
        f"{results['bytes_sent'] / 1e6:.1f} MB sent, {results['seconds']:.1f} s, slowest phase "
        f"{results['slowest_phase']}; "
        + ("all models agree" if results["digests_agree"] else "[red]the models do not agree[/]")
    )
    console.print(f"report: {folder}", highlight=False, soft_wrap=True)
    return 0 if complete else 1


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 2 for unusable input, 1 for a run that failed."""
    try:
        arguments = build_parser().parse_args(argv)
        return {"demo": demo, "identity": show_identity}[arguments.command](arguments)
    except InvalidInput as exc:
        print(f"atcp: {exc}", file=sys.stderr)
        return 2
    except FederatedError as exc:
        print(f"atcp: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
