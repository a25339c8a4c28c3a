"""`atcp demo`: several peers on this machine train a model together."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import trio
from rich.console import Console

from federated.cli.settings import add_tell, check_task
from federated.demo.ledger import Ledger
from federated.demo.progress import ProgressView, ejection_line, result_table
from federated.demo.report import make_folder, write_report
from federated.demo.results import is_complete
from federated.demo.run import DemoSettings, default_trainer, run_demo
from federated.listeners import load_listeners
from federated.manifest import MAX_ROUNDS, MAX_SEED
from p2p.arguments import number
from p2p.errors import InvalidInput
from p2p.scope import open_scope_until_signal

MAX_PROCESSES = 64  # of a demo on one machine
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def add_parser(commands: Any) -> None:
    """Adds the command and its options to the subparsers `commands`."""
    parser = commands.add_parser("demo", help="several peers on this machine train a model")
    parser.add_argument(
        "--peers", type=number(int, 1, MAX_PROCESSES), default=6, help="processes (default 6)"
    )
    parser.add_argument("--rounds", type=number(int, 1, MAX_ROUNDS), default=15, help="rounds (default 15)")
    parser.add_argument("--seed", type=number(int, 0, MAX_SEED), default=7, help="of data and model (7)")
    parser.add_argument(
        "--trainer",
        choices=["numpy", "torch", "both"],
        help="default: torch where it is installed; both: two tasks at once on the same peers",
    )
    parser.add_argument("--task", metavar="NAME", help="a plugin that has both data and model (the digits)")
    parser.add_argument(
        "--byzantine",
        type=number(int, 0, MAX_PROCESSES // 3),
        default=0,
        metavar="N",
        help="N of the peers vote twice, fewer than a third (default 0)",
    )
    parser.add_argument("--kill", action="store_true", help="kill -9 a random peer in every third round")
    add_tell(parser)
    parser.add_argument("--report", type=Path, default=Path("atcp-demo"), help="parent of the report folder")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`atcp demo`: 0 when all rounds are certified, all models agree and the liars are out, 1 otherwise."""
    settings = DemoSettings(
        peers=arguments.peers,
        rounds=arguments.rounds,
        seed=arguments.seed,
        trainer=arguments.trainer or default_trainer(),
        kill=arguments.kill,
        byzantine=arguments.byzantine,
        task=arguments.task,
        tell=tuple(arguments.tell),
    )
    load_listeners(settings.tell)  # says in one line what each peer would
    if settings.task is not None:
        check_task(settings.task)
    if settings.byzantine > (settings.peers - 1) // 3:
        raise InvalidInput(
            f"--byzantine {settings.byzantine}: the others only hold with more than {3 * settings.byzantine}"
            f" peers, see --peers"
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

    async with open_scope_until_signal():
        with view.shown():
            results = await run_demo(settings, folder, tell)
    return results


def _conclude(results: Mapping[str, Any], folder: Path, *, as_json: bool) -> int:
    names = ["accuracy", "centralised_accuracy", "rounds", "certified", "digests_agree", "seconds"]
    names += ["bytes_sent", "liars", "liars_ejected"]
    peers = results["settings"]["peers"]
    event = {"event": "result", "peers": peers, **{name: results[name] for name in names}}
    if as_json:
        print(json.dumps({**event, "report": str(folder)}), flush=True)
        return 0 if is_complete(results) else 1
    console = Console()
    for task in results["tasks"]:
        console.print(result_table(results, task))
        for ejection in task["ejections"]:
            console.print(ejection_line(ejection), highlight=False)
        console.print(_task_line(task))
    for kill in results["kills"]:
        back = kill["back_in_round"]
        console.print(
            f"killed …{kill['peer'][-8:]} in round {kill['round']}; "
            + (f"trained again in round {back}" if back else "back, with no round left to train in")
        )
    if not results["liars_ejected"]:
        console.print("[red]not exactly the peers that lied were ejected[/]")
    console.print(f"{results['bytes_sent'] / 1e6:.1f} MB sent, {results['seconds']:.1f} s")
    console.print(f"report: {folder}", highlight=False, soft_wrap=True)
    return 0 if is_complete(results) else 1


def _task_line(task: Mapping[str, Any]) -> str:
    agree = "all models agree" if task["digests_agree"] else "[red]the models do not agree[/]"
    return (
        f"accuracy {task['accuracy'] or 0:.4f} (centralised {task['centralised_accuracy']:.4f}), "
        f"{task['certified']} rounds certified, slowest phase {task['slowest_phase']}; {agree}"
    )
