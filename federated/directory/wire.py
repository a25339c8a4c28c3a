"""What is said on the topic of tasks, as bytes: one canonical msgpack map each, of at most 4 KiB.

Announce   "I take part in the task of this envelope; it is in this round"
Ask        "who has tasks?", or one task; those who do announce them
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgpack

from federated.directory.signed import MAX_ENVELOPE, unpack
from federated.manifest import MAX_ROUNDS
from p2p.errors import RemoteProtocolError

TOPIC = "/atcp/tasks/1"
MAX_MESSAGE = 4096  # bytes; gossip carries announcements only
MAX_TIME = 1 << 40  # unix seconds; some 35 000 years
TASK_SIZE = 32  # bytes of a task's id
ANY = b""  # what an `Ask` for all tasks names


class Progress(StrEnum):
    """How far a task is, for the one who announces it."""

    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """The sender has the manifest that `envelope` is of, and is in `round` (0: none is certified)."""

    envelope: bytes
    round: int
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The sender wants to hear of `task`, or with `ANY` of all."""

    task: bytes


Body = Announce | Ask


def encode(body: Body, expiry: int) -> bytes:
    """The canonical bytes of a message that is good until `expiry` (unix seconds)."""
    match body:
        case Announce(envelope=envelope, round=number, progress=progress):
            fields = {"kind": "announce", "envelope": envelope, "round": number, "progress": str(progress)}
        case Ask(task=task):
            fields = {"kind": "ask", "task": task}
    data: bytes = msgpack.packb({**fields, "expiry": expiry})
    return data


def decode(data: bytes) -> tuple[Body, int]:
    """(body, expiry) of a message. Raises `RemoteProtocolError`, and nothing else, for what is not one."""
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(f"{len(data)} bytes are over the limit of {MAX_MESSAGE}")
    values = unpack(data)
    expiry = values.get("expiry") if isinstance(values, dict) else None
    if type(expiry) is not int or not 0 <= expiry <= MAX_TIME:
        raise RemoteProtocolError("not a message about tasks")
    body = _body(values)
    if encode(body, expiry) != data:  # keys in another order or more of them, a bool for a number
        raise RemoteProtocolError("not in its canonical form")
    return body, expiry


def _body(values: object) -> Body:
    match values:
        case {
            "kind": "announce",
            "envelope": bytes(envelope),
            "round": int(number),
            "progress": "running" | "finished" as progress,
        } if len(envelope) <= MAX_ENVELOPE and 0 <= number <= MAX_ROUNDS:
            return Announce(envelope=envelope, round=int(number), progress=Progress(progress))
        case {"kind": "ask", "task": bytes(task)} if len(task) in (0, TASK_SIZE):
            return Ask(task=task)
    raise RemoteProtocolError("not a message about tasks")
