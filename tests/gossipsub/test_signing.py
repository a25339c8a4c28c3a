from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from p2p import varint
from p2p.gossipsub.signing import (
    has_valid_form,
    message_id_from_seqno,
    sha256_message_id,
    sign_message,
    verify_message,
)
from p2p.gossipsub.wire import decode_message
from p2p.keys import KeyPair, KeyType, PublicKey
from p2p.peer_id import PeerId
from tests.gossipsub.support import peer_number, signed
from tests.support import key_number

VECTORS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "peer_ids.json").read_text()
)["keys"]
SEQNO = bytes.fromhex("1797f6c4ab5ddc01")


def field(number: int, data: bytes) -> bytes:
    return varint.encode(number << 3 | 2) + varint.encode(len(data)) + data


def build(
    origin: bytes = peer_number(1).raw,
    data: bytes = b"hello",
    seqno: bytes = SEQNO,
    topic: bytes = b"news",
    extra: bytes = b"",
) -> bytes:
    """A message without signature, encoded by hand."""
    return field(1, origin) + field(2, data) + field(3, seqno) + field(4, topic) + extra


def sign(key: KeyPair, unsigned: bytes) -> bytes:
    return key.sign(b"libp2p-pubsub:" + unsigned)


def test_a_signed_message_is_exactly_these_bytes() -> None:
    message = sign_message(key_number(1), topic="news", data=b"hello", seqno=0x1797F6C4AB5DDC01)
    signature = sign(key_number(1), build())
    assert message.raw == build() + field(5, signature)
    assert decode_message(message.raw) == message
    assert hashlib.sha256(message.raw).hexdigest() == (
        "b7ac7ff26e724ba297b41bd6d61f66dd3e7e3c9a6ddd9edfc156c9f552c13340"
    )


def test_the_sequence_number_wraps_at_64_bits() -> None:
    assert sign_message(key_number(1), topic="t", data=b"", seqno=(1 << 64) + 5).seqno == b"\0" * 7 + b"\5"


def test_the_signer_of_a_true_message_is_its_origin() -> None:
    assert verify_message(signed(1, "news", b"hello")) == peer_number(1)
    assert verify_message(signed(1, "news", b"")) == peer_number(1)


def test_a_key_beside_the_signature_is_not_signed_but_must_belong_to_the_origin() -> None:
    signature = field(5, sign(key_number(1), build()))
    own, other = (field(6, key_number(number).public.encode()) for number in (1, 2))
    assert verify_message(decode_message(build() + signature + own)) == peer_number(1)
    assert verify_message(decode_message(build() + signature + other)) is None
    assert verify_message(decode_message(build() + signature + field(6, b"junk"))) is None


def test_nobody_can_sign_for_another_with_its_own_key() -> None:
    forged = build() + field(5, sign(key_number(2), build())) + field(6, key_number(2).public.encode())
    assert verify_message(decode_message(forged)) is None


def test_an_origin_that_hashes_its_key_needs_the_key() -> None:
    key = key_number(1)
    hashed = PeerId(b"\x12\x20" + hashlib.sha256(key.public.encode()).digest())
    unsigned = build(hashed.raw)
    assert verify_message(decode_message(unsigned + field(5, sign(key, unsigned)))) is None


@pytest.mark.parametrize("name", VECTORS)
def test_peers_with_every_type_of_key_can_be_heard(name: str) -> None:
    """With RSA and ECDSA the id is a hash of the key, so the key travels along."""
    key = KeyPair.decode(bytes.fromhex(VECTORS[name]["private"]))
    peer = PeerId.parse(VECTORS[name]["peer_id"])
    message = sign_message(key, topic="news", data=b"hello", seqno=1)
    assert decode_message(message.raw) == message
    assert has_valid_form(message)
    assert (message.key == b"") == (name in ("ed25519", "secp256k1"))
    assert verify_message(message) == peer


def test_what_an_rsa_peer_signs_is_the_message_without_its_key() -> None:
    key = KeyPair.decode(bytes.fromhex(VECTORS["rsa"]["private"]))
    unsigned = build(PeerId.from_public_key(key.public).raw)
    by_hand = unsigned + field(5, sign(key, unsigned)) + field(6, key.public.encode())
    seqno = int.from_bytes(SEQNO, "big")
    assert sign_message(key, topic="news", data=b"hello", seqno=seqno).raw == by_hand
    forged = unsigned + field(5, b"s" * 512) + field(6, key.public.encode())
    assert verify_message(decode_message(forged)) is None


def test_a_message_of_a_peer_whose_key_is_unusable_is_refused() -> None:
    rsa = PublicKey(KeyType.RSA, b"\x30" * 300)
    unsigned = build(PeerId.from_public_key(rsa).raw)
    raw = unsigned + field(5, b"s" * 256) + field(6, rsa.encode())
    assert verify_message(decode_message(raw)) is None


def test_unknown_fields_are_part_of_what_is_signed() -> None:
    unsigned = build(extra=field(9, b"new"))
    signature = field(5, sign(key_number(1), unsigned))
    assert verify_message(decode_message(unsigned + signature)) == peer_number(1)
    assert verify_message(decode_message(build() + signature)) is None
    assert verify_message(decode_message(signed(1, "t", b"x").raw + field(9, b"new"))) is None


def test_the_order_of_fields_on_the_wire_does_not_matter() -> None:
    signature = field(5, sign(key_number(1), build()))
    shuffled = signature + field(4, b"news") + field(3, SEQNO) + field(2, b"hello")
    assert verify_message(decode_message(shuffled + field(1, peer_number(1).raw))) == peer_number(1)


@pytest.mark.parametrize(
    "tampered",
    [
        build(origin=peer_number(2).raw),
        build(origin=b""),
        build(origin=b"nobody"),
        build(data=b"hellO"),
        build(data=b""),
        build(seqno=SEQNO[:-1] + b"\x02"),
        build(seqno=b""),
        build(topic=b"newt"),
        build(topic=b""),
    ],
)
def test_a_message_with_a_changed_field_is_not_verified(tampered: bytes) -> None:
    signature = sign(key_number(1), build())
    assert verify_message(decode_message(build() + field(5, signature))) is not None
    assert verify_message(decode_message(tampered + field(5, signature))) is None


@pytest.mark.parametrize("position", [0, 31, 32, 63])
def test_a_message_with_a_changed_signature_is_not_verified(position: int) -> None:
    signature = bytearray(sign(key_number(1), build()))
    signature[position] ^= 1
    assert verify_message(decode_message(build() + field(5, bytes(signature)))) is None


def test_a_message_without_signature_is_not_verified() -> None:
    assert verify_message(decode_message(build())) is None


@pytest.mark.parametrize("seqno", [b"", b"1234567", b"123456789"])
def test_a_sequence_number_that_is_not_8_bytes_is_malformed(seqno: bytes) -> None:
    assert has_valid_form(decode_message(build() + field(5, b"s")))
    assert not has_valid_form(decode_message(build(seqno=seqno) + field(5, b"s")))


def test_a_missing_or_endless_signature_is_malformed() -> None:
    assert not has_valid_form(decode_message(build()))
    assert not has_valid_form(decode_message(build() + field(5, b"s" * 1025)))


def test_the_default_id_is_origin_and_sequence_number() -> None:
    assert message_id_from_seqno(decode_message(build())) == peer_number(1).raw + SEQNO


def test_the_content_id_is_the_hash_of_the_data() -> None:
    assert sha256_message_id(decode_message(build())) == hashlib.sha256(b"hello").digest()
