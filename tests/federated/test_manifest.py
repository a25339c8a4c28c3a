from __future__ import annotations

import json
from typing import Any

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import ManifestError
from federated.manifest import (
    MAX_MANIFEST,
    MAX_MEMBERS,
    ByInvitation,
    ByWork,
    Closed,
    PluginRef,
    parse_manifest,
)
from tests.federated.samples import manifest, members, peer


def written(**changes: Any) -> bytes:
    value = json.loads(manifest().canonical())
    value.update(changes)
    return json.dumps({key: item for key, item in value.items() if item is not None}).encode()


def test_canonical_bytes_are_read_back_to_the_same_task() -> None:
    task = manifest(trainer=PluginRef(name="numpy-mlp", settings={"lr": 0.1, "hidden": [64, 32]}))
    again = parse_manifest(task.canonical())
    assert again == task
    assert again.task_id == task.task_id
    assert len(task.task_id) == 32


def test_canonical_bytes_are_fixed() -> None:
    task = manifest(members=members(1))
    assert task.canonical() == (
        b'{"aggregator":{"name":"weighted-mean","settings":{}},"max_update_bytes":67108864,"members":["'
        + members(1)[0].encode()
        + b'"],"name":"sample","policy":{"grace_s":0.0,"min_updates":0.5,"phase_deadline_s":10.0,'
        b'"quorum":1.0,"train_deadline_s":60.0},"preprocessor":{"name":"digits","settings":{}},"rounds":3,"seed":1,'
        b'"trainer":{"name":"numpy-mlp","settings":{}},"validator":{"name":"update-check","settings":{}}}'
    )


def test_task_id_does_not_depend_on_the_form_or_the_order_of_the_members() -> None:
    cid = "z" + base58.b58encode(b"\x01\x72" + peer(2).raw).decode()
    first = parse_manifest(written(members=[*members(2), cid]))
    second = parse_manifest(written(members=members(3)[::-1]))
    assert first.task_id == second.task_id == manifest().task_id


def test_task_id_does_not_depend_on_spaces_or_on_defaults_left_out() -> None:
    short = json.dumps(json.loads(written(policy=None, max_update_bytes=None)), indent=4)
    assert parse_manifest(short.encode()).task_id == manifest().task_id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"name": "other"},
        {"rounds": 4},
        {"members": members(4)},
        {"policy": {"quorum": 0.9}},
        {"max_update_bytes": 1000},
        {"trainer": {"name": "numpy-mlp", "settings": {"lr": 0.2}}},
        {"compressor": {"name": "int8"}},
        {"admission": {"kind": "work", "bits": 20}},
        {"admission": {"kind": "invitation", "issuers": members(1)}},
    ],
)
def test_every_field_changes_the_task_id(change: dict[str, Any]) -> None:
    assert parse_manifest(written(**change)).task_id != manifest().task_id


def test_peer_ids_are_sorted() -> None:
    task = parse_manifest(written(members=members(3)[::-1]))
    assert list(task.peer_ids) == sorted(peer(number) for number in range(3))


BAD_FIELDS = [
    ("name", "two words", "name"),
    ("name", None, "name: Field required"),
    ("seed", -1, "seed"),
    ("seed", 1 << 53, "seed"),
    ("seed", "1", "seed"),
    ("rounds", 0, "rounds"),
    ("rounds", True, "rounds"),
    ("rounds", 2.0, "rounds"),
    ("committee", 3, "committee: Input should be greater than or equal to 4"),
    ("committee", 65, "committee: Input should be less than or equal to 64"),
    ("members", [], "members: a task has 1 to 1024 members, not 0"),
    ("members", members(1) * 1025, "members: a task has 1 to 1024 members, not 1025"),
    ("members", [members(1)[0]] * 2, f"members: {members(1)[0]} is listed twice"),
    ("members", [*members(2), "Qm0"], "members: not a peer id"),
    ("members", members(1)[0], "members"),
    ("members", [1, 2], "members[0]"),
    ("trainer", {"name": "../x"}, "trainer.name"),
    ("trainer", {"name": "x", "code": "import os"}, "trainer.code"),
    ("trainer", {"name": "x", "settings": [1]}, "trainer.settings"),
    ("policy", {"quorum": 0}, "policy.quorum"),
    ("policy", {"quorum": 1.1}, "policy.quorum"),
    ("policy", {"min_updates": 0}, "policy.min_updates"),
    ("policy", {"train_deadline_s": 0}, "policy.train_deadline_s"),
    ("policy", {"phase_deadline_s": 1e9}, "policy.phase_deadline_s"),
    ("max_update_bytes", 0, "max_update_bytes"),
    ("surprise", 1, "surprise"),
    ("admission", {"kind": "open"}, "admission"),
    ("admission", {"kind": "closed", "bits": 8}, "admission.closed.bits"),
    ("admission", {"kind": "work"}, "admission.work.bits: Field required"),
    ("admission", {"kind": "work", "bits": 7}, "admission.work.bits: Input should be greater"),
    ("admission", {"kind": "work", "bits": 33}, "admission.work.bits: Input should be less"),
    (
        "admission",
        {"kind": "invitation", "issuers": []},
        "admission.invitation.issuers: a task has 1 to 64 issuers, not 0",
    ),
    (
        "admission",
        {"kind": "invitation", "issuers": members(1) * 2},
        f"admission.invitation.issuers: {members(1)[0]} is listed twice",
    ),
    (
        "admission",
        {"kind": "invitation", "issuers": ["QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"]},
        "admission.invitation.issuers: QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N cannot invite",
    ),
    ("max_members", 7, "max_members is for tasks that admit members"),
    ("max_members", 0, "max_members"),
    ("max_members", 1025, "max_members"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_FIELDS)
def test_a_wrong_field_is_named_in_one_line(field: str, value: Any, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(written(**{field: value}))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"seed": NaN}', "not JSON: NaN is not a number"),
        (b'{"seed": 1, "seed": 2}', "seed: is given twice"),
        (b"[" * 60_000, "not JSON: nested too deeply"),
        (b" " * (MAX_MANIFEST + 1), "131073 bytes are over the limit of 131072"),
        (
            written(trainer={"name": "x", "settings": {"lr": 1}}).replace(b'"lr": 1', b'"lr": 1e999'),
            "trainer",
        ),
    ],
)
def test_what_is_no_manifest_at_all_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data)
    assert str(caught.value).startswith(message)


def test_settings_nested_without_end_are_refused_in_a_short_line() -> None:
    nested: Any = 1
    for _ in range(400):
        nested = {"a": nested}
    with pytest.raises(ManifestError) as caught:
        parse_manifest(written(trainer={"name": "x", "settings": nested}))
    assert len(str(caught.value)) < 200


def test_several_problems_name_the_first_and_count_the_rest() -> None:
    with pytest.raises(ManifestError, match=r"\(and 1 more\)$"):
        parse_manifest(written(rounds=0, seed=-1))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_the_one_error(data: bytes) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(data)


def test_a_committee_is_part_of_a_task_only_where_not_everybody_votes() -> None:
    few = manifest(members=members(10))
    assert few.seats == 10
    assert b"committee" not in few.canonical()
    assert manifest(members=members(10), committee=10).task_id == few.task_id
    drawn = manifest(members=members(10), committee=7)
    assert drawn.seats == 7
    assert drawn.task_id != few.task_id
    assert parse_manifest(drawn.canonical()) == drawn
    many = manifest(members=members(65))
    assert many.seats == 64
    assert b'"committee":64' in many.canonical()
    assert parse_manifest(many.canonical()) == many


def test_the_largest_task_fits_into_a_manifest() -> None:
    many = manifest(members=members(MAX_MEMBERS))
    assert many.seats == 64
    indented = json.dumps(json.loads(many.canonical()), indent=4).encode()
    assert len(indented) < MAX_MANIFEST
    assert parse_manifest(indented) == many


def test_a_task_that_nobody_joins_is_the_same_whether_it_says_so_or_not() -> None:
    closed = parse_manifest(written(admission={"kind": "closed"}, max_members=MAX_MEMBERS))
    assert closed == manifest(admission=Closed())
    assert closed.canonical() == manifest().canonical()
    assert not closed.is_open
    assert closed.most_members == 3
    assert closed.issuer_ids == ()


@pytest.mark.parametrize(
    "admission", [ByWork(kind="work", bits=20), ByInvitation(kind="invitation", issuers=members(2))]
)
def test_a_task_that_admits_members_is_read_back(admission: ByWork | ByInvitation) -> None:
    task = manifest(admission=admission, max_members=10)
    again = parse_manifest(task.canonical())
    assert again == task
    assert again.is_open
    assert again.most_members == 10
    assert b'"max_members":1024' in manifest(admission=admission).canonical()


def test_issuers_are_sorted_like_members() -> None:
    tasks = [
        manifest(admission=ByInvitation(kind="invitation", issuers=members(3)[::step])) for step in (1, -1)
    ]
    assert tasks[0].task_id == tasks[1].task_id
    assert list(tasks[0].issuer_ids) == sorted(peer(number) for number in range(3))


def test_a_task_has_room_for_the_members_that_it_lists() -> None:
    with pytest.raises(ManifestError, match="max_members is 2, fewer than the 3 listed"):
        parse_manifest(written(admission={"kind": "work", "bits": 8}, max_members=2))


def test_the_committee_of_a_task_that_grows_is_part_of_it() -> None:
    work = ByWork(kind="work", bits=8)
    small = manifest(admission=work, max_members=20, committee=10)
    assert parse_manifest(small.canonical()) == small
    everybody = manifest(admission=work, max_members=10, committee=10)
    assert everybody.task_id == manifest(admission=work, max_members=10, committee=64).task_id
