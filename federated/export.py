"""A certified model as a folder that anybody can check, without the network and without our code.

    manifest.json         the task, and who signed it; the task's id is the SHA-256 of its canonical form
    certificates.jsonl    the chain, a certificate a line: each names the hash of the block before it
    model.safetensors     the model, whose SHA-256 is the digest in the last certificate

Verifying begins with the members of the manifest. Each certificate must be signed by a quorum of the voters
of its round, and may change who they are from the next round on. So the last one, and with it the model,
stands on the manifest alone; the changes of the membership stand on the quorums that saw their proofs.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from federated.certificate_lines import MAX_LINE, VerifyError, certificate_line, parse_certificate
from federated.directory.signed import SignedTask, load_task_file, task_file
from federated.errors import ManifestError
from federated.journal import ChainFile, CheckpointStore, SavedState
from federated.manifest import TaskManifest
from federated.rounds.chain import Links, genesis
from federated.rounds.committee import Electorate, Membership, Verify, verify_signature
from federated.rounds.messages import Certificate, MessageError
from federated.rounds.wire import decode_entry
from p2p.errors import InvalidInput
from p2p.files import FolderFiles

FOLDER = "tasks"  # of a data folder: one folder a task
TASK_FILE = ".json"  # behind a task's id: its manifest
CHAIN = "certificates"  # in a task's folder, see `federated.state`
MANIFEST = "manifest.json"
CERTIFICATES = "certificates.jsonl"
MODEL = "model.safetensors"
_FAULTS = {
    "past": "does not build on the one before it",
    "signature": "is not signed by a quorum of its voters",
    "changes": "changes the membership in a way that cannot be",
    "void": "restores a model, or ejects for a fraud, where it may not",
    "over": "is one too many for the task",
}
UNFINISHED = ".partial"  # behind the name of a folder that is being written


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What an export proves: this model, after so many rounds of that task."""

    manifest: TaskManifest
    membership: Membership
    last: Certificate
    skipped: int  # rounds that left the model as it was


def export_folder(folder: Path, out: Path) -> Certificate:
    """Writes what a peer keeps of a task in `folder` as an export to `out`; returns the last certificate.

    Only reads, so a peer may be at work in it. What does not verify is not written. Raises `InvalidInput`,
    `StorageError` and `VerifyError`.
    """
    path = folder.with_suffix(TASK_FILE)
    try:
        _, task = load_task_file(path)
    except ManifestError as exc:
        raise InvalidInput(f"there is no task to export: {exc}") from exc
    if task is None:
        raise InvalidInput(f"{path} is not signed")
    files, manifest = FolderFiles(folder), task.manifest
    saved = CheckpointStore(files, manifest.max_model_bytes).load()  # first: its certificate is there by then
    if saved is None:
        raise InvalidInput(f"no round of {manifest.name} is certified yet; see atcp task status")
    chain = list(_kept_chain(files, manifest.task_id, saved))
    last = follow(manifest, chain, verify_signature).last
    if last.block.model.digest != hashlib.sha256(saved.model).digest():
        raise VerifyError(f"the certificates in {folder} end at round {last.round}, not with the model")
    write_export(out, task, chain, saved.model)
    return last


def find_folder(data_dir: Path, text: str) -> Path:
    """The folder of the task with this name or id, or beginning of an id. Raises `InvalidInput`."""
    found = []
    for path in sorted((data_dir / FOLDER).glob(f"*{TASK_FILE}")):
        try:
            manifest, _ = load_task_file(path)
        except ManifestError:
            continue  # a damaged one is none that can be exported
        if manifest.name == text or (len(text) > 5 and manifest.task_id.hex().startswith(text)):
            found.append(path.with_suffix(""))
    if len(found) != 1:
        what = "no task" if not found else f"{len(found)} tasks"
        raise InvalidInput(f"{what} {text!r:.70} in {data_dir}; name one by its id")
    return found[0]


def write_export(out: Path, task: SignedTask, chain: Iterable[Certificate], model: bytes) -> None:
    """Writes the folder `out`, whole or not at all. Raises `InvalidInput` when there is something there."""
    if out.exists():
        raise InvalidInput(f"{out} exists; choose another folder")
    unfinished = out.with_name(out.name + UNFINISHED)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        (unfinished / MANIFEST).write_text(task_file(task), encoding="utf-8")
        with (unfinished / CERTIFICATES).open("w", encoding="ascii") as file:
            file.writelines(certificate_line(certificate) for certificate in chain)
        (unfinished / MODEL).write_bytes(model)
        unfinished.replace(out)
    except OSError as exc:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise InvalidInput(f"cannot write {out}: {exc.strerror or exc}") from exc


def verify_export(folder: Path, *, task: bytes | None = None, verify: Verify = verify_signature) -> Verified:
    """What the export in `folder` proves; it must be of `task`, if one is given.

    Raises `VerifyError` when it does not hold, and `InvalidInput` when it cannot be read.
    """
    missing = [name for name in (MANIFEST, CERTIFICATES, MODEL) if not (folder / name).is_file()]
    if missing:
        raise InvalidInput(f"{folder} is no export: {missing[0]} is missing")
    try:
        manifest, _ = load_task_file(folder / MANIFEST)
    except ManifestError as exc:
        raise VerifyError(str(exc)) from exc
    if task is not None and manifest.task_id != task:
        raise VerifyError(f"{MANIFEST} is of the task {manifest.task_id.hex()}, not {task.hex()}")
    verified = follow(manifest, _read_chain(folder / CERTIFICATES, manifest), verify)
    digest = _digest_of(folder / MODEL)
    expected = verified.last.block.model.digest
    if digest != expected:
        raise VerifyError(
            f"{MODEL} has the digest {digest.hex()[:16]}…, but round {verified.last.round} certifies "
            f"{expected.hex()[:16]}…"
        )
    return verified


def follow(manifest: TaskManifest, chain: Iterable[Certificate], verify: Verify) -> Verified:
    """What a chain of certificates comes to, from the manifest's members on. Raises `VerifyError`."""
    links: Links | None = None
    last: Certificate | None = None
    skipped = 0
    for certificate in chain:
        if links is None:  # the first model is whatever the first quorum began with
            start = genesis(Membership(manifest.task_id, manifest.peer_ids), certificate.block.base)
            links = Links(Electorate(manifest.committee, verify), start)
        number = links.head.round + 1
        if certificate.round != number:
            raise VerifyError(
                f"round {number} is missing: the next certificate is of round {certificate.round}"
            )
        rule = links.fault(certificate) if number <= manifest.rounds else "over"
        if rule is not None:
            raise VerifyError(f"the certificate of round {number} {_FAULTS[rule]}")
        links.advance(certificate)
        last = certificate
        skipped += certificate.block.skipped
    if links is None or last is None:
        raise VerifyError("there is no certificate: no round was certified")
    return Verified(manifest=manifest, membership=links.head.membership, last=last, skipped=skipped)


# Files


def _kept_chain(files: FolderFiles, task: bytes, saved: SavedState) -> Iterator[Certificate]:
    """The certificates up to that of a checkpoint, which is written down a moment after it."""
    last = _certificate(task, saved.certificate)
    kept = ChainFile(files, CHAIN)
    try:
        for record in kept.read(0, last.round - 1):
            yield _certificate(task, record)
    finally:
        kept.close()
    yield last


def _certificate(task: bytes, record: bytes) -> Certificate:
    try:
        body = decode_entry(task, record)
    except MessageError as exc:
        raise VerifyError(f"a certificate cannot be read: {exc}") from exc
    if not isinstance(body, Certificate):
        raise VerifyError("there is something else among the certificates")
    return body


def _read_chain(path: Path, manifest: TaskManifest) -> Iterator[Certificate]:
    """The certificates in a file, one after the other, each line within its bound."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise VerifyError(f"{CERTIFICATES}, line {number}: over {MAX_LINE} bytes")
                try:
                    yield parse_certificate(manifest.task_id, line)
                except VerifyError as exc:
                    raise VerifyError(f"{CERTIFICATES}, line {number}: {exc}") from exc
    except OSError as exc:
        raise InvalidInput(f"cannot read {path}: {exc.strerror or exc}") from exc


def _digest_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as exc:
        raise InvalidInput(f"cannot read {path}: {exc.strerror or exc}") from exc
