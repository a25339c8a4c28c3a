"""`atcp task …`: tasks from their manifest to their certified model."""

from __future__ import annotations

from typing import Any

from federated.cli import task_audit, task_create, task_files, task_network, task_peer
from p2p.arguments import Parser

EXAMPLES = """\
examples:
  atcp identity --data-dir ~/.atcp                       who I am; others tell me theirs
  atcp task create --data-dir ~/.atcp --name digits \\
      --member 12D3KooW… --member 12D3KooW…              writes digits.json, signed by me
  python -m p2p.peer --data-dir ~/.atcp --task digits.json
  atcp task status --data-dir ~/.atcp                    how it stands, while the peer runs
  atcp task export digits model --data-dir ~/.atcp       the certified model, with the proof
  atcp task verify model                                 anybody, offline: is it true?

Commands with --data-dir talk to the peer that runs with this folder.
"""


def add_parser(commands: Any) -> None:
    """Adds the commands and their options to the subparsers `commands`."""
    parser: Parser = commands.add_parser(
        "task", help="create, find, join, follow and export tasks", epilog=EXAMPLES
    )
    tasks = parser.add_subparsers(dest="task_command", required=True, metavar="COMMAND")
    task_create.add_parsers(tasks)
    task_network.add_parser(tasks)
    task_peer.add_parsers(tasks)
    task_files.add_parsers(tasks)
    task_audit.add_parser(tasks)
