"""Announcements as bytes: what goes in comes out, it fits, and nothing else is accepted."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.rounds.messages import (
    MAX_CHANGES,
    MAX_CREDENTIAL,
    MAX_PROOFS,
    MAX_RATE,
    MAX_VIEW,
    NO_BLOCK,
    Abstain,
    Accuse,
    Block,
    Body,
    Capability,
    Certificate,
    Change,
    ChangeKind,
    Choice,
    Commit,
    Evidence,
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
    commitment,
    vote_bytes,
)
from federated.rounds.wire import MAX_MESSAGE, MAX_SEQ, MAX_TIME, decode, decode_entry, encode, encode_entry
from p2p.blobs.merkle import EMPTY_ROOT
from p2p.errors import LocalProtocolError
from tests.federated.samples import peer

TASK, HASH, OTHER = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))
SIGNATURE = bytes(64)


def block(participants: int = 64, skipped: bool = False) -> Block:
    return Block(
        task=TASK,
        parent=OTHER,
        round=10_000,
        base=HASH,
        inputs=EMPTY_ROOT if skipped else OTHER,
        participants=0 if skipped else (1 << participants) - 1,
        examples=0 if skipped else 1 << 48,
        model=Model(digest=HASH if skipped else OTHER, root=OTHER, size=1 << 48),
    )


def restoring(kind: ChangeKind = ChangeKind.VOID) -> Block:
    """A block that puts another model in the place of its base."""
    model = Model(digest=OTHER, root=OTHER, size=1)
    changes = (Change(kind=kind, peer=peer(1), proof=HASH),)
    return replace(block(skipped=True), model=model, changes=changes)


def propose(participants: int = 64, **changes: Any) -> Propose:
    return replace(Propose(view=MAX_VIEW, parent=MAX_VIEW - 1, block=block(participants)), **changes)


def proof(choice: Choice = Choice.NOTARIZE, signers: int = 43) -> Proof:
    votes = tuple((number, SIGNATURE) for number in range(64 - signers, 64))
    what = NO_BLOCK if choice is Choice.NULLIFY else HASH
    return Proof(round=1, view=1, choice=choice, block=what, votes=votes)


def certificate(signers: int = 43) -> Certificate:
    return Certificate(view=MAX_VIEW, block=block(), votes=proof(signers=signers).votes)


EVIDENCE = Evidence(
    peer=peer(1),
    first=Vote(round=1, view=1, choice=Choice.NOTARIZE, block=HASH, signature=SIGNATURE),
    second=Vote(round=1, view=1, choice=Choice.NOTARIZE, block=OTHER, signature=SIGNATURE),
)
PROOFS = (*[bytes([number]) * 200 for number in range(1, MAX_CHANGES)], bytes(MAX_CREDENTIAL))


def changed(what: Block) -> Block:
    """The block with as many changes as there can be."""
    kinds = list(ChangeKind)
    changes = [Change(kind=kinds[number % 3], peer=peer(number), proof=HASH) for number in range(MAX_CHANGES)]
    return replace(what, changes=tuple(changes))


BODIES: list[Body] = [
    Hello(round=1, base=HASH),
    Commit(round=1, commitment=HASH),
    Reveal(round=1, root=HASH, size=1 << 48, nonce=OTHER, examples=1 << 40),
    propose(),
    propose(1, view=1, parent=0),
    Propose(view=1, parent=0, block=block(skipped=True)),
    Vote(round=1, view=1, choice=Choice.NOTARIZE, block=HASH, signature=SIGNATURE),
    Vote(round=1, view=1, choice=Choice.NULLIFY, block=NO_BLOCK, signature=SIGNATURE),
    proof(),
    proof(Choice.NULLIFY, 1),
    certificate(),
    propose(65),
    propose(1024),
    replace(certificate(), block=block(1024)),
    replace(certificate(), block=replace(block(), participants=1 << 1023)),
    Join(round=1, credential=bytes(MAX_CREDENTIAL)),
    Leave(round=1, signature=SIGNATURE),
    Accuse(evidence=EVIDENCE),
    Recall(peer=peer(1), vote=EVIDENCE.first),
    replace(propose(), block=changed(propose().block), proofs=PROOFS),
    replace(propose(1024), block=changed(propose(1024).block), proofs=PROOFS),
    replace(certificate(), block=changed(block(1024))),
    Capability(
        round=1,
        steps_per_second=0.0,
        bytes_down=0.25,
        bytes_up=1e9,
        aggregate_bytes_per_second=MAX_RATE,
        memory=1 << 50,
        cores=1 << 16,
    ),
    Certificate(view=1, block=restoring(), votes=proof().votes),
    Fraud(round=7, block=HASH),
    Abstain(round=1),
]


def message(body: Body, **changes: Any) -> Message:
    return replace(Message(task=TASK, seq=MAX_SEQ, expiry=MAX_TIME, body=body), **changes)


def fields(body: Body, **changes: Any) -> dict[str, Any]:
    """The map that `body` is encoded as, with other values; a field that is None is left out."""
    values = {**msgpack.unpackb(encode(message(body))), **changes}
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_a_message_survives_the_wire_and_fits(body: Body) -> None:
    data = encode(message(body))
    assert decode(data) == message(body)
    assert len(data) <= MAX_MESSAGE


def test_what_sixty_four_members_say_fits() -> None:
    assert len(encode(message(certificate()))) < 3200
    assert len(encode(message(propose()))) < 600


def test_what_a_thousand_members_say_fits() -> None:
    assert len(encode(message(propose(1024)))) < 600
    assert len(encode(message(replace(certificate(), block=block(1024))))) < 3400
    assert sum(map(len, PROOFS)) <= MAX_PROOFS


def test_a_member_above_the_sixty_fourth_is_in_the_hash() -> None:
    assert propose(65).block.hash != replace(propose(65).block, participants=(1 << 64) - 1).hash


def test_the_bytes_that_are_hashed_and_sent_are_these() -> None:
    made = block()
    numbers = struct.pack(">QQQQ", made.round, made.participants, made.examples, made.model.size)
    hashes = made.task + made.parent + made.base + made.inputs + made.model.digest + made.model.root
    assert made.hash == sha256(b"atcp/block/3\n" + numbers + hashes + sha256(b"").digest()).digest()
    assert fields(certificate())["participants"] == (1 << 64) - 1
    assert fields(propose(65))["participants"] == b"\x01" + b"\xff" * 8


def test_an_own_message_that_is_too_large_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="over the limit of 4096"):
        encode(message(certificate(64)))


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_with_a_message_error(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data)


@pytest.mark.parametrize("kind", [ChangeKind.EJECT, ChangeKind.LEAVE, ChangeKind.JOIN])
def test_only_a_block_that_declares_another_one_void_has_a_model_without_updates(kind: ChangeKind) -> None:
    message = Message(
        task=TASK, seq=1, expiry=1, body=Propose(view=1, parent=0, block=restoring(kind), proofs=(b"x",))
    )
    with pytest.raises(MessageError, match="as it is"):
        decode(encode(message))
    body = replace(message.body, block=restoring())
    assert decode(encode(replace(message, body=body))).body == body
    with pytest.raises(MessageError, match="no updates"):
        decode(encode(replace(message, body=replace(body, block=replace(restoring(), examples=1)))))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(BODIES), st.data())
def test_any_value_in_any_field_is_accepted_as_it_stands_or_refused(body: Body, data: st.DataObject) -> None:
    values = fields(body)
    name = data.draw(st.sampled_from([*values, "more"]))
    value = data.draw(VALUES)
    packed = msgpack.packb({**values, name: value})
    try:
        decoded = decode(packed)
    except MessageError:
        return
    assert encode(decoded) == packed


@given(st.sampled_from(BODIES), st.integers(0, MAX_MESSAGE), st.integers(1, 255))
def test_a_flipped_byte_changes_the_message_or_is_refused(body: Body, at: int, mask: int) -> None:
    data = bytearray(encode(message(body)))
    data[at % len(data)] ^= mask
    try:
        decoded = decode(bytes(data))
    except MessageError:
        return
    assert decoded != message(body)
    assert encode(decoded) == bytes(data)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_a_message_cut_anywhere_is_refused(body: Body) -> None:
    data = encode(message(body))
    for end in range(0, len(data), 7):
        with pytest.raises(MessageError):
            decode(data[:end])


@pytest.mark.parametrize(
    "values",
    [
        fields(BODIES[0], kind="goodbye"),
        fields(BODIES[0], kind=1),
        fields(BODIES[0], kind=None),
        fields(BODIES[0], base=None),
        fields(BODIES[0], more=1),
        fields(BODIES[0], task=TASK[:31]),
        fields(BODIES[0], task="x" * 16),
        fields(BODIES[0], round=0),
        fields(BODIES[0], round=True),
        fields(BODIES[0], round=1.0),
        fields(BODIES[0], round=10_001),
        fields(BODIES[0], seq=-1),
        fields(BODIES[0], seq=1 << 63),
        fields(BODIES[0], expiry=(1 << 40) + 1),
        fields(BODIES[2], examples=(1 << 40) + 1),
        fields(BODIES[2], size=-1),
        fields(BODIES[6], view=0),
        fields(BODIES[6], view=MAX_VIEW + 1),
        fields(BODIES[6], choice=4),
        fields(BODIES[6], signature=bytes(63)),
        fields(BODIES[6], block=NO_BLOCK),
        fields(BODIES[7], block=HASH),
        fields(BODIES[2], staleness=-1),
        fields(BODIES[2], staleness=9),
        fields(BODIES[3], inputs=bytes(31)),
        fields(BODIES[3], participants=0),
        fields(BODIES[3], participants=-1),
        fields(BODIES[3], participants=b"\xff" * 8),
        fields(BODIES[3], participants=b"\x00" + b"\xff" * 8),
        fields(BODIES[3], participants=b"\xff" * 129),
        fields(BODIES[11], inputs=bytes(64)),
        fields(BODIES[11], inputs=b""),
        fields(BODIES[3], parent=MAX_VIEW),
        fields(BODIES[5], digest=OTHER),
        fields(BODIES[5], examples=1),
        fields(BODIES[8], choice=3),
        fields(BODIES[8], votes=b""),
        fields(BODIES[8], votes=bytes(65 * 2)),
        fields(BODIES[8], votes=bytes(65) + bytes([0]) + bytes([1]) * 64),
        fields(BODIES[8], votes=bytes([64]) + SIGNATURE),
        fields(BODIES[8], votes=bytes([2]) + SIGNATURE + bytes([1]) + SIGNATURE),
        fields(BODIES[10], participants=0),
        fields(BODIES[10], previous=None),
        fields(BODIES[10], changes=b"x"),
        fields(BODIES[-1], steps=1),
        fields(BODIES[-1], steps=-0.0),
        fields(BODIES[-1], steps=-1.0),
        fields(BODIES[-1], down=float("inf")),
        fields(BODIES[-1], up=float("nan")),
        fields(BODIES[-1], aggregate=1.1e15),
        fields(BODIES[-1], memory=(1 << 50) + 1),
        fields(BODIES[-1], cores=0),
        fields(BODIES[15], credential=bytes(MAX_CREDENTIAL + 1)),
        fields(BODIES[15], credential=b""),
        fields(BODIES[17], evidence=b"x"),
        fields(BODIES[17], round=2),
        fields(BODIES[18], peer=b"x"),
        fields(BODIES[19], proofs=b""),
        fields(BODIES[19], changes=b""),
        fields(BODIES[3], proofs=fields(BODIES[19])["proofs"]),
        [],
        "hello",
    ],
    ids=str,
)
def test_a_message_that_breaks_a_rule_is_refused(values: object) -> None:
    with pytest.raises(MessageError):
        decode(msgpack.packb(values))


def test_only_the_canonical_encoding_is_accepted() -> None:
    values = fields(BODIES[0])
    turned = dict(reversed(values.items()))
    assert decode(msgpack.packb(values)) == message(BODIES[0])
    with pytest.raises(MessageError, match="canonical"):
        decode(msgpack.packb(turned))
    twice = msgpack.packb(values)
    twice = bytes([twice[0] + 1]) + twice[1:] + msgpack.packb("round") + msgpack.packb(1)
    with pytest.raises(MessageError, match="canonical"):
        decode(twice)


def test_an_oversized_message_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MessageError, match="over the limit"):
        decode(bytes([0xC1]) * (MAX_MESSAGE + 1))


def test_a_journal_entry_belongs_to_its_task() -> None:
    for body in BODIES:
        assert decode_entry(TASK, encode_entry(TASK, body)) == body
    with pytest.raises(MessageError, match="another task"):
        decode_entry(HASH, encode_entry(TASK, BODIES[0]))
    for more in ({"seq": 1, "expiry": 0}, {"seq": 0, "expiry": 1}):  # neither is signed
        with pytest.raises(MessageError, match="canonical"):
            decode_entry(TASK, encode(message(BODIES[0], **more)))


def test_a_message_is_fresh_from_a_little_before_it_was_sent_until_it_expires() -> None:
    sent = message(BODIES[0], expiry=1060)
    assert [time for time in (969, 970, 1000, 1060, 1060.5) if sent.is_fresh(time)] == [970, 1000, 1060]


def test_a_commitment_binds_all_that_it_is_about() -> None:
    reveal = Reveal(round=1, root=HASH, size=1, nonce=OTHER, examples=1)
    values = {
        commitment(peer(1), TASK, HASH, reveal),
        commitment(peer(2), TASK, HASH, reveal),
        commitment(peer(1), HASH, HASH, reveal),
        commitment(peer(1), TASK, OTHER, reveal),
        commitment(peer(1), TASK, HASH, replace(reveal, round=2)),
        commitment(peer(1), TASK, HASH, replace(reveal, root=OTHER)),
        commitment(peer(1), TASK, HASH, replace(reveal, nonce=HASH)),
        commitment(peer(1), TASK, HASH, replace(reveal, size=2)),
        commitment(peer(1), TASK, HASH, replace(reveal, examples=2)),
        commitment(peer(1), TASK, HASH, replace(reveal, staleness=1)),
    }
    assert len(values) == 10


def test_a_block_hash_binds_every_field() -> None:
    made = block()
    changes: list[dict[str, Any]] = [
        {"task": HASH},
        {"round": 1},
        {"parent": HASH},
        {"changes": changed(made).changes},
        {"changes": changed(made).changes[::-1]},
        {"base": OTHER},
        {"inputs": HASH},
        {"participants": 1},
        {"examples": 1},
        {"model": replace(made.model, digest=HASH)},
        {"model": replace(made.model, root=HASH)},
        {"model": replace(made.model, size=1)},
    ]
    assert len({made.hash, *(replace(made, **change).hash for change in changes)}) == len(changes) + 1


def test_a_vote_signs_its_task_round_view_choice_and_block() -> None:
    signed = {
        vote_bytes(TASK, 1, 1, Choice.NOTARIZE, HASH),
        vote_bytes(HASH, 1, 1, Choice.NOTARIZE, HASH),
        vote_bytes(TASK, 2, 1, Choice.NOTARIZE, HASH),
        vote_bytes(TASK, 1, 2, Choice.NOTARIZE, HASH),
        vote_bytes(TASK, 1, 1, Choice.FINALIZE, HASH),
        vote_bytes(TASK, 1, 1, Choice.NOTARIZE, TASK),
    }
    assert len(signed) == 6
