"""`python -m tests.benchmarks.attacks.liar`: a peer as `python -m p2p.peer` runs it, whose trainer lies.

The options are those of `python -m p2p.peer`. In the folder of --data-dir lies `attack.json`, the case and
the ids of all liars: they know one another. In everything else it is an honest member, and votes as one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from federated.demo.liar import main, serve
from federated.service import TaskService
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.report import Reporter
from p2p.scope import open_scope_until_signal
from sim.adversaries.league import League
from tests.benchmarks.attacks.task import Case, attack_of

ORDERS = "attack.json"


def write_orders(folder: Path, case: Case, liars: Sequence[PeerId]) -> None:
    """What the liar of `folder` is to do."""
    orders = {"case": case._asdict(), "liars": [str(peer) for peer in liars]}
    (folder / ORDERS).write_text(json.dumps(orders), encoding="utf-8")


def read_orders(folder: Path) -> tuple[Case, League]:
    """(the case, the league of all liars)."""
    orders = json.loads((folder / ORDERS).read_text(encoding="utf-8"))
    return Case(**orders["case"]), League([PeerId.parse(text) for text in orders["liars"]])


async def run_liar(arguments: argparse.Namespace, key: KeyPair, report: Reporter) -> None:
    """Runs until SIGINT or SIGTERM."""
    async with open_scope_until_signal():
        case, league = read_orders(arguments.data_dir)
        service = TaskService(arguments.task, registry=league.registry(attack_of(case)))
        await serve(service, arguments, key, report)


if __name__ == "__main__":
    sys.exit(main(run=run_liar))
