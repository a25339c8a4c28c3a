"""Announcements as bytes: one canonical msgpack map each, at most 4 KiB, strictly decoded.

The map holds `kind`, `task`, `round`, `seq`, `expiry` and the fields of the body. Decoding refuses
unknown and missing keys, wrong types, lengths and ranges, and every other encoding than our own.
Votes are one blob of fixed-size items: number in the committee and signature.
Participants are an integer up to 2^64 - 1, and above, in tasks of more members, its bytes, big-endian.
A block's `previous` is the hash of the one before; changes, proofs and evidence are blobs of
`federated.rounds.changes`.
Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from math import copysign
from typing import Any

import msgpack

from federated.manifest import MAX_COMMITTEE, MAX_MEMBERS, MAX_ROUNDS, MAX_STALENESS
from federated.rounds.changes import (
    pack_evidence,
    pack_proofs,
    parse_peer,
    unpack_changes,
    unpack_evidence,
    unpack_proofs,
)
from federated.rounds.messages import (
    HASH_SIZE,
    LOW_BITS,
    MAX_CORES,
    MAX_COUNT,
    MAX_CREDENTIAL,
    MAX_EXAMPLES,
    MAX_RATE,
    MAX_VIEW,
    NO_BLOCK,
    SIGNATURE_SIZE,
    Abstain,
    Accuse,
    Block,
    Body,
    Capability,
    Certificate,
    Choice,
    Commit,
    Fraud,
    Hello,
    Join,
    Leave,
    Message,
    MessageError,
    Model,
    Proof,
    Propose,
    Recall,
    Reveal,
    Vote,
    pack_changes,
)
from p2p.blobs.merkle import EMPTY_ROOT
from p2p.errors import LocalProtocolError

MAX_MESSAGE = 4096  # bytes; gossip carries announcements only
MAX_TIME = 1 << 40  # unix seconds; some 35 000 years
MAX_SEQ = (1 << 63) - 1
MAX_ID = 64  # bytes of a peer id; the longest has 44
MAX_FIELDS = 17  # a proposal has the most
KEPT = 256  # messages that were decoded last, 4 KiB each
VOTE_SIZE = 1 + SIGNATURE_SIZE  # bytes; number in the committee and signature


def encode(message: Message) -> bytes:
    """The canonical bytes. Raises `LocalProtocolError` when they are over `MAX_MESSAGE`."""
    kind, fields = _fields(message.body)
    head = {"kind": kind, "task": message.task, "round": message.body.round}
    data: bytes = msgpack.packb({**head, "seq": message.seq, "expiry": message.expiry, **fields})
    if len(data) > MAX_MESSAGE:
        raise LocalProtocolError(f"{kind} of {len(data)} bytes is over the limit of {MAX_MESSAGE}")
    return data


@lru_cache(maxsize=KEPT)
def decode(data: bytes) -> Message:
    """The message in `data`. Raises `MessageError`, and nothing else, for whatever is not one.

    It is asked for at the gate, and once more by whoever is told the message.
    """
    values = _unpack(data)
    kind = values.get("kind")
    rules = _RULES.get(kind) if isinstance(kind, str) else None
    if rules is None:
        raise MessageError("unknown kind of message")
    if values.keys() != rules.keys():
        raise MessageError(f"{kind} does not have the fields of its kind")
    for name, check in rules.items():
        if not check(values[name]):
            raise MessageError(f"{kind}: {name} has a wrong type, length or value")
    body = _BUILDERS[str(kind)](values)
    message = Message(task=values["task"], seq=values["seq"], expiry=values["expiry"], body=body)
    if encode(message) != data:  # keys in another order or twice, longer integers
        raise MessageError(f"{kind} is not in its canonical form")
    return message


def encode_entry(task: bytes, body: Body) -> bytes:
    """`body` for the journal."""
    return encode(Message(task=task, seq=0, expiry=0, body=body))


def decode_entry(task: bytes, data: bytes) -> Body:
    """The body that `encode_entry` wrote. Raises `MessageError`, also for an entry of another task."""
    message = decode(data)
    if message.task != task:
        raise MessageError("the entry belongs to another task")
    if message.seq or message.expiry:
        raise MessageError("an entry is not in its canonical form")
    return message.body


def _unpack(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_MESSAGE:
        raise MessageError(f"{len(data)} bytes are over the limit of {MAX_MESSAGE}")
    try:
        values = msgpack.unpackb(data, max_array_len=0, max_map_len=MAX_FIELDS, max_ext_len=0, max_str_len=16)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as exc:
        raise MessageError("not msgpack of a message") from exc
    if not isinstance(values, dict):
        raise MessageError("not a map")
    return values


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _rate(value: Any) -> bool:
    """Whether the value is a rate: finite, and the one of the two zeros that is not negative."""
    return type(value) is float and copysign(1.0, value) > 0 and value <= MAX_RATE


def _blob(size: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is bytes and len(value) == size


def _bytes(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is bytes and least <= len(value) <= most


def _is_votes(value: Any) -> bool:
    """Whether the value is votes by 1 to 64 distinct members, ascending."""
    if type(value) is not bytes or len(value) % VOTE_SIZE or not value:
        return False
    numbers = value[::VOTE_SIZE]
    return numbers[-1] < MAX_COMMITTEE and all(one < other for one, other in pairwise(numbers))


def _is_participants(value: Any) -> bool:
    """Whether the value is the bits of a set of members, in its one form."""
    if type(value) is bytes:
        return 64 < 8 * len(value) <= MAX_MEMBERS and value[0] != 0
    return type(value) is int and 0 <= value <= LOW_BITS


def _split(value: bytes, size: int) -> list[bytes]:
    return [value[at : at + size] for at in range(0, len(value), size)]


_HASH = _blob(HASH_SIZE)
_COUNT = _integer(0, MAX_COUNT)
_VIEW = _integer(1, MAX_VIEW)
_HEAD: Mapping[str, Callable[[Any], bool]] = {
    "kind": lambda value: True,
    "task": _HASH,
    "round": _integer(1, MAX_ROUNDS),
    "seq": _integer(0, MAX_SEQ),
    "expiry": _integer(0, MAX_TIME),
}
_BLOCK_RULES: Mapping[str, Callable[[Any], bool]] = {
    "previous": _HASH,
    "base": _HASH,
    "inputs": _HASH,
    "participants": _is_participants,
    "examples": _COUNT,
    "digest": _HASH,
    "root": _HASH,
    "size": _COUNT,
    "changes": _bytes(0, MAX_MESSAGE),
}
_BALLOT_RULES = {"view": _VIEW, "choice": _integer(1, 3), "block": _HASH}
_RULES: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    "hello": {**_HEAD, "base": _HASH},
    "commit": {**_HEAD, "commitment": _HASH},
    "reveal": {
        **_HEAD,
        "root": _HASH,
        "size": _COUNT,
        "nonce": _HASH,
        "examples": _integer(0, MAX_EXAMPLES),
        "staleness": _integer(0, MAX_STALENESS),
    },
    "propose": {
        **_HEAD,
        "view": _VIEW,
        "parent": _integer(0, MAX_VIEW),
        **_BLOCK_RULES,
        "proofs": _bytes(0, MAX_MESSAGE),
    },
    "vote": {**_HEAD, **_BALLOT_RULES, "signature": _blob(SIGNATURE_SIZE)},
    "proof": {**_HEAD, **_BALLOT_RULES, "votes": _is_votes},
    "certificate": {**_HEAD, "view": _VIEW, **_BLOCK_RULES, "votes": _is_votes},
    "join": {**_HEAD, "credential": _bytes(1, MAX_CREDENTIAL)},
    "leave": {**_HEAD, "signature": _blob(SIGNATURE_SIZE)},
    "accuse": {**_HEAD, "evidence": _bytes(1, MAX_CREDENTIAL)},
    "abstain": _HEAD,
    "fraud": {**_HEAD, "block": _HASH},
    "recall": {**_HEAD, "peer": _bytes(1, MAX_ID), **_BALLOT_RULES, "signature": _blob(SIGNATURE_SIZE)},
    "capability": {
        **_HEAD,
        "steps": _rate,
        "down": _rate,
        "up": _rate,
        "aggregate": _rate,
        "memory": _COUNT,
        "cores": _integer(1, MAX_CORES),
    },
}


def _fields(body: Body) -> tuple[str, dict[str, Any]]:
    """The kind of a body, and its fields without the round."""
    match body:
        case Hello():
            return "hello", {"base": body.base}
        case Commit():
            return "commit", {"commitment": body.commitment}
        case Abstain():
            return "abstain", {}
        case Reveal():
            fields = {"root": body.root, "size": body.size, "nonce": body.nonce}
            return "reveal", {**fields, "examples": body.examples, "staleness": body.staleness}
        case Propose(block=block):
            numbers = {"view": body.view, "parent": body.parent}
            return "propose", {**numbers, **_block_fields(block), "proofs": pack_proofs(body.proofs)}
        case Vote():
            return "vote", {**_ballot_fields(body), "signature": body.signature}
        case Proof():
            return "proof", {**_ballot_fields(body), "votes": _join(body.votes)}
        case Certificate(block=block):
            return "certificate", {"view": body.view, **_block_fields(block), "votes": _join(body.votes)}
        case Join():
            return "join", {"credential": body.credential}
        case Leave():
            return "leave", {"signature": body.signature}
        case Accuse():
            return "accuse", {"evidence": pack_evidence(body.evidence)}
        case Fraud():
            return "fraud", {"block": body.block}
        case Recall(vote=vote):
            return "recall", {"peer": body.peer.raw, **_ballot_fields(vote), "signature": vote.signature}
        case Capability():
            rates = {"steps": body.steps_per_second, "down": body.bytes_down, "up": body.bytes_up}
            machine = {"memory": body.memory, "cores": body.cores}
            return "capability", {**rates, "aggregate": body.aggregate_bytes_per_second, **machine}


def _ballot_fields(body: Vote | Proof) -> dict[str, Any]:
    return {"view": body.view, "choice": int(body.choice), "block": body.block}


def _block_fields(block: Block) -> dict[str, Any]:
    model, members = block.model, block.participants
    bits = members if members <= LOW_BITS else members.to_bytes((members.bit_length() + 7) // 8)
    return {
        "previous": block.parent,
        "base": block.base,
        "inputs": block.inputs,
        "participants": bits,
        "examples": block.examples,
        "digest": model.digest,
        "root": model.root,
        "size": model.size,
        "changes": pack_changes(block.changes),
    }


def _join(votes: tuple[tuple[int, bytes], ...]) -> bytes:
    return b"".join(bytes([member]) + signature for member, signature in votes)


def _votes(value: bytes) -> tuple[tuple[int, bytes], ...]:
    return tuple((item[0], item[1:]) for item in _split(value, VOTE_SIZE))


def _participants(values: dict[str, Any]) -> int:
    value = values["participants"]
    return int.from_bytes(value) if type(value) is bytes else int(value)


def _block(values: dict[str, Any]) -> Block:
    block = Block(
        task=values["task"],
        parent=values["previous"],
        round=values["round"],
        base=values["base"],
        inputs=values["inputs"],
        participants=_participants(values),
        examples=values["examples"],
        model=Model(digest=values["digest"], root=values["root"], size=values["size"]),
        changes=unpack_changes(values["changes"]),
    )
    if not block.participants and (block.examples, block.inputs) != (0, EMPTY_ROOT):
        raise MessageError("a round without participants has no updates")
    if not block.participants and not block.skipped and not block.voids:
        raise MessageError("a round that is skipped leaves the model as it is")
    return block


def _propose(values: dict[str, Any]) -> Propose:
    if values["parent"] >= values["view"]:
        raise MessageError("a proposal's parent is an earlier view")
    block = _block(values)
    proofs = unpack_proofs(values["proofs"])
    if len(proofs) != len(block.changes):
        raise MessageError("a proposal has one proof of each change")
    return Propose(view=values["view"], parent=values["parent"], block=block, proofs=proofs)


def _ballot(values: dict[str, Any]) -> dict[str, Any]:
    """What `Vote` and `Proof` have in common."""
    choice = Choice(values["choice"])
    if (choice is Choice.NULLIFY) != (values["block"] == NO_BLOCK):
        raise MessageError("a vote names a block exactly when it is for one")
    return {"round": values["round"], "view": values["view"], "choice": choice, "block": values["block"]}


def _proof(values: dict[str, Any]) -> Proof:
    if values["choice"] == Choice.FINALIZE:
        raise MessageError("a quorum to finalize is a certificate")
    return Proof(**_ballot(values), votes=_votes(values["votes"]))


def _certificate(values: dict[str, Any]) -> Certificate:
    return Certificate(view=values["view"], block=_block(values), votes=_votes(values["votes"]))


def _accuse(values: dict[str, Any]) -> Accuse:
    accusation = Accuse(evidence=unpack_evidence(values["evidence"]))
    if accusation.round != values["round"]:
        raise MessageError("evidence of another round")
    return accusation


def _plain(body: Callable[..., Body], *names: str) -> Callable[[dict[str, Any]], Body]:
    return lambda values: body(round=values["round"], **{name: values[name] for name in names})


_BUILDERS: Mapping[str, Callable[[dict[str, Any]], Body]] = {
    "hello": _plain(Hello, "base"),
    "commit": _plain(Commit, "commitment"),
    "abstain": _plain(Abstain),
    "reveal": _plain(Reveal, "root", "size", "nonce", "examples", "staleness"),
    "propose": _propose,
    "vote": lambda values: Vote(**_ballot(values), signature=values["signature"]),
    "proof": _proof,
    "certificate": _certificate,
    "join": _plain(Join, "credential"),
    "leave": _plain(Leave, "signature"),
    "accuse": _accuse,
    "fraud": _plain(Fraud, "block"),
    "recall": lambda values: Recall(
        peer=parse_peer(values["peer"]), vote=Vote(**_ballot(values), signature=values["signature"])
    ),
    "capability": lambda values: Capability(
        round=values["round"],
        steps_per_second=values["steps"],
        bytes_down=values["down"],
        bytes_up=values["up"],
        aggregate_bytes_per_second=values["aggregate"],
        memory=values["memory"],
        cores=values["cores"],
    ),
}
