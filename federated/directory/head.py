"""The newest certificate of a task, as the DHT keeps it: with all that a stranger needs to check it.

A node that holds the record knows neither the task nor its chain. So the record brings the manifest, whose
hash is in the key; who votes, as a set of the manifest's members and a list of those that joined; and the
certificate. It counts when a quorum of the voters signed, and among them more than a third of the manifest's
members: then at least one that tells the truth has seen the round come to an end. Nobody can invent a
round with voters of their own, and so push true records aside.

What it is good for: to learn how far a task is, and to whom to turn. Whoever takes part follows the chain.
A task has no such record where committees are drawn, whose voters may be too few for that rule, nor where
manifest, voters and certificate are too large together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from federated.directory.signed import unpack
from federated.errors import ManifestError
from federated.manifest import MAX_COMMITTEE, TaskManifest, parse_manifest
from federated.rounds.committee import Committee, Verify, numbers_in, set_of, verify_signature
from federated.rounds.messages import Certificate, MessageError
from federated.rounds.wire import decode_entry, encode_entry
from p2p.errors import InvalidInput, InvalidKey, RemoteProtocolError
from p2p.peer_id import PeerId

MAX_HEAD = 10 << 10  # bytes; the DHT's limit for a value
MAX_ID = 64  # bytes of a peer id; those with an Ed25519 key have 38


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRecord:
    """The certificate that the voters of its round signed, in the order of their numbers."""

    manifest: TaskManifest
    voters: tuple[PeerId, ...]
    certificate: Certificate


def encode_head(head: HeadRecord) -> bytes | None:
    """The record of `head`; None when it would be too large, or would not count."""
    founders = {peer: number for number, peer in enumerate(head.manifest.peer_ids)}
    bits = set_of(founders[peer] for peer in head.voters if peer in founders)
    joined = [peer.raw for peer in head.voters if peer not in founders]
    task = head.manifest.task_id
    data: bytes = msgpack.packb(
        {
            "manifest": head.manifest.canonical(),
            "founders": bits.to_bytes((bits.bit_length() + 7) // 8),
            "joined": joined,
            "certificate": encode_entry(task, head.certificate),
        }
    )
    return data if len(data) <= MAX_HEAD and _counts(head) else None


def decode_head(data: bytes, verify: Verify = verify_signature) -> HeadRecord:
    """The head in a record, once everything about it holds. Raises `RemoteProtocolError`."""
    if len(data) > MAX_HEAD:
        raise RemoteProtocolError(f"a head of {len(data)} bytes is over the limit of {MAX_HEAD}")
    try:
        head = _read(data)
        committee = Committee(head.manifest.task_id, head.voters, verify)
    except (ManifestError, MessageError, InvalidKey, InvalidInput) as exc:
        raise RemoteProtocolError(f"not a head: {exc}") from exc
    if not _counts(head):
        raise RemoteProtocolError("too few of the task's first members signed")
    if not committee.accepts_certificate(head.certificate):
        raise RemoteProtocolError("no quorum signed the certificate")
    return head


def round_of(data: bytes) -> int:
    """The round of a record that was checked before."""
    return _read(data).certificate.round


def _read(data: bytes) -> HeadRecord:
    match unpack(data, arrays=MAX_COMMITTEE):
        case {
            "manifest": bytes(canonical),
            "founders": bytes(bits),
            "joined": list(joined),
            "certificate": bytes(entry),
            **rest,
        } if not rest:
            manifest = parse_manifest(canonical)
            body = decode_entry(manifest.task_id, entry)
            if manifest.canonical() != canonical or not isinstance(body, Certificate):
                raise RemoteProtocolError("not a manifest and a certificate in their canonical form")
            return HeadRecord(manifest=manifest, voters=_voters(manifest, bits, joined), certificate=body)
    raise RemoteProtocolError("not a head")


def _voters(manifest: TaskManifest, bits: bytes, joined: Sequence[object]) -> tuple[PeerId, ...]:
    numbers = numbers_in(int.from_bytes(bits[:128]))
    if (numbers and numbers[-1] >= len(manifest.members)) or len(numbers) + len(joined) > MAX_COMMITTEE:
        raise RemoteProtocolError("voters that are no members")
    others = [PeerId(raw) for raw in joined if isinstance(raw, bytes) and len(raw) <= MAX_ID]
    voters = (*(manifest.peer_ids[number] for number in numbers), *others)
    if len(others) != len(joined) or len(dict.fromkeys(voters)) != len(voters) or not voters:
        raise RemoteProtocolError("voters that are none, or are listed twice")
    return voters


def _counts(head: HeadRecord) -> bool:
    """Whether more than a third of the manifest's members are among those who signed."""
    founders = frozenset(head.manifest.peer_ids)
    seats = [seat for seat, _ in head.certificate.votes if seat < len(head.voters)]
    signed = [seat for seat in seats if head.voters[seat] in founders]
    return len(dict.fromkeys(signed)) > (len(founders) - 1) // 3
