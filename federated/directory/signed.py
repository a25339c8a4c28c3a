"""A task and who published it: the manifest, and an envelope in which its creator signs what it says.

The envelope holds a `Listing`, the few facts by which people choose a task, and its id: so announcements
carry the envelope alone, and the manifest, of up to 128 KiB, follows when somebody wants it. The id is the
manifest's hash. Whoever has both checks each against the other.

    bytes   msgpack {envelope, manifest}; in DHT records and answers
    file    JSON {"manifest": {…}, "signed": base64}; a bare manifest is a task that nobody signed yet
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from federated.errors import ManifestError
from federated.manifest import MAX_MANIFEST, MAX_MEMBERS, MAX_ROUNDS, TaskId, TaskManifest, parse_manifest
from p2p import envelope
from p2p.errors import RemoteProtocolError
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

DOMAIN = "atcp-task"
PAYLOAD_TYPE = b"/atcp/task"
MAX_NAME = 64  # characters; as in manifests
MAX_ENVELOPE = 1024  # bytes; a listing has some 150, and an Ed25519 key and signature 100
MAX_SIGNED = MAX_MANIFEST + MAX_ENVELOPE + 64  # bytes of both together
MAX_FILE = 2 * MAX_MANIFEST  # bytes; a file may be indented
ADMISSIONS = ("closed", "invitation", "work")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What people choose a task by; all of it is in the manifest with the hash `task`."""

    task: TaskId
    name: str
    rounds: int
    members: int
    admission: str
    size: int  # bytes of the canonical manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTask:
    """A manifest with the envelope that its creator signed; both were checked."""

    manifest: TaskManifest
    creator: PeerId
    envelope: bytes

    @property
    def task_id(self) -> TaskId:
        """The id of the task."""
        return self.manifest.task_id


def listing_of(manifest: TaskManifest) -> Listing:
    """The facts of a manifest that are listed."""
    return Listing(
        task=manifest.task_id,
        name=manifest.name,
        rounds=manifest.rounds,
        members=len(manifest.members),
        admission=manifest.admission.kind,
        size=len(manifest.canonical()),
    )


def sign_task(manifest: TaskManifest, key: KeyPair) -> SignedTask:
    """`manifest` as published by `key`."""
    sealed = envelope.seal(DOMAIN, PAYLOAD_TYPE, _payload(listing_of(manifest)), key)
    return SignedTask(manifest=manifest, creator=PeerId.from_public_key(key.public), envelope=sealed)


def open_listing(data: bytes) -> tuple[Listing, PeerId]:
    """(what it says, who signed it) of an envelope. Raises `RemoteProtocolError`."""
    if len(data) > MAX_ENVELOPE:
        raise RemoteProtocolError(f"a listing of {len(data)} bytes is over the limit of {MAX_ENVELOPE}")
    signer, payload = envelope.unseal(data, DOMAIN, PAYLOAD_TYPE)
    return _listing(payload), PeerId.from_public_key(signer)


def open_task(manifest: bytes, sealed: bytes) -> SignedTask:
    """The task of a manifest in its canonical form and its envelope.

    Raises `ManifestError` for the one and `RemoteProtocolError` for the other, also when they do not
    belong together.
    """
    listing, creator = open_listing(sealed)
    parsed = parse_manifest(manifest)
    if parsed.canonical() != manifest:
        raise ManifestError("not in its canonical form")
    if listing_of(parsed) != listing:
        raise RemoteProtocolError("the envelope is signed for another manifest")
    return SignedTask(manifest=parsed, creator=creator, envelope=sealed)


def encode_task(task: SignedTask) -> bytes:
    """The task as bytes, for `decode_task`."""
    data: bytes = msgpack.packb({"envelope": task.envelope, "manifest": task.manifest.canonical()})
    return data


def decode_task(data: bytes) -> SignedTask:
    """The task in `data`. Raises `RemoteProtocolError`, and nothing else, for what is not one."""
    if len(data) > MAX_SIGNED:
        raise RemoteProtocolError(f"a task of {len(data)} bytes is over the limit of {MAX_SIGNED}")
    try:
        match unpack(data):
            case {"envelope": bytes(sealed), "manifest": bytes(manifest), **rest} if not rest:
                return open_task(manifest, sealed)
    except ManifestError as exc:
        raise RemoteProtocolError(f"not a manifest: {exc}") from exc
    raise RemoteProtocolError("not a signed task")


def unpack(data: bytes, *, arrays: int = 0) -> Any:
    """The msgpack value in `data`: maps, texts, bytes, and lists of up to `arrays` items.

    Raises `RemoteProtocolError`.
    """
    try:
        return msgpack.unpackb(data, max_map_len=16, max_array_len=arrays, max_ext_len=0)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as exc:
        raise RemoteProtocolError("not msgpack") from exc


def task_file(task: SignedTask) -> str:
    """The text of a task file, for people to read and to pass on."""
    signed = base64.b64encode(task.envelope).decode("ascii")
    value = {"manifest": json.loads(task.manifest.canonical()), "signed": signed}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def load_task_file(path: Path) -> tuple[TaskManifest, SignedTask | None]:
    """What a file holds: a manifest, signed or not. Raises `ManifestError`, one line that names the file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise ManifestError(f"cannot read task file {path}: {exc.strerror or exc}") from exc
    try:
        return parse_task_file(data)
    except (ManifestError, RemoteProtocolError) as exc:
        raise ManifestError(f"task file {path}: {exc}") from exc


def parse_task_file(data: bytes) -> tuple[TaskManifest, SignedTask | None]:
    """As `load_task_file`. Raises `ManifestError`, and `RemoteProtocolError` for a wrong envelope."""
    if len(data) > MAX_FILE:
        raise ManifestError(f"more than {MAX_FILE} bytes")
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError):
        return parse_manifest(data), None  # it tells what is wrong
    match value:
        case {"manifest": dict(inner), "signed": str(text), **rest} if not rest:
            manifest = parse_manifest(json.dumps(inner, ensure_ascii=False).encode())
            return manifest, open_task(manifest.canonical(), _envelope(text))
    return parse_manifest(data), None


def _envelope(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ManifestError(f"signed: not base64: {exc}") from exc


def _payload(listing: Listing) -> bytes:
    fields = {
        name: getattr(listing, name) for name in ("task", "name", "rounds", "members", "admission", "size")
    }
    data: bytes = msgpack.packb(fields)
    return data


def _listing(payload: bytes) -> Listing:
    """The listing in a payload, each field within its bounds, in its one form."""
    match unpack(payload):
        case {
            "task": bytes(task),
            "name": str(name),
            "rounds": int(rounds),
            "members": int(members),
            "admission": str(admission),
            "size": int(size),
        } if (
            len(task) == 32
            and 1 <= len(name) <= MAX_NAME
            and name.isprintable()
            and 1 <= rounds <= MAX_ROUNDS
            and 1 <= members <= MAX_MEMBERS
            and admission in ADMISSIONS
            and 1 <= size <= MAX_MANIFEST
        ):
            listing = Listing(
                task=TaskId(task),
                name=name,
                rounds=int(rounds),  # a bool is an int too, and shows when it is encoded again
                members=int(members),
                admission=admission,
                size=int(size),
            )
            if _payload(listing) == payload:
                return listing
    raise RemoteProtocolError("not the listing of a task")
