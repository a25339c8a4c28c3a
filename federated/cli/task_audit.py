"""`atcp task audit`: whether what a peer wrote down of its tasks is in order."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from federated.audit import check_trail
from federated.export import FOLDER
from p2p.errors import InvalidInput
from p2p.files import FolderFiles

EXAMPLES = """\
examples:
  atcp task audit --data-dir ~/.atcp
  atcp task audit --data-dir ~/.atcp --json

Works while the peer runs, and after it. Exit status 0: every line follows the one before. 1: one does not.
"""


def add_parser(tasks: Any) -> None:
    """Adds the command to the subparsers `tasks`."""
    audit = tasks.add_parser("audit", help="check the audit trails of a peer", epilog=EXAMPLES)
    audit.add_argument("--data-dir", type=Path, required=True, help="of the peer")
    audit.add_argument("--json", action="store_true", help="one JSON object a task")
    audit.set_defaults(run=check_audit)


def check_audit(arguments: argparse.Namespace) -> int:
    """`atcp task audit`: 0 when all trails are in order, 1 otherwise."""
    tasks = arguments.data_dir / FOLDER
    if not tasks.is_dir():
        raise InvalidInput(f"{arguments.data_dir} is no folder of a peer that has taken part in a task")
    faults = 0
    for folder in sorted(path for path in tasks.iterdir() if path.is_dir()):
        found = check_trail(FolderFiles(folder))
        faults += found.fault is not None
        if arguments.json:
            print(
                json.dumps({"event": "audit", "task": folder.name, **asdict(found), "head": found.head.hex()})
            )
        else:
            state = found.fault or "in order"
            print(f"task {folder.name[:16]}: {found.entries} entries up to {found.last}, {state}")
    return 1 if faults else 0
