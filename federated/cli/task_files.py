"""`atcp task export` and `verify`: a certified model as a folder, and whether such a folder is true."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import trio

from federated.control import call, is_running
from federated.export import export_folder, find_folder, verify_export
from federated.tasks import parse_task_id
from p2p.data_dir import open_data_dir
from p2p.errors import InvalidInput

EXPORT_EXAMPLES = """\
examples:
  atcp task export digits model --data-dir ~/.atcp

Works while the peer runs, and after it. model/ then has the model, the task and its certificates.
"""
VERIFY_EXAMPLES = """\
examples:
  atcp task verify model
  atcp task verify model --task 5f2c… && python serve.py model/model.safetensors

Exit status 0: every certificate follows from the task, and the model is the last one's. 1: something is
wrong, in one line. 2: this is no export.
"""


def add_parsers(tasks: Any) -> None:
    """Adds both commands to the subparsers `tasks`."""
    export = tasks.add_parser(
        "export", help="write the certified model, with its proof", epilog=EXPORT_EXAMPLES
    )
    export.add_argument("task", metavar="TASK", help="its name, id, or the beginning of it")
    export.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    export.add_argument("--data-dir", type=Path, required=True, help="of a peer that takes part")
    export.add_argument("--json", action="store_true", help="the result as a JSON object")
    export.set_defaults(run=export_task)
    verify = tasks.add_parser("verify", help="check such a folder, offline", epilog=VERIFY_EXAMPLES)
    verify.add_argument("folder", type=Path, metavar="FOLDER", help="what export has written")
    verify.add_argument("--task", metavar="ID", help="the task that it must be of")
    verify.add_argument("--json", action="store_true", help="the result as a JSON object")
    verify.set_defaults(run=verify_folder)


def export_task(arguments: argparse.Namespace) -> int:
    """`atcp task export`: by the running peer, or from its folder when none runs."""
    out, data_dir = arguments.out.absolute(), arguments.data_dir
    if is_running(data_dir):
        answer = trio.run(partial(call, data_dir, "export", task=arguments.task, out=str(out)))
    else:
        if not data_dir.is_dir():
            raise InvalidInput(f"there is no folder {data_dir}")
        with open_data_dir(data_dir):  # no peer may start meanwhile
            last = export_folder(find_folder(data_dir, arguments.task), out)
        digest = last.block.model.digest.hex()
        answer = {"task": last.block.task.hex(), "round": last.round, "digest": digest, "out": str(out)}
    if arguments.json:
        print(json.dumps({"event": "export", **answer}))
    else:
        print(f"{answer['out']}: the model of round {answer['round']}, digest {answer['digest'][:16]}…")
    return 0


def verify_folder(arguments: argparse.Namespace) -> int:
    """`atcp task verify`; what is wrong is a `VerifyError`."""
    task = None
    if arguments.task is not None and (task := parse_task_id(arguments.task)) is None:
        raise InvalidInput(f"--task {arguments.task}: an id has 64 hexadecimal digits")
    found = verify_export(arguments.folder, task=task)
    manifest, last = found.manifest, found.last
    result = {
        "event": "verified",
        "task": manifest.task_id.hex(),
        "name": manifest.name,
        "round": last.round,
        "rounds": manifest.rounds,
        "skipped": found.skipped,
        "members": found.membership.active.bit_count(),
        "digest": last.block.model.digest.hex(),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"true: {manifest.name}, task {manifest.task_id.hex()}, round {last.round} of {manifest.rounds} "
            f"({found.skipped} skipped), {result['members']} members, model {last.block.model.digest.hex()}"
        )
    return 0
