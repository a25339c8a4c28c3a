"""`atcp task create` and `invite`: what the one who begins a task does."""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from federated.directory.signed import SignedTask, load_task_file, sign_task, task_file
from federated.errors import ManifestError, PluginError
from federated.invitation import make_invitation
from federated.manifest import (
    MAX_COMMITTEE,
    MAX_DEADLINE,
    MAX_MEMBERS,
    MAX_ROUNDS,
    MAX_SEED,
    MAX_WORK,
    MIN_COMMITTEE,
    MIN_WORK,
    TaskManifest,
    first_problem,
)
from p2p.arguments import number
from p2p.data_dir import IDENTITY, load_identity, open_data_dir
from p2p.errors import InvalidInput
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

KINDS = ("preprocessor", "trainer", "aggregator", "validator")
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
    add("--name", default="task", help="for people (task)")
    add("--out", type=Path, metavar="FILE", help="where to write it (NAME.json)")
    add("--rounds", type=number(int, 1, MAX_ROUNDS), default=20, help="rounds (20)")
    add("--seed", type=number(int, 0, MAX_SEED), help="of the first model (drawn)")
    add("--member", action="append", default=[], metavar="ID", help="who trains (repeatable)")
    add("--preprocessor", default="digits", metavar="NAME", help="loads a peer's data (digits)")
    add("--trainer", default="numpy-mlp", metavar="NAME", help="knows the model (numpy-mlp)")
    add("--aggregator", default="weighted-mean", metavar="NAME", help="makes one of many (weighted-mean)")
    add("--validator", default="update-check", metavar="NAME", help="refuses updates (update-check)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KIND.NAME=VALUE",
        help="a plugin's setting (repeatable)",
    )
    add(
        "--train-deadline", type=number(float, 0.001, MAX_DEADLINE), metavar="S", help="seconds to train (60)"
    )
    add(
        "--phase-deadline",
        type=number(float, 0.001, MAX_DEADLINE),
        metavar="S",
        help="seconds of other phases (10)",
    )
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
    out = arguments.out or Path(f"{arguments.name}.json")
    key = identity_of(arguments.data_dir)
    manifest = _manifest(arguments, PeerId.from_public_key(key.public))
    _check_plugins(manifest)
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
    settings = _settings(arguments.set)
    values: dict[str, Any] = {
        "name": arguments.name,
        "seed": secrets.randbelow(MAX_SEED) if arguments.seed is None else arguments.seed,
        "rounds": arguments.rounds,
        "members": arguments.member or [str(creator)],
        **{kind: {"name": getattr(arguments, kind), "settings": settings[kind]} for kind in KINDS},
        "policy": _given(
            train_deadline_s=arguments.train_deadline, phase_deadline_s=arguments.phase_deadline
        ),
        **_given(committee=arguments.committee, max_members=arguments.max_members),
        "admission": _admission(arguments, creator),
    }
    try:
        return TaskManifest.model_validate(values)
    except ValidationError as exc:
        raise InvalidInput(first_problem(exc)) from exc


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


def _settings(texts: list[str]) -> dict[str, dict[str, JsonValue]]:
    """The settings of each plugin; a value is JSON, or text where it is none."""
    found: dict[str, dict[str, JsonValue]] = {kind: {} for kind in KINDS}
    for text in texts:
        where, equals, value = text.partition("=")
        kind, _, name = where.partition(".")
        if not equals or kind not in found or not name:
            raise InvalidInput(f"--set {text}: write it like trainer.epochs=5 (of {', '.join(KINDS)})")
        try:
            found[kind][name] = json.loads(value)
        except ValueError:
            found[kind][name] = value
    return found


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_plugins(manifest: TaskManifest) -> None:
    """Raises `InvalidInput` when a plugin is not installed here, or does not take its settings."""
    from federated.registry import Registry  # it imports the plugins, and what they need

    try:
        Registry().load(manifest)
    except PluginError as exc:
        raise InvalidInput(str(exc)) from exc


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
