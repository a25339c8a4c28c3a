"""`atcp task status`, `metrics`, `join`, `leave`: commands to the peer that runs in a data folder."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import trio
from rich.console import Console

from federated.cli.tables import status_table
from federated.control import call
from federated.directory.signed import load_task_file, task_file
from federated.errors import ManifestError
from p2p.errors import InvalidInput

STATUS_EXAMPLES = """\
examples:
  atcp task status --data-dir ~/.atcp
  atcp task status digits --data-dir ~/.atcp --json
"""
JOIN_EXAMPLES = """\
examples:
  atcp task join digits.json --data-dir ~/.atcp
  atcp task join 5f2c…                  --data-dir ~/.atcp
  atcp task join digits.json --data-dir ~/.atcp --invitation atcp-invite-…

The peer takes the task up again whenever it is started, until the task is left.
"""
METRICS_EXAMPLES = """\
examples:
  atcp task metrics --data-dir ~/.atcp > /var/lib/node_exporter/atcp.prom
"""
LEAVE_EXAMPLES = """\
examples:
  atcp task leave digits --data-dir ~/.atcp

A member that leaves does not come back: the others certify that it is gone.
"""


def add_parsers(tasks: Any) -> None:
    """Adds the commands to the subparsers `tasks`."""
    status = tasks.add_parser("status", help="how the tasks of a running peer stand", epilog=STATUS_EXAMPLES)
    status.add_argument("task", nargs="?", metavar="TASK", help="its name, id, or the beginning of it (all)")
    _common(status, show_status)
    metrics = tasks.add_parser("metrics", help="what a running peer counted", epilog=METRICS_EXAMPLES)
    metrics.add_argument("--data-dir", type=Path, required=True, help="of the running peer")
    metrics.set_defaults(run=show_metrics)
    join = tasks.add_parser("join", help="take part in a task", epilog=JOIN_EXAMPLES)
    join.add_argument("task", metavar="TASK|FILE", help="the task's file, or its id: then it is looked for")
    join.add_argument("--invitation", metavar="LINE", help="for tasks that need one")
    _common(join, join_task)
    leave = tasks.add_parser("leave", help="take part in a task no more", epilog=LEAVE_EXAMPLES)
    leave.add_argument("task", metavar="TASK", help="its name, id, or the beginning of it")
    _common(leave, leave_task)


def _common(parser: Any, run: Any) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, help="of the running peer")
    parser.add_argument("--json", action="store_true", help="the answer as a JSON object")
    parser.set_defaults(run=run)


def show_status(arguments: argparse.Namespace) -> int:
    """`atcp task status`."""
    wanted = {} if arguments.task is None else {"task": arguments.task}
    answer = trio.run(partial(call, arguments.data_dir, "status", **wanted))
    if arguments.json:
        print(json.dumps({"event": "status", **answer}))
        return 0
    console = Console()
    console.print(
        f"{answer['peer_id']}, connected to {answer['peers']} peers", highlight=False, soft_wrap=True
    )
    if answer["tasks"]:
        console.print(status_table(answer["tasks"]))
    else:
        console.print("no task; join one with: atcp task join")
    return 0


def show_metrics(arguments: argparse.Namespace) -> int:
    """`atcp task metrics`: in the text format of Prometheus."""
    print(trio.run(partial(call, arguments.data_dir, "metrics")), end="")
    return 0


def join_task(arguments: argparse.Namespace) -> int:
    """`atcp task join`."""
    wanted: dict[str, Any] = {"task": arguments.task}
    path = Path(arguments.task)
    if path.is_file():
        try:
            manifest, signed = load_task_file(path)
        except ManifestError as exc:
            raise InvalidInput(str(exc)) from exc
        text = task_file(signed) if signed is not None else manifest.canonical().decode()
        wanted = {"file": text}
    elif path.suffix == ".json":
        raise InvalidInput(f"cannot read task file {path}")
    if arguments.invitation is not None:
        wanted["invitation"] = arguments.invitation
    answer = trio.run(partial(call, arguments.data_dir, "join", **wanted))
    if arguments.json:
        print(json.dumps({"event": "join", **answer}))
    else:
        print(f"task {answer['name']}, {answer['task']}: {answer['state']}; see atcp task status")
    return 0


def leave_task(arguments: argparse.Namespace) -> int:
    """`atcp task leave`."""
    answer = trio.run(partial(call, arguments.data_dir, "leave", task=arguments.task))
    if arguments.json:
        print(json.dumps({"event": "leave", **answer}))
    elif answer["state"] == "left":
        print(f"task {answer['task']}: left")
    else:
        print(f"task {answer['task']}: the members have not certified it yet; leave the peer running")
    return 0
