"""Certificates as lines of JSON, for readers without our code: hashes and ids as text, signatures in base64.

The `hash` of each block is written down too; what is hashed and signed is in `federated.rounds.messages`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from federated.errors import FederatedError
from federated.manifest import MAX_COMMITTEE, MAX_MEMBERS, MAX_ROUNDS
from federated.rounds.committee import numbers_in, set_of
from federated.rounds.messages import (
    HASH_SIZE,
    MAX_CHANGES,
    SIGNATURE_SIZE,
    Block,
    Certificate,
    Change,
    ChangeKind,
    MessageError,
    Model,
)
from federated.rounds.wire import decode_entry, encode_entry
from p2p.errors import InvalidKey
from p2p.peer_id import PeerId

MAX_LINE = 1 << 15  # bytes of one certificate; 64 votes take 8 KiB, 1024 participants 5

_KINDS = {kind.name.lower(): kind for kind in ChangeKind}


class VerifyError(FederatedError):
    """An export that does not hold; the message is one line and says where."""


def certificate_line(certificate: Certificate) -> str:
    """The certificate as a line of JSON: hashes and ids as text, signatures in base64."""
    block = certificate.block
    value = {
        "round": block.round,
        "view": certificate.view,
        "hash": block.hash.hex(),
        "parent": block.parent.hex(),
        "base": block.base.hex(),
        "inputs": block.inputs.hex(),
        "participants": numbers_in(block.participants),
        "examples": block.examples,
        "model": {
            "digest": block.model.digest.hex(),
            "root": block.model.root.hex(),
            "size": block.model.size,
        },
        "changes": [
            {"kind": change.kind.name.lower(), "peer": str(change.peer), "proof": change.proof.hex()}
            for change in block.changes
        ],
        "votes": [
            {"seat": seat, "signature": base64.b64encode(signature).decode("ascii")}
            for seat, signature in certificate.votes
        ],
    }
    return json.dumps(value, separators=(",", ":")) + "\n"


def parse_certificate(task: bytes, line: bytes) -> Certificate:
    """The certificate of `task` in a line. Raises `VerifyError` for what is none, or has a wrong hash."""
    try:
        value = json.loads(line)
        certificate, written = _certificate(task, value), value["hash"]
        body = decode_entry(task, encode_entry(task, certificate))  # every bound of the wire holds here too
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, MessageError) as exc:
        raise VerifyError(f"not a certificate: {exc}") from exc
    if body != certificate or certificate.block.hash.hex() != written:
        raise VerifyError("not a certificate: its hash is another")
    return certificate


def _certificate(task: bytes, value: Any) -> Certificate:
    """As `parse_certificate`; whatever `value` is, one of the errors that are caught there."""
    model, participants = value["model"], [_integer(item, MAX_MEMBERS) for item in value["participants"]]
    changes, votes = value["changes"], value["votes"]
    if len(set(participants)) < len(participants) or len(changes) > MAX_CHANGES or len(votes) > MAX_COMMITTEE:
        raise ValueError("too many of something, or twice the same")
    return Certificate(
        view=value["view"],
        block=Block(
            task=task,
            parent=_hash(value["parent"]),
            round=_integer(value["round"], MAX_ROUNDS),
            base=_hash(value["base"]),
            inputs=_hash(value["inputs"]),
            participants=set_of(participants),
            examples=value["examples"],
            model=Model(digest=_hash(model["digest"]), root=_hash(model["root"]), size=model["size"]),
            changes=tuple(_change(change) for change in changes),
        ),
        votes=tuple((_integer(vote["seat"], MAX_COMMITTEE), _signature(vote["signature"])) for vote in votes),
    )


def _change(value: Mapping[str, Any]) -> Change:
    try:
        peer = PeerId.parse(value["peer"])
    except InvalidKey as exc:
        raise ValueError(str(exc)) from exc
    return Change(kind=_KINDS[value["kind"]], peer=peer, proof=_hash(value["proof"]))


def _integer(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{value!r:.40} is not a number up to {limit}")
    return value


def _hash(text: str) -> bytes:
    data = bytes.fromhex(text)
    if len(data) != HASH_SIZE:
        raise ValueError("a hash has 32 bytes")
    return data


def _signature(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("a signature is not base64") from exc
    if len(data) != SIGNATURE_SIZE:
        raise ValueError(f"a signature has {SIGNATURE_SIZE} bytes")
    return data
