from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.directory.head import HeadRecord, decode_head, encode_head, round_of
from federated.directory.signed import encode_task, sign_task
from federated.directory.validators import VALIDATORS, head_key, task_key
from federated.manifest import ByWork, TaskManifest
from federated.rounds.messages import Change, ChangeKind
from p2p.errors import RemoteProtocolError
from p2p.kad.namespaces import DEFAULT_VALIDATORS, InvalidRecord, Namespaces
from tests.federated.chains import Chain
from tests.federated.lab import peer_number, tiny_manifest
from tests.support import key_number

NAMES = Namespaces({**DEFAULT_VALIDATORS, **VALIDATORS})


def open_manifest(count: int) -> TaskManifest:
    return tiny_manifest(count, admission=ByWork(kind="work", bits=8), max_members=32)


def record_of(chain: Chain, **changes: object) -> HeadRecord:
    """The record of the next certificate of `chain`."""
    voters = chain.voters()
    certificate = chain.add(b"model", **changes)  # type: ignore[arg-type]
    return HeadRecord(manifest=chain.manifest, voters=voters, certificate=certificate)


def encoded(record: HeadRecord) -> bytes:
    data = encode_head(record)
    assert data is not None
    return data


def test_a_head_comes_back_and_is_checked_without_the_chain() -> None:
    chain = Chain(tiny_manifest(4))
    chain.add(b"one")
    record = record_of(chain)
    data = encoded(record)
    assert decode_head(data) == record
    assert round_of(data) == 2
    NAMES.validate(head_key(chain.manifest.task_id), data)


def test_members_that_joined_are_listed() -> None:
    chain = Chain(open_manifest(4))
    newcomer = Change(kind=ChangeKind.JOIN, peer=peer_number(9), proof=bytes(32))
    chain.add(b"one", [newcomer])
    record = record_of(chain)
    assert peer_number(9) in record.voters
    assert decode_head(encoded(record)) == record


def test_a_certificate_by_strangers_is_refused() -> None:
    """Who makes keys of their own cannot push a record aside: members of the manifest must have signed."""
    honest, liars = (
        tiny_manifest(4),
        Chain(tiny_manifest(4, members=[str(peer_number(n)) for n in (5, 6, 7, 8)])),
    )
    forged = record_of(liars)
    pretended = HeadRecord(manifest=honest, voters=forged.voters, certificate=forged.certificate)
    assert encode_head(pretended) is None


@pytest.mark.parametrize("signers", [1, 2])
def test_fewer_than_a_quorum_are_refused(signers: int) -> None:
    record = record_of(Chain(tiny_manifest(4)), signers=signers)
    data = encode_head(record)
    if data is not None:
        with pytest.raises(RemoteProtocolError, match="no quorum"):
            decode_head(data)


def test_one_liar_among_four_that_says_all_others_have_left_is_refused() -> None:
    chain = Chain(tiny_manifest(4))
    alone = Chain(tiny_manifest(1))
    certificate = alone.add(b"mine")
    record = HeadRecord(manifest=chain.manifest, voters=(peer_number(1),), certificate=certificate)
    assert encode_head(record) is None


def test_a_task_whose_record_is_too_large_has_none() -> None:
    chain = Chain(tiny_manifest(4, name="x", trainer={"name": "pull", "settings": {"text": "x" * 11000}}))
    assert encode_head(record_of(chain)) is None


def test_the_head_of_another_task_is_refused() -> None:
    data = encoded(record_of(Chain(tiny_manifest(4))))
    with pytest.raises(InvalidRecord, match="another task"):
        NAMES.validate(head_key(bytes(32)), data)


def test_the_record_of_the_highest_round_is_the_best() -> None:
    chain = Chain(tiny_manifest(4))
    records = [encoded(record_of(chain)) for _ in range(3)]
    key = head_key(chain.manifest.task_id)
    assert NAMES.is_better(key, records[2], records[1])
    assert not NAMES.is_better(key, records[0], records[1])
    assert not NAMES.is_better(key, records[1], records[1])


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_head(data)


@given(st.data())
def test_any_damage_is_found(data: st.DataObject) -> None:
    good = bytearray(encoded(record_of(Chain(tiny_manifest(4)))))
    good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    key = head_key(tiny_manifest(4).task_id)
    with pytest.raises(InvalidRecord):
        NAMES.validate(key, bytes(good))


@pytest.mark.parametrize(
    "changes",
    [
        {"founders": b"\xff"},
        {"founders": b"", "joined": []},
        {"joined": [b"nobody"]},
        {"joined": [1]},
        {"joined": [peer_number(1).raw]},
        {"joined": [bytes(65)]},
        {"certificate": b"x"},
        {"manifest": b"{}"},
        {"more": 1},
    ],
)
def test_a_record_with_something_else_in_it_is_refused(changes: dict[str, object]) -> None:
    values = msgpack.unpackb(encoded(record_of(Chain(tiny_manifest(4)))))
    with pytest.raises(RemoteProtocolError):
        decode_head(msgpack.packb({**values, **changes}))


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        decode_head(bytes((10 << 10) + 1))


def test_a_task_is_kept_under_its_own_key_and_no_other() -> None:
    one, other = sign_task(tiny_manifest(4), key_number(1)), sign_task(tiny_manifest(4), key_number(2))
    key = task_key(one.task_id)
    NAMES.validate(key, encode_task(one))
    with pytest.raises(InvalidRecord, match="another task"):
        NAMES.validate(task_key(bytes(32)), encode_task(one))
    with pytest.raises(InvalidRecord, match="no signed task"):
        NAMES.validate(key, b"x")
    # whoever signed it, all peers choose the same one
    best, worst = sorted([encode_task(one), encode_task(other)])
    assert NAMES.is_better(key, best, worst)
    assert not NAMES.is_better(key, worst, best)
