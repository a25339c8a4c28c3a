from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.invitation import Ticket, make_invitation
from federated.manifest import ByInvitation, ByWork, TaskManifest
from federated.rounds.admission import (
    Admissions,
    Invited,
    Worked,
    accept_invitation,
    decode_credential,
    encode_credential,
    search_work,
)
from federated.rounds.committee import Membership
from federated.rounds.messages import MAX_CREDENTIAL, MessageError
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.federated.samples import manifest, peer

BITS = 8
ISSUER = KeyPair.from_seed(bytes([1]) * 32)  # of `peer(1)`
SECP256K1 = PeerId.from_public_key(KeyPair.decode(b"\x08\x02\x12\x20" + bytes(31) + b"\x01").public)
RSA = PeerId(b"\x12\x20" + bytes(32))  # the hash of a key, as ids of RSA keys are
JOINER = peer(9)


def open_task(**changes: Any) -> TaskManifest:
    return manifest(admission=ByInvitation(kind="invitation", issuers=[str(peer(1))]), **changes)


INVITING = open_task()
WORKING = manifest(admission=ByWork(kind="work", bits=BITS))
MEMBERS = Membership(INVITING.task_id, INVITING.peer_ids)


def ticket(last_round: int = 5, entropy: int = 0, task: bytes = INVITING.task_id) -> Ticket:
    return make_invitation(ISSUER, task, last_round, bytes([entropy]) * 32)


def found_work(who: PeerId = JOINER, task: bytes = WORKING.task_id) -> bytes:
    found = search_work(task, who, BITS, 0, 1 << 16)
    assert found is not None
    return found


def judged(credential: bytes, who: PeerId = JOINER, task: TaskManifest = INVITING, **more: Any) -> str | None:
    values: dict[str, Any] = {"round_number": 5, "members": MEMBERS, "used": frozenset[bytes](), **more}
    return Admissions(task).judge(credential, who, **values)


def test_an_invited_peer_is_admitted() -> None:
    credential = accept_invitation(ticket(), JOINER)
    assert judged(credential) is None
    assert len(credential) < 300


def test_a_peer_that_did_the_work_is_admitted() -> None:
    assert judged(found_work(), task=WORKING) is None


def test_two_peers_may_find_the_same_nonce() -> None:
    work = found_work()
    used = frozenset({Admissions(WORKING).proof_of(work)})
    assert judged(work, task=WORKING, used=used) is None


def test_an_invitation_that_somebody_saw_is_of_no_use_to_another_peer() -> None:
    assert judged(accept_invitation(ticket(), JOINER), peer(8)) == "signature"


def test_an_invitation_lets_in_one_member() -> None:
    rules = Admissions(INVITING)
    first, second = accept_invitation(ticket(), JOINER), accept_invitation(ticket(), peer(8))
    used = frozenset({rules.proof_of(first)})
    assert judged(second, peer(8), used=used) == "used"
    longer = accept_invitation(ticket(last_round=6), peer(8))  # the same key, issued once more
    assert judged(longer, peer(8), used=used) == "used"
    other = accept_invitation(ticket(entropy=1), peer(8))
    assert judged(other, peer(8), used=used) is None


def test_an_invitation_is_good_up_to_its_last_round() -> None:
    credential = accept_invitation(ticket(last_round=5), JOINER)
    assert judged(credential, round_number=5) is None
    assert judged(credential, round_number=6) == "expired"


@pytest.mark.parametrize("field", ["key", "last_round", "signature"])
def test_a_forged_invitation_is_refused(field: str) -> None:
    issued = ticket().invitation
    forged = {"key": bytes(32), "last_round": 999, "signature": bytes(64)}[field]
    stolen = replace(ticket(), invitation=replace(issued, **{field: forged}))
    assert judged(accept_invitation(stolen, JOINER)) == "signature"


def test_an_invitation_by_somebody_who_may_not_invite_is_refused() -> None:
    stranger = make_invitation(KeyPair.from_seed(bytes([7]) * 32), INVITING.task_id, 5, bytes(32))
    assert judged(accept_invitation(stranger, JOINER)) == "issuer"


def test_an_invitation_to_another_task_is_refused() -> None:
    other = ticket(task=WORKING.task_id)
    assert judged(accept_invitation(other, JOINER)) == "signature"


def test_work_for_another_task_or_peer_is_refused() -> None:
    others = [found_work(peer(8)), found_work(task=INVITING.task_id)]
    assert [judged(work, task=WORKING) for work in others] == ["work", "work"]


def test_too_little_work_is_refused() -> None:
    enough = found_work()
    assert judged(enough, task=manifest(admission=ByWork(kind="work", bits=32))) == "work"


def test_work_is_searched_in_slices() -> None:
    whole = found_work()
    slices = [search_work(WORKING.task_id, JOINER, BITS, first, 16) for first in range(0, 1 << 16, 16)]
    assert next(found for found in slices if found is not None) == whole
    found = decode_credential(WORKING.task_id, whole)
    assert isinstance(found, Worked)
    first = int.from_bytes(found.nonce)
    assert search_work(WORKING.task_id, JOINER, BITS, 0, first) is None


@pytest.mark.parametrize("who", [SECP256K1, RSA])
def test_a_peer_whose_votes_nobody_could_check_is_refused(who: PeerId) -> None:
    assert judged(accept_invitation(ticket(), who), who) == "key"
    assert judged(found_work(who), who, task=WORKING) == "key"


def test_a_closed_task_admits_nobody() -> None:
    closed = manifest()
    assert judged(accept_invitation(ticket(), JOINER), task=closed) == "closed"


def test_the_other_kind_of_credential_is_refused() -> None:
    assert judged(found_work()) == "credential"
    assert judged(accept_invitation(ticket(), JOINER), task=WORKING) == "credential"
    assert judged(b"", task=WORKING) == "credential"


def test_whoever_has_a_number_is_not_admitted_again() -> None:
    assert judged(accept_invitation(ticket(), peer(1)), peer(1)) == "member"


def test_a_full_task_admits_nobody() -> None:
    four = open_task(max_members=4)
    credential = accept_invitation(ticket(task=four.task_id), JOINER)
    assert judged(credential, task=four) is None
    assert (
        judged(credential, task=four, members=Membership(four.task_id, four.peer_ids, later=(peer(5),)))
        == "full"
    )


def test_what_was_checked_is_remembered_within_a_bound() -> None:
    rules = Admissions(INVITING)
    for number in range(600):
        assert rules.check(number.to_bytes(2), JOINER) == "credential"
    assert len(rules._judged) == 256
    good = accept_invitation(ticket(), JOINER)
    assert [rules.check(good, JOINER), rules.check(good, peer(8)), rules.check(good, JOINER)] == [
        None,
        "signature",
        None,
    ]


@given(st.integers(0, 2**64 - 1).map(lambda number: number.to_bytes(8)))
def test_work_is_read_back(nonce: bytes) -> None:
    credential = Worked(nonce=nonce)
    assert decode_credential(INVITING.task_id, encode_credential(credential)) == credential


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=32, max_size=32), st.integers(1, 10_000))
def test_an_invitation_is_read_back(signature: bytes, key: bytes, last_round: int) -> None:
    invitation = replace(ticket().invitation, key=key, last_round=last_round, signature=signature)
    credential = Invited(invitation=invitation, signature=signature)
    assert decode_credential(INVITING.task_id, encode_credential(credential)) == credential


VALUES: dict[str, Any] = msgpack.unpackb(accept_invitation(ticket(), JOINER))
ANYTHING = st.one_of(
    st.none(), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=70), st.text(max_size=9), st.booleans()
)


@given(st.sampled_from([*VALUES, "more", "nonce"]), ANYTHING)
def test_a_credential_with_another_value_is_decoded_to_that_or_refused(name: str, value: Any) -> None:
    data = msgpack.packb({**VALUES, name: value})
    try:
        decoded = decode_credential(INVITING.task_id, data)
    except MessageError:
        return
    assert encode_credential(decoded) == data


@given(st.binary(max_size=600))
def test_any_bytes_are_refused_with_the_one_error(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_credential(INVITING.task_id, data)
    assert judged(data) == "credential"


@pytest.mark.parametrize(
    "data",
    [
        bytes(MAX_CREDENTIAL + 1),
        msgpack.packb({"nonce": bytes(8), "kind": "work"}),  # not in their order
        msgpack.packb({"kind": "work", "nonce": bytes(8), "more": b""}),
        msgpack.packb({"kind": "work", "nonce": bytes(7)}),
        msgpack.packb({"kind": "work"}),
        msgpack.packb({**VALUES, "issuer": b"\x00"}),
        msgpack.packb({**VALUES, "last": 0}),
        msgpack.packb({**VALUES, "last": True}),
    ],
)
def test_a_credential_has_one_form(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_credential(INVITING.task_id, data)
