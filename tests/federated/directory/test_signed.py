from __future__ import annotations

import json
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.directory.signed import (
    DOMAIN,
    MAX_FILE,
    MAX_SIGNED,
    PAYLOAD_TYPE,
    decode_task,
    encode_task,
    listing_of,
    load_task_file,
    open_listing,
    parse_task_file,
    sign_task,
    task_file,
)
from federated.errors import ManifestError
from p2p import envelope
from p2p.errors import AuthenticationFailed, RemoteProtocolError
from p2p.peer_id import PeerId
from tests.federated.samples import manifest, members
from tests.support import key_number

KEY = key_number(1)
TASK = sign_task(manifest(), KEY)


def test_a_signed_task_comes_back_from_bytes_and_from_a_file() -> None:
    assert decode_task(encode_task(TASK)) == TASK
    assert parse_task_file(task_file(TASK).encode()) == (TASK.manifest, TASK)
    assert TASK.creator == PeerId.from_public_key(KEY.public)


def test_a_task_of_a_thousand_members_fits() -> None:
    task = sign_task(manifest(members=members(1024)), KEY)
    assert decode_task(encode_task(task)) == task


def test_a_listing_tells_what_is_in_the_manifest() -> None:
    listing, creator = open_listing(TASK.envelope)
    assert listing == listing_of(TASK.manifest)
    assert (listing.name, listing.rounds, listing.members, listing.admission) == ("sample", 3, 3, "closed")
    assert creator == TASK.creator


def test_an_envelope_of_another_manifest_is_refused() -> None:
    other = manifest(seed=2)
    data = msgpack.packb({"envelope": TASK.envelope, "manifest": other.canonical()})
    with pytest.raises(RemoteProtocolError, match="another manifest"):
        decode_task(data)


def test_a_manifest_in_another_form_is_refused() -> None:
    loose = json.dumps(json.loads(TASK.manifest.canonical()), indent=1).encode()
    with pytest.raises(RemoteProtocolError, match="canonical"):
        decode_task(msgpack.packb({"envelope": TASK.envelope, "manifest": loose}))


def test_a_wrong_signature_is_refused() -> None:
    broken = TASK.envelope[:-1] + bytes([TASK.envelope[-1] ^ 1])
    with pytest.raises(AuthenticationFailed):
        open_listing(broken)


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        decode_task(bytes(MAX_SIGNED + 1))
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        open_listing(bytes(1025))
    with pytest.raises(ManifestError, match="more than"):
        parse_task_file(b" " * (MAX_FILE + 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"task": bytes(31)},
        {"name": ""},
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"rounds": 0},
        {"rounds": True},
        {"members": 1025},
        {"admission": "anybody"},
        {"size": 0},
        {"more": 1},
    ],
)
def test_a_listing_out_of_bounds_is_refused(changes: dict[str, object]) -> None:
    names = ("task", "name", "rounds", "members", "admission", "size")
    fields = {name: getattr(listing_of(TASK.manifest), name) for name in names} | changes
    sealed = envelope.seal(DOMAIN, PAYLOAD_TYPE, msgpack.packb(fields), KEY)
    with pytest.raises(RemoteProtocolError, match="not the listing"):
        open_listing(sealed)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_task(data)
    with pytest.raises(RemoteProtocolError):
        open_listing(data)


@given(st.integers(0, len(encode_task(TASK)) - 1), st.integers(1, 255))
def test_any_damage_is_found(at: int, flip: int) -> None:
    data = bytearray(encode_task(TASK))
    data[at] ^= flip
    with pytest.raises(RemoteProtocolError):
        decode_task(bytes(data))


def test_a_bare_manifest_is_a_task_that_nobody_signed(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    path.write_bytes(TASK.manifest.canonical())
    assert load_task_file(path) == (TASK.manifest, None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{}", "name: Field required"),
        ("[", "not JSON"),
        ('{"manifest": {}, "signed": "x"}', "name: Field required"),
        (json.dumps({**json.loads(TASK.manifest.canonical()), "rounds": 0}), "rounds: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match=rf"^task file .*task.json: {line}") as caught:
        load_task_file(path)
    assert "\n" not in str(caught.value)


def test_a_file_with_a_damaged_signature_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    value = json.loads(task_file(TASK))
    path.write_text(json.dumps({**value, "signed": "?"}))
    with pytest.raises(ManifestError, match="not base64"):
        load_task_file(path)
    path.write_text(json.dumps({**value, "signed": value["signed"][:-8] + "AAAAAAA="}))
    with pytest.raises(ManifestError, match="signature"):
        load_task_file(path)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read task file .*none.json: No such file"):
        load_task_file(tmp_path / "none.json")
    with pytest.raises(ManifestError, match="Is a directory"):
        load_task_file(tmp_path)
