"""`atcp task list`: the tasks that a running peer knows, or that a network has."""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import trio
from multiaddr import Multiaddr
from rich.console import Console

from federated.cli.tables import list_table
from federated.control import call
from federated.desk import describe
from federated.directory.driver import open_directory
from federated.directory.validators import VALIDATORS
from federated.errors import FederatedError
from p2p.address import parse_address
from p2p.arguments import number
from p2p.errors import InvalidInput
from p2p.keys import KeyPair
from p2p.options import bootstrap_address
from p2p.overlay import open_overlay

LISTEN = "/ip4/0.0.0.0/tcp/0"
EXAMPLES = """\
examples:
  atcp task list --data-dir ~/.atcp
  atcp task list --bootstrap /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… --seconds 20
"""


class NobodyThere(FederatedError):
    """No peer of the network could be reached."""


def add_parser(tasks: Any) -> None:
    """Adds the command to the subparsers `tasks`."""
    parser = tasks.add_parser("list", help="which tasks there are", epilog=EXAMPLES)
    parser.add_argument("--data-dir", type=Path, help="ask the peer that runs in this folder")
    parser.add_argument(
        "--bootstrap", action="append", default=[], metavar="MULTIADDR", help="or look here (repeatable)"
    )
    parser.add_argument(
        "--seconds", type=number(float, 0.1, 600), default=10.0, help="how long to listen (10)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a task and line")
    parser.set_defaults(run=list_tasks)


def list_tasks(arguments: argparse.Namespace) -> int:
    """`atcp task list`."""
    if (arguments.data_dir is None) == (not arguments.bootstrap):
        raise InvalidInput("atcp task list needs --data-dir of a running peer, or --bootstrap of a network")
    if arguments.data_dir is not None:
        found = trio.run(partial(call, arguments.data_dir, "list"))
    else:
        bootstrap = [bootstrap_address(text) for text in arguments.bootstrap]
        found = trio.run(_look, bootstrap, arguments.seconds)
    if arguments.json:
        for task in found:
            print(json.dumps({"event": "listed", **task}))
    elif found:
        Console().print(list_table(found))
    else:
        print("no task is announced; create one with: atcp task create")
    return 0


async def _look(bootstrap: list[Multiaddr], seconds: float) -> list[dict[str, Any]]:
    """The tasks that are announced in a network, to a peer that is there for `seconds` only."""
    with tempfile.TemporaryDirectory(prefix="atcp-") as folder:
        async with (
            open_overlay(
                KeyPair.generate(),
                Path(folder),
                listen=[parse_address(LISTEN)],
                bootstrap=bootstrap,
                remembers=False,
                validators=VALIDATORS,
            ) as overlay,
            open_directory(overlay.host, overlay.pubsub, overlay.kad) as directory,
        ):
            entries = await directory.listen(seconds)
            if not entries and not overlay.host.peers():
                raise NobodyThere("no peer answers at --bootstrap; is one running there?")
            return [describe(entry) for entry in entries]
