"""The program `atcp`: its commands, and what their failures mean for the exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from federated.cli import demo, identity, plugin, run, task
from federated.errors import FederatedError
from p2p.arguments import Parser
from p2p.errors import InvalidInput

EXAMPLES = """\
examples:
  atcp demo                          six peers train together on this machine
  atcp demo --kill --rounds 9        the same, with a kill -9 in every third round
  atcp demo --json | tail -n 1       the result for a program
  atcp plugin new wine               the package of a task of your own
  atcp run wine                      trains it here, in one process
  atcp identity --data-dir ~/.atcp   the peer id of a folder, for a task's --member
  atcp task --help                   create, find, join, follow and export tasks
"""


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = Parser(prog="atcp", description="Train together without a server.", epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo.add_parser(commands)
    run.add_parser(commands)
    plugin.add_parser(commands)
    identity.add_parser(commands)
    task.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 2 for unusable input, 1 for a run that failed."""
    try:
        arguments = build_parser().parse_args(argv)
        status: int = arguments.run(arguments)
    except InvalidInput as exc:
        print(f"atcp: {exc}", file=sys.stderr)
        return 2
    except FederatedError as exc:
        print(f"atcp: {exc}", file=sys.stderr)
        return 1
    return status
