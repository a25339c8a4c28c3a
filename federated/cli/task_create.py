"""`atcp task create` and `invite`: what the one who begins a task does."""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from federated.cli.settings import add_options, given, manifest_of
from federated.directory.signed import SignedTask, load_task_file, sign_task, task_file
from federated.errors import ManifestError
from federated.invitation import make_invitation
from federated.manifest import (
    MAX_COMMITTEE,
    MAX_MEMBERS,
    MAX_ROUNDS,
    MAX_SEED,
    MAX_WORK,
    MIN_COMMITTEE,
    MIN_WORK,
    TaskManifest,
)
from p2p.arguments import number
from p2p.data_dir import IDENTITY, load_identity, open_data_dir
from p2p.errors import InvalidInput
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

CREATE_EXAMPLES = """\
examples:
  atcp task create --data-dir ~/.atcp --name digits --member 12D3KooW… --member 12D3KooW…
  atcp task create --data-dir ~/.atcp --name open --admission work --bits 20
  atcp task create --data-dir ~/.atcp --name mine --trainer torch-mlp \\
      --set trainer.hidden='[64]' --set trainer.epochs=5 --rounds 50

Without --member the only one is the peer of --data-dir.
"""
INVITE_EXAMPLES = """\
examples:
  atcp task invite digits.json --data-dir ~/.atcp
  atcp task invite digits.json --data-dir ~/.atcp --last-round 20

Each line lets one peer in: send it over a channel that others do not read.
"""


def add_parsers(tasks: Any) -> None:
    """Adds both commands to the subparsers `tasks`."""
    create = tasks.add_parser("create", help="write a signed task file", epilog=CREATE_EXAMPLES)
    add = create.add_argument
    add("--data-dir", type=Path, required=True, help="whose identity signs it; made when new")
    add("--name", help='for people (that of --task, or "task")')
    add("--out", type=Path, metavar="FILE", help="where to write it (NAME.json)")
    add("--rounds", type=number(int, 1, MAX_ROUNDS), default=20, help="rounds (20)")
    add("--seed", type=number(int, 0, MAX_SEED), help="of the first model (drawn)")
    add("--member", action="append", default=[], metavar="ID", help="who trains (repeatable)")
    add("--task", metavar="NAME", help="a plugin that has both data and model")
    add_options(create)
    add(
        "--committee",
        type=number(int, MIN_COMMITTEE, MAX_COMMITTEE),
        help=f"who votes, at most ({MAX_COMMITTEE})",
    )
    add(
        "--admission",
        choices=["closed", "invitation", "work"],
        default="closed",
        help="who may join later (closed)",
    )
    add(
        "--issuer", action="append", default=[], metavar="ID", help="who may invite (repeatable; the creator)"
    )
    add("--bits", type=number(int, MIN_WORK, MAX_WORK), help="of work to join: 20 take about a second (20)")
    add("--max-members", type=number(int, 1, MAX_MEMBERS), help=f"those who join included ({MAX_MEMBERS})")
    add("--json", action="store_true", help="the result as a JSON object")
    create.set_defaults(run=create_task)
    invite = tasks.add_parser("invite", help="print a line that lets one peer join", epilog=INVITE_EXAMPLES)
    invite.add_argument("task", type=Path, metavar="FILE", help="the task's file")
    invite.add_argument("--data-dir", type=Path, required=True, help="of a peer that may invite")
    invite.add_argument(
        "--last-round", type=number(int, 1, MAX_ROUNDS), help="until when it is good (the last)"
    )
    invite.add_argument("--json", action="store_true", help="as a JSON object")
    invite.set_defaults(run=invite_peer)


def create_task(arguments: argparse.Namespace) -> int:
    """`atcp task create`."""
    key = identity_of(arguments.data_dir)
    manifest = _manifest(arguments, PeerId.from_public_key(key.public))
    out = arguments.out or Path(f"{manifest.name}.json")
    _write(out, sign_task(manifest, key))
    result = {"event": "created", "task": manifest.task_id.hex(), "name": manifest.name, "file": str(out)}
    if arguments.json:
        print(json.dumps({**result, "members": list(manifest.members)}))
    else:
        print(f"{out}: task {manifest.name}, {manifest.task_id.hex()}")
        print(f"start it on every member: python -m p2p.peer --data-dir DIR --bootstrap ADDRESS --task {out}")
    return 0


def invite_peer(arguments: argparse.Namespace) -> int:
    """`atcp task invite`."""
    try:
        manifest, _ = load_task_file(arguments.task)
    except ManifestError as exc:
        raise InvalidInput(str(exc)) from exc
    key = identity_of(arguments.data_dir)
    peer = PeerId.from_public_key(key.public)
    if peer not in manifest.issuer_ids:
        raise InvalidInput(
            f"{peer} may not invite to {manifest.name}: "
            + (
                "its issuers are " + ", ".join(map(str, manifest.issuer_ids))
                if manifest.issuer_ids
                else "nobody may; make the task with --admission invitation"
            )
        )
    last = min(arguments.last_round or manifest.rounds, manifest.rounds)
    line = make_invitation(key, manifest.task_id, last, secrets.token_bytes(32)).text
    if arguments.json:
        task = {"task": manifest.task_id.hex(), "last_round": last}
        print(json.dumps({"event": "invitation", **task, "invitation": line}))
    else:
        print(line)
    return 0


def identity_of(data_dir: Path) -> KeyPair:
    """The identity in a data folder, of which a peer may be running; made when there is none.

    Raises `InvalidInput`.
    """
    if (data_dir / IDENTITY).exists():
        return load_identity(data_dir / IDENTITY)
    with open_data_dir(data_dir) as key:
        return key


def _manifest(arguments: argparse.Namespace, creator: PeerId) -> TaskManifest:
    """The manifest that the options describe. Raises `InvalidInput` with the first thing that is wrong."""
    return manifest_of(
        arguments,
        arguments.task,
        name=arguments.name or arguments.task or "task",
        seed=secrets.randbelow(MAX_SEED) if arguments.seed is None else arguments.seed,
        rounds=arguments.rounds,
        members=arguments.member or [str(creator)],
        admission=_admission(arguments, creator),
        **given(committee=arguments.committee, max_members=arguments.max_members),
    )


def _admission(arguments: argparse.Namespace, creator: PeerId) -> dict[str, JsonValue]:
    kind = arguments.admission
    if arguments.issuer and kind != "invitation":
        raise InvalidInput("--issuer goes with --admission invitation")
    if arguments.bits is not None and kind != "work":
        raise InvalidInput("--bits goes with --admission work")
    match kind:
        case "invitation":
            return {"kind": kind, "issuers": arguments.issuer or [str(creator)]}
        case "work":
            return {"kind": kind, "bits": arguments.bits or 20}
    return {"kind": "closed"}


def _write(out: Path, task: SignedTask) -> None:
    """Writes a new file; an older one stays as it is: somebody may train by it."""
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(task_file(task))
    except FileExistsError as exc:
        raise InvalidInput(f"{out} exists; choose another --out") from exc
    except OSError as exc:
        raise InvalidInput(f"cannot write {out}: {exc.strerror or exc}") from exc
