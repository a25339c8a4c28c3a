from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated.certificate_lines import MAX_LINE, VerifyError, certificate_line, parse_certificate
from federated.directory.signed import sign_task, task_file
from federated.export import (
    CERTIFICATES,
    CHAIN,
    FOLDER,
    MANIFEST,
    MODEL,
    TASK_FILE,
    UNFINISHED,
    export_folder,
    find_folder,
    verify_export,
    write_export,
)
from federated.manifest import ByWork, TaskManifest
from federated.rounds.messages import Change, ChangeKind
from federated.state import TaskState
from p2p.errors import InvalidInput
from p2p.files import FolderFiles
from tests.federated.chains import Chain
from tests.federated.lab import peer_number, tiny_manifest
from tests.support import key_number

MODELS = [b"model one", b"model two", b"model three"]


def open_manifest(count: int = 4) -> TaskManifest:
    return tiny_manifest(count, admission=ByWork(kind="work", bits=8), max_members=32)


def joins(number: int) -> Change:
    return Change(kind=ChangeKind.JOIN, peer=peer_number(number), proof=bytes([number]) * 32)


def leaves(number: int) -> Change:
    return Change(kind=ChangeKind.LEAVE, peer=peer_number(number), proof=bytes([number]) * 32)


def ejects(number: int) -> Change:
    return Change(kind=ChangeKind.EJECT, peer=peer_number(number), proof=bytes([number]) * 32)


def chain_of_changes() -> Chain:
    """Three rounds: one joins, one leaves and one is ejected on the way."""
    chain = Chain(open_manifest())
    chain.add(MODELS[0], [joins(9)])
    chain.add(MODELS[1], [leaves(1), ejects(2)])
    chain.add(MODELS[2])
    return chain


def exported(folder: Path, chain: Chain, model: bytes = MODELS[2]) -> Path:
    out = folder / "out"
    write_export(out, sign_task(chain.manifest, key_number(1)), chain.certificates, model)
    return out


def test_an_export_is_true_from_the_manifest_to_the_model(tmp_path: Path) -> None:
    chain = chain_of_changes()
    found = verify_export(exported(tmp_path, chain), task=chain.manifest.task_id)
    assert found.last == chain.certificates[-1]
    assert found.membership == chain.head.membership
    assert not found.membership.is_active(peer_number(2))
    assert found.skipped == 0
    assert not (tmp_path / f"out{UNFINISHED}").exists()


def test_certificates_are_readable_lines() -> None:
    certificate = chain_of_changes().certificates[1]
    line = json.loads(certificate_line(certificate))
    assert line["hash"] == certificate.block.hash.hex()
    assert line["changes"][0] == {
        "kind": "leave",
        "peer": str(peer_number(1)),
        "proof": (bytes([1]) * 32).hex(),
    }
    assert line["participants"] == [0, 1, 2, 3, 4]
    task = certificate.block.task
    assert parse_certificate(task, certificate_line(certificate).encode()) == certificate


def change_line(folder: Path, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    lines = (folder / CERTIFICATES).read_text().splitlines()
    value = json.loads(lines[number])
    change(value)
    lines[number] = json.dumps(value)
    (folder / CERTIFICATES).write_text("\n".join(lines) + "\n")


def write_lines(folder: Path, lines: list[str]) -> None:
    (folder / CERTIFICATES).write_text("".join(lines))


def test_another_model_is_refused(tmp_path: Path) -> None:
    out = exported(tmp_path, chain_of_changes())
    (out / MODEL).write_bytes(b"another model")
    with pytest.raises(VerifyError, match=r"model.safetensors has the digest .*, but round 3 certifies"):
        verify_export(out)


def test_a_round_that_is_missing_is_named(tmp_path: Path) -> None:
    out = exported(tmp_path, chain_of_changes())
    lines = (out / CERTIFICATES).read_text().splitlines(keepends=True)
    write_lines(out, [lines[0], lines[2]])
    with pytest.raises(VerifyError, match="round 2 is missing: the next certificate is of round 3"):
        verify_export(out)
    write_lines(out, lines[1:])
    with pytest.raises(VerifyError, match="round 1 is missing"):
        verify_export(out)
    write_lines(out, [])
    with pytest.raises(VerifyError, match="no round was certified"):
        verify_export(out)


def test_a_certificate_of_too_few_is_refused(tmp_path: Path) -> None:
    chain = Chain(tiny_manifest(4))
    chain.add(MODELS[0], signers=2)
    with pytest.raises(VerifyError, match="round 1 is not signed by a quorum"):
        verify_export(exported(tmp_path, chain, MODELS[0]))


def test_a_certificate_of_those_who_were_gone_is_refused(tmp_path: Path) -> None:
    """The quorum must be of the members of that round: who was ejected before does not count."""
    chain = Chain(tiny_manifest(4))
    chain.add(MODELS[0])
    forged = Chain(chain.manifest)
    forged.add(MODELS[0])
    chain.certificates.clear()
    chain = Chain(chain.manifest)
    first = chain.add(MODELS[0], [ejects(1), ejects(2), ejects(3)])
    forged.head = chain.head.__class__(
        round=1, block=first.block.hash, model=first.block.model.digest, membership=forged.head.membership
    )
    chain.certificates.append(forged.add(MODELS[1]))
    with pytest.raises(VerifyError, match="round 2 is not signed by a quorum"):
        verify_export(exported(tmp_path, chain, MODELS[1]))


def test_a_certificate_from_another_fork_is_refused(tmp_path: Path) -> None:
    one, other = Chain(tiny_manifest(4)), Chain(tiny_manifest(4))
    one.add(MODELS[0])
    other.add(MODELS[1])
    one.certificates.append(other.add(MODELS[2]))
    with pytest.raises(VerifyError, match="round 2 does not build on the one before it"):
        verify_export(exported(tmp_path, one))


def test_more_rounds_than_the_task_has_are_refused(tmp_path: Path) -> None:
    chain = Chain(tiny_manifest(4, rounds=1))
    chain.add(MODELS[0])
    chain.add(MODELS[1])
    with pytest.raises(VerifyError, match="round 2 is one too many"):
        verify_export(exported(tmp_path, chain, MODELS[1]))


def test_changes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    chain = Chain(tiny_manifest(4))
    _sign_anyway(chain, [leaves(9)])
    with pytest.raises(VerifyError, match="round 1 changes the membership in a way that cannot be"):
        verify_export(exported(tmp_path, chain, MODELS[0]))


def _sign_anyway(chain: Chain, changes: list[Change]) -> Any:
    """A certificate that a quorum signed although its changes make no sense."""
    head, chain.head = chain.head, Stubborn(chain.head)  # type: ignore[assignment]
    try:
        return chain.add(MODELS[0], changes)
    finally:
        chain.head = head


class Stubborn:
    """A head that follows whatever comes."""

    def __init__(self, head: Any) -> None:
        self.round, self.block, self.model = head.round, head.block, head.model
        self.membership, self.newest = head.membership, head.newest

    def after(self, certificate: Any) -> Stubborn:
        return self


def test_the_wrong_task_is_refused(tmp_path: Path) -> None:
    out = exported(tmp_path, chain_of_changes())
    with pytest.raises(VerifyError, match="is of the task"):
        verify_export(out, task=bytes(32))
    (out / MANIFEST).write_text(task_file(sign_task(tiny_manifest(3), key_number(1))))
    with pytest.raises(VerifyError, match=r"round 1 does not build on|not a certificate"):
        verify_export(out)
    (out / MANIFEST).write_text("{}")
    with pytest.raises(VerifyError, match=r"manifest.json: name: "):
        verify_export(out)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(round="1"),
        lambda value: value.update(round=True),
        lambda value: value.update(hash="00"),
        lambda value: value.update(view=-1),
        lambda value: value.update(participants=[0, 0]),
        lambda value: value.update(participants=[2000]),
        lambda value: value.update(participants=[0]),
        lambda value: value.update(parent="zz"),
        lambda value: value.update(base="00"),
        lambda value: value.update(model=None),
        lambda value: value.update(
            changes=[{"kind": "promote", "peer": str(peer_number(1)), "proof": "00" * 32}]
        ),
        lambda value: value.update(changes=[{"kind": "leave", "peer": "nobody", "proof": "00" * 32}]),
        lambda value: value.update(changes=value["changes"] * 10),
        lambda value: value["votes"][0].update(signature="?"),
        lambda value: value["votes"][0].update(signature=""),
        lambda value: value["votes"][0].update(seat=99),
        lambda value: value.update(votes=[]),
        lambda value: value.pop("votes"),
    ],
)
def test_a_line_that_is_no_certificate_is_named(change: Any, tmp_path: Path) -> None:
    out = exported(tmp_path, chain_of_changes())
    change_line(out, 1, change)
    with pytest.raises(VerifyError, match=r"certificates.jsonl, line 2: ") as caught:
        verify_export(out)
    assert "\n" not in str(caught.value)


def test_a_line_that_is_too_long_is_named(tmp_path: Path) -> None:
    out = exported(tmp_path, chain_of_changes())
    write_lines(out, [" " * (MAX_LINE + 1)])
    with pytest.raises(VerifyError, match=r"line 1: over \d+ bytes"):
        verify_export(out)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_found(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever byte of certificates or model is another one, the folder is not true; nothing else happens."""
    out = tmp_path / "out"
    if not out.exists():
        exported(tmp_path, chain_of_changes())
    path = out / data.draw(st.sampled_from([CERTIFICATES, MODEL]))
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(changed))
    try:
        if _says_the_same(good, bytes(changed), path):
            return
        with pytest.raises(VerifyError):
            verify_export(out)
    finally:
        path.write_bytes(good)


def _says_the_same(good: bytes, changed: bytes, path: Path) -> bool:
    """Whether a change of a text means nothing: the case of a hexadecimal digit, a space for a line's end."""
    if path.name != CERTIFICATES:
        return False
    try:
        both = [[json.loads(line.lower()) for line in text.splitlines() if line] for text in (good, changed)]
    except ValueError:
        return False
    return both[0] == both[1]


@pytest.mark.parametrize("name", [MANIFEST, CERTIFICATES, MODEL])
def test_what_is_no_export_is_told_apart_from_a_wrong_one(name: str, tmp_path: Path) -> None:
    out = exported(tmp_path, chain_of_changes())
    (out / name).unlink()
    with pytest.raises(InvalidInput, match=f"is no export: {name} is missing"):
        verify_export(out)


def test_a_folder_that_exists_is_not_written_over(tmp_path: Path) -> None:
    out = exported(tmp_path, chain_of_changes())
    with pytest.raises(InvalidInput, match="exists; choose another"):
        exported(tmp_path, chain_of_changes())
    assert (out / MODEL).read_bytes() == MODELS[2]


def test_a_disk_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chain = chain_of_changes()
    with pytest.raises(InvalidInput, match="cannot write"):
        write_export(
            tmp_path / "file" / "out", sign_task(chain.manifest, key_number(1)), chain.certificates, b""
        )


# What a peer keeps


def kept(folder: Path, chain: Chain, models: list[bytes]) -> Path:
    """The folder of a member that has gone through the rounds of `chain`."""
    place = folder / FOLDER / chain.manifest.task_id.hex()
    state = TaskState(FolderFiles(place), chain.manifest.task_id, 1 << 16)
    state.restore()
    for certificate, model in zip(chain.certificates, models, strict=True):
        state.checkpoint(certificate, [certificate], model)
    state.close()
    place.with_suffix(TASK_FILE).write_text(task_file(sign_task(chain.manifest, key_number(1))))
    return place


def test_what_a_peer_keeps_becomes_an_export(tmp_path: Path) -> None:
    chain = chain_of_changes()
    place = kept(tmp_path, chain, MODELS)
    assert find_folder(tmp_path, "tiny") == find_folder(tmp_path, chain.manifest.task_id.hex()[:8]) == place
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    last = export_folder(place, tmp_path / "model")
    assert last == chain.certificates[-1]
    assert verify_export(tmp_path / "model").last == last
    assert (tmp_path / "model" / MODEL).read_bytes() == MODELS[2]
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_a_chain_that_is_torn_at_its_end_is_exported_up_to_its_checkpoint(tmp_path: Path) -> None:
    """The checkpoint is there a moment before the chain has its certificate."""
    chain = chain_of_changes()
    place = kept(tmp_path, chain, MODELS)
    (place / CHAIN).write_bytes((place / CHAIN).read_bytes()[:-7])
    assert export_folder(place, tmp_path / "model").round == 3


def test_a_chain_with_a_gap_is_not_exported(tmp_path: Path) -> None:
    place = kept(tmp_path, chain_of_changes(), MODELS)
    (place / CHAIN).write_bytes(b"")
    with pytest.raises(VerifyError, match="round 1 is missing"):
        export_folder(place, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_before_the_first_certificate_there_is_nothing_to_export(tmp_path: Path) -> None:
    place = kept(tmp_path, Chain(tiny_manifest(4)), [])
    with pytest.raises(InvalidInput, match="no round of tiny is certified yet"):
        export_folder(place, tmp_path / "model")


def test_a_task_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no task 'tiny' in"):
        find_folder(tmp_path, "tiny")
    with pytest.raises(InvalidInput, match="there is no task to export"):
        export_folder(tmp_path, tmp_path / "model")
    place = tmp_path / FOLDER / "x"
    place.mkdir(parents=True)
    place.with_suffix(TASK_FILE).write_text("{}")
    with pytest.raises(InvalidInput, match="no task"):
        find_folder(tmp_path, "tiny")
    place.with_suffix(TASK_FILE).write_bytes(tiny_manifest(4).canonical())
    with pytest.raises(InvalidInput, match="is not signed"):
        export_folder(place, tmp_path / "model")
