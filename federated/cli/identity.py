"""`atcp identity`: who a data folder is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from p2p.data_dir import open_data_dir
from p2p.peer_id import PeerId


def add_parser(commands: Any) -> None:
    """Adds the command and its options to the subparsers `commands`."""
    parser = commands.add_parser("identity", help="print a folder's peer id, made when new")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="as a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`atcp identity`."""
    with open_data_dir(arguments.data_dir) as key:
        peer = str(PeerId.from_public_key(key.public))
    print(json.dumps({"event": "identity", "peer_id": peer}) if arguments.json else peer)
    return 0
